//! The port to a REST endpoint: one request, one answer, nothing interpreted.
//!
//! The BigQuery adapters are written against this trait, so that the same code runs over HTTP and,
//! in seeded simulation, straight into the simulator's core.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE};
use serde_json::Value;

/// One request.
#[derive(Clone, Debug)]
pub struct RestRequest {
    /// The method.
    pub method: Method,
    /// Path and query below the endpoint, starting with `/`.
    pub path: String,
    /// Headers beside those the transport adds by itself (host, length, authorization).
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Body,
}

impl RestRequest {
    /// A request with this JSON document, or with no body.
    pub fn json(method: Method, path: String, document: Option<&Value>) -> Self {
        let (mut headers, mut body) = (HeaderMap::new(), Body::default());
        if let Some(document) = document {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            body = document.to_string().into();
        }
        Self { method, path, headers, body }
    }
}

/// A request's body, in parts that are sent one after the other. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Body(Vec<Bytes>);

impl Body {
    /// A body of these parts.
    pub fn of(parts: Vec<Bytes>) -> Self {
        Self(parts)
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is left of it without its first bytes.
    #[must_use]
    pub fn from(mut self, mut bytes: usize) -> Self {
        self.0.retain_mut(|part| {
            let gone = bytes.min(part.len());
            bytes -= gone;
            *part = part.slice(gone..);
            !part.is_empty()
        });
        self
    }

    /// The parts.
    pub fn into_parts(self) -> Vec<Bytes> {
        self.0
    }

    /// All of it in one piece; copied where there are several parts.
    pub fn into_bytes(mut self) -> Bytes {
        match self.0.len() {
            0 | 1 => self.0.pop().unwrap_or_default(),
            _ => self.0.concat().into(),
        }
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self(vec![bytes.into()])
    }
}

/// One answer, whatever its status.
#[derive(Clone, Debug)]
pub struct RestResponse {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, at most the transport's limit.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The request was never sent: name resolution, connection or credentials failed.
    #[error("could not reach {endpoint}")]
    NotSent {
        /// Scheme, host and port.
        endpoint: String,
        /// The error underneath.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No credentials could be had.
    #[error("{0}")]
    NoToken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The request was sent, at least in part, and no whole answer came back.
    #[error("no answer from {endpoint}")]
    NoAnswer {
        /// Scheme, host and port.
        endpoint: String,
        /// The error underneath.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A REST endpoint with its credentials.
///
/// One call is one request; no retry, no redirect. It ends: an answer that does not come in time is none. The
/// caller may wait for less, by dropping the future, after which the outcome is unknown. Concurrent calls
/// are allowed.
pub trait Rest: Send + Sync + 'static {
    /// Sends the request and reads the whole answer.
    fn call(&self, request: RestRequest) -> BoxFuture<'_, Result<RestResponse, RestError>>;
}
