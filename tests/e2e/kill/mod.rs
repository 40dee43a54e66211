//! The kill test: replicas die by SIGKILL at named boundaries and at random moments, the broker dies
//! once, and afterwards every record is accounted for.

mod account;
mod crew;
mod feed;
mod hops;
mod left;
mod rounds;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::{
    account::Account,
    crew::Crew,
    feed::Feed,
    hops::{Behind, Hops},
    rounds::Round,
};
use crate::rig::{
    broker::Broker,
    clients::{self, Lane, Observer},
    http::Http,
    place::Place,
    simulator::{Simulator, SimulatorPlan},
    sink::{Plan, Sink},
};

/// By which path the rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// `write: streaming`: rows may be twice.
    Streaming,
    /// `write: load`: none is.
    Load,
    /// The same without a bucket: rows go with their job.
    Upload,
    /// Appends by the Storage Write API: rows may be twice.
    Storage,
    /// PENDING streams of the same: rows may be twice where a commit was made and not the offsets'.
    Pending,
    /// `write: auto`, switched by what BigQuery refuses: rows may be twice.
    Auto,
}

impl Path {
    /// Whether a row may never be twice.
    fn is_exact(self) -> bool {
        matches!(self, Self::Load | Self::Upload)
    }

    /// Whether an answer that was lost may be why a row is twice.
    fn repeats_what_is_unheard(self) -> bool {
        !self.is_exact() && self != Self::Pending
    }

    fn name(self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Storage => "storage",
            Self::Pending => "pending",
            Self::Load | Self::Upload => "load",
            Self::Auto => "auto",
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The product's binary, with `sim` and `failpoints`.
    pub(crate) binary: PathBuf,
    /// The binary of another version, which every second replica is started with.
    pub(crate) other: Option<PathBuf>,
    /// By which path the rows go.
    pub(crate) path: Path,
    /// Rounds that count and end with a death.
    pub(crate) rounds: u32,
    /// Rounds that count and have a replica asleep while the group goes on.
    pub(crate) zombies: u32,
    /// Rounds in which a hop is disturbed.
    pub(crate) faults: u32,
    /// How long the group meets again and again after the rounds.
    pub(crate) storm: Duration,
    /// Of a thousand answers to rows, so many are lost.
    pub(crate) lose: u64,
    /// Partitions of each topic.
    pub(crate) partitions: i32,
    /// Records to produce.
    pub(crate) records: u64,
    /// Decides victims, moments and records.
    pub(crate) seed: u64,
    /// How long the simulator keeps an answer back.
    pub(crate) answer_delay: Duration,
    /// How long the simulator remembers an insertId. 0 lets every row that is sent twice be stored
    /// twice, so that duplicates can be counted.
    pub(crate) dedupe_ms: u64,
}

const GROUP: &str = "kcbq-kill";
const DEAD: &str = "kill.dead";
const TOPICS: [&str; 4] = ["kill.orders", "kill.payments", "kill.parcels", "kill.returns"];
const REPLICAS: usize = 3;

/// What every part of the scenario uses.
pub(crate) struct Stage {
    place: Place,
    http: Http,
    observer: Observer,
    simulator: Simulator,
    hops: Hops,
    lanes: Vec<Lane>,
    plan: Plan,
    /// The binary of every second replica.
    other: PathBuf,
}

impl Stage {
    /// Starts a replica, the `nth` of all.
    fn start(&self, nth: u32, name: &str, failpoint: Option<&str>) -> Result<Sink> {
        let binary = if nth.is_multiple_of(2) { &self.other } else { &self.plan.binary };
        let plan = Plan { binary: binary.clone(), ..self.plan.clone() };
        plan.start(&self.place, name, failpoint)
    }
}

/// Runs the test; an error is a violation or a missing part.
pub(crate) fn run(options: &Options) -> Result<()> {
    println!(
        "kill test: {} rounds, {} zombies, {} disturbances, a storm of {:?}, {} records, {} topics × {} partitions, {REPLICAS} replicas, \
         answer delay {:?}, {} of 1,000 answers lost, insertId memory {} ms, seed {}, path {:?}",
        options.rounds,
        options.zombies,
        options.faults,
        options.storm,
        options.records,
        TOPICS.len(),
        options.partitions,
        options.answer_delay,
        options.lose,
        options.dedupe_ms,
        options.seed,
        options.path
    );
    let began = Instant::now();
    let place = Place::new("kill")?;
    let (mut broker, behind) = Behind::start(&place)?;
    let mut topics: Vec<(&str, i32)> = TOPICS.map(|topic| (topic, options.partitions)).to_vec();
    topics.push((DEAD, 1));
    clients::create_topics(&broker.address(), &topics)?;
    let stage = set_up(options, place, &broker, behind)?;
    let feed = Feed::start(&stage, &broker.address(), options)?;
    let mut crew = Crew::start(&stage)?;
    let rounds = rounds::play(&stage, &mut broker, &mut crew, &feed, options)?;
    let produced = feed.finish()?;
    println!("{produced} records produced after {:.0?}; draining", began.elapsed());
    stage.observer.wait_for_no_lag(&stage.lanes, Duration::from_secs(600))?;
    crew.stop()?;
    conclude(&stage, &feed, rounds, options, began)
}

fn set_up(options: &Options, place: Place, broker: &Broker, behind: Behind) -> Result<Stage> {
    let http = Http::new(Duration::from_secs(120))?;
    let plan = SimulatorPlan {
        answer_delay: options.answer_delay,
        dedupe_ms: Some(options.dedupe_ms),
        ..SimulatorPlan::new(&options.binary, "ledger")
    };
    let mut simulator = Simulator::start(&place, &http, plan)?;
    simulator.lose_answers(&http, options.lose)?;
    let observer = Observer::new(&broker.address(), GROUP)?;
    let lanes = observer.lanes(&TOPICS.map(str::to_owned))?;
    let hops = Hops::start(behind, &simulator)?;
    let plan = plan_of(options, broker, &simulator, &hops);
    let other = options.other.clone().unwrap_or_else(|| options.binary.clone());
    Ok(Stage { place, http, observer, simulator, hops, lanes, plan, other })
}

fn plan_of(options: &Options, broker: &Broker, simulator: &Simulator, hops: &Hops) -> Plan {
    // Through the proxies only where they do something.
    let [bootstrap, endpoint, storage, bucket, registry] = match options.faults {
        0 => [
            broker.address(),
            simulator.endpoint(),
            simulator.storage(),
            simulator.gcs(),
            simulator.registry(),
        ],
        _ => [hops.bootstrap(), hops.endpoint(), hops.storage(), hops.gcs(), hops.registry()],
    };
    let mut topic = json!({
        "match": r"kill\.(orders|payments|parcels|returns)",
        "value_format": "avro",
        "table": "{topic}",
        "dead_letter": DEAD,
        "batch": {"linger_ms": 200},
    });
    let (mut gcs, mut paths) = (Value::Null, Value::Null);
    topic["write"] = json!(options.path.name());
    if !matches!(options.path, Path::Streaming | Path::Storage) {
        // A minute is less than load jobs promise: without a quota in the way, rows are streamed.
        topic["freshness"] = json!(if options.path == Path::Auto { "1m" } else { "2s" });
        if !matches!(options.path, Path::Upload | Path::Pending) {
            gcs = json!({"bucket": "stage", "endpoint": bucket});
        }
        // BigQuery's 1,500 would make a job a partition every four minutes.
        paths = json!({
            "load": {"jobs_per_table_day": 1_000_000},
            "storage": {"streams_per_hour": 1_000_000},
        });
    }
    Plan {
        binary: options.binary.clone(),
        bootstrap,
        group: GROUP.to_owned(),
        endpoint,
        storage: Some(storage),
        project: "kill".to_owned(),
        dataset: "raw".to_owned(),
        registry: Some(registry),
        topics: vec![topic],
        properties: vec![
            ("session.timeout.ms", "6000".to_owned()),
            ("heartbeat.interval.ms", "1000".to_owned()),
        ],
        limits: json!({"drain_timeout_ms": 20_000}),
        paths,
        gcs,
        ..Plan::default()
    }
}

fn conclude(
    stage: &Stage,
    feed: &Feed,
    mut rounds: Vec<Round>,
    options: &Options,
    began: Instant,
) -> Result<()> {
    let account = Account::draw_up(stage, feed, options, &mut rounds)?;
    println!("\n{}", rounds::table(&rounds));
    println!("{account}");
    let counters = stage.simulator.counters(&stage.http).context("the simulator's counters")?;
    println!("simulator: {counters}");
    println!("time: {:.0?}", began.elapsed());
    ensure!(account.is_clean(), "VIOLATION: see the account above");
    println!("verdict: clean");
    Ok(())
}
