//! Real input through real Kafka into tables, every cell compared with its source.

pub(crate) mod calm;
pub(crate) mod debezium;
pub(crate) mod flights;
pub(crate) mod paths;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::rig::bigquery::Dataset;

/// Rows by the partition and offset in their metadata columns, without these columns.
pub(crate) fn rows_by_offset(dataset: &Dataset<'_>, table: &str) -> Result<Rows> {
    let mut rows = Rows::new();
    for mut row in dataset.rows(table)? {
        let cells = row.as_object_mut().context("a row is no object")?;
        let number = |name: &str| cells.get(name).and_then(Value::as_str)?.parse::<i64>().ok();
        let place = number("_kafka_partition").zip(number("_kafka_offset"));
        let place = place.with_context(|| format!("a row of {table} without its metadata"))?;
        cells.retain(|name, _| !name.starts_with("_kafka_"));
        ensure!(rows.insert(place, row).is_none(), "{table}: {place:?} is there twice");
    }
    Ok(rows)
}

/// Rows by (partition, offset).
pub(crate) type Rows = BTreeMap<(i64, i64), Value>;

/// Fails at the first cell that differs; the number of cells compared.
pub(crate) fn compare(table: &str, expected: &Rows, found: &Rows) -> Result<usize> {
    let mut cells = 0;
    for (place, row) in expected {
        let other = found.get(place).with_context(|| format!("{table}: {place:?} is lost"))?;
        compare_cells(row, other).with_context(|| format!("{table} {place:?}"))?;
        cells += count(row);
    }
    let extra = found.keys().find(|place| !expected.contains_key(place));
    ensure!(extra.is_none(), "{table}: {extra:?} has no source");
    Ok(cells)
}

fn count(cell: &Value) -> usize {
    match cell {
        Value::Object(cells) => cells.values().map(count).sum(),
        Value::Array(cells) => cells.iter().map(count).sum(),
        _ => 1,
    }
}

fn compare_cells(expected: &Value, found: &Value) -> Result<()> {
    let (Value::Object(expected), Value::Object(found)) = (expected, found) else {
        ensure!(expected == found, "expected {expected}, found {found}");
        return Ok(());
    };
    // A record whose fields are all null may be stored as null.
    let nothing = Value::Object(Default::default());
    let names = expected.keys().chain(found.keys());
    for name in names {
        let left = expected.get(name).unwrap_or(&nothing);
        let right = found.get(name).unwrap_or(&nothing);
        compare_cells(left, right).with_context(|| format!("column {name}"))?;
    }
    Ok(())
}
