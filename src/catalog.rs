//! The port to BigQuery's tables: look, create, change.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{
    fault::Fault,
    schema::diff::Change,
    table::{TableLayout, TableRef, TableSchema},
};

/// A table as BigQuery described it at one moment.
#[derive(Clone, Debug)]
pub struct TableDescription {
    /// Its columns.
    pub schema: Arc<TableSchema>,
    /// The version that a change must name (`If-Match`).
    pub etag: Arc<str>,
    /// Milliseconds since the epoch; another value under the same name is another table.
    pub created_ms: i64,
    /// The document as received: a change patches this, so that attributes this service does not
    /// know (policy tags, defaults, precision, …) survive.
    pub document: Arc<serde_json::Value>,
}

/// BigQuery's datasets and tables.
///
/// Every call is one remote request without any retry: retrying, coalescing and rate-limiting are
/// the schema gate's. Implementations are shared between tasks; concurrent calls for one table are
/// allowed and settled by ETags. Errors are classified [`Fault`]s; a fault of unknown certainty may
/// have taken effect.
pub trait Catalog: Send + Sync + 'static {
    /// The table as it is now; `None` if the table or its dataset does not exist.
    fn describe<'a>(
        &'a self,
        table: &'a TableRef,
    ) -> BoxFuture<'a, Result<Option<TableDescription>, Fault>>;

    /// Creates the dataset of `table` in `location`. `AlreadyExists` if it is there.
    fn create_dataset<'a>(
        &'a self,
        table: &'a TableRef,
        location: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), Fault>>;

    /// Creates the table. `AlreadyExists` if another replica was faster, `TableNotFound` if the
    /// dataset is missing.
    fn create_table<'a>(
        &'a self,
        table: &'a TableRef,
        schema: &'a TableSchema,
        layout: &'a TableLayout,
    ) -> BoxFuture<'a, Result<TableDescription, Fault>>;

    /// Applies `changes` to the table exactly as `base` describes it, by compare-and-swap: if the
    /// table is no longer that version, nothing happens and the fault is `Conflict`.
    fn alter<'a>(
        &'a self,
        table: &'a TableRef,
        base: &'a TableDescription,
        changes: &'a [Change],
    ) -> BoxFuture<'a, Result<TableDescription, Fault>>;
}
