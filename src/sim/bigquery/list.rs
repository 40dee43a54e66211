//! `tabledata.list`: rows as `f`/`v` cells, by page.

use serde_json::{Map, Value, json};

use crate::sim::{
    bigquery::{
        BigQuery,
        columns::{Column, Mode, Type},
        error::ApiError,
        tables::TablePath,
    },
    message::{Request, Response},
};

impl BigQuery {
    pub(crate) fn list_rows(
        &self,
        path: TablePath<'_>,
        request: &Request,
    ) -> Result<Response, ApiError> {
        let table = self.table(path)?;
        let token = request.parameter("pageToken").and_then(|token| token.parse().ok());
        let start: usize = token.or_else(|| request.number("startIndex")).unwrap_or(0);
        let max = request.number("maxResults").unwrap_or(10_000).min(100_000);
        let micros = ["formatOptions.useInt64Timestamp", "formatOptions.useint64timestamp"]
            .iter()
            .any(|name| request.parameter(name).as_deref() == Some("true"));
        let selected = request.parameter("selectedFields");
        let columns: Vec<&Column> = table
            .columns
            .iter()
            .filter(|column| {
                selected.as_ref().is_none_or(|names| names.split(',').any(|n| n == column.name))
            })
            .collect();
        let stored = table.store.rows();
        let page = stored.iter().skip(start).take(max);
        let rows: Vec<Value> = page.map(|row| record(row, &columns, micros)).collect();
        let mut body = json!({
            "kind": "bigquery#tableDataList",
            "etag": table.etag(),
            "totalRows": table.store.count().to_string(),
            "rows": rows,
        });
        let end = start.saturating_add(max);
        if let (true, Some(body)) = (end < stored.len(), body.as_object_mut()) {
            body.insert("pageToken".into(), json!(end.to_string()));
        }
        Ok(Response::json(200, &body))
    }
}

fn record(row: &Map<String, Value>, columns: &[&Column], micros: bool) -> Value {
    let cells =
        columns.iter().map(|column| json!({"v": cell(row.get(&column.name), column, micros)}));
    json!({"f": cells.collect::<Vec<_>>()})
}

fn cell(value: Option<&Value>, column: &Column, micros: bool) -> Value {
    match (value, column.mode) {
        (None, Mode::Repeated) => json!([]),
        (None, _) => Value::Null,
        (Some(Value::Array(items)), _) => {
            items.iter().map(|item| json!({"v": single(item, &column.ty, micros)})).collect()
        }
        (Some(value), _) => single(value, &column.ty, micros),
    }
}

fn single(value: &Value, ty: &Type, micros: bool) -> Value {
    match (ty, value) {
        (Type::Record(fields), Value::Object(row)) => {
            record(row, &fields.iter().collect::<Vec<_>>(), micros)
        }
        (Type::Timestamp, Value::String(text)) if !micros => text
            .parse::<f64>()
            .map_or_else(|_| value.clone(), |us| json!(format!("{:E}", us / 1e6))),
        // Canonical cells follow Rust where BigQuery spells differently.
        (Type::Float64, Value::String(text)) => match text.as_str() {
            "inf" => json!("Infinity"),
            "-inf" => json!("-Infinity"),
            _ => value.clone(),
        },
        _ => value.clone(),
    }
}
