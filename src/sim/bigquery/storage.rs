//! The Storage Write API (<https://docs.cloud.google.com/bigquery/docs/write-api>) over the tables in
//! memory.
//!
//! gRPC in the core's shape: a request's path is the method's, its body the message; an answer's body is the
//! message, or `google.rpc.Status` where the status is none of success, which ends the call or the
//! connection. Requests of one connection carry its number in [`CONNECTION`].

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    AppendRowsRequest, AppendRowsResponse, BatchCommitWriteStreamsRequest,
    CreateWriteStreamRequest, FinalizeWriteStreamRequest, FlushRowsRequest, GetWriteStreamRequest,
    append_rows_response::Response as Outcome,
};
use prost::Message;

use crate::sim::{
    bigquery::BigQuery,
    counters::Counters,
    message::{Request, Response},
};

pub mod append;
pub mod cells;
pub mod changes;
pub mod connection;
pub mod rpc;
pub mod schema;
pub mod stream;
pub mod streams;

use connection::Connection;
use rpc::{Code, RpcError};
use stream::{Stream, StreamName};

/// What the paths of the service's methods begin with.
pub const SERVICE: &str = "/google.cloud.bigquery.storage.v1.BigQueryWrite/";

/// The header with the number of a request's connection.
pub const CONNECTION: &str = "x-sim-connection";

/// One call, decoded.
#[derive(Clone, Debug)]
pub enum Call {
    /// One request of a connection.
    Append(u64, Box<AppendRowsRequest>),
    /// `CreateWriteStream`.
    Create(CreateWriteStreamRequest),
    /// `GetWriteStream`.
    Get(GetWriteStreamRequest),
    /// `FinalizeWriteStream`.
    Finalize(FinalizeWriteStreamRequest),
    /// `FlushRows`.
    Flush(FlushRowsRequest),
    /// `BatchCommitWriteStreams`.
    Commit(BatchCommitWriteStreamsRequest),
}

/// Where a call goes.
#[derive(Clone, Debug)]
pub struct StorageRoute {
    /// The method's name, such as `AppendRows`.
    pub operation: &'static str,
    /// The table's id; empty where the call names none.
    pub table: String,
    call: Result<Call, RpcError>,
}

impl StorageRoute {
    /// The route of a request; `None` if it is for another service.
    pub fn of(request: &Request, storage: &Storage) -> Option<Self> {
        let method = request.path.strip_prefix(SERVICE)?;
        let (operation, call) = match method {
            "AppendRows" => ("AppendRows", append_call(request)),
            "CreateWriteStream" => ("CreateWriteStream", decoded(request).map(Call::Create)),
            "GetWriteStream" => ("GetWriteStream", decoded(request).map(Call::Get)),
            "FinalizeWriteStream" => ("FinalizeWriteStream", decoded(request).map(Call::Finalize)),
            "FlushRows" => ("FlushRows", decoded(request).map(Call::Flush)),
            "BatchCommitWriteStreams" => {
                ("BatchCommitWriteStreams", decoded(request).map(Call::Commit))
            }
            _ => return None,
        };
        let table = call.as_ref().map(|call| storage.table_of(call)).unwrap_or_default();
        Some(Self { operation, table, call })
    }

    /// The answer where a fault script refuses the call.
    pub fn refusal(&self, status: u16, reason: &str, message: &str) -> Response {
        match &self.call {
            Ok(Call::Append(..)) => refusal(status, reason, message),
            _ => refused(status, reason, message).into(),
        }
    }
}

/// A refusal of an append: what the service itself has broken ends the connection, all else is one request's.
pub fn refusal(status: u16, reason: &str, message: &str) -> Response {
    let error = refused(status, reason, message);
    match status {
        400 | 403 | 409 | 412 | 429 => rpc::answer(&AppendRowsResponse {
            response: Some(Outcome::Error(error.status())),
            ..AppendRowsResponse::default()
        }),
        _ => error.into(),
    }
}

/// Whether an answer to an append, by its body, says that nothing was appended.
pub fn is_refusal(body: &Bytes) -> bool {
    let outcome = AppendRowsResponse::decode(&**body).ok().and_then(|answer| answer.response);
    !matches!(outcome, Some(Outcome::AppendResult(_)))
}

/// A refusal of a call.
pub fn refused(status: u16, reason: &str, message: &str) -> RpcError {
    RpcError::new(Code::of_http(status, reason), format!("{reason}: {message}"))
}

fn decoded<M: Message + Default>(request: &Request) -> Result<M, RpcError> {
    M::decode(request.body.clone())
        .map_err(|error| RpcError::new(Code::Internal, format!("Failed to parse request: {error}")))
}

fn append_call(request: &Request) -> Result<Call, RpcError> {
    let number = connection_of(request).unwrap_or_default();
    decoded(request).map(|request| Call::Append(number, Box::new(request)))
}

/// The number of a request's connection.
pub fn connection_of(request: &Request) -> Option<u64> {
    request.headers.get(CONNECTION)?.to_str().ok()?.parse().ok()
}

/// All streams and connections.
#[derive(Debug, Default)]
pub struct Storage {
    streams: BTreeMap<String, Stream>,
    connections: HashMap<u64, Connection>,
    last_number: u64,
    /// When streams were created, in the window of their quota.
    created: VecDeque<Duration>,
}

impl Storage {
    /// The number of a connection that is opened.
    pub fn connect(&mut self, now: Duration) -> u64 {
        self.last_number += 1;
        self.connections.insert(self.last_number, Connection::new(now));
        self.last_number
    }

    /// The client has left: the streams that it wrote to may be written to by another connection. It is
    /// forgotten, unless requests of it are still on their way.
    pub fn disconnect(&mut self, number: u64, has_requests: bool) {
        match self.connections.get_mut(&number) {
            Some(connection) if has_requests => connection.leave(),
            _ => drop(self.connections.remove(&number)),
        }
    }

    /// Whether the client has left.
    pub fn is_left(&self, number: u64) -> bool {
        self.connections.get(&number).is_some_and(Connection::is_left)
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    fn table_of(&self, call: &Call) -> String {
        let name = match call {
            Call::Append(number, request) if request.write_stream.is_empty() => {
                self.connections.get(number).map_or("", Connection::stream)
            }
            Call::Append(_, request) => &request.write_stream,
            Call::Create(request) => &request.parent,
            Call::Get(request) => &request.name,
            Call::Finalize(request) => &request.name,
            Call::Flush(request) => &request.write_stream,
            Call::Commit(request) => &request.parent,
        };
        StreamName::table_id(name).to_owned()
    }
}

impl BigQuery {
    /// Applies one call.
    pub fn storage_call(
        &mut self,
        route: &StorageRoute,
        request: &Request,
        now: Duration,
        counters: &mut Counters,
    ) -> Response {
        let called = match route.call.clone() {
            Err(error) => Err(error),
            Ok(Call::Append(number, append)) => {
                self.append(number, *append, request.body.len(), now, counters)
            }
            Ok(Call::Create(request)) => self.create_stream(&request, now),
            Ok(Call::Get(request)) => self.get_stream(&request),
            Ok(Call::Finalize(request)) => self.finalize_stream(&request, now),
            Ok(Call::Flush(request)) => self.flush_rows(&request, now, counters),
            Ok(Call::Commit(request)) => self.commit_streams(&request, now, counters),
        };
        called.unwrap_or_else(Response::from)
    }
}
