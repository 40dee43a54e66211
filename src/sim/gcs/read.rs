//! `storage.objects.get`, with and without the media, and `storage.objects.delete`.

use std::io::Read;

use bytes::Bytes;
use http::{HeaderName, header};

use crate::sim::{
    gcs::{
        Gcs, GcsRoute,
        conditions::{Conditions, Intent},
        error::GcsError,
        object::Object,
    },
    message::{Request, Response},
};

impl Gcs {
    pub(crate) fn get(&self, route: &GcsRoute, request: &Request) -> Result<Response, GcsError> {
        let object = self.checked(route, request, Intent::Read)?;
        if !route.media {
            return Ok(Response::json(200, &object.resource(&route.bucket, &route.object)));
        }
        let response = media(object, request, self.settings.upload_bytes_max)?;
        let name = HeaderName::from_static;
        let hash = format!("crc32c={},md5={}", object.checksums.crc32c, object.checksums.md5);
        let mut response = response
            .with_header(name("x-goog-generation"), &object.generation.to_string())
            .with_header(name("x-goog-metageneration"), &object.metageneration.to_string())
            .with_header(name("x-goog-hash"), &hash)
            .with_header(header::ETAG, &object.etag());
        response.headers.remove(header::CONTENT_TYPE);
        let content_type = object.metadata.content_type.as_deref();
        let content_type = content_type.unwrap_or("application/octet-stream");
        Ok(response.with_header(header::CONTENT_TYPE, content_type))
    }

    pub(crate) fn delete(
        &mut self,
        route: &GcsRoute,
        request: &Request,
    ) -> Result<Response, GcsError> {
        self.checked(route, request, Intent::Write)?;
        if let Some(objects) = self.objects.get_mut(&route.bucket) {
            objects.remove(&route.object);
        }
        Ok(Response::empty(204))
    }

    /// The object, if it is the generation asked for and the conditions hold.
    fn checked(
        &self,
        route: &GcsRoute,
        request: &Request,
        intent: Intent,
    ) -> Result<&Object, GcsError> {
        let missing = || GcsError::no_object(&route.bucket, &route.object);
        let object = self.object(&route.bucket, &route.object).ok_or_else(missing)?;
        let wanted = request.parameter("generation");
        if wanted.is_some_and(|wanted| wanted != object.generation.to_string()) {
            return Err(missing());
        }
        let live = Some((object.generation, object.metageneration));
        Conditions::of(request)?.check(live, intent)?;
        Ok(object)
    }
}

/// The media, as a whole or a range. What is stored with `contentEncoding: gzip` is decompressed for
/// a client that does not accept it so; ranges do not apply then.
fn media(object: &Object, request: &Request, bytes_max: usize) -> Result<Response, GcsError> {
    let answer =
        |status, body: Bytes| Response::with_type(status, "application/octet-stream", body);
    if object.metadata.content_encoding.as_deref() == Some("gzip") {
        let accepted = request.headers.get(header::ACCEPT_ENCODING);
        if !accepted.and_then(|value| value.to_str().ok()).is_some_and(|text| text.contains("gzip"))
        {
            return Ok(answer(200, decompressed(&object.media, bytes_max)?));
        }
    }
    let length = object.media.len();
    let response = match request.headers.get(header::RANGE).and_then(|value| value.to_str().ok()) {
        None => answer(200, object.media.clone()),
        Some(text) => {
            let refused = || {
                GcsError::new(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
            };
            let (first, end) = range(text, length).ok_or_else(refused)?;
            let content_range = format!("bytes {first}-{}/{length}", end - 1);
            answer(206, object.media.slice(first..end))
                .with_header(header::CONTENT_RANGE, &content_range)
        }
    };
    Ok(match &object.metadata.content_encoding {
        Some(encoding) => response.with_header(header::CONTENT_ENCODING, encoding),
        None => response,
    })
}

fn decompressed(media: &[u8], bytes_max: usize) -> Result<Bytes, GcsError> {
    let mut bytes = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(media).take(bytes_max as u64);
    let refused = |_| GcsError::new(503, "backendError", "The media is not gzip.");
    reader.read_to_end(&mut bytes).map_err(refused)?;
    Ok(bytes.into())
}

/// The first byte and the one behind the last of `bytes=a-b`, `bytes=a-`, `bytes=-n`.
fn range(text: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (first, end) = match (first, last) {
        ("", suffix) => (length.saturating_sub(suffix.parse().ok()?), length),
        (first, "") => (first.parse().ok()?, length),
        (first, last) => {
            (first.parse().ok()?, last.parse::<usize>().ok()?.checked_add(1)?.min(length))
        }
    };
    (first < end).then_some((first, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ten_bytes() {
        for (text, expected) in [
            ("bytes=0-3", Some((0, 4))),
            ("bytes=4-", Some((4, 10))),
            ("bytes=-3", Some((7, 10))),
            ("bytes=-30", Some((0, 10))),
            ("bytes=8-99", Some((8, 10))),
            ("bytes=10-", None),
            ("bytes=3-2", None),
            ("3-4", None),
        ] {
            assert_eq!(range(text, 10), expected, "{text}");
        }
    }
}
