//! The REST port over HTTP: one connection pool, bearer tokens, bounded answers, no redirects.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, future::BoxFuture};
use http::{HeaderValue, header::AUTHORIZATION};
use url::Url;

use crate::{
    gcp::auth::{Token, TokenProvider},
    rest::{Rest, RestError, RestRequest, RestResponse},
    secret::without_user_info,
};

mod body;

/// Google's own endpoint.
pub const ENDPOINT: &str = "https://bigquery.googleapis.com";
/// No answer that this service asks for is larger; one that is counts as none.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Until a whole answer is there, beside the time for the request's body. A connection whose other end has
/// gone without a word would be waited for without end.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The slowest way to Google over which a body may go.
const BODY_BYTES_PER_SECOND: u32 = 100_000;
/// Google closes idle connections after four minutes; sending into a closing one loses the answer.
const POOL_IDLE: Duration = Duration::from_secs(90);

/// Why a transport could not be built.
#[derive(Debug, thiserror::Error)]
pub enum HttpRestError {
    /// The endpoint is not `http(s)://host[:port]`.
    #[error("`{0}` is not an endpoint; write scheme, host and port, such as http://localhost:9050")]
    Endpoint(String),
    /// The quota project cannot stand in a header.
    #[error("the quota project is not a project id")]
    QuotaProject,
    /// The TLS roots or the resolver could not be set up.
    #[error("could not set up HTTPS")]
    Client(#[source] reqwest::Error),
}

/// [`Rest`] over HTTP/1.1 with kept-alive connections.
///
/// A request that is refused for its token (401) is sent once more with a fresh one; the refusal is
/// proof that the first had no effect.
#[derive(Clone, Debug)]
pub struct HttpRest {
    client: reqwest::Client,
    endpoint: Arc<str>,
    tokens: Arc<dyn TokenProvider>,
    quota_project: Option<HeaderValue>,
}

impl HttpRest {
    /// A transport to `endpoint`, Google's if none is given. `connections_max` bounds the idle
    /// connections kept, not those in use: the caller limits its own concurrency.
    pub fn new(
        endpoint: Option<&str>,
        quota_project: Option<&str>,
        tokens: Arc<dyn TokenProvider>,
        connections_max: usize,
    ) -> Result<Self, HttpRestError> {
        let endpoint = origin(endpoint.unwrap_or(ENDPOINT))?;
        let quota_project = quota_project
            .map(HeaderValue::from_str)
            .transpose()
            .map_err(|_| HttpRestError::QuotaProject)?;
        let client = reqwest::Client::builder()
            // One connection per request on the wire: HTTP/2 would put many megabyte bodies behind
            // one flow-control window.
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(connections_max)
            .tcp_nodelay(true)
            .user_agent(concat!("kcbq/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(HttpRestError::Client)?;
        Ok(Self { client, endpoint, tokens, quota_project })
    }

    async fn send(
        &self,
        request: &RestRequest,
        token: Option<&Token>,
    ) -> Result<RestResponse, RestError> {
        let url = format!("{}{}", self.endpoint, request.path);
        let mut outgoing = self
            .client
            .request(request.method.clone(), url)
            .headers(request.headers.clone())
            .timeout(limit(request.body.len()))
            .body(body::outgoing(request.body.clone()));
        if let Some(token) = token {
            outgoing = outgoing.header(AUTHORIZATION, token.header());
        }
        if let Some(project) = &self.quota_project {
            outgoing = outgoing.header("x-goog-user-project", project);
        }
        let response = outgoing.send().await.map_err(|error| self.send_error(error))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = self.read(response).await?;
        Ok(RestResponse { status, headers, body })
    }

    async fn read(&self, response: reqwest::Response) -> Result<Bytes, RestError> {
        let mut chunks = response.bytes_stream();
        let mut body = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| self.no_answer(error.without_url()))?;
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.no_answer(AnswerTooLarge));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn send_error(&self, error: reqwest::Error) -> RestError {
        let error = error.without_url();
        if error.is_connect() || error.is_builder() {
            return RestError::NotSent {
                endpoint: self.endpoint.to_string(),
                source: Box::new(error),
            };
        }
        self.no_answer(error)
    }

    fn no_answer(&self, error: impl std::error::Error + Send + Sync + 'static) -> RestError {
        RestError::NoAnswer { endpoint: self.endpoint.to_string(), source: Box::new(error) }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the answer is larger than {ANSWER_BYTES_MAX} bytes")]
struct AnswerTooLarge;

impl Rest for HttpRest {
    fn call(&self, request: RestRequest) -> BoxFuture<'_, Result<RestResponse, RestError>> {
        Box::pin(async move {
            let token = self.tokens.token().await.map_err(no_token)?;
            let response = self.send(&request, token.as_ref()).await?;
            let Some(refused) = token.filter(|_| response.status == 401) else {
                return Ok(response);
            };
            self.tokens.refresh(refused.generation()).await;
            let token = self.tokens.token().await.map_err(no_token)?;
            if token.as_ref().is_some_and(|token| token.generation() == refused.generation()) {
                return Ok(response);
            }
            self.send(&request, token.as_ref()).await
        })
    }
}

/// How long a request with so large a body may take.
fn limit(body_bytes: usize) -> Duration {
    let seconds = u32::try_from(body_bytes).unwrap_or(u32::MAX) / BODY_BYTES_PER_SECOND;
    ANSWER_TIMEOUT + Duration::from_secs(u64::from(seconds))
}

fn no_token(error: crate::gcp::auth::AuthError) -> RestError {
    RestError::NoToken(Box::new(error))
}

/// The endpoint without a trailing slash, proven to be an origin.
pub(super) fn origin(endpoint: &str) -> Result<Arc<str>, HttpRestError> {
    let wrong = || HttpRestError::Endpoint(without_user_info(endpoint).into_owned());
    let url = Url::parse(endpoint).map_err(|_| wrong())?;
    let plain = url.host_str().is_some()
        && matches!(url.scheme(), "http" | "https")
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !plain {
        return Err(wrong());
    }
    Ok(Arc::from(endpoint.trim_end_matches('/')))
}

#[cfg(test)]
mod tests;
