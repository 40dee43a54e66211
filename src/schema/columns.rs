//! The columns that a record type wants.
//!
//! | Type | Column |
//! |---|---|
//! | `boolean`, `int`/`long`, `float`/`double`, `string`, `bytes` | `BOOL`, `INT64`, `FLOAT64`, `STRING`, `BYTES` |
//! | `fixed`, `enum` | `BYTES`, `STRING` |
//! | record | `RECORD`; no column if none of its fields has one |
//! | array of T | `REPEATED` T; no column if T has none |
//! | array of arrays or of maps | `REPEATED RECORD {element REPEATED …}`: BigQuery has no array of arrays |
//! | map to T | `REPEATED RECORD {key STRING, value T}` |
//! | union of null and T | `NULLABLE` T |
//! | union of several types | `RECORD` with one `NULLABLE` field per branch, called by [`branch_names`]; only the branch that a value has is set |
//! | null | no column |
//! | decimal | `NUMERIC`, `BIGNUMERIC` or `STRING`, see [`decimal`] |
//! | decimal whose scale varies by value | `STRING`, which alone holds each of them |
//! | date, time | `DATE`, `TIME` |
//! | timestamp; text with an offset | `TIMESTAMP` |
//! | local timestamp: Avro `local-timestamp-*`, Debezium's `Timestamp`, `MicroTimestamp`, `NanoTimestamp`, `IsoTimestamp` | `DATETIME`: they are read off a wall clock, no zone is known |
//! | time text with an offset (Debezium's `ZonedTime`) | `TIME`, in UTC |
//! | uuid | `STRING` |
//! | duration | `RECORD {months, days, milliseconds INT64}` |
//! | JSON text | `JSON` |
//! | inferred: the name of a float | `FLOAT64`, unless [`settle`](crate::schema::infer::settle) says otherwise |
//!
//! A field that always has a value is `REQUIRED`, an array or map `REPEATED`, anything else
//! `NULLABLE`. Null in place of an array or map is an empty one.

use crate::{
    schema::{
        error::{Problem, SchemaError},
        model::{Kind, Logical, RecordType, Type},
        names::{branch_names, column_names},
    },
    table::{Column, ColumnKind, Mode},
};

/// How columns are derived from a schema.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnRules {
    /// Make every column `NULLABLE`, also those that the schema says always have a value. Then no
    /// later schema needs a column relaxed.
    pub all_nullable: bool,
    /// Leave the schema's documentation out of the columns' descriptions.
    pub no_descriptions: bool,
}

/// The field of a map's entry that holds the key.
pub const MAP_KEY: &str = "key";
/// The field of a map's entry that holds the value.
pub const MAP_VALUE: &str = "value";
/// The field that holds an inner array, or a map's entries inside an array.
pub const ARRAY_ELEMENT: &str = "element";
/// The fields of a duration, in the order of its encoding.
pub const DURATION_FIELDS: [&str; 3] = ["months", "days", "milliseconds"];

/// BigQuery's limit for a table's columns, nested ones included.
pub const COLUMNS_MAX: usize = 10_000;
/// BigQuery's limit for records inside records.
pub const NESTING_MAX: usize = 15;
/// BigQuery's limit for a description, characters.
pub const DESCRIPTION_MAX: usize = 1_024;

/// The columns that the record type `ty` wants, in the order of its fields; a union of null and a
/// record is taken for the record.
///
/// # Errors
///
/// A top that is not a record, a recursive type, more than [`COLUMNS_MAX`] columns or
/// [`NESTING_MAX`] levels. The path names the field.
pub fn derive(ty: &Type, rules: &ColumnRules) -> Result<Vec<Column>, SchemaError> {
    let record = top_record(ty)?;
    Derivation { rules, count: 0, path: Vec::new() }.fields(record, 0)
}

/// The record at the top of a schema, also where the top may be null.
pub fn top_record(ty: &Type) -> Result<&RecordType, SchemaError> {
    let inner = match &ty.kind {
        Kind::Union(branches) => only_branch(branches).unwrap_or(ty),
        _ => ty,
    };
    match &inner.kind {
        Kind::Record(record) if inner.logical.is_none() => Ok(record),
        kind => {
            let found = if inner.logical.is_some() { "a single value" } else { kind.name() };
            Err(SchemaError::new("", Problem::NotARecord { found }))
        }
    }
}

/// The only branch of a union that is not null, if there is exactly one.
pub fn only_branch(branches: &[Type]) -> Option<&Type> {
    let mut values = branches.iter().filter(|branch| branch.kind != Kind::Null);
    let only = values.next()?;
    values.next().is_none().then_some(only)
}

/// The column type of a decimal.
///
/// `NUMERIC` for at most 29 digits before and 9 after the point, `BIGNUMERIC` for at most 38 and
/// 38. Where the precision is unknown (Connect's default) `BIGNUMERIC` if it has the scale: nearly
/// all such columns fit, and a value that does not is refused, not cut. `STRING` for the rest.
pub fn decimal(precision: Option<u32>, scale: i32) -> ColumnKind {
    let whole_digits = precision.map(|precision| i64::from(precision) - i64::from(scale));
    match (scale, whole_digits) {
        (..=9, Some(..=29)) => ColumnKind::Numeric,
        (..=38, Some(..=38) | None) => ColumnKind::BigNumeric,
        _ => ColumnKind::String,
    }
}

/// The column type of a logical type.
fn logical_kind(logical: Logical) -> ColumnKind {
    match logical {
        Logical::Decimal { precision, scale } => decimal(precision, scale),
        Logical::VariableScaleDecimal | Logical::Uuid => ColumnKind::String,
        Logical::Date | Logical::IsoDate => ColumnKind::Date,
        Logical::TimeMillis
        | Logical::TimeMicros
        | Logical::TimeNanos
        | Logical::ZonedTime
        | Logical::IsoTime => ColumnKind::Time,
        Logical::TimestampMillis
        | Logical::TimestampMicros
        | Logical::TimestampNanos
        | Logical::ZonedTimestamp => ColumnKind::Timestamp,
        Logical::LocalTimestampMillis
        | Logical::LocalTimestampMicros
        | Logical::LocalTimestampNanos
        | Logical::IsoTimestamp => ColumnKind::DateTime,
        Logical::Duration => ColumnKind::Record(
            DURATION_FIELDS.map(|name| Column::new(name, ColumnKind::Int64)).to_vec(),
        ),
        Logical::Json => ColumnKind::Json,
        Logical::FloatName => ColumnKind::Float64,
    }
}

/// A column's type and mode, before the rules have their say on the mode.
type Slot = (ColumnKind, Mode);

/// The walk over a type.
struct Derivation<'a> {
    rules: &'a ColumnRules,
    /// Columns so far, nested ones included.
    count: usize,
    /// The fields that lead to the current place.
    path: Vec<String>,
}

impl Derivation<'_> {
    /// The columns of a record that lies in `depth` other records.
    fn fields(&mut self, record: &RecordType, depth: usize) -> Result<Vec<Column>, SchemaError> {
        let mut columns = Vec::with_capacity(record.fields.len());
        for (field, name) in record.fields.iter().zip(column_names(record)) {
            self.path.push(field.name.to_string());
            let slot = self.slot(&field.ty, depth)?;
            if let Some(slot) = slot {
                let slot = if record.name.is_empty() { optional(slot) } else { slot };
                let doc = field.doc.as_deref().or_else(|| type_doc(&field.ty));
                columns.push(self.column(name, slot, doc)?);
            }
            self.path.pop();
        }
        Ok(columns)
    }

    /// What a value of type `ty` in `depth` records takes; `None` if it takes no column.
    fn slot(&mut self, ty: &Type, depth: usize) -> Result<Option<Slot>, SchemaError> {
        if let Some(logical) = ty.logical {
            let kind = logical_kind(logical);
            self.count(kind_fields(&kind).len())?;
            self.check_depth(depth + usize::from(matches!(kind, ColumnKind::Record(_))))?;
            return Ok(Some((kind, Mode::Required)));
        }
        let kind = match &ty.kind {
            Kind::Null => return Ok(None),
            Kind::Boolean => ColumnKind::Bool,
            Kind::Int | Kind::Long => ColumnKind::Int64,
            Kind::Float | Kind::Double => ColumnKind::Float64,
            Kind::Bytes | Kind::Fixed(_) => ColumnKind::Bytes,
            Kind::String | Kind::Enum(_) => ColumnKind::String,
            Kind::Record(record) => {
                let depth = self.check_depth(depth + 1)?;
                let fields = self.fields(record, depth)?;
                return Ok(record_slot(fields, Mode::Required));
            }
            Kind::Array(items) => return self.array(items, depth),
            Kind::Map(values) => return self.map(values, depth),
            Kind::Union(branches) => return self.union(branches, depth),
            Kind::Recursive(name) => {
                return Err(self.error(Problem::Recursive { name: name.to_string() }));
            }
        };
        Ok(Some((kind, Mode::Required)))
    }

    /// An array: its elements' type, repeated; inside a record where the elements repeat already.
    fn array(&mut self, items: &Type, depth: usize) -> Result<Option<Slot>, SchemaError> {
        let inner_depth = if repeats(items) { self.check_depth(depth + 1)? } else { depth };
        Ok(match self.slot(items, inner_depth)? {
            None => None,
            Some((kind, Mode::Repeated)) => {
                let element =
                    self.column(ARRAY_ELEMENT.to_owned(), (kind, Mode::Repeated), type_doc(items))?;
                record_slot(vec![element], Mode::Repeated)
            }
            Some((kind, _)) => Some((kind, Mode::Repeated)),
        })
    }

    /// A map: its entries, repeated. An entry whose value takes no column has its key alone.
    fn map(&mut self, values: &Type, depth: usize) -> Result<Option<Slot>, SchemaError> {
        let depth = self.check_depth(depth + 1)?;
        let key = (ColumnKind::String, Mode::Required);
        let mut entry = vec![self.column(MAP_KEY.to_owned(), key, None)?];
        self.path.push(MAP_VALUE.to_owned());
        if let Some(slot) = self.slot(values, depth)? {
            entry.push(self.column(MAP_VALUE.to_owned(), slot, type_doc(values))?);
        }
        self.path.pop();
        Ok(record_slot(entry, Mode::Repeated))
    }

    /// A union: its only type, or a record with a field per branch.
    fn union(&mut self, branches: &[Type], depth: usize) -> Result<Option<Slot>, SchemaError> {
        let nullable = branches.iter().any(|branch| branch.kind == Kind::Null);
        if let Some(only) = only_branch(branches) {
            let slot = self.slot(only, depth)?;
            return Ok(if nullable { slot.map(optional) } else { slot });
        }
        let depth = self.check_depth(depth + 1)?;
        let values = branches.iter().filter(|branch| branch.kind != Kind::Null);
        let mut fields = Vec::new();
        for (branch, name) in values.zip(branch_names(branches)) {
            self.path.push(name.clone());
            if let Some(slot) = self.slot(branch, depth)? {
                fields.push(self.column(name, optional(slot), type_doc(branch))?);
            }
            self.path.pop();
        }
        Ok(record_slot(fields, if nullable { Mode::Nullable } else { Mode::Required }))
    }

    /// A finished column.
    fn column(
        &mut self,
        name: String,
        slot: Slot,
        doc: Option<&str>,
    ) -> Result<Column, SchemaError> {
        self.count(1)?;
        let (kind, mode) = if self.rules.all_nullable { optional(slot) } else { slot };
        let doc = doc.filter(|doc| !self.rules.no_descriptions && !doc.is_empty());
        let description = doc.map(|doc| doc.chars().take(DESCRIPTION_MAX).collect());
        Ok(Column { name, kind, mode, description })
    }

    fn count(&mut self, more: usize) -> Result<(), SchemaError> {
        self.count += more;
        if self.count <= COLUMNS_MAX {
            return Ok(());
        }
        Err(self.error(Problem::Limit { what: "columns", limit: COLUMNS_MAX }))
    }

    fn check_depth(&self, depth: usize) -> Result<usize, SchemaError> {
        if depth <= NESTING_MAX {
            return Ok(depth);
        }
        Err(self.error(Problem::Limit { what: "records inside records", limit: NESTING_MAX }))
    }

    fn error(&self, problem: Problem) -> SchemaError {
        SchemaError::new(self.path.join("."), problem)
    }
}

fn optional((kind, mode): Slot) -> Slot {
    (kind, if mode == Mode::Required { Mode::Nullable } else { mode })
}

fn record_slot(fields: Vec<Column>, mode: Mode) -> Option<Slot> {
    (!fields.is_empty()).then_some((ColumnKind::Record(fields), mode))
}

fn kind_fields(kind: &ColumnKind) -> &[Column] {
    match kind {
        ColumnKind::Record(fields) => fields,
        _ => &[],
    }
}

/// Whether a value of this type takes a `REPEATED` column.
fn repeats(ty: &Type) -> bool {
    match &ty.kind {
        Kind::Array(_) | Kind::Map(_) => true,
        Kind::Union(branches) => only_branch(branches).is_some_and(repeats),
        _ => false,
    }
}

/// A type's own documentation, or that of the only type it stands for.
fn type_doc(ty: &Type) -> Option<&str> {
    let inner = match &ty.kind {
        Kind::Union(branches) => only_branch(branches).and_then(|only| only.doc.as_deref()),
        _ => None,
    };
    ty.doc.as_deref().or(inner)
}

#[cfg(test)]
mod tests;
