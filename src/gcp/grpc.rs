//! The gRPC port over HTTP/2: bearer tokens, and messages that are not copied on their way out.

use std::{future::ready, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture, stream};
use http::{HeaderValue, Method, Request, Response, header};
use http_body::Frame;
use tokio::sync::mpsc;
use tonic::{
    ConnectError, Status, Streaming,
    body::Body as TonicBody,
    codec::{DecodeBuf, Decoder},
    transport::{Channel, ClientTlsConfig, Endpoint},
};
use tower::{Service as _, ServiceExt as _};

use crate::{
    gcp::auth::{Token, TokenProvider},
    rest::Body,
    rpc::{Rpc, RpcError, RpcRequest, RpcStatus, RpcStream},
    secret::without_user_info,
};

/// Google's own endpoint.
pub const ENDPOINT: &str = "https://bigquerystorage.googleapis.com";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Until the answer to a single request is there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection whose other end has gone without a word is found dead after both together.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Requests of one call that wait for the wire; memory is bounded by those who send them.
const REQUESTS_MAX: usize = 1;
/// No answer that this service asks for is larger.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Why a transport could not be built.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The endpoint is not `http(s)://host[:port]`, or its TLS could not be set up.
    #[error(
        "`{endpoint}` is not an endpoint; write scheme, host and port, such as http://localhost:9060"
    )]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        #[source]
        source: tonic::transport::Error,
    },
    /// The quota project cannot stand in a header.
    #[error("the quota project is not a project id")]
    QuotaProject,
}

/// [`Rpc`] over one HTTP/2 connection, which is made when it is first needed and made again when it breaks.
///
/// What is refused for its token has the token renewed. A call with one answer is then sent once more; one
/// in both directions ends, and the next has the fresh token.
#[derive(Clone, Debug)]
pub struct GrpcRpc {
    channel: Channel,
    endpoint: String,
    tokens: std::sync::Arc<dyn TokenProvider>,
    quota_project: Option<HeaderValue>,
}

impl GrpcRpc {
    /// A transport to `endpoint`, Google's if none is given. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`GrpcError`], if the settings are refused.
    pub fn new(
        endpoint: Option<&str>,
        quota_project: Option<&str>,
        tokens: std::sync::Arc<dyn TokenProvider>,
    ) -> Result<Self, GrpcError> {
        let name = endpoint.unwrap_or(ENDPOINT);
        let wrong =
            |source| GrpcError::Endpoint { endpoint: without_user_info(name).into_owned(), source };
        let mut endpoint = Endpoint::from_shared(name.to_owned())
            .map_err(wrong)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .user_agent(concat!("kcbq/", env!("CARGO_PKG_VERSION")))
            .map_err(wrong)?;
        if name.starts_with("https:") {
            endpoint =
                endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(wrong)?;
        }
        let quota_project = quota_project
            .map(HeaderValue::from_str)
            .transpose()
            .map_err(|_| GrpcError::QuotaProject)?;
        let channel = endpoint.connect_lazy();
        Ok(Self { channel, endpoint: name.to_owned(), tokens, quota_project })
    }

    async fn token(&self) -> Result<Option<Token>, RpcError> {
        self.tokens.token().await.map_err(|error| RpcError::NoToken(Box::new(error)))
    }

    /// Renews the token if it is why a call ended.
    async fn renewed(&self, error: RpcError, token: Option<u64>) -> RpcError {
        if let Some(generation) = token.filter(|_| is_unauthenticated(&error)) {
            self.tokens.refresh(generation).await;
        }
        error
    }

    fn request(
        &self,
        path: &str,
        routing: &str,
        token: Option<&Token>,
        body: TonicBody,
    ) -> Result<Request<TonicBody>, RpcError> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        let not_sent = |source: Box<dyn std::error::Error + Send + Sync>| RpcError::NotSent {
            endpoint: self.endpoint.clone(),
            source,
        };
        let uri = format!("{}{path}", self.endpoint.trim_end_matches('/'));
        *request.uri_mut() = uri.parse().map_err(|error| not_sent(Box::new(error)))?;
        let routing = HeaderValue::from_str(routing).map_err(|error| not_sent(Box::new(error)))?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert("x-goog-request-params", routing);
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, token.header());
        }
        if let Some(project) = &self.quota_project {
            headers.insert("x-goog-user-project", project.clone());
        }
        Ok(request)
    }

    async fn ready(&self) -> Result<Channel, RpcError> {
        let mut channel = self.channel.clone();
        channel.ready().await.map_err(|error| self.failed(error))?;
        Ok(channel)
    }

    /// What could not be reached is told from what broke: a connection that cannot be made fails the calls
    /// that wait for it.
    fn failed(&self, error: tonic::transport::Error) -> RpcError {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(found) = cause {
            if found.is::<ConnectError>() {
                let endpoint = self.endpoint.clone();
                return RpcError::NotSent { endpoint, source: Box::new(error) };
            }
            cause = found.source();
        }
        self.broken(error)
    }

    fn broken(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RpcError {
        RpcError::Broken { endpoint: self.endpoint.clone(), source: error.into() }
    }

    /// What the service ended a call with. A status that the client itself made up, because the connection
    /// broke, is none of the service's.
    fn ended(&self, status: Status) -> RpcError {
        if std::error::Error::source(&status).is_some() {
            return self.broken(status);
        }
        RpcError::Ended(RpcStatus {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: Bytes::copy_from_slice(status.details()),
        })
    }

    fn answers(
        &self,
        response: Result<Response<TonicBody>, tonic::transport::Error>,
    ) -> Result<Streaming<Bytes>, RpcError> {
        let response = response.map_err(|error| self.failed(error))?;
        let status = Status::from_header_map(response.headers());
        if let Some(status) = status.filter(|status| status.code() != tonic::Code::Ok) {
            return Err(self.ended(status));
        }
        let code = response.status();
        let body = response.into_body();
        Ok(Streaming::new_response(Raw, body, code, None, Some(ANSWER_BYTES_MAX)))
    }

    async fn ask(&self, request: &RpcRequest, token: Option<&Token>) -> Result<Bytes, RpcError> {
        let body = outgoing(stream::once(ready(request.message.clone())));
        let request = self.request(&request.path, &request.routing, token, body)?;
        let response = self.ready().await?.call(request).await;
        let mut answers = self.answers(response)?;
        let answer = answers.message().await.map_err(|status| self.ended(status))?;
        answer.ok_or_else(|| self.broken("there was no message in the answer"))
    }
}

impl Rpc for GrpcRpc {
    fn call(&self, request: RpcRequest) -> BoxFuture<'_, Result<Bytes, RpcError>> {
        let answer = async move {
            let token = self.token().await?;
            let refused = match self.ask(&request, token.as_ref()).await {
                Err(error) if token.is_some() && is_unauthenticated(&error) => error,
                answer => return answer,
            };
            let before = token.as_ref().map(Token::generation);
            let refused = self.renewed(refused, before).await;
            let token = self.token().await?;
            if token.as_ref().map(Token::generation) == before {
                return Err(refused);
            }
            self.ask(&request, token.as_ref()).await
        };
        Box::pin(async move {
            let timed_out = |_| self.broken("no answer in time");
            tokio::time::timeout(ANSWER_TIMEOUT, answer).await.map_err(timed_out)?
        })
    }

    fn open(&self, path: &str, routing: &str) -> BoxFuture<'_, Result<RpcStream, RpcError>> {
        let (path, routing) = (path.to_owned(), routing.to_owned());
        Box::pin(async move {
            let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
            let messages = stream::unfold(receiver, |mut receiver| async {
                receiver.recv().await.map(|message| (message, receiver))
            });
            let token = self.token().await?;
            let request = self.request(&path, &routing, token.as_ref(), outgoing(messages))?;
            let response = self.ready().await?.call(request);
            let (first, rest, renewing) = (self.clone(), self.clone(), self.clone());
            let answers = response.map(move |response| match first.answers(response) {
                Ok(answers) => answers
                    .map(move |answer| answer.map_err(|status| rest.ended(status)))
                    .left_stream(),
                Err(error) => stream::once(ready(Err(error))).right_stream(),
            });
            let generation = token.as_ref().map(Token::generation);
            let answers = answers.flatten_stream().then(move |answer| {
                let renewing = renewing.clone();
                async move {
                    match answer {
                        Ok(answer) => Ok(answer),
                        Err(error) => Err(renewing.renewed(error, generation).await),
                    }
                }
            });
            Ok(RpcStream { requests: sender, answers: answers.boxed() })
        })
    }
}

/// Whether the service refused the token.
fn is_unauthenticated(error: &RpcError) -> bool {
    let unauthenticated = tonic::Code::Unauthenticated as i32;
    matches!(error, RpcError::Ended(status) if status.code == unauthenticated)
}

/// Messages as gRPC frames them: one byte that says that nothing is compressed, four of the length, and the
/// parts as they are (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
fn outgoing(messages: impl Stream<Item = Body> + Send + 'static) -> TonicBody {
    let frames = messages.flat_map(|message| {
        let mut prefix = BytesMut::with_capacity(5);
        prefix.put_u8(0);
        prefix.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        let parts = std::iter::once(prefix.freeze()).chain(message.into_parts());
        stream::iter(parts.map(|part| Ok::<_, Status>(Frame::data(part))))
    });
    TonicBody::new(http_body_util::StreamBody::new(frames))
}

/// Messages as bytes.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gcp::auth::Anonymous;

    #[tokio::test]
    async fn what_cannot_be_reached_was_not_sent() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let rpc = GrpcRpc::new(Some(&endpoint), None, Arc::new(Anonymous)).unwrap();
        let path = "/a.B/C".to_owned();
        let request = RpcRequest { path, routing: String::new(), message: Body::default() };
        for _ in 0..2 {
            let error = rpc.call(request.clone()).await.unwrap_err();
            assert!(matches!(error, RpcError::NotSent { .. }), "{error:?}");
            let mut stream = rpc.open("/a.B/C", "").await.unwrap();
            let error = stream.answers.next().await.unwrap().unwrap_err();
            assert!(matches!(error, RpcError::NotSent { .. }), "{error:?}");
        }
    }
}
