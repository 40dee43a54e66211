//! Why a schema cannot be used.

use std::fmt;

use crate::printable;

/// A schema, or a place in it, that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    /// Where: a JSON pointer into the schema's text (`/fields/3/type`) for a parser, field names
    /// (`order.lines[].price`) for everything else; empty for the whole.
    pub path: String,
    /// What is wrong there.
    pub problem: Problem,
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.problem, self.path.as_str()) {
            // No schema is at fault.
            (problem @ Problem::ValueNotJson { .. }, _) => write!(f, "{problem}"),
            (problem, "") => write!(f, "schema at the top: {problem}"),
            (problem, path) => write!(f, "schema at {path}: {problem}"),
        }
    }
}

impl std::error::Error for SchemaError {}

impl SchemaError {
    /// An error at `path`.
    pub fn new(path: impl Into<String>, problem: Problem) -> Self {
        let path = path.into();
        Self { path: printable::text(&path).into_owned(), problem }
    }
}

/// What is wrong with a schema. Holds names out of the schema, never a record's value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is not JSON.
    #[error("not valid JSON, line {line} column {column}")]
    NotJson {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// A record's value is not JSON.
    #[error(
        "the value is not JSON, line {line} column {column}; if it is Avro, the topic's format is `avro`"
    )]
    ValueNotJson {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The JSON is not of the form that its place asks for.
    #[error("{expected} expected")]
    Malformed {
        /// What belongs there.
        expected: &'static str,
    },
    /// An attribute that must be there is not, or has the wrong JSON type.
    #[error("attribute `{attribute}` is missing or malformed")]
    Attribute {
        /// The attribute.
        attribute: &'static str,
    },
    /// A type name that is neither built in nor defined anywhere.
    #[error("unknown type `{}`; is a schema reference missing?", printable::name(name))]
    UnknownType {
        /// The name as resolved, namespace included.
        name: String,
    },
    /// One name with two different definitions.
    #[error("type `{}` is defined twice, differently", printable::name(name))]
    Redefined {
        /// The full name.
        name: String,
    },
    /// Two fields of one record have the same name, or the same column.
    #[error("two fields are called `{}` (BigQuery ignores case)", printable::name(name))]
    DuplicateField {
        /// The second field's name.
        name: String,
    },
    /// A limit against hostile or unusable schemas.
    #[error("more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// The type contains itself; BigQuery has no such column.
    #[error(
        "type `{}` contains itself, and BigQuery has no recursive columns",
        printable::name(name)
    )]
    Recursive {
        /// The full name.
        name: String,
    },
    /// The top of a schema is not a record.
    #[error("a record expected at the top, found {found}: only a record has columns")]
    NotARecord {
        /// What is there instead.
        found: &'static str,
    },
    /// Two inferred types that no one type covers.
    #[error("{one} in one place and {other} in another: no one column type holds both")]
    Mixed {
        /// The first type.
        one: &'static str,
        /// The second type.
        other: &'static str,
    },
}
