//! Why a schema cannot be used.

/// A schema, or a place in it, that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema at {}: {problem}", if path.is_empty() { "the top" } else { path })]
pub struct SchemaError {
    /// Where: a JSON pointer into the schema's text (`/fields/3/type`) for a parser, field names
    /// (`order.lines[].price`) for everything else; empty for the whole.
    pub path: String,
    /// What is wrong there.
    pub problem: Problem,
}

impl SchemaError {
    /// An error at `path`.
    pub fn new(path: impl Into<String>, problem: Problem) -> Self {
        Self { path: path.into(), problem }
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
    #[error("unknown type `{name}`; is a schema reference missing?")]
    UnknownType {
        /// The name as resolved, namespace included.
        name: String,
    },
    /// One name with two different definitions.
    #[error("type `{name}` is defined twice, differently")]
    Redefined {
        /// The full name.
        name: String,
    },
    /// Two fields of one record have the same name, or the same column.
    #[error("two fields are called `{name}` (BigQuery ignores case)")]
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
    #[error("type `{name}` contains itself, and BigQuery has no recursive columns")]
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
