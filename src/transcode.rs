//! From payload bytes to row bytes by a compiled plan, without a value tree.
//!
//! A [`RowSpec`] says what a row is made of: the value, the key, metadata, headers, and the format
//! of each. [`RowPlan::compile`] sets it against the columns that the table has *now* and yields a
//! list of operations with everything decided beforehand: which conversion, which null branch, the
//! rendered JSON key or protobuf tag. [`RowPlan::encode`] then walks one record's bytes and appends
//! one row to a buffer; on failure the buffer is cut back to where it was.
//!
//! ```text
//! avro, json_in          readers: bytes of one format → primitive values
//! convert                primitive value × column type → BigQuery value, exact or refused
//! writer::{json, proto}  BigQuery value → row bytes, one implementation per row form
//! ```
//!
//! Interpreters are generic over [`writer::RowWriter`] and compiled once per row form. Nothing is
//! allocated per record but what an escaped JSON string needs.
//!
//! # What is refused
//! Exactness comes first: a value that its column cannot hold exactly is a [`RowError`], never a
//! rounded cell. There are two deliberate exceptions: times finer than a microsecond are cut to it
//! toward the past, and a decimal in a `FLOAT64` column becomes the nearest double (tables that the
//! Java connector created have such columns). An array element that is null is refused, because
//! BigQuery's arrays hold none. Null cells are left out of the row.

pub mod avro;
pub mod connect;
pub mod convert;
pub mod digits;
pub mod error;
pub mod json_in;
pub mod limits;
pub mod number;
pub mod plan;
pub mod raw_text;
pub mod row;
pub mod scan;
pub mod settings;
pub mod wire;
pub mod writer;

pub use error::{PlanError, RowError, RowErrorKind};
pub use limits::Limits;
pub use plan::RowPlan;
pub use row::{KeySource, LaneLabel, RowSpec, ValueSource};
pub use settings::{Format, KeyPlacement, Metadata, RowSettings};

#[cfg(test)]
mod tests;
