//! One row against a schema: refused with BigQuery's messages, or canonical cells.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use crate::sim::bigquery::{
    columns::{Column, Mode, Type, find},
    value,
};

/// Errors reported for one row; more are left out.
const ERRORS_MAX: usize = 8;

/// One thing that is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// The field's path, such as `a.b[0].c`.
    pub location: String,
    /// BigQuery's message.
    pub message: String,
}

/// Checks rows of one request.
#[derive(Clone, Copy, Debug)]
pub struct RowChecker<'a> {
    /// The schema that insertAll goes by.
    pub columns: &'a [Column],
    /// Whether unknown fields are dropped instead of refused.
    pub ignore_unknown: bool,
    /// Whether a JSON column takes the value as it stands, as load jobs do, instead of text that
    /// holds JSON, as insertAll does. Source: "a field that's declared as JSON type is loaded with
    /// the raw JSON values" (loading-data-cloud-storage-json), apache/beam#23025.
    pub raw_json: bool,
}

impl RowChecker<'_> {
    /// The row's canonical cells: non-null columns, under the columns' own names, nested keys
    /// sorted.
    pub fn check(&self, row: &Map<String, Value>) -> Result<Map<String, Value>, Vec<RowError>> {
        let mut errors = Vec::new();
        let cells = self.record(row, self.columns, "", &mut errors);
        if errors.is_empty() { Ok(cells) } else { Err(errors) }
    }

    fn record(
        &self,
        row: &Map<String, Value>,
        columns: &[Column],
        path: &str,
        errors: &mut Vec<RowError>,
    ) -> Map<String, Value> {
        let mut cells = BTreeMap::new();
        let mut seen = HashSet::new();
        for (name, value) in row {
            let here = join(path, name);
            match find(columns, name) {
                Some(column) if !seen.insert(column.name.as_str()) => {
                    report(errors, &here, format!("Duplicate field: {name}."));
                }
                Some(column) => {
                    if let Some(cell) = self.column(value, column, &here, errors) {
                        cells.insert(column.name.clone(), cell);
                    }
                }
                None if self.ignore_unknown => {}
                None => report(errors, &here, format!("no such field: {name}.")),
            }
        }
        for column in columns {
            let missing = column.mode == Mode::Required && !seen.contains(column.name.as_str());
            if missing && !column.has_default {
                let here = join(path, &column.name);
                report(errors, &here, format!("Missing required field: {here}."));
            }
        }
        cells.into_iter().collect()
    }

    fn column(
        &self,
        value: &Value,
        column: &Column,
        path: &str,
        errors: &mut Vec<RowError>,
    ) -> Option<Value> {
        match (column.mode, value) {
            (Mode::Nullable, Value::Null) => None,
            (_, Value::Null) => {
                report(errors, path, null_message(path));
                None
            }
            (Mode::Nullable | Mode::Required, value)
                if self.raw_json && column.ty == Type::Json =>
            {
                Some(Value::String(value::json_text(value.clone())))
            }
            (Mode::Repeated, Value::Array(items)) => self.array(items, &column.ty, path, errors),
            (Mode::Repeated, _) => {
                let message =
                    format!("Repeated field must be imported as a JSON array. Field: {path}.");
                report(errors, path, message);
                None
            }
            (_, Value::Array(_)) => {
                report(errors, path, format!("Array specified for non-repeated field: {path}."));
                None
            }
            (_, value) => self.single(value, &column.ty, path, errors),
        }
    }

    fn array(
        &self,
        items: &[Value],
        ty: &Type,
        path: &str,
        errors: &mut Vec<RowError>,
    ) -> Option<Value> {
        let mut cells = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let here = format!("{path}[{index}]");
            match item {
                Value::Null => report(errors, &here, null_message(path)),
                item if self.raw_json && *ty == Type::Json => {
                    cells.push(Value::String(value::json_text(item.clone())));
                }
                Value::Array(_) => {
                    report(
                        errors,
                        &here,
                        format!("Array specified for non-repeated field: {path}."),
                    );
                }
                item => cells.extend(self.single(item, ty, &here, errors)),
            }
        }
        (!cells.is_empty()).then_some(Value::Array(cells))
    }

    fn single(
        &self,
        value: &Value,
        ty: &Type,
        path: &str,
        errors: &mut Vec<RowError>,
    ) -> Option<Value> {
        match (ty, value) {
            (Type::Record(fields), Value::Object(object)) => {
                Some(Value::Object(self.record(object, fields, path, errors)))
            }
            (Type::Record(_), _) | (_, Value::Object(_)) if !matches!(ty, Type::Opaque(_)) => {
                let message = match ty {
                    Type::Record(_) => format!("This field: {path} is a record."),
                    _ => format!("This field: {path} is not a record."),
                };
                report(errors, path, message);
                None
            }
            (ty, value) => match value::scalar(value, ty) {
                Ok(text) => Some(Value::String(text)),
                Err(what) => {
                    report(errors, path, format!("{what} Field: {path}; Value: {}", shown(value)));
                    None
                }
            },
        }
    }
}

fn null_message(path: &str) -> String {
    format!("Only optional fields can be set to NULL. Field: {path}; Value: NULL")
}

/// BigQuery quotes the refused value in its message; a client that logs the message leaks it.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from).chars().take(64).collect()
}

fn report(errors: &mut Vec<RowError>, location: &str, message: String) {
    if errors.len() < ERRORS_MAX {
        errors.push(RowError { location: location.to_owned(), message });
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
