//! Whole plans: against apache-avro as the oracle, against broken payloads, and by example.

mod accept;
mod avro;
mod envelope;
mod json;
mod json_text;
mod oracle;
mod paths;
mod random;
mod random_json;

use std::sync::Arc;

use serde_json::Value as Json;

use crate::{
    record::{Headers, Record},
    schema::{columns::ColumnRules, model::Type},
    table::TableSchema,
    transcode::{
        LaneLabel, Limits, RowError, RowPlan, RowSpec, ValueSource,
        writer::{RowWriter, json::JsonRow},
    },
};

/// A row of this value only.
fn bare(value: ValueSource) -> RowSpec {
    let mut spec = RowSpec::new(value);
    spec.metadata.enabled = false;
    spec
}

fn avro(schema: &str) -> Arc<Type> {
    Arc::new(crate::schema::avro::parse(schema, &[] as &[&str]).unwrap())
}

/// The table that `spec` wants.
fn wanted(spec: &RowSpec) -> TableSchema {
    TableSchema { columns: spec.columns(&ColumnRules::default()).unwrap() }
}

fn plan<W: RowWriter>(spec: &RowSpec, table: &TableSchema) -> RowPlan<W> {
    RowPlan::compile(spec, table, Limits::default()).unwrap()
}

fn record(value: Option<&[u8]>) -> Record<'_> {
    Record { offset: 7, timestamp_ms: Some(-1), key: None, value, headers: Headers::default() }
}

/// Encodes behind other bytes and checks that these stay, and that failure leaves nothing.
fn encode<W: RowWriter>(plan: &RowPlan<W>, record: &Record<'_>) -> Result<Vec<u8>, RowError> {
    let mut out = b"before,".to_vec();
    let outcome = plan.encode(record, &LaneLabel::new("shop.\"orders\"", 3), &mut out);
    let row = out.strip_prefix(b"before,").unwrap().to_vec();
    match outcome {
        Ok(()) => Ok(row),
        Err(error) => {
            assert!(row.is_empty());
            Err(error)
        }
    }
}

fn json_row(plan: &RowPlan<JsonRow>, record: &Record<'_>) -> Result<Json, RowError> {
    let row = encode(plan, record)?;
    Ok(serde_json::from_slice(&row).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&row));
    }))
}
