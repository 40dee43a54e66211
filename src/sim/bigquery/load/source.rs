//! `sourceUris`: objects by name or by one wildcard.

use crate::sim::{
    bigquery::{error::ApiError, jobs::job::JobError, load::Input},
    gcs::Gcs,
};

/// `gs://bucket/object`, where the object may have one `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    text: String,
    bucket: String,
    object: String,
}

impl Uri {
    /// Reads a URI.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let invalid = |what: &str| ApiError::invalid(format!("{what}: {text}"));
        let place = text.strip_prefix("gs://").and_then(|rest| rest.split_once('/'));
        let (bucket, object) = place
            .filter(|(bucket, object)| !bucket.is_empty() && !object.is_empty())
            .ok_or_else(|| invalid("Source URI must be a Google Cloud Storage location"))?;
        if bucket.contains('*') || object.matches('*').count() > 1 {
            return Err(invalid("A source URI may have one wildcard, behind the bucket"));
        }
        Ok(Self { text: text.to_owned(), bucket: bucket.to_owned(), object: object.to_owned() })
    }
}

/// The objects as they are now. One that is not there fails the job, as a wildcard without any does.
pub fn read(gcs: &Gcs, uris: &[Uri]) -> Result<Vec<Input>, JobError> {
    let mut inputs = Vec::new();
    for uri in uris {
        let before = inputs.len();
        match uri.object.split_once('*') {
            None => {
                inputs.extend(gcs.object(&uri.bucket, &uri.object).map(|object| Input {
                    uri: Some(uri.text.clone()),
                    bytes: object.media.clone(),
                }))
            }
            Some((prefix, suffix)) => {
                let fits = |name: &str| {
                    name.strip_prefix(prefix).is_some_and(|rest| rest.ends_with(suffix))
                };
                let found = gcs.objects(&uri.bucket).filter(|(name, _)| fits(name));
                inputs.extend(found.map(|(name, object)| Input {
                    uri: Some(format!("gs://{}/{name}", uri.bucket)),
                    bytes: object.media.clone(),
                }));
            }
        }
        if inputs.len() == before {
            let message = format!("Not found: URI {}", uri.text);
            return Err(JobError::new("notFound", Some(&uri.text), message));
        }
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris() {
        for (text, valid) in [
            ("gs://b/o", true),
            ("gs://b/a/*.avro", true),
            ("gs://b/*", true),
            ("gs://b", false),
            ("gs://b/", false),
            ("gs://*/o", false),
            ("gs://b/*a*", false),
            ("s3://b/o", false),
        ] {
            assert_eq!(Uri::parse(text).is_ok(), valid, "{text}");
        }
    }
}
