//! `storage.objects.insert`: media, two parts, or a resumable session.

use std::time::Duration;

use http::header;
use serde_json::{Map, Value};

use crate::sim::{
    gcs::{
        Gcs, GcsRoute,
        conditions::{Conditions, Intent},
        error::GcsError,
        object::{self, Media, Metadata, Object},
    },
    message::{Request, Response},
    upload::{
        self, multipart,
        session::{Put, SessionError},
    },
};

/// What the start of an upload says about it.
#[derive(Clone, Debug)]
pub struct Start {
    bucket: String,
    name: String,
    metadata: Metadata,
    conditions: Conditions,
    crc32c: Option<String>,
    md5: Option<String>,
}

impl Gcs {
    pub(crate) fn insert(
        &mut self,
        route: &GcsRoute,
        request: &Request,
        now: Duration,
    ) -> Result<Response, GcsError> {
        let content_type = header_text(request, header::CONTENT_TYPE);
        match request.parameter("uploadType").as_deref() {
            Some("media") => {
                let mut start = Start::of(route, request, &Map::new())?;
                start.metadata.content_type = content_type;
                start.take_checksums(request);
                let (bytes, checksums) = (request.body.clone(), request.checksums.clone());
                self.write(start, Media { bytes, checksums }, now)
            }
            Some("multipart") => {
                let split = multipart::split(&content_type.unwrap_or_default(), &request.body);
                let parts = split.map_err(GcsError::invalid)?;
                let mut start = Start::of(route, request, &json_object(&parts.metadata)?)?;
                start.metadata.content_type = start.metadata.content_type.or(parts.media_type);
                start.take_checksums(request);
                self.write(start, parts.media.into(), now)
            }
            Some("resumable") => self.start(route, request, now),
            other => {
                let other = other.unwrap_or_default();
                Err(GcsError::invalid(format!("Invalid upload type: '{other}'")))
            }
        }
    }

    fn start(
        &mut self,
        route: &GcsRoute,
        request: &Request,
        now: Duration,
    ) -> Result<Response, GcsError> {
        let metadata =
            if request.body.is_empty() { Map::new() } else { json_object(&request.body)? };
        let mut start = Start::of(route, request, &metadata)?;
        let media_type = request.headers.get("x-upload-content-type");
        let media_type = media_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        start.metadata.content_type = start.metadata.content_type.or(media_type);
        start.conditions.check(self.live(&start.bucket, &start.name), Intent::Write)?;
        let name = start.name.clone();
        let id = self.sessions.start(start, now);
        let query = [("uploadType", "resumable"), ("name", name.as_str()), ("upload_id", &id)];
        let answer = Response::empty(200)
            .with_header(header::HeaderName::from_static("x-guploader-uploadid"), &id);
        Ok(answer.with_header(header::LOCATION, &upload::location(request, &query)))
    }

    pub(crate) fn upload(
        &mut self,
        request: &Request,
        now: Duration,
    ) -> Result<Response, GcsError> {
        let id = upload_id(request)?;
        match self.sessions.put(&id, request, now)? {
            Put::Answer(answer) => Ok(answer),
            Put::Complete { mut start, media } => {
                start.take_checksums(request);
                let answer = self.write(start, media.into(), now)?;
                self.sessions.finish(&id, answer.clone());
                Ok(answer)
            }
        }
    }

    pub(crate) fn cancel(
        &mut self,
        request: &Request,
        now: Duration,
    ) -> Result<Response, GcsError> {
        self.sessions.cancel(&upload_id(request)?, now)?;
        // The API's own status for "the client closed the request".
        Ok(Response::empty(499))
    }

    fn write(&mut self, start: Start, media: Media, now: Duration) -> Result<Response, GcsError> {
        let Start { bucket, name, metadata, conditions, crc32c, md5 } = start;
        if media.bytes.len() > self.settings.upload_bytes_max {
            return Err(GcsError::new(413, "uploadTooLarge", "Request Entity Too Large"));
        }
        conditions.check(self.live(&bucket, &name), Intent::Write)?;
        let object = Object::new(media, self.generation + 1, metadata, now);
        for (kind, declared, actual) in
            [("CRC32C", crc32c, &object.checksums.crc32c), ("MD5 hash", md5, &object.checksums.md5)]
        {
            if let Some(declared) = declared.filter(|declared| declared != actual) {
                return Err(GcsError::invalid(format!(
                    "Provided {kind} \"{declared}\" doesn't match calculated {kind} \"{actual}\"."
                )));
            }
        }
        let object = Object { generation: self.next_generation(now), ..object };
        let resource = object.resource(&bucket, &name);
        self.objects.entry(bucket).or_default().insert(name, object);
        Ok(Response::json(200, &resource))
    }

    fn live(&self, bucket: &str, name: &str) -> Option<(u64, u64)> {
        self.object(bucket, name).map(|object| (object.generation, object.metageneration))
    }
}

impl Start {
    fn of(
        route: &GcsRoute,
        request: &Request,
        metadata: &Map<String, Value>,
    ) -> Result<Self, GcsError> {
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).map(str::to_owned);
        let named = Some(route.object.clone()).filter(|name| !name.is_empty());
        let name = named.or_else(|| text("name")).unwrap_or_default();
        object::check_name(&name)?;
        if text("bucket").is_some_and(|bucket| bucket != route.bucket) {
            return Err(GcsError::invalid("The bucket of the metadata is not that of the path."));
        }
        let custom = match metadata.get("metadata") {
            None => Map::new(),
            Some(Value::Object(custom)) if custom.values().all(Value::is_string) => custom.clone(),
            Some(_) => return Err(GcsError::invalid("metadata must be an object of strings")),
        };
        Ok(Self {
            bucket: route.bucket.clone(),
            name,
            metadata: Metadata {
                content_type: text("contentType"),
                content_encoding: request
                    .parameter("contentEncoding")
                    .or_else(|| text("contentEncoding")),
                custom,
            },
            conditions: Conditions::of(request)?,
            crc32c: text("crc32c"),
            md5: text("md5Hash"),
        })
    }

    /// `X-Goog-Hash: crc32c=…,md5=…` of the request that ends the upload.
    fn take_checksums(&mut self, request: &Request) {
        let values = request.headers.get_all("x-goog-hash").iter();
        let texts = values.filter_map(|value| value.to_str().ok());
        for (kind, value) in
            texts.flat_map(|text| text.split(',')).filter_map(|part| part.split_once('='))
        {
            match kind.trim() {
                "crc32c" => self.crc32c = Some(value.trim().to_owned()),
                "md5" => self.md5 = Some(value.trim().to_owned()),
                _ => {}
            }
        }
    }
}

impl From<SessionError> for GcsError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Unknown => Self::new(404, "notFound", "Not Found"),
            SessionError::Gone => Self::new(410, "gone", "The upload session is over."),
            SessionError::Invalid(message) => {
                Self::new(400, "badRequest", format!("Invalid request.  {message}"))
            }
        }
    }
}

fn upload_id(request: &Request) -> Result<String, GcsError> {
    let missing = || GcsError::new(400, "required", "Required parameter: upload_id");
    request.parameter("upload_id").ok_or_else(missing)
}

fn json_object(bytes: &[u8]) -> Result<Map<String, Value>, GcsError> {
    let parse_error = || GcsError::new(400, "parseError", "Parse Error");
    serde_json::from_slice(bytes).map_err(|_| parse_error())
}

fn header_text(request: &Request, name: header::HeaderName) -> Option<String> {
    request.headers.get(name)?.to_str().ok().map(str::to_owned)
}
