//! Which partitions take streamed rows.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::sim::{
    bigquery::{
        civil,
        columns::{Column, Type, find},
        error::ApiError,
        row::RowError,
        tables::TablePath,
    },
    settings::SimSettings,
};

const DAY_SECONDS: u64 = 86_400;
const DAY_MICROS: i64 = 86_400_000_000;
/// Streaming to a column-partitioned table reaches ten years back and one ahead.
const PAST_DAYS: i64 = 3_650;
const FUTURE_DAYS: i64 = 366;

fn today(now: Duration) -> i64 {
    i64::try_from(now.as_secs() / DAY_SECONDS).unwrap_or(i64::MAX)
}

/// The day of a cell of a partitioning column, counted from 1970-01-01.
pub fn day_of(value: &str, ty: &Type) -> Option<i64> {
    match ty {
        Type::Timestamp => value.parse().ok().map(|micros: i64| micros.div_euclid(DAY_MICROS)),
        _ => civil::days(value),
    }
}

/// Refuses a partition decorator outside 31 days back and 16 ahead, or on a table without daily
/// partitions.
pub fn check_decorator(
    path: &TablePath<'_>,
    decorator: &str,
    document: &Value,
    now: Duration,
) -> Result<(), ApiError> {
    let name = format!("{}${decorator}", path.table);
    let granularity = document.get("timePartitioning").and_then(|value| value.get("type"));
    let day = match decorator.as_bytes() {
        [y @ .., m1, m2, d1, d2] if y.len() == 4 && decorator.is_ascii() => {
            let year = String::from_utf8_lossy(y);
            let digits = [m1, m2, d1, d2].map(|digit| char::from(*digit));
            let [m1, m2, d1, d2] = digits;
            civil::days(&format!("{year}-{m1}{m2}-{d1}{d2}"))
        }
        _ => None,
    };
    let (Some(day), Some("DAY")) = (day, granularity.and_then(Value::as_str)) else {
        return Err(ApiError::invalid(format!("Invalid partition decorator in {name}")));
    };
    if (-31..=16).contains(&(day - today(now))) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "The destination table's partition {name} is outside the allowed bounds. You can only \
         stream to partitions within 31 days in the past and 16 days in the future relative to \
         the current date."
    )))
}

/// The window of a column-partitioned table; admits everything for any other table.
#[derive(Debug)]
pub struct PartitionWindow<'a> {
    column: Option<&'a Column>,
    table: String,
    today: i64,
}

impl<'a> PartitionWindow<'a> {
    /// The window at `now`.
    pub fn of(
        path: &TablePath<'_>,
        document: &Value,
        columns: &'a [Column],
        now: Duration,
        settings: &SimSettings,
    ) -> Self {
        let field = document.get("timePartitioning").and_then(|value| value.get("field"));
        let field = field.and_then(Value::as_str).filter(|_| settings.partition_window);
        let column = field.and_then(|name| find(columns, name));
        Self { column, table: path.name(), today: today(now) }
    }

    /// Passes the row on if its partition takes streamed rows; a null goes to `__NULL__`.
    pub fn admit(&self, row: Map<String, Value>) -> Result<Map<String, Value>, Vec<RowError>> {
        let Some(column) = self.column else { return Ok(row) };
        let Some(value) = row.get(&column.name).and_then(Value::as_str) else { return Ok(row) };
        let away = day_of(value, &column.ty).map(|day| day - self.today);
        if away.is_none_or(|away| (-PAST_DAYS..=FUTURE_DAYS).contains(&away)) {
            return Ok(row);
        }
        let message = format!(
            "Value {value} for field {} of the destination table {} is outside the allowed bounds. \
             You can only stream to date range within {PAST_DAYS} days in the past and \
             {FUTURE_DAYS} days in the future relative to the current date.",
            column.name, self.table
        );
        Err(vec![RowError { location: column.name.clone(), message }])
    }
}
