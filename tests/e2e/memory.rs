//! How much memory the service takes at most: many tables, a BigQuery that answers late, and far more in
//! Kafka than it may hold.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::rig::{
    broker::Broker,
    clients::{self, Lane, Observer, Sender},
    http::Http,
    place::Place,
    simulator::{Simulator, SimulatorPlan},
    sink::Plan,
    workload,
};

const PARTITIONS: i32 = 2;

/// What is to be done.
pub(crate) struct Options {
    /// The product's binary.
    pub(crate) binary: PathBuf,
    /// The paths, one after the other.
    pub(crate) paths: Vec<String>,
    /// Records that are there before the service starts.
    pub(crate) records: u64,
    /// Topics, each with a table of its own.
    pub(crate) tables: u64,
    /// How long BigQuery takes to answer.
    pub(crate) answer_delay: Duration,
    /// The byte budget.
    pub(crate) budget_bytes: u64,
}

struct Stage<'a> {
    options: &'a Options,
    place: Place,
    http: Http,
    broker: Broker,
    topics: Vec<String>,
}

/// Runs it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let place = Place::new("memory")?;
    let broker = Broker::start(&place)?;
    let topics: Vec<String> = (0..options.tables).map(|n| format!("memory.t{n:04}")).collect();
    let named: Vec<(&str, i32)> = topics.iter().map(|name| (name.as_str(), PARTITIONS)).collect();
    clients::create_topics(&broker.address(), &named)?;
    let stage =
        Stage { options, place, http: Http::new(Duration::from_secs(300))?, broker, topics };
    let bytes = stage.produce()?;
    println!(
        "{} records, {:.2} GB, in {} topics of {PARTITIONS} partitions; answers take {:?}",
        options.records,
        bytes as f64 / 1e9,
        options.tables,
        options.answer_delay
    );
    let mut over = Vec::new();
    for path in &options.paths {
        if !stage.measure(path)? {
            over.push(path.as_str());
        }
    }
    ensure!(over.is_empty(), "VIOLATION: too much memory on {}", over.join(", "));
    println!("verdict: within the limit");
    Ok(())
}

impl Stage<'_> {
    fn produce(&self) -> Result<u64> {
        // The registry is the simulator's, which is made anew for each path and numbers alike.
        let simulator = self.simulator()?;
        let id = self.register(&simulator)?;
        let sender = Sender::new(&self.broker.address())?;
        let (mut value, mut bytes) = (Vec::new(), 0);
        for index in 0..self.options.records {
            workload::encode(&mut value, id, 0, 3, index);
            bytes += value.len() as u64;
            let topic = &self.topics[(index % self.options.tables) as usize];
            let partition = (index / self.options.tables % PARTITIONS as u64) as i32;
            sender.send((topic, partition), None, Some(&value))?;
        }
        sender.flush()?;
        Ok(bytes)
    }

    fn simulator(&self) -> Result<Simulator> {
        let plan = SimulatorPlan {
            answer_delay: self.options.answer_delay,
            ..SimulatorPlan::new(&self.options.binary, "count")
        };
        Simulator::start(&self.place, &self.http, plan)
    }

    fn register(&self, simulator: &Simulator) -> Result<u32> {
        simulator.register(&self.http, "memory-value", &workload::schema(0))
    }

    /// Reads everything by one path; whether the memory was kept.
    fn measure(&self, write: &str) -> Result<bool> {
        let simulator = self.simulator()?;
        self.register(&simulator)?;
        let plan = self.plan(&simulator, write);
        let observer = Observer::new(&self.broker.address(), &plan.group)?;
        let lanes = observer.lanes(&self.topics)?;
        let began = Instant::now();
        let mut sink = plan.start(&self.place, write, None)?;
        // What is wrong with the configuration is said at once.
        sink.wait_owning(&self.http, Duration::from_secs(120))?;
        let drained = observer.wait_for_no_lag(&lanes, Duration::from_secs(1_800));
        drained.map_err(|error| error.context(sink.tail()))?;
        let seconds = began.elapsed().as_secs_f64();
        let counters = simulator.counters(&self.http)?;
        let rows = counters.get("rows").and_then(Value::as_u64).context("no rows are counted")?;
        let most = sink.usage()?.rss_max_bytes;
        sink.stop(Duration::from_secs(60))?;
        ensure!(rows >= self.options.records, "{rows} rows of {}", self.options.records);
        let allowed = self.allowed(&lanes);
        println!(
            "{write:<10} {:>7.0} s  RSS at most {:>6.1} MB of {:.1} MB allowed (60 MB + 4 KB × {} lanes + \
             32 KB × {} tables + {} MB)  {}",
            seconds,
            most as f64 / 1e6,
            allowed as f64 / 1e6,
            lanes.len(),
            self.options.tables,
            self.options.budget_bytes >> 20,
            if most <= allowed { "kept" } else { "OVER" }
        );
        Ok(most <= allowed)
    }

    fn allowed(&self, lanes: &[Lane]) -> u64 {
        let lanes = (4 << 10) * lanes.len() as u64;
        (60 << 20) + lanes + (32 << 10) * self.options.tables + self.options.budget_bytes
    }

    fn plan(&self, simulator: &Simulator, write: &str) -> Plan {
        let mut topic = json!({"match": r"memory\..*", "value_format": "avro", "write": write});
        if write == "load" {
            topic["freshness"] = json!("10s");
        }
        Plan {
            binary: self.options.binary.clone(),
            bootstrap: self.broker.address(),
            group: format!("kcbq-memory-{write}"),
            endpoint: simulator.endpoint(),
            storage: Some(simulator.storage()),
            project: "memory".to_owned(),
            dataset: "raw".to_owned(),
            registry: Some(simulator.registry()),
            topics: vec![topic],
            limits: json!({"bytes_in_flight": self.options.budget_bytes}),
            paths: json!({
                "streaming": {"bytes_per_second": 1_000_000_000},
                "storage": {"bytes_per_second": 1_000_000_000},
                "load": {"jobs_per_table_day": 1_000_000},
            }),
            gcs: json!({"bucket": "stage", "endpoint": simulator.gcs()}),
            ..Plan::default()
        }
    }
}
