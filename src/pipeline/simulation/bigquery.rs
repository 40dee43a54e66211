//! BigQuery: the simulator's pure core.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::{plan::Plan, records::EPOCH_MS};
use crate::{
    record::TopicPartition,
    rest::{RestRequest, RestResponse},
    sim::{
        self, SimSettings,
        bigquery::tables::TablePath,
        message::{Request, Response, Step},
    },
};

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

/// What a request did.
#[derive(Debug)]
pub(crate) struct Applied {
    /// Rows stored.
    pub(crate) rows: Vec<StoredRow>,
    /// Rows dropped because their insertIds were known.
    pub(crate) duplicates: u64,
    /// The answer.
    pub(crate) answer: RestResponse,
}

/// The service.
#[derive(Debug)]
pub(crate) struct BigQuery {
    core: sim::Core,
    seen: BTreeMap<String, usize>,
}

impl BigQuery {
    /// A service without a dataset.
    pub(crate) fn new(plan: &Plan) -> Self {
        let settings = SimSettings {
            create_delay_ms: plan.create_delay_ms,
            alter_delay_ms: plan.alter_delay_ms,
            dedupe_ms: plan.dedupe_ms,
            request_bytes_max: plan.core.body_bytes_max,
            ..SimSettings::default()
        };
        Self { core: sim::Core::new(settings), seen: BTreeMap::new() }
    }

    /// Applies a request.
    pub(crate) fn apply(&mut self, now_ms: u64, request: RestRequest) -> Applied {
        let table = inserts_into(&request).map(str::to_owned);
        let before = self.core.counters().duplicates;
        let RestRequest { method, path, headers, body } = request;
        let request = Request::new(method, &path, headers, body);
        let step = self.core.step(request, Duration::from_millis(EPOCH_MS + now_ms));
        let Step::Answer { response: Response { status, headers, body }, .. } = step else {
            unreachable!("the history has faults of its own")
        };
        Applied {
            rows: table.map(|table| self.new_rows(&table)).unwrap_or_default(),
            duplicates: self.core.counters().duplicates - before,
            answer: RestResponse { status, headers, body },
        }
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
}

/// The table that an insertAll is for.
pub(crate) fn inserts_into(request: &RestRequest) -> Option<&str> {
    request.path.strip_suffix("/insertAll")?.rsplit('/').next()
}

/// The records in an insertAll.
pub(crate) fn coordinates(request: &RestRequest) -> Vec<(TopicPartition, i64)> {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let rows = body["rows"].as_array().unwrap().iter().map(|row| {
        let cell = |name: &str| &row["json"][name];
        let number = |name: &str| match cell(name) {
            Value::String(text) => text.parse().unwrap(),
            cell => cell.as_i64().unwrap(),
        };
        let topic = cell("_kafka_topic").as_str().unwrap().to_owned();
        let partition = number("_kafka_partition") as i32;
        (TopicPartition::new(topic, partition), number("_kafka_offset"))
    });
    rows.collect()
}

/// An answer of BigQuery's that the service did not give.
pub(crate) fn error(status: StatusCode, reason: &str) -> RestResponse {
    let body = json!({"error": {"code": status.as_u16(), "message": "injected",
        "errors": [{"reason": reason, "message": "injected", "domain": "global"}]}});
    answer(status, &body)
}

/// An answer that puts a passing fault, or a neighbour's, on each row.
pub(crate) fn rows_stopped(rows: usize, reason: &str) -> RestResponse {
    let errors: Vec<Value> = (0..rows)
        .map(|index| json!({"index": index, "errors": [{"reason": reason, "message": ""}]}))
        .collect();
    let kind = "bigquery#tableDataInsertAllResponse";
    answer(StatusCode::OK, &json!({"kind": kind, "insertErrors": errors}))
}

fn answer(status: StatusCode, body: &Value) -> RestResponse {
    let body = body.to_string().into();
    RestResponse { status: status.as_u16(), headers: HeaderMap::new(), body }
}
