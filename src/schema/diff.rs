//! What a table lacks for a row's columns: the difference as a list of changes.

use crate::table::{Column, ColumnKind};

/// One change to a table's schema. Paths are column names from the top, such as `["a", "b"]` for
/// `a.b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add this column to the record at `parent` (empty: the table itself). Never `REQUIRED`.
    AddColumn {
        /// The enclosing record.
        parent: Vec<String>,
        /// The column to add.
        column: Column,
    },
    /// Turn a `REQUIRED` column into a `NULLABLE` one.
    Relax {
        /// The column.
        path: Vec<String>,
    },
    /// Turn a column into a wider type that BigQuery allows.
    Widen {
        /// The column.
        path: Vec<String>,
        /// The type after the change.
        to: ColumnKind,
    },
}
