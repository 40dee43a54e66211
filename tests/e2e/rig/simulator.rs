//! `kcbq sim` as a process: BigQuery and schema registry, the ledger and the counters behind them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    clients::Lane,
    http::Http,
    place::{self, Place},
    process::{self, Process, Usage},
};

/// How the simulator is to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimulatorPlan<'a> {
    /// The binary that has `sim`.
    pub(crate) binary: &'a Path,
    /// `rows`, `ledger` or `count`.
    pub(crate) store: &'a str,
    /// How long an answer takes.
    pub(crate) answer_delay: Duration,
    /// How long an insertId is remembered; BigQuery's minute if not given.
    pub(crate) dedupe_ms: Option<u64>,
    /// Certificate and key, if it is to speak TLS with the sink.
    pub(crate) tls: Option<(&'a Path, &'a Path)>,
}

impl<'a> SimulatorPlan<'a> {
    /// One that answers at once, in plaintext, and remembers insertIds as BigQuery does.
    pub(crate) fn new(binary: &'a Path, store: &'a str) -> Self {
        Self { binary, store, answer_delay: Duration::ZERO, dedupe_ms: None, tls: None }
    }
}

/// The simulator.
#[derive(Debug)]
pub(crate) struct Simulator {
    rest: u16,
    registry: u16,
    gcs: u16,
    grpc: u16,
    scheme: &'static str,
    /// Rules of the fault script that stay.
    always: Vec<Value>,
    process: Process,
}

/// One stored row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// Where the record came from.
    pub(crate) lane: Lane,
    /// Its offset.
    pub(crate) offset: i64,
    /// The hash of its cells.
    pub(crate) hash: u64,
    /// When it was stored, in milliseconds since the epoch.
    pub(crate) stored_ms: i64,
}

impl Simulator {
    /// Starts it and waits until both listeners answer.
    pub(crate) fn start(place: &Place, http: &Http, plan: SimulatorPlan<'_>) -> Result<Self> {
        let (rest, registry, gcs) = (place::free_port()?, place::free_port()?, place::free_port()?);
        let grpc = place::free_port()?;
        let mut command = process::command(plan.binary);
        command.arg("sim").args(["--store", plan.store]);
        command.args(["--rest", &format!("127.0.0.1:{rest}")]);
        command.args(["--registry", &format!("127.0.0.1:{registry}")]);
        command.args(["--gcs", &format!("127.0.0.1:{gcs}")]);
        command.args(["--grpc", &format!("127.0.0.1:{grpc}")]);
        command.args(["--load-jobs-per-table-day", "1000000"]);
        command.args(["--answer-delay", &format!("{}ms", plan.answer_delay.as_millis())]);
        if let Some(ms) = plan.dedupe_ms {
            command.args(["--dedupe", &format!("{ms}ms")]);
        }
        if let Some((certificate, key)) = plan.tls {
            command.arg("--tls-certificate").arg(certificate).arg("--tls-key").arg(key);
        }
        let scheme = if plan.tls.is_some() { "https" } else { "http" };
        let mut process = Process::spawn("sim", &mut command, place.path())?;
        let probe = format!("http://127.0.0.1:{registry}/subjects");
        process.until("answer", Duration::from_secs(30), |_| {
            http.get(&probe).is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(Self { rest, registry, gcs, grpc, scheme, always: Vec::new(), process })
    }

    /// BigQuery's address.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.rest)
    }

    /// The Storage Write API's address.
    pub(crate) fn storage(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.grpc)
    }

    /// Cloud Storage's address.
    pub(crate) fn gcs(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.gcs)
    }

    /// The registry's address, which is that of the control API too: never with TLS.
    pub(crate) fn registry(&self) -> String {
        format!("http://127.0.0.1:{}", self.registry)
    }

    /// Registers an Avro schema; its id.
    pub(crate) fn register(&self, http: &Http, subject: &str, schema: &str) -> Result<u32> {
        let url = format!("{}/subjects/{subject}/versions", self.registry());
        let answer = http.post(&url, &json!({"schema": schema}))?.json()?;
        let id = answer.get("id").and_then(Value::as_u64).context("the registry gave no id")?;
        Ok(u32::try_from(id)?)
    }

    /// Every row that was stored, in the order of arrival.
    pub(crate) fn ledger(&self, http: &Http) -> Result<Vec<Entry>> {
        self.read_ledger(http, "")
    }

    /// The offsets of one lane that were stored, from `from` on. Quick, however much is stored: who asks
    /// what a dead process left behind must have the answer before the next owner is at work.
    pub(crate) fn stored(&self, http: &Http, lane: &Lane, from: i64) -> Result<BTreeSet<i64>> {
        let (topic, partition) = lane;
        let query = format!("?topic={topic}&partition={partition}&from={from}");
        Ok(self.read_ledger(http, &query)?.iter().map(|entry| entry.offset).collect())
    }

    fn read_ledger(&self, http: &Http, query: &str) -> Result<Vec<Entry>> {
        let answer = http.get(&format!("{}/sim/v1/ledger{query}", self.registry()))?;
        ensure!(answer.status == 200, "the ledger answers {}", answer.status);
        answer.body.lines().filter(|line| !line.is_empty()).map(read_entry).collect()
    }

    /// Partition and offset of every row of a table, in the order of arrival, from their metadata: much
    /// quicker than reading the rows.
    pub(crate) fn places(&self, http: &Http, table: &str) -> Result<Vec<(i64, i64)>> {
        let url = format!("{}/sim/v1/rows?table={table}", self.registry());
        let answer = http.get(&url)?;
        ensure!(answer.status == 200, "the rows answer {}", answer.status);
        let place = |line: &str| {
            let row: Value = serde_json::from_str(line).context("a row is not JSON")?;
            let number = |key: &str| row.get("row")?.get(key)?.as_str()?.parse::<i64>().ok();
            let place = number("_kafka_partition").zip(number("_kafka_offset"));
            place.with_context(|| format!("a row of {table} without its metadata"))
        };
        answer.body.lines().map(place).collect()
    }

    /// Makes schemas known under ids of our choice.
    pub(crate) fn preload(&self, http: &Http, schemas: &Value) -> Result<()> {
        http.post(&format!("{}/sim/v1/schemas", self.registry()), schemas)?.json().map(drop)
    }

    /// From now on so many of a thousand answers to rows, and to load jobs that are begun, are lost.
    pub(crate) fn lose_answers(&mut self, http: &Http, permille: u64) -> Result<()> {
        let probability = permille as f64 / 1_000.0;
        let rule = |operation| json!({"operation": operation, "probability": probability, "fault": {"kind": "lose"}});
        let operations = [
            "tabledata.insertAll",
            "AppendRows",
            "FinalizeWriteStream",
            "BatchCommitWriteStreams",
            "jobs.insert",
        ];
        self.always = operations.map(rule).to_vec();
        self.set_faults(http, &[])
    }

    /// When answers were lost, in milliseconds since the epoch.
    pub(crate) fn lost_answers(&self, http: &Http) -> Result<Vec<i64>> {
        let answer = http.get(&format!("{}/sim/v1/lost", self.registry()))?.json()?;
        let times = answer.as_array().context("the lost answers are no array")?;
        times.iter().map(|time| time.as_i64().context("a time is no number")).collect()
    }

    /// Replaces the fault script by one of these rules and those that stay.
    pub(crate) fn set_faults(&self, http: &Http, rules: &[Value]) -> Result<()> {
        let rules: Vec<&Value> = rules.iter().chain(&self.always).collect();
        let script = json!({"rules": rules});
        http.post(&format!("{}/sim/v1/faults", self.registry()), &script)?.json().map(drop)
    }

    /// BigQuery refuses streaming inserts for a quota from now on, or takes them again.
    pub(crate) fn refuse_streaming(&self, http: &Http, is_refused: bool) -> Result<()> {
        let fault = json!({"kind": "refuse", "status": 403, "reason": "quotaExceeded",
            "message": "Exceeded rate limits: too many bytes streamed"});
        let rules = ["tabledata.insertAll", "AppendRows"]
            .map(|operation| json!({"operation": operation, "fault": fault}));
        self.set_faults(http, if is_refused { &rules } else { &[] })
    }

    /// Forgets the fault script and lets every held request pass.
    pub(crate) fn release(&self, http: &Http) -> Result<()> {
        self.set_faults(http, &[])?;
        http.post(&format!("{}/sim/v1/release", self.registry()), &json!({}))?.json().map(drop)
    }

    /// The rows of each table by its id.
    pub(crate) fn row_counts(&self, http: &Http) -> Result<BTreeMap<String, u64>> {
        let tables = http.get(&format!("{}/sim/v1/tables", self.registry()))?.json()?;
        let count = |table: &Value| {
            let id = table.get("table")?.as_str()?.rsplit('.').next()?.to_owned();
            Some((id, table.get("rows")?.as_u64()?))
        };
        let tables = tables.as_array().context("the tables are no array")?;
        tables.iter().map(|table| count(table).context("a table without its rows")).collect()
    }

    /// The counters.
    pub(crate) fn counters(&self, http: &Http) -> Result<Value> {
        http.get(&format!("{}/sim/v1/counters", self.registry()))?.json()
    }

    /// CPU time and peak memory so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        self.process.usage()
    }
}

/// One line of the dump.
fn read_entry(line: &str) -> Result<Entry> {
    let entry: Value = serde_json::from_str(line).context("a ledger line is not JSON")?;
    let text = |key: &str| entry.get(key).and_then(Value::as_str);
    let number = |key: &str| {
        let value = entry.get(key)?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    };
    let read = || {
        let lane = (text("topic")?.to_owned(), i32::try_from(number("partition")?).ok()?);
        let hash = u64::from_str_radix(text("hash")?, 16).ok()?;
        let stored_ms = number("stored_ms")?;
        Some(Entry { lane, offset: number("offset")?, hash, stored_ms })
    };
    read().with_context(|| format!("a ledger line lacks something: {line}"))
}
