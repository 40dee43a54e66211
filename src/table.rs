//! A BigQuery table as the rest of the crate sees it: its name, its columns, how it is laid out.
//!
//! These types carry what the service decides on. They are never written back over a user's table:
//! a change is merged into the JSON document that BigQuery sent (see `gcp::tables`), so that what
//! these types do not know survives.

use std::{collections::HashMap, fmt, sync::Arc};

/// A table's full name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableRef {
    /// The Google Cloud project.
    pub project: Arc<str>,
    /// The dataset in that project.
    pub dataset: Arc<str>,
    /// The table in that dataset.
    pub table: Arc<str>,
}

impl fmt::Display for TableRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.project, self.dataset, self.table)
    }
}

/// The columns of a table, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSchema {
    /// Top-level columns.
    pub columns: Vec<Column>,
}

impl TableSchema {
    /// How many columns it has, those inside records included.
    pub fn size(&self) -> usize {
        fn size(columns: &[Column]) -> usize {
            columns.iter().map(|column| 1 + size(column.fields())).sum()
        }
        size(&self.columns)
    }

    /// The column called `name`; BigQuery's names are case-insensitive.
    pub fn column(&self, name: &str) -> Option<&Column> {
        find(&self.columns, name)
    }

    /// How many columns there are, fields of records included: what BigQuery limits.
    pub fn count(&self) -> usize {
        self.columns.iter().map(Column::count).sum()
    }

    /// The column at a path as BigQuery names it: `a.b[0].c`.
    pub fn at(&self, path: &str) -> Option<&Column> {
        let mut names = path.split('.').map(|name| name.split('[').next().unwrap_or_default());
        let first = self.column(names.next()?)?;
        names.try_fold(first, |column, name| find(column.fields(), name))
    }
}

/// One column, or one field of a `RECORD` column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The name, at most 300 characters of `[A-Za-z0-9_]`.
    pub name: String,
    /// The type, with the fields of a record inside.
    pub kind: ColumnKind,
    /// Whether the column must, may, or may repeatedly hold a value.
    pub mode: Mode,
    /// Text shown in BigQuery's console, at most 1,024 characters.
    pub description: Option<String>,
}

impl Column {
    /// A nullable column without description.
    pub fn new(name: impl Into<String>, kind: ColumnKind) -> Self {
        Self { name: name.into(), kind, mode: Mode::Nullable, description: None }
    }

    /// The same column with another mode.
    pub fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The column and all fields inside of it.
    pub fn count(&self) -> usize {
        1 + self.fields().iter().map(Self::count).sum::<usize>()
    }

    /// The fields of a record, empty for any other type.
    pub fn fields(&self) -> &[Column] {
        match &self.kind {
            ColumnKind::Record(fields) => fields,
            _ => &[],
        }
    }
}

/// The column called `name` among `columns`, ignoring case.
pub fn find<'a>(columns: &'a [Column], name: &str) -> Option<&'a Column> {
    columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
}

/// Finds many names among the same columns, ignoring case. Of a hostile record thousands of names are
/// looked for among thousands of columns.
#[derive(Debug)]
pub struct Lookup<'a> {
    columns: &'a [Column],
    asked: usize,
    by_name: Option<HashMap<String, &'a Column>>,
}

impl<'a> Lookup<'a> {
    /// From so many questions on an index pays.
    const ASKED_MAX: usize = 16;

    /// A lookup among `columns`.
    pub fn new(columns: &'a [Column]) -> Self {
        Self { columns, asked: 0, by_name: None }
    }

    /// The first column called `name`.
    pub fn find(&mut self, name: &str) -> Option<&'a Column> {
        self.asked += 1;
        if self.asked <= Self::ASKED_MAX {
            return find(self.columns, name);
        }
        let by_name = self.by_name.get_or_insert_with(|| {
            let mut by_name = HashMap::with_capacity(self.columns.len());
            for column in self.columns {
                by_name.entry(column.name.to_ascii_lowercase()).or_insert(column);
            }
            by_name
        });
        by_name.get(&name.to_ascii_lowercase()).copied()
    }
}

/// BigQuery's types, by their standard-SQL meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// `BOOL` (REST: `BOOLEAN`).
    Bool,
    /// `INT64` (REST: `INTEGER`).
    Int64,
    /// `FLOAT64` (REST: `FLOAT`).
    Float64,
    /// `NUMERIC`: 38 digits, 9 of them after the point.
    Numeric,
    /// `BIGNUMERIC`: 76 full digits, 38 of them after the point.
    BigNumeric,
    /// `STRING`.
    String,
    /// `BYTES`.
    Bytes,
    /// `DATE`.
    Date,
    /// `TIME`, microseconds.
    Time,
    /// `DATETIME`, microseconds, no zone.
    DateTime,
    /// `TIMESTAMP`, microseconds, UTC.
    Timestamp,
    /// `JSON`.
    Json,
    /// `GEOGRAPHY`.
    Geography,
    /// `STRUCT` (REST: `RECORD`).
    Record(Vec<Column>),
    /// A type that the service does not write to (`RANGE`, `INTERVAL`, …), by its REST name. Such a
    /// column is left alone; a record that has a value for it is refused.
    Other(String),
}

impl ColumnKind {
    /// The type's name as people read it; a record is called `RECORD` whatever its fields.
    pub fn name(&self) -> &str {
        match self {
            Self::Bool => "BOOL",
            Self::Int64 => "INT64",
            Self::Float64 => "FLOAT64",
            Self::Numeric => "NUMERIC",
            Self::BigNumeric => "BIGNUMERIC",
            Self::String => "STRING",
            Self::Bytes => "BYTES",
            Self::Date => "DATE",
            Self::Time => "TIME",
            Self::DateTime => "DATETIME",
            Self::Timestamp => "TIMESTAMP",
            Self::Json => "JSON",
            Self::Geography => "GEOGRAPHY",
            Self::Record(_) => "RECORD",
            Self::Other(name) => name,
        }
    }
}

/// Whether a column must, may, or may repeatedly hold a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// May be null.
    Nullable,
    /// Must have a value.
    Required,
    /// An array; may be empty, never holds null.
    Repeated,
}

/// What a table that does not exist yet is created with, beside its columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableLayout {
    /// Time partitioning; `None` creates an unpartitioned table.
    pub partitioning: Option<Partitioning>,
    /// Up to four column names.
    pub clustering: Vec<String>,
    /// Labels, at most 64.
    pub labels: Vec<(String, String)>,
    /// The table's description.
    pub description: Option<String>,
}

/// Time partitioning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partitioning {
    /// How wide a partition is.
    pub granularity: Granularity,
    /// The `DATE`, `DATETIME` or `TIMESTAMP` column; `None` is ingestion time.
    pub column: Option<String>,
    /// Partitions older than this many milliseconds are dropped by BigQuery.
    pub expiration_ms: Option<i64>,
}

/// How wide a time partition is.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// One hour.
    Hour,
    /// One day.
    Day,
    /// One calendar month.
    Month,
    /// One calendar year.
    Year,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_found_by_bigquerys_path() {
        let deep = Column::new("c", ColumnKind::Int64);
        let middle = Column::new("b", ColumnKind::Record(vec![deep])).with_mode(Mode::Repeated);
        let columns = vec![Column::new("a", ColumnKind::Record(vec![middle]))];
        let schema = TableSchema { columns };
        let kind = |path| schema.at(path).map(|column| column.kind.name().to_owned());
        assert_eq!(kind("A.b[12].C").as_deref(), Some("INT64"));
        assert_eq!(kind("a.b[0]").as_deref(), Some("RECORD"));
        assert_eq!((kind("a.x"), kind("a.b.c.d"), kind("")), (None, None, None));
    }
}
