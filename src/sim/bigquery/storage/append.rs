//! `AppendRows`: one request of a connection.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    AppendRowsRequest, AppendRowsResponse, ProtoSchema, RowError, TableFieldSchema, TableSchema,
    append_rows_request::Rows,
    append_rows_response::{AppendResult, Response as Outcome},
    row_error::RowErrorCode,
    storage_error::StorageErrorCode,
    table_field_schema, write_stream,
};
use serde_json::{Map, Value};

use crate::sim::{
    bigquery::{
        BigQuery,
        columns::{Column, Mode, Type},
        storage::{
            cells::cells,
            changes,
            connection::Reader,
            rpc::{self, Code, RpcError},
            stream::{Hidden, StreamName},
        },
        window::PartitionWindow,
    },
    counters::Counters,
    message::Response,
    settings::StoreMode,
};

/// Errors of rows that one answer lists; more are left out.
const ROW_ERRORS_MAX: usize = 200;

/// Why nothing of a request was appended.
enum Refusal {
    /// The connection goes on.
    InBand(RpcError, Vec<RowError>),
    /// The connection ends.
    End(RpcError),
}

impl From<RpcError> for Refusal {
    fn from(error: RpcError) -> Self {
        Self::InBand(error, Vec::new())
    }
}

/// What was appended: the offset of the first row, and the columns if they are news.
struct Appended {
    offset: Option<i64>,
    news: Option<Arc<Vec<Column>>>,
}

impl BigQuery {
    /// Applies one request of a connection.
    ///
    /// # Errors
    /// The connection ends.
    pub(super) fn append(
        &mut self,
        number: u64,
        request: AppendRowsRequest,
        size: usize,
        now: Duration,
        counters: &mut Counters,
    ) -> Result<Response, RpcError> {
        let stream = self.enter(number, &request, size, now)?;
        let appended = match &stream {
            Ok(stream) => self.append_to(number, stream, request, now, counters),
            Err(error) => Err(error.clone().into()),
        };
        let (outcome, news, row_errors) = match appended {
            Ok(Appended { offset, news }) => {
                (Outcome::AppendResult(AppendResult { offset }), news, Vec::new())
            }
            Err(Refusal::InBand(error, rows)) => (Outcome::Error(error.status()), None, rows),
            Err(Refusal::End(error)) => return Err(error),
        };
        counters.row_errors += row_errors.len() as u64;
        Ok(rpc::answer(&AppendRowsResponse {
            response: Some(outcome),
            updated_schema: news.map(|columns| shown(&columns)),
            row_errors,
            write_stream: stream.unwrap_or_default(),
        }))
    }

    /// The request's stream, or what the connection's rules say against it.
    ///
    /// # Errors
    /// The connection ends.
    fn enter(
        &mut self,
        number: u64,
        request: &AppendRowsRequest,
        size: usize,
        now: Duration,
    ) -> Result<Result<String, RpcError>, RpcError> {
        let limits = self.settings.storage;
        if size > limits.request_bytes_max {
            let message =
                format!("AppendRows request too large: {size} limit {}", limits.request_bytes_max);
            return Err(RpcError::new(Code::InvalidArgument, message));
        }
        let gone = || RpcError::new(Code::Unavailable, "The connection is not open.");
        let connection = self.storage.connections.get_mut(&number).ok_or_else(gone)?;
        connection.check_age(now, &limits)?;
        Ok(connection.enter(request))
    }

    fn append_to(
        &mut self,
        number: u64,
        name: &str,
        request: AppendRowsRequest,
        now: Duration,
        counters: &mut Counters,
    ) -> Result<Appended, Refusal> {
        let stream = StreamName::parse(name)?;
        let columns = self.written_columns(&stream, now)?;
        if stream.is_default() {
            if request.offset.is_some() {
                let message = "Offset is not allowed to be set for the default stream.";
                return Err(RpcError::new(Code::InvalidArgument, message).into());
            }
        } else {
            self.check_stream(number, name, request.offset)?;
        }
        let (schema, rows) = proto_rows(request)?;
        let gone = || RpcError::new(Code::Unavailable, "The connection is not open.");
        let connection = self.storage.connections.get_mut(&number).ok_or_else(gone)?;
        let reader = connection.reader(schema, &columns)?;
        let news = connection.is_news(&columns).then_some(columns);
        let offset = self.keep(&stream, rows, &reader, now, counters)?;
        Ok(Appended { offset, news })
    }

    /// The columns that rows are checked against.
    fn written_columns(
        &mut self,
        stream: &StreamName<'_>,
        now: Duration,
    ) -> Result<Arc<Vec<Column>>, Refusal> {
        let columns = self.table_mut(stream.table).ok();
        columns.and_then(|table| table.streaming_columns(now)).ok_or_else(|| {
            let message = "Requested entity was not found.";
            Refusal::End(
                RpcError::new(Code::NotFound, message)
                    .about(StorageErrorCode::TableNotFound, stream.name),
            )
        })
    }

    /// Checks that an application's stream takes rows there, and from this connection.
    fn check_stream(
        &mut self,
        number: u64,
        name: &str,
        offset: Option<i64>,
    ) -> Result<(), Refusal> {
        let connections = &self.storage.connections;
        let is_open = |other: &u64| connections.get(other).is_some_and(|other| !other.is_left());
        let owner = self.storage.streams.get(name).and_then(|stream| stream.connection);
        let is_taken = owner.filter(is_open).is_some_and(|owner| owner != number);
        let stream = self.storage.streams.get_mut(name).ok_or_else(|| {
            let error = RpcError::new(Code::NotFound, "Requested entity was not found.");
            Refusal::End(error.about(StorageErrorCode::StreamNotFound, name))
        })?;
        if is_taken {
            let message = "The stream has another active connection.";
            return Err(RpcError::new(Code::Aborted, message).into());
        }
        stream.connection = Some(number);
        Ok(stream.check(offset, name)?)
    }

    /// Keeps the rows, all or none; the offset of the first, in an application's stream.
    fn keep(
        &mut self,
        stream: &StreamName<'_>,
        rows: Vec<Bytes>,
        reader: &Reader,
        now: Duration,
        counters: &mut Counters,
    ) -> Result<Option<i64>, Refusal> {
        let count = rows.len();
        let bytes = rows.iter().map(Bytes::len).sum();
        let rows = match self.settings.store {
            StoreMode::Count => Vec::new(),
            StoreMode::Rows | StoreMode::Ledger => self.read(stream, &rows, reader, now)?,
        };
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let mut rows = Hidden { rows, count };
        if stream.is_default() {
            let changes = changes::split_off(&mut rows);
            self.change(stream, changes, now, counters)?;
            self.show(stream, rows, (bytes, now), counters)?;
            return Ok(None);
        }
        let found = self.storage.streams.get_mut(stream.name);
        let found = found.ok_or_else(|| RpcError::new(Code::NotFound, "No such stream."))?;
        let offset = found.length;
        found.length += count;
        match found.kind {
            write_stream::Type::Committed => self.show(stream, rows, (bytes, now), counters)?,
            _ => found.hidden.add(rows),
        }
        Ok(Some(offset))
    }

    fn read(
        &self,
        stream: &StreamName<'_>,
        rows: &[Bytes],
        reader: &Reader,
        now: Duration,
    ) -> Result<Vec<Map<String, Value>>, Refusal> {
        let table = self.table(stream.table);
        let table = table.map_err(|_| RpcError::new(Code::NotFound, "The table is gone."))?;
        let (document, columns) = (&table.document, &reader.columns);
        let window = PartitionWindow::of(&stream.table, document, columns, now, &self.settings);
        let mut read = Vec::with_capacity(rows.len());
        let mut errors = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let checked = cells(row, &reader.schema).and_then(|cells| {
                let first = |errors: Vec<crate::sim::bigquery::row::RowError>| {
                    errors.into_iter().next().map(|error| error.message).unwrap_or_default()
                };
                window.admit(cells).map_err(first)
            });
            match checked {
                Ok(cells) => read.push(cells),
                Err(message) if errors.len() < ROW_ERRORS_MAX => errors.push(RowError {
                    index: i64::try_from(index).unwrap_or(i64::MAX),
                    code: RowErrorCode::FieldsError.into(),
                    message,
                }),
                Err(_) => {}
            }
        }
        if errors.is_empty() {
            return Ok(read);
        }
        let message = "Errors found while processing rows. Please refer to the row_errors field for \
                       details. The list may not be complete because of the size limitations.";
        Err(Refusal::InBand(RpcError::new(Code::InvalidArgument, message), errors))
    }

    /// Rows become visible.
    pub(super) fn show(
        &mut self,
        stream: &StreamName<'_>,
        rows: Hidden,
        (bytes, now): (usize, Duration),
        counters: &mut Counters,
    ) -> Result<(), RpcError> {
        let settings = Arc::clone(&self.settings);
        let table = self.table_mut(stream.table);
        let table = table.map_err(|_| RpcError::new(Code::NotFound, "The table is gone."))?;
        let count = u64::try_from(rows.count).unwrap_or_default();
        match settings.store {
            StoreMode::Count => table.store.add_count(count),
            StoreMode::Rows | StoreMode::Ledger => {
                rows.rows.into_iter().for_each(|row| table.store.push(row, &settings, now));
            }
        }
        counters.add_rows(count, bytes);
        counters.appended_rows += count;
        Ok(())
    }
}

fn proto_rows(request: AppendRowsRequest) -> Result<(Option<ProtoSchema>, Vec<Bytes>), RpcError> {
    let Some(Rows::ProtoRows(data)) = request.rows else {
        return Err(RpcError::new(Code::InvalidArgument, "Only proto_rows are simulated."));
    };
    let rows = data.rows.map(|rows| rows.serialized_rows).unwrap_or_default();
    match rows.is_empty() {
        true => Err(RpcError::new(Code::InvalidArgument, "Rows must be specified.")),
        false => Ok((data.writer_schema, rows)),
    }
}

/// Columns as `updated_schema` shows them.
fn shown(columns: &[Column]) -> TableSchema {
    let field = |column: &Column| TableFieldSchema {
        name: column.name.clone(),
        r#type: type_of(&column.ty).into(),
        mode: match column.mode {
            Mode::Nullable => table_field_schema::Mode::Nullable,
            Mode::Required => table_field_schema::Mode::Required,
            Mode::Repeated => table_field_schema::Mode::Repeated,
        }
        .into(),
        fields: shown(column.ty.fields()).fields,
        ..TableFieldSchema::default()
    };
    TableSchema { fields: columns.iter().map(field).collect() }
}

fn type_of(ty: &Type) -> table_field_schema::Type {
    use table_field_schema::Type as Shown;
    match ty {
        Type::Bool => Shown::Bool,
        Type::Int64 => Shown::Int64,
        Type::Float64 => Shown::Double,
        Type::Decimal { big: false, .. } => Shown::Numeric,
        Type::Decimal { big: true, .. } => Shown::Bignumeric,
        Type::String(_) => Shown::String,
        Type::Bytes(_) => Shown::Bytes,
        Type::Date => Shown::Date,
        Type::Time => Shown::Time,
        Type::DateTime => Shown::Datetime,
        Type::Timestamp => Shown::Timestamp,
        Type::Json => Shown::Json,
        Type::Record(_) => Shown::Struct,
        Type::Opaque("GEOGRAPHY") => Shown::Geography,
        Type::Opaque("RANGE") => Shown::Range,
        Type::Opaque(_) => Shown::Interval,
    }
}
