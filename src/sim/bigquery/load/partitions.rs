//! Which partitions a job may load into: any of its table's, but not too many, or the one it names.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::sim::bigquery::{
    civil,
    columns::{Column, Type, find},
    error::ApiError,
    window,
};

/// The partitions of one job.
#[derive(Clone, Debug)]
pub struct Partitions {
    /// The partitioning column; `None` for a table that is partitioned by ingestion or not at all.
    column: Option<Column>,
    granularity: String,
    /// The partition of the decorator.
    only: Option<String>,
    seen: HashSet<String>,
    max: usize,
}

impl Partitions {
    /// The partitions of a table with this document.
    pub fn of(
        document: &Value,
        columns: &[Column],
        decorator: Option<&str>,
        max: usize,
    ) -> Result<Self, ApiError> {
        let part = |key: &str| document.pointer(&format!("/timePartitioning/{key}"))?.as_str();
        let granularity = part("type").unwrap_or_default().to_owned();
        if let Some(decorator) = decorator {
            check_decorator(decorator, &granularity)?;
        }
        let column = part("field").and_then(|name| find(columns, name)).cloned();
        let only = decorator.map(str::to_owned);
        Ok(Self { column, granularity, only, seen: HashSet::new(), max })
    }

    /// Takes note of a row's partition; refuses one outside the decorator's, and one too many.
    pub fn admit(&mut self, row: &Map<String, Value>) -> Result<(), String> {
        let Some(column) = &self.column else { return Ok(()) };
        let value = row.get(&column.name).and_then(Value::as_str);
        let partition = value.map_or(Some("__NULL__".to_owned()), |value| {
            partition_of(value, &column.ty, &self.granularity)
        });
        let partition = partition.unwrap_or_else(|| "__UNPARTITIONED__".to_owned());
        if let Some(only) = self.only.as_ref().filter(|only| **only != partition) {
            return Err(format!(
                "The row's partition {partition} is not the destination's, {only}."
            ));
        }
        if !self.seen.contains(&partition) {
            self.seen.insert(partition);
        }
        if self.seen.len() > self.max {
            return Err(format!(
                "Too many partitions produced by the load job, allowed {}, the job produces at least \
                 {} partitions",
                self.max,
                self.seen.len()
            ));
        }
        Ok(())
    }
}

/// `YYYY[MM[DD[HH]]]` of a cell.
fn partition_of(value: &str, ty: &Type, granularity: &str) -> Option<String> {
    let day = civil::date_of_days(window::day_of(value, ty)?).ok()?;
    let day: String = day.chars().filter(char::is_ascii_digit).collect();
    match granularity {
        "YEAR" => day.get(..4).map(str::to_owned),
        "MONTH" => day.get(..6).map(str::to_owned),
        "HOUR" => Some(format!("{day}{:02}", hour_of(value, ty)?)),
        _ => Some(day),
    }
}

fn hour_of(value: &str, ty: &Type) -> Option<i64> {
    match ty {
        Type::Timestamp => {
            let micros: i64 = value.parse().ok()?;
            Some(micros.div_euclid(3_600_000_000).rem_euclid(24))
        }
        _ => value.get(11..13)?.parse().ok(),
    }
}

fn check_decorator(decorator: &str, granularity: &str) -> Result<(), ApiError> {
    let (year, month, day) = (decorator.get(..4), decorator.get(4..6), decorator.get(6..8));
    let length = match granularity {
        "YEAR" => 4,
        "MONTH" => 6,
        "DAY" => 8,
        "HOUR" => 10,
        _ => usize::MAX,
    };
    let date =
        format!("{}-{}-{}", year.unwrap_or_default(), month.unwrap_or("01"), day.unwrap_or("01"));
    let hour = decorator.get(8..10).is_none_or(|hour| hour.parse::<u8>().is_ok_and(|h| h < 24));
    let digits = decorator.bytes().all(|byte| byte.is_ascii_digit());
    if digits && decorator.len() == length && hour && civil::date(&date).is_ok() {
        return Ok(());
    }
    Err(ApiError::invalid(format!("Invalid partition decorator ${decorator} for this table")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decorators_fit_the_granularity() {
        for (decorator, granularity, valid) in [
            ("20240229", "DAY", true),
            ("20230229", "DAY", false),
            ("2024022923", "HOUR", true),
            ("2024022924", "HOUR", false),
            ("202402", "MONTH", true),
            ("2024", "YEAR", true),
            ("2024", "DAY", false),
            ("20240229", "", false),
            ("2024-2-9", "DAY", false),
        ] {
            let checked = check_decorator(decorator, granularity);
            assert_eq!(checked.is_ok(), valid, "{decorator} {granularity}");
        }
    }

    #[test]
    fn cells_have_partitions() {
        let micros = "1709164800000001";
        for (value, ty, granularity, expected) in [
            (micros, Type::Timestamp, "DAY", "20240229"),
            (micros, Type::Timestamp, "HOUR", "2024022900"),
            ("2024-02-29", Type::Date, "MONTH", "202402"),
            ("2024-02-29T23:10:00", Type::DateTime, "HOUR", "2024022923"),
            ("2024-02-29T23:10:00", Type::DateTime, "YEAR", "2024"),
        ] {
            assert_eq!(partition_of(value, &ty, granularity).as_deref(), Some(expected));
        }
    }
}
