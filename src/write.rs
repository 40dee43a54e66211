//! The port to the write paths: one encoded batch in, one outcome out.

pub mod by_form;
pub mod gzip;
pub mod insert_all;
pub mod load;
mod stable_hash;
pub mod stack;
pub mod storage;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    fault::Fault,
    table::{ColumnKind, TableRef},
};

/// Encoded rows on their way to one table.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// The table.
    pub table: TableRef,
    /// The complete request body in the path's own framing. Cheap to clone: retries send it again.
    pub body: Bytes,
    /// How many rows the body holds.
    pub rows: u32,
    /// How they are encoded.
    pub form: RowForm,
}

/// How the rows of a request are encoded, and so by which path they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowForm {
    /// insertAll's JSON.
    Json,
    /// Protobuf messages, of this encoded `ProtoSchema`. Equal schemas are mostly one and the same.
    Proto(Bytes),
}

/// Why one row was not stored.
#[derive(Clone, Debug)]
pub struct RowFault {
    /// The row's index in the request, from 0.
    pub row: u32,
    /// What is wrong with it. Its message holds no value of the row.
    pub fault: Fault,
    /// The column's path, where the remote names one.
    pub field: Option<String>,
    /// The type that the remote took the column for, where it says so and another type that the column
    /// may have been changed to would have taken the value.
    pub taken_for: Option<ColumnKind>,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum WriteOutcome {
    /// Every row is stored.
    Acked,
    /// Some rows were refused, and what became of the others is known too.
    Partial {
        /// Refused for their own sake, in row order.
        rejected: Vec<RowFault>,
        /// Not stored although nothing is wrong with them (insertAll's `stopped`): to be sent
        /// again. Sorted. Rows in neither list are stored.
        unsent: Vec<u32>,
        /// An earlier attempt with the same body was not answered: rows in either list may be stored
        /// all the same.
        is_doubtful: bool,
    },
    /// Nothing was stored.
    Refused(Fault),
    /// Rows may have been stored.
    Unknown(Fault),
}

/// One write path to BigQuery.
///
/// Concurrent calls are allowed, also for one table; order between them is not kept. The
/// implementation limits its own rate and concurrency, retries short transient faults with the same
/// body (so with the same insertIds), and answers within a bounded time: what it could not settle is
/// `Refused` or `Unknown`, never a success. Dropping the future leaves the outcome unknown.
pub trait Write: Send + Sync + 'static {
    /// Sends the request.
    fn write(&self, request: WriteRequest) -> BoxFuture<'_, WriteOutcome>;
}
