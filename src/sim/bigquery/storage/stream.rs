//! One stream of a table.

use std::time::Duration;

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    WriteStream, storage_error::StorageErrorCode, write_stream,
};
use prost_types::Timestamp;
use serde_json::{Map, Value};

use crate::sim::bigquery::{
    storage::rpc::{Code, RpcError},
    tables::TablePath,
};

/// The id of the stream that every table has.
pub const DEFAULT: &str = "_default";

/// A stream's name, in parts: `projects/p/datasets/d/tables/t/streams/s`, or a table's, without a stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamName<'a> {
    /// The whole name.
    pub name: &'a str,
    /// The table.
    pub table: TablePath<'a>,
    /// The stream's id.
    pub id: &'a str,
}

impl<'a> StreamName<'a> {
    /// Reads a stream's name.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(name: &'a str) -> Result<Self, RpcError> {
        let parts: Vec<&str> = name.split('/').collect();
        match parts[..] {
            ["projects", project, "datasets", dataset, "tables", table, "streams", id] => {
                Ok(Self { name, table: TablePath { project, dataset, table }, id })
            }
            _ => Err(invalid(format!("Invalid stream name: '{name}'."))),
        }
    }

    /// Reads a table's name.
    ///
    /// # Errors
    /// It is none.
    pub fn parse_table(name: &'a str) -> Result<TablePath<'a>, RpcError> {
        let parts: Vec<&str> = name.split('/').collect();
        match parts[..] {
            ["projects", project, "datasets", dataset, "tables", table] => {
                Ok(TablePath { project, dataset, table })
            }
            _ => Err(invalid(format!("Invalid table name: '{name}'."))),
        }
    }

    /// The table's id in a table's or a stream's name; empty if it is neither.
    pub fn table_id(name: &'a str) -> &'a str {
        name.split('/').nth(5).unwrap_or_default()
    }

    /// Whether it is the stream that every table has.
    pub fn is_default(&self) -> bool {
        self.id == DEFAULT
    }
}

fn invalid(message: String) -> RpcError {
    RpcError::new(Code::InvalidArgument, message)
}

/// Rows of a stream that are not visible yet.
#[derive(Debug, Default)]
pub struct Hidden {
    /// The rows' cells; none in counting mode.
    pub rows: Vec<Map<String, Value>>,
    /// How many rows there are.
    pub count: i64,
}

/// A stream that an application has created.
#[derive(Debug)]
pub struct Stream {
    /// When its rows become visible.
    pub kind: write_stream::Type,
    /// How many rows it has.
    pub length: i64,
    /// What of it is not visible yet.
    pub hidden: Hidden,
    /// Whether it takes no more rows.
    pub is_finalized: bool,
    /// When it was committed.
    pub committed: Option<Duration>,
    /// When it was created.
    pub created: Duration,
    /// The connection that writes to it.
    pub connection: Option<u64>,
}

impl Stream {
    /// An empty one.
    pub fn new(kind: write_stream::Type, now: Duration) -> Self {
        Self {
            kind,
            length: 0,
            hidden: Hidden::default(),
            is_finalized: false,
            committed: None,
            created: now,
            connection: None,
        }
    }

    /// Checks whether rows may be appended at an offset; without one they go to the end.
    ///
    /// # Errors
    /// The stream takes no more rows, or none there.
    pub fn check(&self, offset: Option<i64>, name: &str) -> Result<(), RpcError> {
        if self.is_finalized {
            let message = "Stream is finalized.";
            let error = RpcError::new(Code::InvalidArgument, message);
            return Err(error.about(StorageErrorCode::StreamFinalized, name));
        }
        let (end, offset) = (self.length, offset.unwrap_or(self.length));
        let (code, detail, relation) = match offset.cmp(&end) {
            std::cmp::Ordering::Equal => return Ok(()),
            std::cmp::Ordering::Less => {
                (Code::AlreadyExists, StorageErrorCode::OffsetAlreadyExists, "within")
            }
            std::cmp::Ordering::Greater => {
                (Code::OutOfRange, StorageErrorCode::OffsetOutOfRange, "beyond")
            }
        };
        let message =
            format!("The offset is {relation} stream, expected offset {end}, received {offset}.");
        Err(RpcError::new(code, message).about(detail, name))
    }

    /// As `GetWriteStream` shows it.
    pub fn shown(&self, name: &str, location: String) -> WriteStream {
        WriteStream {
            name: name.to_owned(),
            r#type: self.kind.into(),
            create_time: Some(timestamp(self.created)),
            commit_time: self.committed.map(timestamp),
            write_mode: write_stream::WriteMode::Insert.into(),
            location,
            ..WriteStream::default()
        }
    }
}

/// A time since the epoch as protobuf has it.
pub fn timestamp(at: Duration) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(at.subsec_nanos()).unwrap_or_default(),
    }
}
