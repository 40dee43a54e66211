//! One attempt at one request: the innermost service of the stack.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderValue, Method,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use tower::{BoxError, Service};

use crate::{
    gcp::tables::names,
    rest::{Rest, RestRequest},
    write::{WriteOutcome, insert_all::classify, stack::Attempt},
};

/// Sends an attempt and reads its answer.
#[derive(Clone)]
pub struct Client {
    rest: Arc<dyn Rest>,
    is_gzip: bool,
}

impl Client {
    /// A client over `rest`, whose bodies are gzip if so said.
    pub fn new(rest: Arc<dyn Rest>, is_gzip: bool) -> Self {
        Self { rest, is_gzip }
    }

    fn request(&self, attempt: &Attempt) -> RestRequest {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.is_gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        RestRequest {
            method: Method::POST,
            path: format!("{}/insertAll", names::table_path(&attempt.request.table)),
            headers,
            body: attempt.wire.clone().into(),
        }
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
        attempt.start();
        let (rest, request) = (Arc::clone(&self.rest), self.request(&attempt));
        Box::pin(async move {
            let answer = rest.call(request).await;
            Ok(classify::outcome(answer, attempt.request.rows))
        })
    }
}
