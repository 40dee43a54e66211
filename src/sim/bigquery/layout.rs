//! Partitioning and clustering: what a new table may ask for, and what a change may not touch.

use serde_json::Value;

use crate::sim::bigquery::{
    columns::{Column, Mode, Type, find},
    error::ApiError,
};

/// Refuses a layout that BigQuery refuses.
pub fn check(document: &Value, columns: &[Column]) -> Result<(), ApiError> {
    if let Some(partitioning) = document.get("timePartitioning").filter(|value| value.is_object()) {
        check_partitioning(partitioning, columns)?;
    }
    let clustering = document.get("clustering").and_then(|clustering| clustering.get("fields"));
    let fields = clustering.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if fields.len() > 4 {
        return Err(ApiError::invalid("Too many clustering fields: the limit is 4"));
    }
    for name in fields.iter().filter_map(Value::as_str) {
        check_clustering(name, columns)?;
    }
    Ok(())
}

fn check_partitioning(partitioning: &Value, columns: &[Column]) -> Result<(), ApiError> {
    let granularity = partitioning.get("type").and_then(Value::as_str).unwrap_or_default();
    if !["HOUR", "DAY", "MONTH", "YEAR"].contains(&granularity) {
        return Err(ApiError::invalid(format!("Invalid time partitioning type: {granularity}")));
    }
    let Some(name) = partitioning.get("field").and_then(Value::as_str) else { return Ok(()) };
    let column = find(columns, name).ok_or_else(|| {
        ApiError::invalid(format!(
            "The field specified for partitioning cannot be found in the schema: {name}"
        ))
    })?;
    let fits = match column.ty {
        Type::Date => granularity != "HOUR",
        Type::DateTime | Type::Timestamp => true,
        _ => false,
    };
    if fits && column.mode != Mode::Repeated {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "The field specified for time partitioning can only be of type TIMESTAMP, DATE or \
         DATETIME. The type found is: {}.",
        column.ty.rest_name()
    )))
}

fn check_clustering(name: &str, columns: &[Column]) -> Result<(), ApiError> {
    let column = find(columns, name).ok_or_else(|| {
        ApiError::invalid(format!(
            "The field specified for clustering cannot be found in the schema: {name}"
        ))
    })?;
    let refused =
        matches!(column.ty, Type::Record(_) | Type::Json | Type::Float64 | Type::Bytes(_));
    if refused || column.mode == Mode::Repeated {
        return Err(ApiError::invalid(format!(
            "Clustering is not supported for field {name} of type {}",
            column.ty.rest_name()
        )));
    }
    Ok(())
}

/// Refuses another partitioning for an existing table; its expiration may change.
pub fn check_change(old: &Value, new: &Value) -> Result<(), ApiError> {
    let key = |document: &Value| {
        let partitioning = document.get("timePartitioning");
        let part = |name: &str| {
            partitioning.and_then(|value| value.get(name)).and_then(Value::as_str).map(String::from)
        };
        (part("type"), part("field"))
    };
    if key(old) == key(new) {
        return Ok(());
    }
    Err(ApiError::invalid(
        "Cannot change partitioning/clustering spec for a partitioned/clustered table.",
    ))
}
