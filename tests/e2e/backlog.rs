//! A topic that is far behind, on `write: auto`: it is loaded until it has caught up and streamed from then
//! on; then BigQuery refuses streaming for a quota, and it is loaded once more until that has passed. Nothing
//! is lost or repeated by any of the switches.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::rig::{
    broker::Broker,
    clients::{self, Lane, Observer, Sender},
    http::Http,
    place::Place,
    simulator::{Simulator, SimulatorPlan},
    sink::{Plan, Sink},
    workload,
};

const TOPIC: &str = "backlog.orders";
const TABLE: &str = "backlog.raw.backlog_orders";
const PARTITIONS: i32 = 4;
/// How old a row may be.
const FRESHNESS: Duration = Duration::from_secs(10);
/// Two switches are at least this far apart.
const HOLD: Duration = Duration::from_secs(60);
/// Records per second once the topic is live.
const LIVE: u64 = 500;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// How long one phase may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// What is to be done.
pub(crate) struct Options {
    /// The product's binary.
    pub(crate) binary: PathBuf,
    /// Records that are there before the service starts.
    pub(crate) records: u64,
}

struct Stage {
    http: Http,
    simulator: Simulator,
    observer: Observer,
    sender: Sender,
    lanes: Vec<Lane>,
    sink: Sink,
    schema: u32,
    produced: u64,
    began: Instant,
    switches: Vec<Switch>,
}

/// A path as `/status` shows it, from when on.
struct Switch {
    at: Instant,
    path: String,
    reason: String,
}

/// Runs it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let place = Place::new("backlog")?;
    let broker = Broker::start(&place)?;
    clients::create_topics(&broker.address(), &[(TOPIC, PARTITIONS)])?;
    let http = Http::new(Duration::from_secs(300))?;
    let plan = SimulatorPlan {
        answer_delay: Duration::from_millis(50),
        dedupe_ms: Some(0),
        ..SimulatorPlan::new(&options.binary, "ledger")
    };
    let simulator = Simulator::start(&place, &http, plan)?;
    let schema = simulator.register(&http, "backlog-value", &workload::schema(0))?;
    let observer = Observer::new(&broker.address(), "kcbq-backlog")?;
    let lanes = observer.lanes(&[TOPIC.to_owned()])?;
    let sender = Sender::new(&broker.address())?;
    send(&sender, schema, 0, options.records)?;
    sender.flush()?;
    println!("{} records are there", options.records);
    let sink = plan_of(options, &broker, &simulator).start(&place, "backlog", None)?;
    let mut stage = Stage {
        http,
        simulator,
        observer,
        sender,
        lanes,
        sink,
        schema,
        produced: options.records,
        began: Instant::now(),
        switches: Vec::new(),
    };
    let outcome = stage.play();
    outcome.map_err(|error| error.context(stage.sink.tail()))?;
    stage.sink.stop(Duration::from_secs(60))?;
    stage.account()
}

fn plan_of(options: &Options, broker: &Broker, simulator: &Simulator) -> Plan {
    let freshness = format!("{}s", FRESHNESS.as_secs());
    let topic = json!({"match": TOPIC, "value_format": "avro", "freshness": freshness});
    Plan {
        binary: options.binary.clone(),
        bootstrap: broker.address(),
        group: "kcbq-backlog".to_owned(),
        endpoint: simulator.endpoint(),
        storage: Some(simulator.storage()),
        project: "backlog".to_owned(),
        dataset: "raw".to_owned(),
        registry: Some(simulator.registry()),
        topics: vec![topic],
        gcs: json!({"bucket": "stage", "endpoint": simulator.gcs()}),
        ..Plan::default()
    }
}

fn send(sender: &Sender, schema: u32, from: u64, to: u64) -> Result<()> {
    let mut value = Vec::new();
    for index in from..to {
        workload::encode(&mut value, schema, 0, 1, index);
        let partition = (index % PARTITIONS as u64) as i32;
        sender.send((TOPIC, partition), None, Some(&value))?;
    }
    Ok(())
}

impl Stage {
    fn play(&mut self) -> Result<()> {
        self.until("load jobs for the backlog", false, |stage| Ok(stage.is_on("load")))?;
        self.until("the backlog to be read", false, |stage| Ok(stage.is_on("storage")))?;
        let caught_up = Instant::now();
        self.until("the last job", true, |stage| {
            Ok(stage.metric("kcbq_lag_seconds")? < FRESHNESS.as_secs_f64() / 2.0)
        })?;
        println!("{:>9.1} s later the last job is done", caught_up.elapsed().as_secs_f64());
        let jobs = self.metric("kcbq_load_jobs_total{outcome=\"loaded\"")?;
        ensure!(jobs >= 3.0, "{jobs} load jobs for the backlog");
        let oldest = self.watch(HOLD + Duration::from_secs(15))?;
        println!("{jobs} load jobs; then, streamed, no record was older than {oldest:.1} s");
        ensure!(oldest <= FRESHNESS.as_secs_f64(), "a record was {oldest:.1} s old");

        self.simulator.refuse_streaming(&self.http, true)?;
        self.until("load jobs while streaming is refused", true, |stage| Ok(stage.is_on("load")))?;
        self.watch(Duration::from_secs(20))?;
        self.simulator.refuse_streaming(&self.http, false)?;
        self.until("streaming again", true, |stage| Ok(stage.is_on("storage")))?;
        self.sender.flush()?;
        self.observer.wait_for_no_lag(&self.lanes, PATIENCE)
    }

    /// Looks, and produces if the topic is `live`, until `reached` says so.
    fn until(
        &mut self,
        what: &str,
        live: bool,
        reached: impl Fn(&Self) -> Result<bool>,
    ) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !reached(self)? {
            if Instant::now() > end {
                let status = self.sink.status(&self.http).unwrap_or_default();
                bail!("{what}: not reached\n/status: {status}");
            }
            self.turn(live)?;
        }
        Ok(())
    }

    /// Produces and looks for so long; the age of the oldest record that was seen uncommitted, in seconds.
    fn watch(&mut self, time: Duration) -> Result<f64> {
        let end = Instant::now() + time;
        let mut oldest: f64 = 0.0;
        while Instant::now() < end {
            self.turn(true)?;
            oldest = oldest.max(self.metric("kcbq_lag_seconds")?);
        }
        Ok(oldest)
    }

    fn turn(&mut self, live: bool) -> Result<()> {
        let began = Instant::now();
        if live {
            let next = self.produced + LIVE / 5;
            send(&self.sender, self.schema, self.produced, next)?;
            self.sender.poll();
            self.produced = next;
        }
        self.look()?;
        thread::sleep(LOOK.saturating_sub(began.elapsed()));
        Ok(())
    }

    fn look(&mut self) -> Result<()> {
        let status = self.sink.status(&self.http).unwrap_or_default();
        let tables = status.get("tables").and_then(Value::as_array);
        let is_ours = |table: &&Value| table.get("name").and_then(Value::as_str) == Some(TABLE);
        let shown = tables.and_then(|tables| tables.iter().find(is_ours)?.get("path"));
        let text = |key: &str| Some(shown?.get(key)?.as_str()?.to_owned());
        let (Some(path), Some(reason)) = (text("path"), text("reason")) else { return Ok(()) };
        if self.is_on(&path) {
            return Ok(());
        }
        let at = Instant::now();
        if let [_, .., last] = &self.switches[..] {
            let apart = at - last.at;
            ensure!(apart + LOOK * 5 >= HOLD, "a switch after {apart:?}");
        }
        println!("{:>7.1} s  {path}: {reason}", self.began.elapsed().as_secs_f64());
        self.switches.push(Switch { at, path, reason });
        Ok(())
    }

    fn is_on(&self, path: &str) -> bool {
        self.switches.last().is_some_and(|last| last.path == path)
    }

    /// The sum of the series that begin so.
    fn metric(&self, name: &str) -> Result<f64> {
        let (name, label) = name.split_once('{').unwrap_or((name, ""));
        let metrics = self.sink.metrics(&self.http)?;
        let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        lines.map(|line| value(line).context("a metric without its value")).sum()
    }

    /// Every record is a row, once.
    fn account(&self) -> Result<()> {
        let ends = self.observer.ends(&self.lanes)?;
        let mut distinct = 0;
        for lane in &self.lanes {
            let stored = self.simulator.stored(&self.http, lane, 0)?;
            let end = ends.get(lane).copied().unwrap_or_default();
            ensure!(stored.len() as i64 == end, "{lane:?}: {} rows of {end}", stored.len());
            distinct += stored.len() as u64;
        }
        let rows: u64 = self.simulator.row_counts(&self.http)?.values().sum();
        println!("{} records, {rows} rows, {} times", self.produced, rows - distinct);
        ensure!(rows == distinct, "{} rows are there twice", rows - distinct);
        let causes: Vec<_> = self.switches.iter().map(|switch| switch.reason.as_str()).collect();
        ensure!(causes.iter().any(|cause| cause.contains("quota")), "no quota among {causes:?}");
        println!("verdict: clean");
        Ok(())
    }
}
