//! The Storage Write API as the probes call it: one line in the record for each call.

use std::time::{Duration, Instant};

use bytes::Bytes;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::{
    cloud::bigquery::storage::v1::{
        BatchCommitWriteStreamsRequest, BatchCommitWriteStreamsResponse, CreateWriteStreamRequest,
        FinalizeWriteStreamRequest, FinalizeWriteStreamResponse, FlushRowsRequest,
        FlushRowsResponse, GetWriteStreamRequest, StorageError, WriteStream, WriteStreamView,
        storage_error::StorageErrorCode, write_stream::Type as Kind,
    },
    rpc::Status,
};
use prost::Message;

use crate::{
    app::{
        check::probes::chain,
        probe::{
            lab::{Lab, ProbeTable},
            transcript::Trouble,
        },
    },
    rpc::{RpcError, RpcRequest, RpcStatus},
    write::storage::names::SERVICE,
};

/// A table that was just made is not known everywhere at once: so often, and with so long between.
const CREATE_TRIES: u32 = 10;
const CREATE_WAIT: Duration = Duration::from_secs(3);

/// gRPC's names for its codes (<https://grpc.io/docs/guides/status-codes/>).
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
pub(crate) const INVALID_ARGUMENT: i32 = 3;
pub(crate) const NOT_FOUND: i32 = 5;
pub(crate) const ALREADY_EXISTS: i32 = 6;

/// The service's own no, as an answer to what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// gRPC's code.
    pub(crate) code: i32,
    /// BigQuery's own.
    pub(crate) detail: StorageErrorCode,
    /// Its words.
    pub(crate) message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(code_name(self.code))?;
        if self.detail != StorageErrorCode::Unspecified {
            write!(f, " {}", self.detail.as_str_name())?;
        }
        write!(f, ": {}", self.message)
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        let remedy = "see what was answered, in the transcript";
        Self::new(format!("a step before the question was refused: {refusal}"), remedy)
    }
}

impl Refusal {
    /// What a status says; a trouble where it says nothing about what was asked.
    pub(crate) fn of(status: Status) -> Result<Self, Trouble> {
        let detail = status.details.iter().find_map(|it| StorageError::decode(&*it.value).ok());
        let detail = detail.map_or(StorageErrorCode::Unspecified, |detail| detail.code());
        let refusal = Self { code: status.code, detail, message: status.message };
        match remedy(refusal.code) {
            Some(remedy) => Err(Trouble::new(refusal.to_string(), remedy)),
            None => Ok(refusal),
        }
    }

    /// The same of a call that has ended.
    pub(crate) fn of_error(error: &RpcError) -> Result<Self, Trouble> {
        let RpcError::Ended(RpcStatus { code, message, details }) = error else {
            let remedy = match error {
                RpcError::NoToken(_) => "check `bigquery.credentials`",
                _ => "check `bigquery.storage_endpoint` and the network",
            };
            return Err(Trouble::new(chain(error), remedy));
        };
        let details = Status::decode(details.clone()).unwrap_or_default().details;
        Self::of(Status { code: *code, message: message.clone(), details })
    }
}

/// What helps against a code that is about the identity, the network or a quota.
fn remedy(code: i32) -> Option<&'static str> {
    Some(match code_name(code) {
        "UNAUTHENTICATED" => "check `bigquery.credentials`",
        "PERMISSION_DENIED" => {
            "enable the BigQuery Storage API in the project, and grant roles/bigquery.dataEditor on the dataset"
        }
        "RESOURCE_EXHAUSTED" => "a quota is used up: run it again later",
        "CANCELLED" | "UNKNOWN" | "DEADLINE_EXCEEDED" | "INTERNAL" | "UNAVAILABLE"
        | "UNIMPLEMENTED" => "check `bigquery.storage_endpoint` and the network, and run it again",
        _ => return None,
    })
}

fn code_name(code: i32) -> &'static str {
    usize::try_from(code).ok().and_then(|code| CODES.get(code)).copied().unwrap_or("code ?")
}

/// The service's answer, or its no.
pub(crate) type Answer<T> = Result<T, Refusal>;

impl Lab {
    /// Calls a method; `told` says what matters of the answer.
    async fn call<M: Message + Default>(
        &self,
        method: &str,
        (routing, what): (&str, &str),
        request: impl Message,
        told: impl FnOnce(&M) -> String,
    ) -> Result<Answer<M>, Trouble> {
        let rpc = self.remotes.rpc.as_ref().map_err(Clone::clone)?;
        let message = request.encode_to_vec().into();
        let path = format!("{SERVICE}{method}");
        let asked = Instant::now();
        let answer = match rpc.call(RpcRequest { path, routing: routing.to_owned(), message }).await
        {
            Ok(bytes) => decoded(bytes).map(Ok),
            Err(error) => Refusal::of_error(&error).map(Err),
        };
        let line = match &answer {
            Ok(Ok(message)) => told(message),
            Ok(Err(refusal)) => refusal.to_string(),
            Err(trouble) => trouble.why.clone(),
        };
        self.log.note(&format!("{method} {what}"), &line, asked.elapsed());
        answer
    }

    /// Creates a stream. A table that was just made may not be known yet.
    pub(crate) async fn create_stream(
        &self,
        table: &ProbeTable,
        kind: Kind,
    ) -> Result<String, Trouble> {
        let parent = table.resource();
        let routing = format!("parent={parent}");
        let what = format!("{} for {}", kind.as_str_name(), table.table.table);
        for _ in 1..CREATE_TRIES {
            match self.try_create(&parent, &routing, &what, kind).await? {
                Err(refusal) if refusal.code == NOT_FOUND => tokio::time::sleep(CREATE_WAIT).await,
                answer => return Ok(answer?.name),
            }
        }
        Ok(self.try_create(&parent, &routing, &what, kind).await??.name)
    }

    async fn try_create(
        &self,
        parent: &str,
        routing: &str,
        what: &str,
        kind: Kind,
    ) -> Result<Answer<WriteStream>, Trouble> {
        let write_stream = Some(WriteStream { r#type: kind.into(), ..WriteStream::default() });
        let request = CreateWriteStreamRequest { parent: parent.to_owned(), write_stream };
        let told = |stream: &WriteStream| format!("OK, {}", stream.name);
        self.call("CreateWriteStream", (routing, what), request, told).await
    }

    /// Looks at a stream.
    pub(crate) async fn look(&self, stream: &str) -> Result<Answer<WriteStream>, Trouble> {
        let view = WriteStreamView::Basic.into();
        let request = GetWriteStreamRequest { name: stream.to_owned(), view };
        let told = |stream: &WriteStream| {
            let seconds = |time: Option<prost_types::Timestamp>| {
                time.map_or("none".to_owned(), |time| time.seconds.to_string())
            };
            let (created, committed) = (seconds(stream.create_time), seconds(stream.commit_time));
            let kind = stream.r#type().as_str_name();
            format!("OK, {kind}, create_time {created}, commit_time {committed}")
        };
        self.call("GetWriteStream", (&routing(stream), short(stream)), request, told).await
    }

    /// Finalizes a stream; its row count.
    pub(crate) async fn finalize(&self, stream: &str) -> Result<Answer<i64>, Trouble> {
        let request = FinalizeWriteStreamRequest { name: stream.to_owned() };
        let told =
            |answer: &FinalizeWriteStreamResponse| format!("OK, row_count {}", answer.row_count);
        let answer = self
            .call("FinalizeWriteStream", (&routing(stream), short(stream)), request, told)
            .await?;
        Ok(answer.map(|answer| answer.row_count))
    }

    /// Flushes a stream up to an offset, including it; the offset of the answer.
    pub(crate) async fn flush(&self, stream: &str, offset: i64) -> Result<Answer<i64>, Trouble> {
        let request = FlushRowsRequest { write_stream: stream.to_owned(), offset: Some(offset) };
        let told = |answer: &FlushRowsResponse| format!("OK, offset {}", answer.offset);
        let what = format!("{} to {offset}", short(stream));
        let routing = format!("write_stream={stream}");
        let answer = self.call("FlushRows", (&routing, &what), request, told).await?;
        Ok(answer.map(|answer| answer.offset))
    }

    /// Commits a stream of a table.
    pub(crate) async fn commit(
        &self,
        table: &ProbeTable,
        stream: &str,
    ) -> Result<Answer<BatchCommitWriteStreamsResponse>, Trouble> {
        let parent = table.resource();
        let routing = format!("parent={parent}");
        let request =
            BatchCommitWriteStreamsRequest { parent, write_streams: vec![stream.to_owned()] };
        let told = |answer: &BatchCommitWriteStreamsResponse| {
            let time =
                if answer.commit_time.is_some() { "commit_time is set" } else { "no commit_time" };
            let errors = answer.stream_errors.iter();
            let errors =
                errors.map(|it| format!(", {}: {}", it.code().as_str_name(), it.error_message));
            format!("OK, {time}{}", errors.collect::<String>())
        };
        self.call("BatchCommitWriteStreams", (&routing, short(stream)), request, told).await
    }
}

fn routing(stream: &str) -> String {
    format!("name={stream}")
}

/// The table and the stream's id, without what is the same everywhere.
pub(crate) fn short(stream: &str) -> &str {
    stream.split_once("/tables/").map_or(stream, |(_, short)| short)
}

/// What a status in an answer's bytes says.
pub(crate) fn decoded<M: Message + Default>(bytes: Bytes) -> Result<M, Trouble> {
    M::decode(bytes).map_err(|_| {
        Trouble::new(
            "an answer is none of the Storage Write API",
            "check `bigquery.storage_endpoint`",
        )
    })
}
