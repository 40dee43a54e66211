//! Streams that applications create: created, looked at, finalized, flushed, committed.

use std::time::Duration;

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    BatchCommitWriteStreamsRequest, BatchCommitWriteStreamsResponse, CreateWriteStreamRequest,
    FinalizeWriteStreamRequest, FinalizeWriteStreamResponse, FlushRowsRequest, FlushRowsResponse,
    GetWriteStreamRequest, StorageError, WriteStream, storage_error::StorageErrorCode,
    write_stream::Type as Kind,
};

use crate::sim::{
    bigquery::{
        BigQuery,
        storage::{
            rpc::{self, Code, RpcError},
            stream::{Hidden, Stream, StreamName, timestamp},
        },
    },
    counters::Counters,
    message::Response,
};

/// Streams of one commit.
const COMMIT_MAX: usize = 10_000;

impl BigQuery {
    pub(super) fn create_stream(
        &mut self,
        request: &CreateWriteStreamRequest,
        now: Duration,
    ) -> Result<Response, RpcError> {
        let table = StreamName::parse_table(&request.parent)?;
        if self.table(table).is_err() {
            return Err(no_table(&request.parent));
        }
        let kind = request.write_stream.as_ref().map(WriteStream::r#type).unwrap_or_default();
        if kind == Kind::Unspecified {
            return Err(RpcError::new(Code::InvalidArgument, "The stream's type must be set."));
        }
        self.spend_creation(now)?;
        let location = self.location(table.project, table.dataset).unwrap_or_default();
        let storage = &mut self.storage;
        storage.last_number += 1;
        let name = format!("{}/streams/sim{:016x}", request.parent, storage.last_number);
        let stream = Stream::new(kind, now);
        let shown = stream.shown(&name, location);
        storage.streams.insert(name, stream);
        Ok(rpc::answer(&shown))
    }

    /// Takes one creation out of the project's quota: 10,000 an hour
    /// (<https://docs.cloud.google.com/bigquery/quotas#createwritestream>).
    fn spend_creation(&mut self, now: Duration) -> Result<(), RpcError> {
        let limits = self.settings.storage;
        let window = Duration::from_millis(limits.create_window_ms);
        let created = &mut self.storage.created;
        while created.front().is_some_and(|at| *at + window <= now) {
            created.pop_front();
        }
        if created.len() >= limits.creates_max {
            let message = "Exceeds 'CreateWriteStream requests' quota, user_id: project (status: \
                           INSUFFICIENT_TOKENS).";
            return Err(RpcError::new(Code::ResourceExhausted, message));
        }
        created.push_back(now);
        Ok(())
    }

    pub(super) fn get_stream(&self, request: &GetWriteStreamRequest) -> Result<Response, RpcError> {
        let name = StreamName::parse(&request.name)?;
        let table = name.table;
        let location = self.location(table.project, table.dataset).unwrap_or_default();
        if name.is_default() {
            self.table(table).map_err(|_| no_table(&request.name))?;
            let stream = Stream::new(Kind::Committed, Duration::ZERO);
            return Ok(rpc::answer(&stream.shown(&request.name, location)));
        }
        let stream = self.storage.streams.get(&request.name);
        let stream = stream.ok_or_else(|| no_stream(&request.name))?;
        Ok(rpc::answer(&stream.shown(&request.name, location)))
    }

    pub(super) fn finalize_stream(
        &mut self,
        request: &FinalizeWriteStreamRequest,
        now: Duration,
    ) -> Result<Response, RpcError> {
        let name = StreamName::parse(&request.name)?;
        if name.is_default() {
            let message = "Finalize is not supported on the default stream.";
            return Err(RpcError::new(Code::InvalidArgument, message));
        }
        self.forget_old_streams(now);
        let stream = self.storage.streams.get_mut(&request.name);
        let stream = stream.ok_or_else(|| no_stream(&request.name))?;
        stream.is_finalized = true;
        Ok(rpc::answer(&FinalizeWriteStreamResponse { row_count: stream.length }))
    }

    /// Streams live for a while only.
    fn forget_old_streams(&mut self, now: Duration) {
        let life = Duration::from_millis(self.settings.storage.stream_life_ms);
        self.storage.streams.retain(|_, stream| now.saturating_sub(stream.created) < life);
    }

    pub(super) fn flush_rows(
        &mut self,
        request: &FlushRowsRequest,
        now: Duration,
        counters: &mut Counters,
    ) -> Result<Response, RpcError> {
        self.forget_old_streams(now);
        let name = StreamName::parse(&request.write_stream)?;
        let stream = self.storage.streams.get_mut(&request.write_stream);
        let stream = stream.ok_or_else(|| no_stream(&request.write_stream))?;
        if stream.kind != Kind::Buffered {
            let message = "FlushRows is only supported for BUFFERED streams.";
            let error = RpcError::new(Code::InvalidArgument, message);
            return Err(error.about(StorageErrorCode::InvalidStreamType, &request.write_stream));
        }
        // Beam takes this answer for that (`StorageApiFlushAndFinalizeDoFn`); no document says it.
        if stream.is_finalized {
            let error = RpcError::new(Code::InvalidArgument, "Stream is finalized.");
            return Err(error.about(StorageErrorCode::StreamFinalized, &request.write_stream));
        }
        let offset = request.offset.unwrap_or(stream.length - 1);
        let flushed = stream.length - stream.hidden.count;
        if offset < flushed {
            let message = format!("The offset {offset} has been flushed already.");
            let error = RpcError::new(Code::AlreadyExists, message);
            return Err(error.about(StorageErrorCode::OffsetAlreadyExists, &request.write_stream));
        }
        if offset >= stream.length {
            let message = format!("The offset {offset} is beyond the stream.");
            let error = RpcError::new(Code::OutOfRange, message);
            return Err(error.about(StorageErrorCode::OffsetOutOfRange, &request.write_stream));
        }
        let rows = stream.hidden.take(offset + 1 - flushed);
        self.show(&name, rows, (0, now), counters)?;
        Ok(rpc::answer(&FlushRowsResponse { offset }))
    }

    pub(super) fn commit_streams(
        &mut self,
        request: &BatchCommitWriteStreamsRequest,
        now: Duration,
        counters: &mut Counters,
    ) -> Result<Response, RpcError> {
        let table = StreamName::parse_table(&request.parent)?;
        self.table(table).map_err(|_| no_table(&request.parent))?;
        if request.write_streams.is_empty() || request.write_streams.len() > COMMIT_MAX {
            return Err(RpcError::new(Code::InvalidArgument, "Between 1 and 10,000 streams."));
        }
        let errors = request.write_streams.iter().filter_map(|name| {
            self.uncommittable(&request.parent, name).map(|code| StorageError {
                code: code.into(),
                entity: name.clone(),
                error_message: format!("{}: {name}", code.as_str_name()),
            })
        });
        let stream_errors: Vec<StorageError> = errors.collect();
        let is_committed = stream_errors.is_empty();
        if is_committed {
            for name in &request.write_streams {
                self.commit_stream(name, now, counters)?;
            }
        }
        let commit_time = is_committed.then(|| timestamp(now));
        Ok(rpc::answer(&BatchCommitWriteStreamsResponse { commit_time, stream_errors }))
    }

    /// Why a stream cannot be committed.
    fn uncommittable(&self, parent: &str, name: &str) -> Option<StorageErrorCode> {
        let is_of_table =
            name.strip_prefix(parent).is_some_and(|rest| rest.starts_with("/streams/"));
        let Some(stream) = self.storage.streams.get(name).filter(|_| is_of_table) else {
            return Some(StorageErrorCode::StreamNotFound);
        };
        match stream {
            Stream { kind, .. } if *kind != Kind::Pending => {
                Some(StorageErrorCode::InvalidStreamType)
            }
            Stream { committed: Some(_), .. } => Some(StorageErrorCode::StreamAlreadyCommitted),
            Stream { is_finalized: false, .. } => Some(StorageErrorCode::InvalidStreamState),
            _ => None,
        }
    }

    fn commit_stream(
        &mut self,
        name: &str,
        now: Duration,
        counters: &mut Counters,
    ) -> Result<(), RpcError> {
        let Some(stream) = self.storage.streams.get_mut(name) else { return Ok(()) };
        stream.committed = Some(now);
        let rows = std::mem::take(&mut stream.hidden);
        self.show(&StreamName::parse(name)?, rows, (0, now), counters)
    }
}

impl Hidden {
    /// Puts rows behind these.
    pub fn add(&mut self, mut rows: Self) {
        self.count += rows.count;
        self.rows.append(&mut rows.rows);
    }

    /// Takes the first so many.
    pub fn take(&mut self, count: i64) -> Self {
        let at = usize::try_from(count).unwrap_or_default().min(self.rows.len());
        let rest = self.rows.split_off(at);
        let rows = std::mem::replace(&mut self.rows, rest);
        self.count -= count;
        Self { rows, count }
    }
}

fn no_table(entity: &str) -> RpcError {
    let error = RpcError::new(Code::NotFound, "Requested entity was not found.");
    error.about(StorageErrorCode::TableNotFound, entity)
}

fn no_stream(entity: &str) -> RpcError {
    let error = RpcError::new(Code::NotFound, "Requested entity was not found.");
    error.about(StorageErrorCode::StreamNotFound, entity)
}
