//! The in-memory front: the simulator as a [`Rest`] and an [`Rpc`] port.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream};
use http::{HeaderMap, Method};
use prost::Message as _;
use tokio::sync::mpsc;

use crate::{
    rest::{Body, Rest, RestError, RestRequest, RestResponse},
    rpc::{Rpc, RpcError, RpcRequest, RpcStatus, RpcStream},
    sim::{
        bigquery::storage::rpc,
        message::{Request, Response},
        simulator::{Connection, Simulator},
    },
};

/// The simulator without a network in between.
///
/// A lost answer is [`RestError::NoAnswer`]. Holding and slowness wait in tokio's time, so that a
/// test with paused time waits for nothing.
#[derive(Clone, Debug)]
pub struct SimRest(pub Simulator);

impl Rest for SimRest {
    fn call(&self, request: RestRequest) -> BoxFuture<'_, Result<RestResponse, RestError>> {
        let RestRequest { method, path, headers, body } = request;
        let request = Request::new(method, &path, headers, body.into_bytes());
        Box::pin(async move {
            let response = self.0.call(request).await.ok_or_else(lost)?;
            Ok(RestResponse {
                status: response.status,
                headers: response.headers,
                body: response.body,
            })
        })
    }
}

fn lost() -> RestError {
    RestError::NoAnswer {
        endpoint: "the simulator".to_owned(),
        source: Box::new(io::Error::from(io::ErrorKind::ConnectionReset)),
    }
}

/// The simulator's gRPC services without a network in between.
///
/// A lost answer is [`RpcError::Broken`], and the end of the connection. A request arrives when its answer is
/// waited for.
#[derive(Clone, Debug)]
pub struct SimRpc(pub Simulator);

impl Rpc for SimRpc {
    fn call(&self, request: RpcRequest) -> BoxFuture<'_, Result<Bytes, RpcError>> {
        Box::pin(async move {
            let message = request.message.into_bytes();
            let request = Request::new(Method::POST, &request.path, HeaderMap::new(), message);
            answer(self.0.call(request).await)
        })
    }

    fn open(&self, path: &str, _: &str) -> BoxFuture<'_, Result<RpcStream, RpcError>> {
        let (requests, receiver) = mpsc::channel::<Body>(1);
        let state = (Connection::open(self.0.clone()), self.0.clone(), path.to_owned(), receiver);
        let answers = stream::unfold(Some(state), |state| async {
            let (connection, simulator, path, mut receiver) = state?;
            let message = receiver.recv().await?.into_bytes();
            let answer = answer(simulator.call(connection.request(&path, message)).await);
            let goes_on = answer.is_ok().then_some((connection, simulator, path, receiver));
            Some((answer, goes_on))
        });
        Box::pin(async { Ok(RpcStream { requests, answers: answers.boxed() }) })
    }
}

/// What a client has of an answer of the gRPC services; `None` is a lost one.
pub(crate) fn answer(response: Option<Response>) -> Result<Bytes, RpcError> {
    let response = response.ok_or_else(|| RpcError::Broken {
        endpoint: "the simulator".to_owned(),
        source: Box::new(io::Error::from(io::ErrorKind::ConnectionReset)),
    })?;
    rpc::outcome(response).map_err(|status| {
        let details = status.encode_to_vec().into();
        RpcError::Ended(RpcStatus { code: status.code, message: status.message, details })
    })
}
