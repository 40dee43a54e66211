//! The network as a process sees it: the ports to BigQuery and to the registry, over the history's
//! events.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream};
use http::{HeaderMap, HeaderValue, Method};
use tokio::sync::{mpsc, oneshot};

use super::{bigquery::Service, env::Who};
use crate::{
    fault::{Fault, FaultKind},
    registry::{RegisteredSchema, Registry, RegistryError},
    rest::{Body, Rest, RestError, RestRequest, RestResponse},
    rpc::{Rpc, RpcError, RpcRequest, RpcStream},
    sim::{bigquery::storage::CONNECTION, memory, message::Response},
};

/// Calls that wait to be looked at; none waits longer than the running task.
pub(crate) const CALLS_MAX: usize = 1_024;

/// What a process asks of the world.
#[derive(Debug)]
pub(crate) struct Call {
    /// Who asks.
    pub(crate) who: Who,
    /// What.
    pub(crate) ask: Ask,
}

impl Call {
    /// Whether it brings rows.
    pub(crate) fn is_write(&self) -> bool {
        matches!(&self.ask, Ask::Rest(request, _) if Service::of(request) != Service::Other)
    }
}

/// See [`Call`].
#[derive(Debug)]
pub(crate) enum Ask {
    /// Of BigQuery.
    Rest(RestRequest, oneshot::Sender<RestAnswer>),
    /// Nothing: a connection to BigQuery, by its number, has ended.
    Leave(u64),
    /// Of the registry.
    Schema(u32, oneshot::Sender<SchemaAnswer>),
}

/// What comes back from BigQuery.
pub(crate) type RestAnswer = Result<RestResponse, RestError>;
/// What comes back from the registry.
pub(crate) type SchemaAnswer = Result<RegisteredSchema, RegistryError>;

/// One process's way out.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Whose.
    pub(crate) who: Who,
    /// To the world.
    pub(crate) calls: mpsc::Sender<Call>,
    /// Connections that it has opened.
    pub(crate) connections: Arc<AtomicU64>,
}

/// A connection's requests go out one by one, when their answers are waited for.
struct Connection {
    line: Line,
    path: String,
    /// No other connection of any process has it.
    number: u64,
    requests: mpsc::Receiver<Body>,
}

impl Line {
    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        let call = Call { who: self.who, ask: ask(sender) };
        self.calls.send(call).await.ok()?;
        answer.await.ok()
    }

    async fn ask_storage(&self, request: RestRequest) -> Result<Bytes, RpcError> {
        let answer = self.ask(|sender| Ask::Rest(request, sender)).await;
        let whole = |RestResponse { status, headers, body }| Response { status, headers, body };
        memory::answer(answer.and_then(Result::ok).map(whole))
    }
}

impl Rest for Line {
    fn call(&self, request: RestRequest) -> BoxFuture<'_, RestAnswer> {
        Box::pin(async move {
            let answer = self.ask(|sender| Ask::Rest(request, sender)).await;
            answer.unwrap_or_else(|| {
                let (endpoint, source) = ("bigquery".to_owned(), "connection reset".into());
                Err(RestError::NoAnswer { endpoint, source })
            })
        })
    }
}

impl Rpc for Line {
    fn call(&self, request: RpcRequest) -> BoxFuture<'_, Result<Bytes, RpcError>> {
        let RpcRequest { path, message, .. } = request;
        let (method, headers) = (Method::POST, HeaderMap::new());
        let request = RestRequest { method, path, headers, body: message };
        Box::pin(async move { self.ask_storage(request).await })
    }

    fn open(&self, path: &str, _: &str) -> BoxFuture<'_, Result<RpcStream, RpcError>> {
        let (requests, receiver) = mpsc::channel(1);
        let count = self.connections.fetch_add(1, Ordering::Relaxed);
        let Who { replica, life } = self.who;
        let number = (replica as u64) << 48 | (life as u64) << 32 | count;
        let (line, path) = (self.clone(), path.to_owned());
        let connection = Connection { line, path, number, requests: receiver };
        let answers = stream::unfold(Some(connection), |connection| async {
            let mut connection = connection?;
            let Some(message) = connection.requests.recv().await else {
                connection.leave().await;
                return None;
            };
            let answer = connection.answer(message).await;
            let goes_on = answer.is_ok().then_some(connection);
            Some((answer, goes_on))
        });
        Box::pin(async { Ok(RpcStream { requests, answers: answers.boxed() }) })
    }
}

impl Connection {
    async fn answer(&self, body: Body) -> Result<Bytes, RpcError> {
        let headers = [(CONNECTION.parse().unwrap(), HeaderValue::from(self.number))];
        let (method, path) = (Method::POST, self.path.clone());
        let request = RestRequest { method, path, headers: headers.into_iter().collect(), body };
        self.line.ask_storage(request).await
    }

    /// The client has ended the call in good order.
    async fn leave(&self) {
        let call = Call { who: self.line.who, ask: Ask::Leave(self.number) };
        // The history may be over.
        self.line.calls.send(call).await.ok();
    }
}

impl Registry for Line {
    fn schema(&self, id: u32) -> BoxFuture<'_, SchemaAnswer> {
        Box::pin(async move {
            let answer = self.ask(|sender| Ask::Schema(id, sender)).await;
            answer.unwrap_or_else(|| {
                let fault = Fault::unknown(FaultKind::Transient, "noAnswer", "connection reset");
                Err(RegistryError::Fault(fault))
            })
        })
    }

    fn address(&self) -> &str {
        "the simulated registry"
    }
}
