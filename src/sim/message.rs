//! What goes into the simulator's core and what comes out: REST-shaped, without a clock or I/O.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::Value;

use crate::sim::gcs::checksum::Checksums;

/// One request, as any front hands it in.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, still percent-encoded, without the query.
    pub path: String,
    /// The query without its question mark; empty for none.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, content encoding already removed.
    pub body: Bytes,
    /// The body's, where a front has summed it up: that takes long, and nobody else need wait for it.
    pub checksums: Option<Checksums>,
}

impl Request {
    /// A request for `path_and_query` with `body`.
    pub fn new(method: Method, path_and_query: &str, headers: HeaderMap, body: Bytes) -> Self {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        Self { method, path, query, headers, body, checksums: None }
    }

    /// The path's segments, percent-decoded.
    pub fn segments(&self) -> Vec<String> {
        let segments = self.path.split('/').filter(|segment| !segment.is_empty());
        segments
            .map(|segment| {
                percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
            })
            .collect()
    }

    /// The first value of a query parameter, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// A query parameter as a number; a missing or malformed one is `None`.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.parameter(name)?.parse().ok()
    }

    /// The entity tag of `If-Match`, without quotes; `None` where absent or `*`.
    pub fn if_match(&self) -> Option<&str> {
        let tag = self.headers.get(header::IF_MATCH)?.to_str().ok()?;
        let tag = tag.trim().trim_start_matches("W/").trim_matches('"');
        (tag != "*").then_some(tag)
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// An answer with a JSON body.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::with_type(status, "application/json; charset=UTF-8", body.to_string())
    }

    /// An answer with a body of another type.
    pub fn with_type(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { status, headers, body: body.into() }
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// The same answer with one more header; a value that cannot be one is left out.
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Whether the status is a success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// What a front is to do after one step of the core.
#[derive(Clone, Debug)]
pub enum Step {
    /// Answer, after the delay if there is one. The request has been applied (or refused) already.
    Answer {
        /// The answer.
        response: Response,
        /// How long to keep the answer back.
        after: Duration,
    },
    /// The request was applied and its answer is lost: close the connection without a word.
    Lose,
    /// The request is held inside the core and not applied yet. Wait until `until` (or, without
    /// it, until someone releases), then ask [`Core::collect`](crate::sim::Core::collect). A client
    /// that leaves meanwhile changes nothing: the core applies the request all the same.
    Hold {
        /// The ticket to collect the answer with.
        ticket: u64,
        /// When the core applies the request by itself.
        until: Option<Duration>,
    },
}
