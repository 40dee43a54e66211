//! The network as a process sees it: the ports to BigQuery and to the registry, over the history's
//! events.

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::{bigquery::Service, env::Who};
use crate::{
    fault::{Fault, FaultKind},
    registry::{RegisteredSchema, Registry, RegistryError},
    rest::{Rest, RestError, RestRequest, RestResponse},
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
}

impl Line {
    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        let call = Call { who: self.who, ask: ask(sender) };
        self.calls.send(call).await.ok()?;
        answer.await.ok()
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
}
