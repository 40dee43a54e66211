//! A table's columns as the simulator reads them out of the stored JSON document.

use serde_json::Value;

use crate::sim::bigquery::{error::ApiError, names};

/// A column type, with the parameters that limit its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// `BOOLEAN`.
    Bool,
    /// `INTEGER`.
    Int64,
    /// `FLOAT`.
    Float64,
    /// `NUMERIC` and `BIGNUMERIC`.
    Decimal {
        /// Whether it is `BIGNUMERIC`.
        big: bool,
        /// Declared precision.
        precision: Option<u32>,
        /// Declared scale.
        scale: Option<u32>,
    },
    /// `STRING`, with its declared greatest length in characters.
    String(Option<u64>),
    /// `BYTES`, with its declared greatest length in bytes.
    Bytes(Option<u64>),
    /// `DATE`.
    Date,
    /// `TIME`.
    Time,
    /// `DATETIME`.
    DateTime,
    /// `TIMESTAMP`.
    Timestamp,
    /// `JSON`.
    Json,
    /// `RECORD`.
    Record(Vec<Column>),
    /// `GEOGRAPHY`, `INTERVAL`, `RANGE`: kept as text, not checked.
    Opaque(&'static str),
}

impl Type {
    /// The name in REST documents.
    pub fn rest_name(&self) -> &'static str {
        match self {
            Self::Bool => "BOOLEAN",
            Self::Int64 => "INTEGER",
            Self::Float64 => "FLOAT",
            Self::Decimal { big: false, .. } => "NUMERIC",
            Self::Decimal { big: true, .. } => "BIGNUMERIC",
            Self::String(_) => "STRING",
            Self::Bytes(_) => "BYTES",
            Self::Date => "DATE",
            Self::Time => "TIME",
            Self::DateTime => "DATETIME",
            Self::Timestamp => "TIMESTAMP",
            Self::Json => "JSON",
            Self::Record(_) => "RECORD",
            Self::Opaque(name) => name,
        }
    }

    /// The fields of a record; empty for any other type.
    pub fn fields(&self) -> &[Column] {
        match self {
            Self::Record(fields) => fields,
            _ => &[],
        }
    }
}

/// Whether a column must, may, or may repeatedly hold a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `NULLABLE`.
    Nullable,
    /// `REQUIRED`.
    Required,
    /// `REPEATED`.
    Repeated,
}

impl Mode {
    /// The name in REST documents.
    pub fn rest_name(self) -> &'static str {
        match self {
            Self::Nullable => "NULLABLE",
            Self::Required => "REQUIRED",
            Self::Repeated => "REPEATED",
        }
    }
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The name, as created.
    pub name: String,
    /// The type.
    pub ty: Type,
    /// The mode.
    pub mode: Mode,
    /// Whether a missing value is filled by a default expression.
    pub has_default: bool,
}

/// The column called `name`; names are case-insensitive.
pub fn find<'a>(columns: &'a [Column], name: &str) -> Option<&'a Column> {
    columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
}

/// Limits of a schema.
#[derive(Clone, Copy, Debug)]
pub struct SchemaLimits {
    /// Columns, nested ones included.
    pub columns_max: usize,
    /// Levels of nested records.
    pub nesting_max: usize,
}

/// Reads `schema.fields` of a table document; a document without a schema has no columns.
pub fn parse(document: &Value, limits: SchemaLimits) -> Result<Vec<Column>, ApiError> {
    let Some(fields) = document.get("schema").and_then(|schema| schema.get("fields")) else {
        return Ok(Vec::new());
    };
    let columns = parse_fields(fields, 0, limits)?;
    if count(&columns) > limits.columns_max {
        return Err(ApiError::invalid(format!(
            "Too many columns: {}, limit: {}",
            count(&columns),
            limits.columns_max
        )));
    }
    Ok(columns)
}

fn count(columns: &[Column]) -> usize {
    columns.iter().map(|column| 1 + count(column.ty.fields())).sum()
}

fn parse_fields(
    fields: &Value,
    depth: usize,
    limits: SchemaLimits,
) -> Result<Vec<Column>, ApiError> {
    if depth > limits.nesting_max {
        return Err(ApiError::invalid(format!(
            "Schema is nested too deeply: the limit is {} levels",
            limits.nesting_max
        )));
    }
    let fields = fields.as_array().ok_or_else(|| ApiError::invalid("fields must be an array"))?;
    let mut columns: Vec<Column> = Vec::with_capacity(fields.len());
    let mut seen = std::collections::HashSet::new();
    for field in fields {
        let column = parse_field(field, depth, limits)?;
        if !seen.insert(column.name.to_ascii_lowercase()) {
            return Err(ApiError::invalid(format!(
                "Duplicate field name: {} (column names are case-insensitive)",
                column.name
            )));
        }
        columns.push(column);
    }
    Ok(columns)
}

fn parse_field(field: &Value, depth: usize, limits: SchemaLimits) -> Result<Column, ApiError> {
    let name = field
        .get("name")
        .and_then(Value::as_str)
        .ok_or_else(|| ApiError::invalid("Field name is missing"))?;
    names::check_column(name)?;
    Ok(Column {
        name: name.to_owned(),
        ty: parse_type(field, name, depth, limits)?,
        mode: parse_mode(field, name)?,
        has_default: field.get("defaultValueExpression").is_some_and(|value| !value.is_null()),
    })
}

fn parse_mode(field: &Value, name: &str) -> Result<Mode, ApiError> {
    let mode = field.get("mode").and_then(Value::as_str).unwrap_or("NULLABLE");
    match mode.to_ascii_uppercase().as_str() {
        "NULLABLE" | "" => Ok(Mode::Nullable),
        "REQUIRED" => Ok(Mode::Required),
        "REPEATED" => Ok(Mode::Repeated),
        other => Err(ApiError::invalid(format!("Invalid mode {other} for field {name}"))),
    }
}

fn parse_type(
    field: &Value,
    name: &str,
    depth: usize,
    limits: SchemaLimits,
) -> Result<Type, ApiError> {
    let ty = field.get("type").and_then(Value::as_str).unwrap_or("").to_ascii_uppercase();
    let parameter = |key: &str| parse_parameter(field, key);
    let small = |key: &str| parse_parameter(field, key).and_then(|value| u32::try_from(value).ok());
    let decimal = |big| Type::Decimal { big, precision: small("precision"), scale: small("scale") };
    Ok(match ty.as_str() {
        "BOOL" | "BOOLEAN" => Type::Bool,
        "INT64" | "INTEGER" => Type::Int64,
        "FLOAT64" | "FLOAT" => Type::Float64,
        "NUMERIC" | "DECIMAL" => decimal(false),
        "BIGNUMERIC" | "BIGDECIMAL" => decimal(true),
        "STRING" => Type::String(parameter("maxLength")),
        "BYTES" => Type::Bytes(parameter("maxLength")),
        "DATE" => Type::Date,
        "TIME" => Type::Time,
        "DATETIME" => Type::DateTime,
        "TIMESTAMP" => Type::Timestamp,
        "JSON" => Type::Json,
        "GEOGRAPHY" => Type::Opaque("GEOGRAPHY"),
        "INTERVAL" => Type::Opaque("INTERVAL"),
        "RANGE" => Type::Opaque("RANGE"),
        "RECORD" | "STRUCT" => parse_record(field, name, depth, limits)?,
        "" => return Err(ApiError::invalid(format!("Type is missing for field {name}"))),
        other => {
            return Err(ApiError::invalid(format!(
                "Invalid value for type: {other} is not a valid value (field {name})"
            )));
        }
    })
}

fn parse_record(
    field: &Value,
    name: &str,
    depth: usize,
    limits: SchemaLimits,
) -> Result<Type, ApiError> {
    let fields = parse_fields(field.get("fields").unwrap_or(&Value::Null), depth + 1, limits)
        .map_err(|error| match field.get("fields") {
            Some(_) => error,
            None => ApiError::invalid(format!("Field {name} is type RECORD but has no schema")),
        })?;
    if fields.is_empty() {
        return Err(ApiError::invalid(format!("Field {name} is type RECORD but has no schema")));
    }
    Ok(Type::Record(fields))
}

/// A type parameter; REST sends int64 as text, and takes numbers too.
fn parse_parameter(field: &Value, key: &str) -> Option<u64> {
    let value = field.get(key)?;
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
