//! Why a plan cannot be compiled, and why one record cannot become a row.

use std::{borrow::Cow, fmt};

use crate::{printable, schema::error::SchemaError};

/// Why a table cannot take rows of this specification.
///
/// All but [`PlanError::Recursive`], [`PlanError::Clash`] and [`PlanError::TooDeep`] go away when
/// the table is evolved or the topic's settings are changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The table has no such column.
    #[error("the table has no column {path}; add it, or allow add_columns for this topic")]
    Missing {
        /// The column's path.
        path: String,
    },
    /// The column exists with a type or mode that the writer's values do not fit.
    #[error(
        "column {path} is {actual} but the record's values are {wanted}; change the column or map the topic to another table"
    )]
    Mismatch {
        /// The column's path.
        path: String,
        /// What the writer's type is, in words.
        wanted: String,
        /// What the column is, in words.
        actual: String,
    },
    /// A `REQUIRED` column has no source in the record.
    #[error("column {path} is REQUIRED but the record has no such field; relax it to NULLABLE")]
    RequiredWithoutSource {
        /// The column's path.
        path: String,
    },
    /// Two sources name one column.
    #[error(
        "column {path} is named by both {first} and {second}; rename the metadata, key or header column of this topic"
    )]
    Clash {
        /// The column's path.
        path: String,
        /// One source.
        first: &'static str,
        /// The other source.
        second: &'static str,
    },
    /// The writer schema contains itself.
    #[error("field {path} is of recursive type {name}, which has no columns in BigQuery")]
    Recursive {
        /// The field's path.
        path: String,
        /// The record's full name.
        name: String,
    },
    /// The writer schema has no columns.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The writer schema nests deeper than [`crate::transcode::limits::DEPTH_MAX`].
    #[error("field {path} nests too deep")]
    TooDeep {
        /// The field's path.
        path: String,
    },
}

/// At which stage a record failed, and so what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowErrorKind {
    /// The bytes are not what the writer schema or the format says.
    Decode,
    /// The value was read but has no place in its column.
    Transcode,
    /// Only for JSON without a schema: the record has a field without a column, or a value that a
    /// wider column would hold. Infer the record's type, evolve the table, encode with a new plan.
    UnknownColumns,
}

/// Why one record cannot become a row. Holds no value of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// The field's path in the record, such as `order.lines.price`; empty for the record itself.
    pub path: String,
    /// What is wrong, without any value.
    pub message: Cow<'static, str>,
    /// At which stage.
    pub kind: RowErrorKind,
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "field {}: {}", self.path, self.message)
    }
}

impl std::error::Error for RowError {}

/// A step's outcome inside the interpreters: boxed, so that success costs one register.
pub type Step<T = ()> = Result<T, Box<RowError>>;

impl RowError {
    #[cold]
    fn boxed(kind: RowErrorKind, message: Cow<'static, str>) -> Box<Self> {
        Box::new(Self { path: String::new(), message, kind })
    }

    /// The bytes are malformed.
    #[cold]
    pub fn decode(message: &'static str) -> Box<Self> {
        Self::boxed(RowErrorKind::Decode, Cow::Borrowed(message))
    }

    /// The value does not fit.
    #[cold]
    pub fn transcode(message: &'static str) -> Box<Self> {
        Self::boxed(RowErrorKind::Transcode, Cow::Borrowed(message))
    }

    /// The table must grow first.
    #[cold]
    pub fn unknown(message: &'static str) -> Box<Self> {
        Self::boxed(RowErrorKind::UnknownColumns, Cow::Borrowed(message))
    }

    /// The same error, one level further out: in the field called `name`.
    #[cold]
    pub fn within(self: Box<Self>, name: &str) -> Box<Self> {
        self.inside(&printable::name(name))
    }

    /// The same error, one level further out: at a key that nothing declares, see [`printable::key`].
    #[cold]
    pub fn at_key(self: Box<Self>, key: &str) -> Box<Self> {
        self.inside(&printable::key(key))
    }

    fn inside(mut self: Box<Self>, name: &str) -> Box<Self> {
        if self.path.is_empty() {
            self.path.push_str(name);
        } else if !name.is_empty() {
            self.path = printable::text(&format!("{name}.{}", self.path)).into_owned();
        }
        self
    }
}
