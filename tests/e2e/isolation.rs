//! What is stuck delays nothing else: a table that takes no rows, a table that cannot be looked at, a
//! dead letter that is not acknowledged, a schema that does not come. Each is made stuck by an event
//! that only this scenario ends, so that no clock decides what is seen while they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::rig::{
    broker::Broker,
    clients::{self, Lane, Observer, Sender},
    http::Http,
    place::Place,
    simulator::{Simulator, SimulatorPlan},
    sink::{Plan, Sink},
    workload,
};

/// Its records arrive alone first, then beside the stuck ones.
const FREE: &str = "iso.free";
/// Its table exists, and its inserts are held.
const HELD: &str = "iso.held";
/// Whether its table exists is a question that is not answered.
const UNSEEN: &str = "iso.unseen";
/// One of its records is poison, and its dead-letter topic takes none.
const POISONED: &str = "iso.poisoned";
/// One of its records is of a schema that the registry does not have.
const WAITING: &str = "iso.waiting";
const DEAD: &str = "iso.dead";

const PARTITIONS: i32 = 4;
/// Records of each burst into [`FREE`].
const BURST: u64 = 10_000;
/// Records beside a single bad one.
const NEIGHBOURS: u64 = 5_000;
/// Records for a stuck table: several times the memory of the process.
const MANY: u64 = 20_000;
const MEMORY_BYTES: u64 = 8 << 20;
/// Where the bad record is.
const BAD_AT: u64 = 100;
/// An id that the registry gets last.
const MISSING_SCHEMA: u32 = 4_242;

struct Stage<'a> {
    http: &'a Http,
    address: &'a str,
    simulator: &'a Simulator,
    sender: Sender,
    observer: Observer,
    sink: Sink,
    value: Vec<u8>,
}

/// Runs it.
pub(crate) fn run(binary: &Path) -> Result<()> {
    let place = Place::new("isolation")?;
    let http = Http::new(Duration::from_secs(60))?;
    let broker = Broker::start(&place)?;
    let plan = SimulatorPlan {
        answer_delay: Duration::from_millis(20),
        ..SimulatorPlan::new(binary, "ledger")
    };
    let simulator = Simulator::start(&place, &http, plan)?;
    let address = broker.address();
    let topics = [(FREE, 4), (HELD, 4), (UNSEEN, 1), (POISONED, 1), (WAITING, 1), (DEAD, 1)];
    clients::create_topics(&address, &topics)?;
    clients::set_batch_bytes_max(&address, DEAD, 1)?;
    let plan = plan_of(binary, &address, &simulator);
    let mut value = Vec::new();
    let id = simulator.register(&http, "iso-value", &workload::schema(0))?;
    workload::encode(&mut value, id, 0, 1, 1);
    let mut stage = Stage {
        http: &http,
        address: &address,
        simulator: &simulator,
        sender: Sender::new(&address)?,
        observer: Observer::new(&address, &plan.group)?,
        sink: plan.start(&place, "isolation", None)?,
        value,
    };
    let outcome = stage.play();
    outcome.map_err(|error| error.context(stage.sink.tail()))?;
    stage.sink.stop(Duration::from_secs(60))
}

fn plan_of(binary: &Path, address: &str, simulator: &Simulator) -> Plan {
    let topic = |name: &str| json!({"match": name, "value_format": "avro", "dead_letter": DEAD});
    Plan {
        binary: binary.to_owned(),
        bootstrap: address.to_owned(),
        group: "kcbq-isolation".to_owned(),
        endpoint: simulator.endpoint(),
        project: "isolation".to_owned(),
        dataset: "raw".to_owned(),
        registry: Some(simulator.registry()),
        topics: [FREE, HELD, UNSEEN, POISONED, WAITING].map(topic).to_vec(),
        limits: json!({"bytes_in_flight": MEMORY_BYTES}),
        ..Plan::default()
    }
}

impl Stage<'_> {
    fn play(&mut self) -> Result<()> {
        self.send(HELD, 4, None)?;
        self.settle(&[HELD])?;
        let nothing = self.latency()?;
        self.send(FREE, BURST, None)?;
        self.settle(&[FREE])?;
        let alone = self.latency()?;

        self.get_stuck()?;
        self.send(FREE, BURST, None)?;
        self.settle(&[FREE])?;
        let beside = self.latency()?;
        self.wait("the neighbours of the bad records", |stage| stage.neighbours_are_stored())?;
        self.check_stuck()?;
        println!("{:<28} {}", "produced to stored, alone", alone.since(&nothing));
        println!("{:<28} {}", "beside what is stuck", beside.since(&alone));

        clients::set_batch_bytes_max(self.address, DEAD, 1 << 20)?;
        let schema = workload::schema(0);
        let schema = json!([{"id": MISSING_SCHEMA, "schema": schema, "schemaType": "AVRO"}]);
        self.simulator.preload(self.http, &schema)?;
        self.simulator.release(self.http)?;
        self.settle(&[FREE, HELD, UNSEEN, POISONED, WAITING])?;
        self.check_ledger()
    }

    /// Sends so many records, all alike, except for the one at [`BAD_AT`] if another is given.
    fn send(&self, topic: &str, records: u64, bad: Option<&[u8]>) -> Result<()> {
        let partitions = if [FREE, HELD].contains(&topic) { PARTITIONS } else { 1 };
        for index in 0..records {
            let value = bad.filter(|_| index == BAD_AT).unwrap_or(&self.value);
            let partition = (index % partitions as u64) as i32;
            self.sender.send((topic, partition), None, Some(value))?;
        }
        self.sender.flush()
    }

    /// Produces what gets stuck, and waits until it is.
    fn get_stuck(&mut self) -> Result<()> {
        let hold = |operation: &str, table: &str| json!({"operation": operation, "table": table, "fault": {"kind": "hold"}});
        let rules = [hold("tabledata.insertAll", "iso_held"), hold("tables.get", "iso_unseen")];
        self.simulator.set_faults(self.http, &rules)?;
        let mut unknown = self.value.clone();
        unknown[1..5].copy_from_slice(&MISSING_SCHEMA.to_be_bytes());
        self.send(POISONED, NEIGHBOURS, Some(b"\x09poison"))?;
        self.send(WAITING, NEIGHBOURS, Some(&unknown))?;
        self.send(HELD, MANY, None)?;
        self.send(UNSEEN, MANY, None)?;
        self.wait("every partition of the stuck tables to hold its share", |stage| {
            let lanes = stage.sink.lanes(stage.http)?;
            let mut stuck = lanes.iter().filter(|lane| [HELD, UNSEEN].contains(&&*lane.lane.0));
            Ok(stuck.all(|lane| lane.state != "running" && lane.in_flight_records > 0))
        })
    }

    fn neighbours_are_stored(&self) -> Result<bool> {
        let rows = self.simulator.row_counts(self.http)?;
        let stored = |table: &str| rows.get(table) == Some(&(NEIGHBOURS - 1));
        Ok(stored("iso_poisoned") && stored("iso_waiting"))
    }

    /// What was stuck before the burst is stuck after it.
    fn check_stuck(&self) -> Result<()> {
        let rows = self.simulator.row_counts(self.http)?;
        ensure!(rows.get("iso_held") == Some(&4), "rows of a held table: {rows:?}");
        ensure!(!rows.contains_key("iso_unseen"), "a table that was not to be seen was made");
        let letters = self.observer.ends(&[(DEAD.to_owned(), 0)])?;
        ensure!(letters.values().all(|end| *end == 0), "the dead letter was taken");
        let committed = self.committed(&[HELD, UNSEEN, POISONED, WAITING])?;
        for ((topic, partition), offset) in committed {
            let limit = match topic.as_str() {
                HELD => 1,
                UNSEEN => 0,
                _ => BAD_AT as i64,
            };
            ensure!(offset <= limit, "{topic} {partition} is committed up to {offset}");
        }
        println!("{:<28} {BURST} records stored and committed", "beside what is stuck");
        for (what, why) in [
            (
                "one poison, one wait",
                "their neighbours are stored, their offsets are not committed",
            ),
            ("a held table, an unseen one", "nothing is stored, nothing is committed"),
        ] {
            println!("{what:<28} {why}");
        }
        Ok(())
    }

    /// In the end every record is a row, but for the poison.
    fn check_ledger(&self) -> Result<()> {
        let mut stored: BTreeMap<String, BTreeSet<(i32, i64)>> = BTreeMap::new();
        for entry in self.simulator.ledger(self.http)? {
            let (topic, partition) = entry.lane;
            stored.entry(topic).or_default().insert((partition, entry.offset));
        }
        let expected = [
            (FREE, 2 * BURST),
            (HELD, MANY + 4),
            (UNSEEN, MANY),
            (POISONED, NEIGHBOURS - 1),
            (WAITING, NEIGHBOURS),
        ];
        for (topic, records) in expected {
            let rows = stored.get(topic).map_or(0, BTreeSet::len) as u64;
            ensure!(rows == records, "{topic}: {rows} rows of {records}");
        }
        let letters = self.observer.ends(&[(DEAD.to_owned(), 0)])?;
        ensure!(letters.values().sum::<i64>() == 1, "dead letters: {letters:?}");
        println!("{:<28} every record is a row, the poison is a dead letter", "let go");
        Ok(())
    }

    fn lanes(&self, topics: &[&str]) -> Result<Vec<Lane>> {
        let names: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        self.observer.lanes(&names)
    }

    fn committed(&self, topics: &[&str]) -> Result<BTreeMap<Lane, i64>> {
        self.observer.committed(&self.lanes(topics)?)
    }

    /// Waits until everything of these topics is committed.
    fn settle(&self, topics: &[&str]) -> Result<()> {
        let settled = self.observer.wait_for_no_lag(&self.lanes(topics)?, Duration::from_secs(90));
        settled.with_context(|| format!("waiting for {topics:?}"))
    }

    /// Waits until `reached` says so.
    fn wait(&mut self, what: &str, reached: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        while !reached(self)? {
            if Instant::now() > end {
                let status = self.sink.status(self.http).unwrap_or_default();
                anyhow::bail!("{what}: not reached\n/status: {status}");
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// The sink's own measure for [`FREE`]'s table.
    fn latency(&self) -> Result<Latency> {
        let metrics = self.sink.metrics(self.http)?;
        Ok(Latency::read(&metrics))
    }
}

/// Time from a record's timestamp to its acknowledgement, of the oldest record in each batch: how many
/// batches took at most so many seconds.
#[derive(Debug, Default)]
struct Latency {
    batches: Vec<(String, u64)>,
    seconds: f64,
}

impl Latency {
    fn read(metrics: &str) -> Self {
        let mut latency = Self::default();
        let series = metrics.lines().filter(|line| {
            line.starts_with("kcbq_end_to_end_seconds") && line.contains("iso_free")
        });
        for line in series {
            let (name, value) = line.rsplit_once(' ').unwrap_or_default();
            if name.contains("_sum{") {
                latency.seconds = value.parse().unwrap_or_default();
            } else if let Some((_, bound)) = name.split_once(",le=\"") {
                let bound = bound.split('"').next().unwrap_or_default().to_owned();
                latency.batches.push((bound, value.parse().unwrap_or_default()));
            }
        }
        latency
    }

    /// What came after `before`, in words.
    fn since(&self, before: &Self) -> String {
        let earlier: BTreeMap<&str, u64> =
            before.batches.iter().map(|(bound, count)| (bound.as_str(), *count)).collect();
        let counts: Vec<(&str, u64)> = self
            .batches
            .iter()
            .map(|(bound, count)| {
                let bound = bound.as_str();
                (bound, count - earlier.get(bound).copied().unwrap_or_default())
            })
            .collect();
        let batches = counts.last().map_or(0, |(_, count)| *count);
        let within = |share: f64| {
            let enough = |(_, count): &&(&str, u64)| *count as f64 >= share * batches as f64;
            counts.iter().find(enough).map_or("-", |(bound, _)| *bound)
        };
        let mean = (self.seconds - before.seconds) / batches.max(1) as f64;
        format!(
            "{batches} batches, mean {mean:.2} s, half of them within {} s, all within {} s",
            within(0.5),
            within(1.0)
        )
    }
}
