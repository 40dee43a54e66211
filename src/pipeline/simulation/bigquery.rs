//! BigQuery: the simulator's pure core behind the production classifier.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Value, json};

use super::{encoder::BASE, plan::Plan};
use crate::{
    record::TopicPartition,
    rest::{RestError, RestResponse},
    sim::{
        self, SimSettings,
        bigquery::tables::TablePath,
        message::{Request, Response, Step},
    },
};

/// The wall clock at the start of every history.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// A row that was stored just now.
#[derive(Debug)]
pub(crate) struct StoredRow {
    /// Its lane.
    pub(crate) lane: TopicPartition,
    /// Its offset.
    pub(crate) offset: i64,
    /// The table it is in.
    pub(crate) table: String,
    /// All cells.
    pub(crate) cells: serde_json::Map<String, Value>,
}

/// The service.
#[derive(Debug)]
pub(crate) struct BigQuery {
    core: sim::Core,
    seen: std::collections::BTreeMap<String, usize>,
}

/// What a look at a table gave.
#[derive(Debug)]
pub(crate) enum Look {
    /// It is there.
    Found { etag: String, fields: Vec<Value> },
    /// It is not.
    Missing,
    /// A passing fault.
    Failed,
}

impl BigQuery {
    /// A service with an empty dataset.
    pub(crate) fn new(plan: &Plan) -> Self {
        let settings = SimSettings {
            create_delay_ms: plan.create_delay_ms,
            alter_delay_ms: plan.alter_delay_ms,
            dedupe_ms: plan.dedupe_ms,
            request_bytes_max: plan.core.body_bytes_max,
            ..SimSettings::default()
        };
        let mut bigquery = Self { core: sim::Core::new(settings), seen: Default::default() };
        let dataset = json!({"datasetReference": {"projectId": "p", "datasetId": "d"}});
        let made = bigquery.call(0, Method::POST, "/projects/p/datasets", None, &dataset);
        assert_eq!(made.status, 200);
        bigquery
    }

    fn call(
        &mut self,
        now_ms: u64,
        method: Method,
        path: &str,
        etag: Option<&str>,
        body: &Value,
    ) -> Response {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        self.send(now_ms, method, path, etag, body)
    }

    fn send(
        &mut self,
        now_ms: u64,
        method: Method,
        path: &str,
        etag: Option<&str>,
        body: Bytes,
    ) -> Response {
        let mut headers = HeaderMap::new();
        if let Some(etag) = etag {
            headers.insert(header::IF_MATCH, HeaderValue::from_str(etag).unwrap());
        }
        let request = Request::new(method, path, headers, body);
        match self.core.step(request, EPOCH + Duration::from_millis(now_ms)) {
            Step::Answer { response, .. } => response,
            Step::Lose | Step::Hold { .. } => unreachable!("the history has faults of its own"),
        }
    }

    /// Applies an insertAll; the rows that it stored, how many were deduplicated, and the answer.
    pub(crate) fn insert_all(
        &mut self,
        now_ms: u64,
        table: &str,
        body: Bytes,
    ) -> (Vec<StoredRow>, u64, RestResponse) {
        let before = self.core.counters().duplicates;
        let path = format!("/projects/p/datasets/d/tables/{table}/insertAll");
        let Response { status, headers, body } = self.send(now_ms, Method::POST, &path, None, body);
        let stored = self.new_rows(table);
        let duplicates = self.core.counters().duplicates - before;
        (stored, duplicates, RestResponse { status, headers, body })
    }

    fn new_rows(&mut self, table: &str) -> Vec<StoredRow> {
        let path = TablePath { project: "p", dataset: "d", table };
        let Ok(found) = self.core.bigquery().table(path) else { return Vec::new() };
        let seen = self.seen.entry(table.to_owned()).or_default();
        let new = found.store.rows()[*seen..].iter().map(|cells| {
            let text = |name: &str| cells[name].as_str().unwrap_or_default();
            let partition = text("_kafka_partition").parse().unwrap_or(-1);
            StoredRow {
                lane: TopicPartition::new(text("_kafka_topic"), partition),
                offset: text("_kafka_offset").parse().unwrap_or(-1),
                table: table.to_owned(),
                cells: cells.clone(),
            }
        });
        let new: Vec<StoredRow> = new.collect();
        *seen += new.len();
        new
    }

    /// Looks at a table.
    pub(crate) fn look(&mut self, now_ms: u64, table: &str) -> Look {
        let path = format!("/projects/p/datasets/d/tables/{table}");
        let answer = self.call(now_ms, Method::GET, &path, None, &Value::Null);
        match answer.status {
            200 => found(&answer.body),
            404 => Look::Missing,
            _ => Look::Failed,
        }
    }

    /// Creates a table with the base columns and `extra`.
    pub(crate) fn create(&mut self, now_ms: u64, table: &str, extra: &BTreeSet<String>) -> Look {
        let base = BASE.iter().map(|(name, kind)| json!({"name": name, "type": kind}));
        let fields: Vec<Value> = base.chain(extra.iter().map(|name| column(name))).collect();
        let reference = json!({"projectId": "p", "datasetId": "d", "tableId": table});
        let body = json!({"tableReference": reference, "schema": {"fields": fields}});
        let path = "/projects/p/datasets/d/tables";
        let answer = self.call(now_ms, Method::POST, path, None, &body);
        if answer.status == 200 { found(&answer.body) } else { Look::Failed }
    }

    /// Adds columns to the table as it was when it had this tag.
    pub(crate) fn add(
        &mut self,
        now_ms: u64,
        table: &str,
        etag: &str,
        mut fields: Vec<Value>,
        columns: &[String],
    ) -> Look {
        fields.extend(columns.iter().map(|name| column(name)));
        let path = format!("/projects/p/datasets/d/tables/{table}");
        let body = json!({"schema": {"fields": fields}});
        let answer = self.call(now_ms, Method::PATCH, &path, Some(etag), &body);
        if answer.status == 200 { found(&answer.body) } else { Look::Failed }
    }
}

fn column(name: &str) -> Value {
    json!({"name": name, "type": "STRING"})
}

fn found(body: &[u8]) -> Look {
    let table: Value = serde_json::from_slice(body).unwrap();
    let etag = table["etag"].as_str().unwrap_or_default().to_owned();
    let fields = table["schema"]["fields"].as_array().cloned().unwrap_or_default();
    Look::Found { etag, fields }
}

/// The names of a table's fields.
pub(crate) fn names(fields: &[Value]) -> BTreeSet<String> {
    fields.iter().filter_map(|field| field["name"].as_str().map(str::to_owned)).collect()
}

/// An answer of BigQuery's that the service did not give.
pub(crate) fn error(status: u16, reason: &str) -> RestResponse {
    let body = json!({"error": {"code": status, "message": "injected",
        "errors": [{"reason": reason, "message": "injected", "domain": "global"}]}});
    answer(status, &body)
}

/// An answer that puts a passing fault, or a neighbour's, on each row.
pub(crate) fn rows_stopped(rows: u32, reason: &str) -> RestResponse {
    let errors: Vec<Value> = (0..rows)
        .map(|index| json!({"index": index, "errors": [{"reason": reason, "message": ""}]}))
        .collect();
    let kind = "bigquery#tableDataInsertAllResponse";
    answer(200, &json!({"kind": kind, "insertErrors": errors}))
}

fn answer(status: u16, body: &Value) -> RestResponse {
    RestResponse { status, headers: HeaderMap::new(), body: body.to_string().into() }
}

/// What a client sees that waited in vain.
pub(crate) fn no_answer() -> RestError {
    RestError::NoAnswer { endpoint: "bigquery".to_owned(), source: "timeout".into() }
}
