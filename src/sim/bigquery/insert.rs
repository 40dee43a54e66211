//! `tabledata.insertAll`.

use std::time::Duration;

use memchr::memmem;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use crate::sim::{
    bigquery::{
        BigQuery, Route,
        error::ApiError,
        row::{RowChecker, RowError},
        table::Table,
        window,
    },
    counters::Counters,
    message::{Request, Response},
    settings::{SimSettings, StoreMode},
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(default)]
    skip_invalid_rows: bool,
    #[serde(default)]
    ignore_unknown_values: bool,
    #[serde(default)]
    template_suffix: Option<String>,
    #[serde(default, borrow)]
    rows: Vec<BodyRow<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BodyRow<'a> {
    #[serde(default)]
    insert_id: Option<String>,
    #[serde(default, borrow)]
    json: Option<&'a RawValue>,
}

/// One row's outcome before anything is stored.
type Checked = Result<Map<String, Value>, Vec<RowError>>;

impl BigQuery {
    pub(crate) fn insert_all(
        &mut self,
        route: &Route,
        request: &Request,
        now: Duration,
        counters: &mut Counters,
    ) -> Result<Response, ApiError> {
        let settings = std::sync::Arc::clone(&self.settings);
        let path = route.path();
        let table = self.table_mut(path)?;
        let not_visible = || ApiError::not_found(&format!("Table {}", path.name()));
        let columns = table.streaming_columns(now).ok_or_else(not_visible)?;
        if let Some(decorator) = &route.decorator {
            window::check_decorator(&path, decorator, &table.document, now)?;
        }
        if settings.store == StoreMode::Count {
            let rows = count_rows(&request.body);
            table.store.add_count(rows);
            counters.add_rows(rows, request.body.len());
            return Ok(accepted(&[]));
        }
        if columns.is_empty() {
            return Err(ApiError::invalid("The destination table has no schema."));
        }
        let body = parse(&request.body, &settings)?;
        let checker = RowChecker {
            columns: &columns,
            ignore_unknown: body.ignore_unknown_values,
            raw_json: false,
        };
        let window = window::PartitionWindow::of(&path, &table.document, &columns, now, &settings);
        let checked: Vec<Checked> = body
            .rows
            .iter()
            .map(|row| check_row(row, &checker, &settings).and_then(|cells| window.admit(cells)))
            .collect();
        let errors = insert_errors(&checked, body.skip_invalid_rows);
        counters.row_errors += errors.len() as u64;
        if errors.is_empty() || body.skip_invalid_rows {
            store(table, &body, checked, now, &settings, counters);
            counters.bytes += request.body.len() as u64;
        }
        Ok(accepted(&errors))
    }
}

fn parse<'a>(bytes: &'a [u8], settings: &SimSettings) -> Result<Body<'a>, ApiError> {
    let body: Body<'a> = serde_json::from_slice(bytes)
        .map_err(|_| ApiError::new(400, "parseError", "Parse Error"))?;
    if body.template_suffix.is_some() {
        return Err(ApiError::new(501, "notImplemented", "templateSuffix is not simulated"));
    }
    if body.rows.is_empty() {
        return Err(ApiError::invalid("No rows present in the request."));
    }
    if body.rows.len() > settings.rows_max {
        return Err(ApiError::invalid(format!(
            "too many rows present in the request, limit: {}, row count: {}.",
            settings.rows_max,
            body.rows.len()
        )));
    }
    if body.rows.iter().any(|row| row.insert_id.as_ref().is_some_and(|id| id.len() > 128)) {
        return Err(ApiError::invalid("insertId is too long: the limit is 128 characters."));
    }
    Ok(body)
}

fn check_row(row: &BodyRow<'_>, checker: &RowChecker<'_>, settings: &SimSettings) -> Checked {
    let whole_row = |message: String| vec![RowError { location: String::new(), message }];
    let text = row.json.map_or("{}", RawValue::get);
    if text.len() > settings.row_bytes_max {
        return Err(whole_row(format!(
            "Maximum allowed row size exceeded. Allowed: {} Row size: {}",
            settings.row_bytes_max,
            text.len()
        )));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(row)) => checker.check(&row),
        _ => Err(whole_row("Row is not a JSON object.".to_owned())),
    }
}

/// The `insertErrors` of the answer. Without `skipInvalidRows` one bad row stops all others.
fn insert_errors(checked: &[Checked], skip_invalid: bool) -> Vec<Value> {
    let none_bad = checked.iter().all(Result::is_ok);
    let entry = |index: usize, errors: Vec<Value>| json!({"index": index, "errors": errors});
    let error = |reason: &str, location: &str, message: &str| json!({"reason": reason, "location": location, "debugInfo": "", "message": message});
    let listed = checked.iter().enumerate().filter_map(|(index, row)| match row {
        Ok(_) if none_bad || skip_invalid => None,
        Ok(_) => Some(entry(index, vec![error("stopped", "", "")])),
        Err(errors) => {
            let errors = errors.iter().map(|e| error("invalid", &e.location, &e.message)).collect();
            Some(entry(index, errors))
        }
    });
    listed.collect()
}

/// Stores the good rows whose insertId is new.
fn store(
    table: &mut Table,
    body: &Body<'_>,
    checked: Vec<Checked>,
    now: Duration,
    settings: &SimSettings,
    counters: &mut Counters,
) {
    table.recent.expire(now, Duration::from_millis(settings.dedupe_ms));
    for (row, checked) in body.rows.iter().zip(checked) {
        let Ok(cells) = checked else { continue };
        let id = row.insert_id.as_deref().filter(|id| !id.is_empty() && settings.dedupe_ms > 0);
        if id.is_some_and(|id| !table.recent.insert(id, now)) {
            counters.duplicates += 1;
            continue;
        }
        table.store.push(cells, settings, now);
        counters.rows += 1;
    }
}

fn accepted(errors: &[Value]) -> Response {
    let mut body = json!({"kind": "bigquery#tableDataInsertAllResponse"});
    if let (false, Some(body)) = (errors.is_empty(), body.as_object_mut()) {
        body.insert("insertErrors".into(), json!(errors));
    }
    Response::json(200, &body)
}

/// Counts rows without parsing them: by their `"insertId":` keys, or by `"json":` where there are
/// none. Inside a string the quotes are escaped, so only keys match; a row that itself has a field
/// of that name is counted once more, which a benchmark must not have.
fn count_rows(body: &[u8]) -> u64 {
    let keyed = memmem::find_iter(body, b"\"insertId\":").count();
    let rows = if keyed > 0 { keyed } else { memmem::find_iter(body, b"\"json\":").count() };
    rows as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_by_keys_not_by_text() {
        let body = br#"{"rows":[{"insertId":"1","json":{"a":"\"insertId\":"}},{"insertId":"2","json":{}}]}"#;
        assert_eq!(count_rows(body), 2);
        assert_eq!(count_rows(br#"{"rows":[{"json":{}},{"json":{}},{"json":{}}]}"#), 3);
        assert_eq!(count_rows(b""), 0);
    }
}
