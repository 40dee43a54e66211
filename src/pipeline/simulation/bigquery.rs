//! BigQuery and Cloud Storage: the simulator's pure core.

use std::{collections::BTreeMap, io::Read, time::Duration};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{plan::Plan, records::EPOCH_MS};
use crate::{
    record::TopicPartition,
    rest::{RestRequest, RestResponse},
    sim::{
        self, SimSettings,
        bigquery::{
            jobs::job::{Job, State},
            storage,
            tables::TablePath,
        },
        faults::{FaultAction, FaultRule, FaultScript},
        message::{Request, Response, Step},
        settings::LoadSettings,
    },
};

/// Where rows are staged.
pub(crate) const BUCKET: &str = "stage";

/// Every table that topics write to.
const TABLES: [&str; 3] = ["ab", "c0", "c1"];

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
    /// The rows of an object that a job was made of which has not failed, if that object was deleted.
    pub(crate) deleted: Vec<(TopicPartition, i64)>,
    /// The answer.
    pub(crate) answer: RestResponse,
}

/// The service.
#[derive(Debug)]
pub(crate) struct BigQuery {
    core: sim::Core,
    seen: BTreeMap<String, usize>,
    /// The core's numbers of the processes' connections.
    connections: BTreeMap<u64, u64>,
}

impl BigQuery {
    /// A service without a dataset.
    pub(crate) fn new(plan: &Plan) -> Self {
        let settings = SimSettings {
            create_delay_ms: plan.create_delay_ms,
            alter_delay_ms: plan.alter_delay_ms,
            dedupe_ms: plan.dedupe_ms,
            request_bytes_max: plan.core.body_bytes_max,
            load: LoadSettings {
                pending_ms: plan.loading.pending_ms,
                running_ms: plan.loading.running_ms,
                ..LoadSettings::default()
            },
            ..SimSettings::default()
        };
        let mut core = sim::Core::new(settings);
        core.set_faults(job_faults(plan));
        Self { core, seen: BTreeMap::new(), connections: BTreeMap::new() }
    }

    /// Every load job: when it was created, and why it failed if it did.
    pub(crate) fn jobs(&self) -> Vec<(u64, Option<String>)> {
        let jobs = self.core.bigquery().jobs.all().map(|(_, job)| {
            let reason = match &job.state {
                State::Done(end) => end.error.as_ref().map(|error| error.reason.clone()),
                State::Pending | State::Running(_) => None,
            };
            (job.created.as_millis() as u64 - EPOCH_MS, reason)
        });
        jobs.collect()
    }

    /// Load jobs fail no more.
    pub(crate) fn heal(&mut self) {
        self.core.set_faults(FaultScript::default());
    }

    /// Applies a request.
    pub(crate) fn apply(&mut self, now_ms: u64, request: RestRequest) -> Applied {
        let deleted = self.needed_rows(&request);
        let before = self.core.counters().duplicates;
        let request = self.storage_request(now_ms, request);
        let step = self.core.step(request, Duration::from_millis(EPOCH_MS + now_ms));
        let Step::Answer { response: Response { status, headers, body }, .. } = step else {
            unreachable!("the history has faults of its own")
        };
        Applied {
            // Jobs end whenever somebody asks for anything.
            rows: TABLES.iter().flat_map(|table| self.new_rows(table)).collect(),
            deleted,
            duplicates: self.core.counters().duplicates - before,
            answer: RestResponse { status, headers, body },
        }
    }

    /// The request as the core takes it: a connection that it has not seen is opened.
    fn storage_request(&mut self, now_ms: u64, request: RestRequest) -> Request {
        let RestRequest { method, path, headers, body } = request;
        let mut request = Request::new(method, &path, headers, body.into_bytes());
        if let Some(number) = storage::connection_of(&request) {
            let now = Duration::from_millis(EPOCH_MS + now_ms);
            let known = self.connections.entry(number);
            let number = *known.or_insert_with(|| self.core.connect(now));
            request.headers.insert(storage::CONNECTION, HeaderValue::from(number));
        }
        request
    }

    /// A connection has ended in good order.
    pub(crate) fn leave(&mut self, number: u64) {
        if let Some(number) = self.connections.remove(&number) {
            self.core.disconnect(number);
        }
    }

    fn needed_rows(&self, request: &RestRequest) -> Vec<(TopicPartition, i64)> {
        let Some(name) = deleted_object(request) else { return Vec::new() };
        let uri = format!("gs://{BUCKET}/{name}");
        let reads = |job: &Job| {
            let sources = job.configuration["load"]["sourceUris"].as_array();
            sources.is_some_and(|sources| sources.iter().any(|source| *source == uri))
        };
        let failed = |job: &Job| matches!(&job.state, State::Done(end) if end.error.is_some());
        let mut jobs = self.core.bigquery().jobs.all();
        let is_needed = jobs.any(|(_, job)| reads(job) && !failed(job));
        let object = self.core.gcs().object(BUCKET, &name).filter(|_| is_needed);
        object.map(|object| staged_rows(&object.media)).unwrap_or_default()
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

/// Load jobs that fail, run for longer, or carry a warning.
fn job_faults(plan: &Plan) -> FaultScript {
    let chance = plan.chances.job as f64 / 1_000.0;
    let error = |status, reason: &str| FaultAction::Refuse {
        status,
        reason: reason.to_owned(),
        message: String::new(),
    };
    let (status, reason, message) = (500, "internalError".to_owned(), String::new());
    let faults = [
        error(503, "backendError"),
        error(403, "quotaExceeded"),
        FaultAction::FailAfter { status, reason, message },
        FaultAction::Slow { ms: 8_000 },
    ];
    let rules = faults.map(|fault| FaultRule {
        operation: "jobs.run".to_owned(),
        table: None,
        nth: None,
        every: None,
        probability: Some(chance),
        times: None,
        fault,
    });
    FaultScript { seed: plan.records ^ plan.heal_ms, rules: rules.into() }
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// It writes rows.
    InsertAll,
    /// It appends rows.
    Append,
    /// It creates, ends or commits streams.
    Streams,
    /// It stores an object.
    Upload,
    /// It creates a load job.
    JobInsert,
    /// It sends a load job's rows.
    JobMedia,
    /// Anything else.
    Other,
}

impl Service {
    /// What the request is for.
    pub(crate) fn of(request: &RestRequest) -> Self {
        let is_post = request.method == Method::POST;
        match request.path.as_str() {
            _ if inserts_into(request).is_some() => Self::InsertAll,
            path if path.starts_with(storage::SERVICE) && path.ends_with("/AppendRows") => {
                Self::Append
            }
            path if path.starts_with(storage::SERVICE) => Self::Streams,
            path if path.starts_with("/upload/bigquery/") => Self::JobMedia,
            path if path.starts_with("/upload/") => Self::Upload,
            path if is_post && path.ends_with("/jobs") => Self::JobInsert,
            _ => Self::Other,
        }
    }
}

/// The object that a request deletes.
fn deleted_object(request: &RestRequest) -> Option<String> {
    let (_, name) = request.path.split_once("/o/")?;
    let name = percent_decode_str(name).decode_utf8().ok()?;
    (request.method == Method::DELETE).then(|| name.into_owned())
}

/// The records whose rows are in an object.
fn staged_rows(media: &[u8]) -> Vec<(TopicPartition, i64)> {
    if media.starts_with(b"Obj\x01") {
        let rows = apache_avro::Reader::new(media).unwrap();
        return rows.map(|row| coordinate(&row.unwrap().try_into().unwrap())).collect();
    }
    let mut text = String::new();
    flate2::read::GzDecoder::new(media).read_to_string(&mut text).unwrap();
    text.lines().map(|line| coordinate(&serde_json::from_str(line).unwrap())).collect()
}

/// The table that an insertAll is for.
pub(crate) fn inserts_into(request: &RestRequest) -> Option<&str> {
    request.path.strip_suffix("/insertAll")?.rsplit('/').next()
}

/// The records in an insertAll.
pub(crate) fn coordinates(request: &RestRequest) -> Vec<(TopicPartition, i64)> {
    let body: Value = serde_json::from_slice(&request.body.clone().into_bytes()).unwrap();
    body["rows"].as_array().unwrap().iter().map(|row| coordinate(&row["json"])).collect()
}

fn coordinate(row: &Value) -> (TopicPartition, i64) {
    let number = |name: &str| match &row[name] {
        Value::String(text) => text.parse().unwrap(),
        cell => cell.as_i64().unwrap(),
    };
    let topic = row["_kafka_topic"].as_str().unwrap().to_owned();
    let partition = number("_kafka_partition") as i32;
    (TopicPartition::new(topic, partition), number("_kafka_offset"))
}

/// An answer of BigQuery's that the service did not give.
pub(crate) fn error(status: StatusCode, reason: &str) -> RestResponse {
    let body = json!({"error": {"code": status.as_u16(), "message": "injected",
        "errors": [{"reason": reason, "message": "injected", "domain": "global"}]}});
    answer(status, &body)
}

/// The same to a request that appends rows.
pub(crate) fn append_error(status: StatusCode, reason: &str) -> RestResponse {
    let Response { status, headers, body } = storage::refusal(status.as_u16(), reason, "injected");
    RestResponse { status, headers, body }
}

/// The same to a call about streams.
pub(crate) fn call_error(status: StatusCode, reason: &str) -> RestResponse {
    let error = storage::refused(status.as_u16(), reason, "injected");
    let Response { status, headers, body } = error.into();
    RestResponse { status, headers, body }
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
