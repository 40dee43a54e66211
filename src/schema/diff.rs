//! What a table lacks for a row's columns: the difference as a list of changes.

use std::{collections::HashSet, fmt};

use crate::table::{Column, ColumnKind, Lookup, Mode, TableSchema, find};

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

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddColumn { parent, column } => {
                let path: Vec<&str> =
                    parent.iter().map(String::as_str).chain([column.name.as_str()]).collect();
                write!(f, "add column {} {}", path.join("."), type_name(&column.kind, column.mode))
            }
            Self::Relax { path } => write!(f, "relax column {} to NULLABLE", path.join(".")),
            Self::Widen { path, to } => {
                write!(f, "widen column {} to {}", path.join("."), type_name(to, Mode::Nullable))
            }
        }
    }
}

/// A column that no change makes fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The column, from the top.
    pub path: Vec<String>,
    /// The type that the rows want, such as `REPEATED STRING`.
    pub wanted: String,
    /// The type that the table has.
    pub actual: String,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, wanted, actual } = self;
        write!(f, "column {} is {actual}, the schema wants {wanted}", path.join("."))
    }
}

/// Everything in which a table differs from what rows need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// The changes that make the table fit, as far as there is no conflict.
    pub changes: Vec<Change>,
    /// What stays wrong whatever is changed.
    pub conflicts: Vec<Conflict>,
}

impl Difference {
    /// Whether the table takes the rows as it is.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.conflicts.is_empty()
    }
}

/// What must change in `current` for rows with the columns `wanted`: *all* columns of the rows,
/// metadata and keys included, because a `REQUIRED` column that is not among them is relaxed.
///
/// Names are compared without regard to case. The table may have more columns, in any order, and
/// its types are kept where values of the wanted type can be converted (see [`fit`]); whether a
/// certain conversion exists is finally the transcoder's to say.
pub fn diff(current: &TableSchema, wanted: &[Column]) -> Difference {
    let mut difference = Difference::default();
    compare(&current.columns, wanted, &mut Vec::new(), &mut difference);
    difference
}

fn compare(
    current: &[Column],
    wanted: &[Column],
    parent: &mut Vec<String>,
    difference: &mut Difference,
) {
    let mut known = Lookup::new(current);
    for column in wanted {
        match known.find(&column.name) {
            None => difference.changes.push(Change::AddColumn {
                parent: parent.clone(),
                column: addable(column.clone()),
            }),
            Some(actual) => {
                parent.push(actual.name.clone());
                compare_column(actual, column, parent, difference);
                parent.pop();
            }
        }
    }
    let mut filled = Lookup::new(wanted);
    let required = current.iter().filter(|actual| actual.mode == Mode::Required);
    for actual in required.filter(|actual| filled.find(&actual.name).is_none()) {
        let path = parent.iter().chain([&actual.name]).cloned().collect();
        difference.changes.push(Change::Relax { path });
    }
}

/// A column as BigQuery lets it be added to a table that exists: not `REQUIRED` itself. The fields
/// inside may be: "you can create a nested REQUIRED column as part of a new RECORD field"
/// (BigQuery, "Modifying table schemas").
fn addable(column: Column) -> Column {
    let mode = if column.mode == Mode::Required { Mode::Nullable } else { column.mode };
    column.with_mode(mode)
}

fn compare_column(
    actual: &Column,
    wanted: &Column,
    path: &mut Vec<String>,
    difference: &mut Difference,
) {
    // Left alone by contract: a record that has a value for it is refused by the transcoder.
    if matches!(actual.kind, ColumnKind::Other(_)) {
        return relax(actual, wanted, path, difference);
    }
    // A JSON column takes an array as one value.
    let arrays_agree = (actual.mode == Mode::Repeated) == (wanted.mode == Mode::Repeated)
        || (&actual.kind, actual.mode != Mode::Repeated) == (&ColumnKind::Json, true);
    let fit = if arrays_agree { fit(&actual.kind, &wanted.kind) } else { Fit::Conflict };
    match fit {
        Fit::AsIs => {}
        Fit::Inside => compare(actual.fields(), wanted.fields(), path, difference),
        Fit::Widen => {
            let (path, to) = (path.clone(), wanted.kind.clone());
            difference.changes.push(Change::Widen { path, to });
        }
        Fit::Conflict => {
            difference.conflicts.push(Conflict {
                path: path.clone(),
                wanted: type_name(&wanted.kind, wanted.mode),
                actual: type_name(&actual.kind, actual.mode),
            });
            return;
        }
    }
    relax(actual, wanted, path, difference);
}

fn relax(actual: &Column, wanted: &Column, path: &[String], difference: &mut Difference) {
    if actual.mode == Mode::Required && wanted.mode != Mode::Required {
        difference.changes.push(Change::Relax { path: path.to_vec() });
    }
}

/// How a column's type stands to the type that rows want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Values can be converted; one that the column cannot hold exactly is refused by itself.
    AsIs,
    /// Both are records: their fields decide.
    Inside,
    /// BigQuery can change the column to the wanted type.
    Widen,
    /// Neither.
    Conflict,
}

/// How a column of type `actual` stands to rows that want `wanted`.
///
/// Widened are only types that the new values would not fit in: `INT64` to `FLOAT64`, `NUMERIC` or
/// `BIGNUMERIC`, `NUMERIC` to `BIGNUMERIC` (BigQuery, "ALTER COLUMN SET DATA TYPE"). BigQuery could
/// turn `NUMERIC` and `BIGNUMERIC` into `FLOAT64`, too, but that rounds what is stored: a float is
/// written into such a column digit by digit instead. Dates and times go into `STRING` columns, and
/// into the `INT64` and `TIMESTAMP` columns that the Java connector made for them.
pub fn fit(actual: &ColumnKind, wanted: &ColumnKind) -> Fit {
    use ColumnKind as Type;
    match (actual, wanted) {
        (Type::Record(_), Type::Record(_)) => Fit::Inside,
        (actual, wanted) if actual == wanted => Fit::AsIs,
        (Type::Int64, Type::Float64 | Type::Numeric | Type::BigNumeric)
        | (Type::Numeric, Type::BigNumeric) => Fit::Widen,
        (Type::Float64, Type::Int64 | Type::Numeric | Type::BigNumeric)
        | (Type::Numeric, Type::Int64 | Type::Float64)
        | (Type::BigNumeric, Type::Int64 | Type::Float64 | Type::Numeric)
        | (Type::Int64, Type::Date | Type::Time | Type::DateTime | Type::Timestamp)
        | (Type::DateTime, Type::Timestamp)
        | (Type::Timestamp, Type::DateTime) => Fit::AsIs,
        // Anything is JSON. (From an Avro schema only text is, says the transcoder.)
        (Type::Json, _) => Fit::AsIs,
        // Text is read as the column's type; from JSON also as a whole number or base64.
        (
            Type::Int64
            | Type::Float64
            | Type::Numeric
            | Type::BigNumeric
            | Type::Bytes
            | Type::Date
            | Type::Time
            | Type::DateTime
            | Type::Timestamp
            | Type::Geography,
            Type::String,
        ) => Fit::AsIs,
        // Everything but bytes and records has one text. (Base64 is one of several for bytes.)
        (Type::String, wanted) if !matches!(wanted, Type::Bytes | Type::Record(_)) => Fit::AsIs,
        _ => Fit::Conflict,
    }
}

/// A type as BigQuery's SQL calls it, with its mode where that is not `NULLABLE`.
pub fn type_name(kind: &ColumnKind, mode: Mode) -> String {
    let name = kind.name();
    match mode {
        Mode::Nullable => name.to_owned(),
        Mode::Required => format!("REQUIRED {name}"),
        Mode::Repeated => format!("REPEATED {name}"),
    }
}

/// `schema` after `changes`, as BigQuery would have it: new columns come last. A change that finds
/// itself done, or whose column is gone, does nothing.
pub fn apply(schema: &TableSchema, changes: &[Change]) -> TableSchema {
    let mut schema = schema.clone();
    let mut top: HashSet<String> =
        schema.columns.iter().map(|column| column.name.to_ascii_lowercase()).collect();
    for change in changes {
        match change {
            // Many at once, of a record with many keys.
            Change::AddColumn { parent, column } if parent.is_empty() => {
                if top.insert(column.name.to_ascii_lowercase()) {
                    schema.columns.push(addable(column.clone()));
                }
            }
            Change::AddColumn { parent, column } => {
                if let Some(columns) = columns_at(&mut schema.columns, parent)
                    && find(columns, &column.name).is_none()
                {
                    columns.push(addable(column.clone()));
                }
            }
            Change::Relax { path } => {
                if let Some(column) = column_at(&mut schema.columns, path)
                    && column.mode == Mode::Required
                {
                    column.mode = Mode::Nullable;
                }
            }
            Change::Widen { path, to } => {
                if let Some(column) = column_at(&mut schema.columns, path) {
                    column.kind = to.clone();
                }
            }
        }
    }
    schema
}

/// The columns inside the record at `path`; `columns` themselves for the empty path.
fn columns_at<'a>(columns: &'a mut Vec<Column>, path: &[String]) -> Option<&'a mut Vec<Column>> {
    if path.is_empty() {
        return Some(columns);
    }
    match &mut column_at(columns, path)?.kind {
        ColumnKind::Record(fields) => Some(fields),
        _ => None,
    }
}

fn column_at<'a>(columns: &'a mut Vec<Column>, path: &[String]) -> Option<&'a mut Column> {
    let (name, parent) = path.split_last()?;
    let siblings = columns_at(columns, parent)?;
    siblings.iter_mut().find(|column| column.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests;
