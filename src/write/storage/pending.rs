//! PENDING streams: rows that nobody sees until their streams are committed, all at once
//! (<https://docs.cloud.google.com/bigquery/docs/write-api-batch>).
//!
//! Rows are appended at offsets, one request at a time in each stream, so that a stream has each of them once
//! whatever is lost on the way. An append that is not answered ends its stream: finalized, the stream says how
//! many rows it has, and so whether that append's are among them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    BatchCommitWriteStreamsRequest, BatchCommitWriteStreamsResponse, CreateWriteStreamRequest,
    FinalizeWriteStreamRequest, FinalizeWriteStreamResponse, GetWriteStreamRequest, StorageError,
    WriteStream, storage_error::StorageErrorCode, write_stream::Type as Kind,
};
use prost::Message;
use tokio::sync::{Mutex, Semaphore};

use crate::{
    fault::{Certainty, Fault, FaultKind},
    rest::Body,
    rpc::{Rpc, RpcRequest, RpcStream},
    table::TableRef,
    write::{
        WriteOutcome,
        load::{job::LoadJob, run::JobEnd},
        storage::{
            classify, framing,
            names::{self, SERVICE},
            settings::{ROWS_BYTES_MAX, StorageSettings},
        },
    },
};

/// How long the end of a call is waited for once its answer is here. Until then the stream counts as in use.
const END: Duration = Duration::from_secs(5);

/// Rows to be appended.
#[derive(Clone, Debug)]
pub struct Append {
    /// Tells it from all others of its series. The same rows are always asked for by the same number.
    pub number: u64,
    /// The table.
    pub table: TableRef,
    /// An encoded `ProtoSchema`.
    pub schema: Bytes,
    /// The rows, framed.
    pub body: Bytes,
    /// How many.
    pub rows: u32,
}

/// Streams of a table that are committed together: one, and another where that one had to end.
#[derive(Debug, Default)]
pub struct Series(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The stream that takes rows.
    open: Option<Stream>,
    /// The append that was not answered.
    doubt: Option<Doubt>,
    /// Appends that were not answered and are stored, each with its stream's name.
    found: Vec<(u64, String)>,
}

/// A stream and the rows that it is known to have.
#[derive(Clone, Debug)]
struct Stream {
    name: String,
    rows: i64,
}

/// An append of so many rows that may be stored, and its stream as it was before.
#[derive(Clone, Debug)]
struct Doubt {
    number: u64,
    rows: i64,
    stream: Stream,
}

/// The PENDING streams of a process.
pub struct PendingStreams {
    rpc: Arc<dyn Rpc>,
    timeout: Duration,
    connections: Semaphore,
}

impl std::fmt::Debug for PendingStreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingStreams").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl PendingStreams {
    /// Streams over `rpc`, no more of them appended to at a time than there may be connections.
    pub fn new(rpc: Arc<dyn Rpc>, settings: &StorageSettings) -> Self {
        let timeout = Duration::from_millis(settings.timeout_ms);
        Self { rpc, timeout, connections: Semaphore::new(settings.connections_max) }
    }

    /// Appends rows to a stream of the series, and gives the stream's name.
    ///
    /// # Errors
    /// The stream that is committed will not have these rows: all of them are to be asked for again, with the
    /// same number, or some are refused and the others are to be asked for under other numbers. Never
    /// [`WriteOutcome::Unknown`].
    pub async fn append(&self, series: &Series, append: Append) -> Result<String, WriteOutcome> {
        if append.body.len() > ROWS_BYTES_MAX {
            return Err(WriteOutcome::Refused(classify::too_large()));
        }
        // Those that wait for their turn in the series keep no other series waiting.
        let mut state = series.0.lock().await;
        let Ok(_connection) = self.connections.acquire().await else {
            return Err(WriteOutcome::Refused(classify::closed()));
        };
        self.settle_doubt(&mut state).await.map_err(WriteOutcome::Refused)?;
        if let Some(found) = state.found.iter().position(|(number, _)| *number == append.number) {
            return Ok(state.found.swap_remove(found).1);
        }
        let stream = match state.open.take() {
            Some(stream) => stream,
            None => self.create(&append.table).await.map_err(WriteOutcome::Refused)?,
        };
        let (number, rows) = (append.number, i64::from(append.rows));
        // From here on the future may be dropped at any point.
        state.doubt = Some(Doubt { number, rows, stream: stream.clone() });
        let outcome = self.append_to(&stream, append).await;
        match outcome {
            WriteOutcome::Unknown(fault) => Err(WriteOutcome::Refused(fault.without_effect())),
            WriteOutcome::Acked => {
                state.doubt = None;
                let name = stream.name.clone();
                state.open = Some(Stream { rows: stream.rows + rows, ..stream });
                Ok(name)
            }
            outcome => {
                state.doubt = None;
                state.open = is_usable_after(&outcome).then_some(stream);
                Err(outcome)
            }
        }
    }

    /// Finds out whether the append that was not answered is stored; nothing is appended to its stream again.
    async fn settle_doubt(&self, state: &mut State) -> Result<(), Fault> {
        let Some(Doubt { number, rows, stream }) = state.doubt.clone() else { return Ok(()) };
        match self.finalize(&stream.name).await {
            Ok(has) => {
                if has == stream.rows + rows {
                    state.found.push((number, stream.name));
                }
                state.doubt = None;
                Ok(())
            }
            Err(fault) => {
                // What the stream had will never be seen; its commit will fail.
                if fault.kind == FaultKind::TableNotFound {
                    state.doubt = None;
                }
                Err(fault.without_effect())
            }
        }
    }

    /// Makes the rows of all the job's streams visible, at once.
    ///
    /// # Errors
    /// A call failed: whether they are committed is unknown. Call again with the same job.
    pub async fn commit(&self, job: &LoadJob) -> Result<JobEnd, Fault> {
        let mut rows = 0;
        for name in &job.sources {
            match self.finalize(name).await {
                Ok(has) => rows += has,
                Err(fault) if fault.kind == FaultKind::TableNotFound => {
                    return Ok(JobEnd::Failed(fault));
                }
                // An earlier call may have committed it, and all the others with it.
                Err(fault)
                    if fault.certainty == Certainty::Refused && self.is_committed(name).await? =>
                {
                    return Ok(JobEnd::Loaded { end: job.end });
                }
                Err(fault) => return Err(fault),
            }
        }
        if u64::try_from(rows) != Ok(job.rows) {
            return Ok(JobEnd::Failed(miscounted(rows, job.rows)));
        }
        crate::failpoint!("streams_before_commit");
        let end = self.commit_streams(&job.table, job.sources.clone()).await?;
        crate::failpoint!("streams_after_commit");
        Ok(end.map_or(JobEnd::Loaded { end: job.end }, JobEnd::Failed))
    }

    /// Commits streams that are finalized; the fault if they never will be.
    async fn commit_streams(
        &self,
        table: &TableRef,
        write_streams: Vec<String>,
    ) -> Result<Option<Fault>, Fault> {
        let parent = names::table(table);
        let request = BatchCommitWriteStreamsRequest { parent: parent.clone(), write_streams };
        let answer: BatchCommitWriteStreamsResponse =
            self.call("BatchCommitWriteStreams", &parent, &request).await?;
        if answer.commit_time.is_some() {
            return Ok(None);
        }
        // An earlier call may have committed them, and its answer was lost: they are committed together or
        // not at all, and by nobody else.
        let is_done =
            |error: &StorageError| error.code() == StorageErrorCode::StreamAlreadyCommitted;
        match answer.stream_errors.iter().find(|error| !is_done(error)) {
            Some(error) => Ok(Some(classify::uncommitted(error))),
            None if answer.stream_errors.is_empty() => Err(classify::unsaid()),
            None => Ok(None),
        }
    }

    async fn create(&self, table: &TableRef) -> Result<Stream, Fault> {
        let parent = names::table(table);
        let write_stream = WriteStream { r#type: Kind::Pending.into(), ..WriteStream::default() };
        let request =
            CreateWriteStreamRequest { parent: parent.clone(), write_stream: Some(write_stream) };
        let created: Result<WriteStream, Fault> =
            self.call("CreateWriteStream", &parent, &request).await;
        // A stream that nobody knows of harms nobody.
        Ok(Stream { name: created.map_err(Fault::without_effect)?.name, rows: 0 })
    }

    /// Ends a stream, and says how many rows it has. It may be finalized already.
    async fn finalize(&self, name: &str) -> Result<i64, Fault> {
        let request = FinalizeWriteStreamRequest { name: name.to_owned() };
        let answer: FinalizeWriteStreamResponse =
            self.call("FinalizeWriteStream", name, &request).await?;
        Ok(answer.row_count)
    }

    async fn is_committed(&self, name: &str) -> Result<bool, Fault> {
        let request = GetWriteStreamRequest { name: name.to_owned(), ..Default::default() };
        let stream: WriteStream = self.call("GetWriteStream", name, &request).await?;
        Ok(stream.commit_time.is_some())
    }

    async fn call<A: Message + Default>(
        &self,
        method: &str,
        entity: &str,
        request: &impl Message,
    ) -> Result<A, Fault> {
        let routing = match method {
            "FinalizeWriteStream" | "GetWriteStream" => format!("name={entity}"),
            _ => format!("parent={entity}"),
        };
        let message = Body::of(vec![request.encode_to_vec().into()]);
        let path = format!("{SERVICE}{method}");
        let answer = self.rpc.call(RpcRequest { path, routing, message }).await;
        let answer = answer.map_err(|error| of_call(classify::fault_of_end(error)))?;
        A::decode(answer).map_err(classify::unreadable)
    }

    /// One request on a connection of its own, which has ended when this returns.
    async fn append_to(&self, stream: &Stream, append: Append) -> WriteOutcome {
        let answer = tokio::time::timeout(self.timeout, self.ask(stream, append)).await;
        answer.unwrap_or_else(|_| WriteOutcome::Unknown(classify::lost(None)))
    }

    async fn ask(&self, stream: &Stream, append: Append) -> WriteOutcome {
        let Append { schema, body, rows, .. } = append;
        let routing = format!("write_stream={}", stream.name);
        let opened = self.rpc.open(&format!("{SERVICE}AppendRows"), &routing).await;
        let RpcStream { requests, mut answers } = match opened {
            Ok(opened) => opened,
            Err(error) => return classify::ended(error),
        };
        let head = framing::head_at(&stream.name, stream.rows, &schema, body.len());
        // Where it cannot be sent, the answer says why.
        requests.send(Body::of(vec![head, body])).await.ok();
        let answer = answers.next().await;
        drop(requests);
        let outcome = match answer {
            Some(Ok(answer)) => classify::answered(answer, rows).outcome,
            Some(Err(error)) => return classify::ended(error),
            None => return WriteOutcome::Unknown(classify::lost(None)),
        };
        let end = async { while answers.next().await.is_some_and(|more| more.is_ok()) {} };
        // A stream has one connection at a time; one that does not end is noticed with the next request.
        tokio::time::timeout(END, end).await.ok();
        outcome
    }
}

/// Whether a stream takes rows still that has refused some.
fn is_usable_after(outcome: &WriteOutcome) -> bool {
    let WriteOutcome::Refused(fault) = outcome else { return true };
    !matches!(
        fault.kind,
        FaultKind::TableNotFound | FaultKind::InvalidRequest | FaultKind::Transient
    )
}

/// A call that brings no rows is refused for no row's sake.
fn of_call(fault: Fault) -> Fault {
    let kind = match fault.kind {
        FaultKind::InvalidRequest
        | FaultKind::InvalidRow
        | FaultKind::SchemaMismatch
        | FaultKind::TooLarge
        | FaultKind::PartitionOutOfRange => FaultKind::Transient,
        kind => kind,
    };
    Fault { kind, ..fault }
}

fn miscounted(has: i64, rows: u64) -> Fault {
    let message = format!("the streams have {has} rows where {rows} were appended");
    Fault::refused(FaultKind::Transient, "rowCount", message)
}

#[cfg(test)]
mod tests;
