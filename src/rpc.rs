//! The port to a gRPC endpoint: messages pass as bytes, nothing is interpreted.
//!
//! The Storage Write adapter is written against this trait, so that the same code runs over HTTP/2 and, in
//! seeded simulation, straight into the simulator's core.

use std::fmt;

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use tokio::sync::mpsc;

use crate::rest::Body;

/// How a call ended, as the service says (<https://grpc.io/docs/guides/status-codes/>).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcStatus {
    /// gRPC's number; 0 is success.
    pub code: i32,
    /// What a person is told. It may hold a row's values.
    pub message: String,
    /// `google.rpc.Status` with the details; empty for none.
    pub details: Bytes,
}

impl fmt::Display for RpcStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gRPC status {}", self.code)
    }
}

/// Why there is no answer, or no further one.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
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
    /// The service has ended the call.
    #[error("{0}")]
    Ended(RpcStatus),
    /// The connection broke: what had been sent may have taken effect.
    #[error("the connection to {endpoint} broke")]
    Broken {
        /// Scheme, host and port.
        endpoint: String,
        /// The error underneath.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// One request that has one answer.
#[derive(Clone, Debug)]
pub struct RpcRequest {
    /// The method's path, `/package.Service/Method`.
    pub path: String,
    /// The system parameter `x-goog-request-params`
    /// (<https://docs.cloud.google.com/apis/docs/system-parameters>).
    pub routing: String,
    /// The message.
    pub message: Body,
}

/// A call in both directions.
pub struct RpcStream {
    /// Takes the requests' messages, each in parts. Dropping it ends the call in good order.
    pub requests: mpsc::Sender<Body>,
    /// The answers' messages, in order. An error is the last.
    pub answers: BoxStream<'static, Result<Bytes, RpcError>>,
}

impl fmt::Debug for RpcStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RpcStream")
    }
}

/// A gRPC endpoint with its credentials. No retry. Concurrent calls are allowed.
pub trait Rpc: Send + Sync + 'static {
    /// Sends the request and waits for its answer; it ends in bounded time.
    fn call(&self, request: RpcRequest) -> BoxFuture<'_, Result<Bytes, RpcError>>;

    /// Begins a call in both directions, with `routing` as of [`RpcRequest`]. It does not wait for the
    /// service's first word, which may come only after a request.
    fn open(&self, path: &str, routing: &str) -> BoxFuture<'_, Result<RpcStream, RpcError>>;
}
