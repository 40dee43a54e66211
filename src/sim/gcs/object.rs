//! One object and its resource.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::sim::gcs::{checksum::Checksums, error::GcsError};

/// What a client says about an object.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// The media's type.
    pub content_type: Option<String>,
    /// `gzip`, if the media is stored compressed.
    pub content_encoding: Option<String>,
    /// The client's own keys and values.
    pub custom: Map<String, Value>,
}

/// What is stored.
#[derive(Clone, Debug)]
pub struct Media {
    /// The bytes.
    pub bytes: Bytes,
    /// Theirs, if they are known already.
    pub checksums: Option<Checksums>,
}

impl From<Bytes> for Media {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, checksums: None }
    }
}

/// One live object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its bytes.
    pub media: Bytes,
    /// Its generation.
    pub generation: u64,
    /// Its version of metadata; nothing here changes them.
    pub metageneration: u64,
    /// What its client said.
    pub metadata: Metadata,
    /// When it was written, since the Unix epoch.
    pub created: Duration,
    /// Of its bytes.
    pub checksums: Checksums,
}

impl Object {
    /// An object written at `created`.
    pub fn new(media: Media, generation: u64, metadata: Metadata, created: Duration) -> Self {
        let Media { bytes, checksums } = media;
        let checksums = checksums.unwrap_or_else(|| Checksums::of(&bytes));
        Self { media: bytes, generation, metageneration: 1, metadata, created, checksums }
    }

    /// The resource.
    pub fn resource(&self, bucket: &str, name: &str) -> Value {
        let (generation, at) = (self.generation.to_string(), timestamp(self.created));
        let path = format!("https://www.googleapis.com/storage/v1/b/{bucket}/o/{}", encoded(name));
        let media = path.replacen("/storage/", "/download/storage/", 1);
        let mut resource = json!({
            "kind": "storage#object",
            "id": format!("{bucket}/{name}/{generation}"),
            "selfLink": path,
            "mediaLink": format!("{media}?generation={generation}&alt=media"),
            "name": name,
            "bucket": bucket,
            "generation": generation,
            "metageneration": self.metageneration.to_string(),
            "storageClass": "STANDARD",
            "size": self.media.len().to_string(),
            "md5Hash": self.checksums.md5,
            "crc32c": self.checksums.crc32c,
            "etag": self.etag(),
            "timeCreated": at,
            "updated": at,
            "timeStorageClassUpdated": at,
        });
        let optional = [
            ("contentType", self.metadata.content_type.clone()),
            ("contentEncoding", self.metadata.content_encoding.clone()),
        ];
        if let Some(resource) = resource.as_object_mut() {
            for (key, value) in optional {
                resource.extend(value.map(|value| (key.to_owned(), json!(value))));
            }
            if !self.metadata.custom.is_empty() {
                resource.insert("metadata".into(), Value::Object(self.metadata.custom.clone()));
            }
        }
        resource
    }

    /// The entity tag.
    pub fn etag(&self) -> String {
        format!("sim{:x}/{}", self.generation, self.metageneration)
    }
}

/// RFC 3339 with milliseconds.
fn timestamp(at: Duration) -> String {
    let nanos = i128::from(u64::try_from(at.as_millis()).unwrap_or(u64::MAX)) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

/// A name as one segment of a path.
fn encoded(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Refuses a name that no object may have.
pub fn check_name(name: &str) -> Result<(), GcsError> {
    if name.is_empty() {
        return Err(GcsError::new(400, "required", "Required parameter: name"));
    }
    if name.len() > 1_024 || name.contains(['\r', '\n']) || name == "." || name == ".." {
        return Err(GcsError::invalid(format!("Invalid object name: '{name}'")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_times() {
        for bad in ["", ".", "..", "a\nb", &"x".repeat(1_025)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name(&"x".repeat(1_024)).is_ok());
        assert_eq!(timestamp(Duration::from_millis(1_767_225_600_001)), "2026-01-01T00:00:00.001Z");
    }
}
