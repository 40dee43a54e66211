//! The columns that a record type wants.

use crate::{
    schema::{error::SchemaError, model::Type},
    table::{Column, ColumnKind},
};

/// How columns are derived from a schema.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnRules {
    /// Make every column `NULLABLE`, also those that the schema says always have a value.
    pub all_nullable: bool,
    /// Leave the schema's documentation out of the columns' descriptions.
    pub no_descriptions: bool,
}

/// The field of a map's entry that holds the key.
pub const MAP_KEY: &str = "key";
/// The field of a map's entry that holds the value.
pub const MAP_VALUE: &str = "value";
/// The field that holds an inner array, or the entries of a map inside an array.
pub const ARRAY_ELEMENT: &str = "element";

/// The columns that the record type `ty` wants, in the order of its fields.
pub fn derive(ty: &Type, rules: &ColumnRules) -> Result<Vec<Column>, SchemaError> {
    let _ = (ty, rules);
    Ok(Vec::new())
}

/// The column type of a decimal: `NUMERIC`, `BIGNUMERIC` or, where neither is sure to hold every
/// value, `STRING`.
pub fn decimal(precision: Option<u32>, scale: i32) -> ColumnKind {
    let whole_digits = precision.map(|precision| i64::from(precision) - i64::from(scale));
    match (scale, whole_digits) {
        (..=9, Some(..=29)) => ColumnKind::Numeric,
        (..=38, Some(..=38) | None) => ColumnKind::BigNumeric,
        _ => ColumnKind::String,
    }
}
