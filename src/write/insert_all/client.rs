//! One attempt at one request: the innermost service of the stack.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderValue, Method,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use tokio::time::Instant;
use tower::{BoxError, Service};

use crate::{
    gcp::tables::names,
    rest::{Rest, RestRequest},
    write::{WriteOutcome, WriteRequest, insert_all::classify},
};

/// A request on its way through the stack. Clones are further attempts at the same request.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What the caller wants written.
    pub request: WriteRequest,
    /// The body as it goes on the wire.
    pub wire: Bytes,
    /// Whether `wire` is gzip.
    pub gzip: bool,
    /// When the first attempt was sent.
    pub started: Arc<OnceLock<Instant>>,
    /// Whether an earlier attempt may have stored the rows.
    pub in_doubt: Arc<AtomicBool>,
}

impl Attempt {
    /// Notes that rows may have been stored.
    pub fn doubt(&self) {
        self.in_doubt.store(true, Ordering::Relaxed);
    }

    fn rest_request(&self) -> RestRequest {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        RestRequest {
            method: Method::POST,
            path: format!("{}/insertAll", names::table_path(&self.request.table)),
            headers,
            body: self.wire.clone().into(),
        }
    }
}

/// Sends an attempt and reads its answer.
#[derive(Clone)]
pub struct Client {
    rest: Arc<dyn Rest>,
}

impl Client {
    /// A client over `rest`.
    pub fn new(rest: Arc<dyn Rest>) -> Self {
        Self { rest }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Service<Attempt> for Client {
    type Response = WriteOutcome;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<WriteOutcome, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let rest = Arc::clone(&self.rest);
        attempt.started.get_or_init(Instant::now);
        Box::pin(async move {
            let rows = attempt.request.rows;
            let answer = rest.call(attempt.rest_request()).await;
            Ok(classify::outcome(answer, rows))
        })
    }
}
