//! How old a record is when BigQuery has acknowledged it, at a steady rate: while nothing happens, while every
//! replica is restarted in turn, and when one is killed. The clock of a record is its Kafka timestamp.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::Message;
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

const TOPIC: &str = "fresh";
const PARTITIONS: i32 = 8;
const REPLICAS: usize = 2;
const TICK: Duration = Duration::from_millis(10);
/// How long it runs before anything counts.
const WARM_UP: Duration = Duration::from_secs(15);
/// What a replica may take to stop, and to own something again.
const PATIENCE: Duration = Duration::from_secs(120);
/// The promise: of a hundred records one may be older when nothing happens, not counting the answer.
const CALM_P99: Duration = Duration::from_secs(1);

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Options {
    /// The product's binary.
    pub(crate) binary: PathBuf,
    /// Records a second.
    pub(crate) rate: u64,
    /// How long each phase takes.
    pub(crate) phase: Duration,
    /// How long BigQuery takes to answer.
    pub(crate) answer_delay: Duration,
}

struct Stage {
    place: Place,
    http: Http,
    simulator: Simulator,
    observer: Observer,
    plan: Plan,
    replicas: Vec<Sink>,
    started: usize,
}

/// When each row was there first, in milliseconds since the epoch, by lane and offset.
type Stored = BTreeMap<Lane, BTreeMap<i64, i64>>;

/// A name, and the timestamps that belong to it, in milliseconds since the epoch.
struct Phase {
    name: &'static str,
    from: i64,
    to: i64,
}

/// Runs it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let place = Place::new("freshness")?;
    let broker = Broker::start(&place)?;
    clients::create_topics(&broker.address(), &[(TOPIC, PARTITIONS)])?;
    let http = Http::new(Duration::from_secs(300))?;
    let simulator = SimulatorPlan {
        answer_delay: options.answer_delay,
        dedupe_ms: Some(0),
        ..SimulatorPlan::new(&options.binary, "ledger")
    };
    let simulator = Simulator::start(&place, &http, simulator)?;
    let schema = simulator.register(&http, &format!("{TOPIC}-value"), &workload::schema(0))?;
    let observer = Observer::new(&broker.address(), "kcbq-fresh")?;
    let plan = plan_of(options, &broker, &simulator);
    let (replicas, started) = (Vec::new(), 0);
    let mut stage = Stage { place, http, simulator, observer, plan, replicas, started };
    for _ in 0..REPLICAS {
        stage.add()?;
    }
    let feed = Feed::start(&broker.address(), schema, options.rate)?;
    thread::sleep(WARM_UP);
    let phases = [
        stage.phase("calm", options.phase, |_| Ok(()))?,
        stage.phase("rolling restart", options.phase, Stage::restart)?,
        stage.phase("kill", options.phase, Stage::kill)?,
    ];
    feed.finish()?;
    stage.end(options, &phases)
}

fn plan_of(options: &Options, broker: &Broker, simulator: &Simulator) -> Plan {
    Plan {
        binary: options.binary.clone(),
        bootstrap: broker.address(),
        group: "kcbq-fresh".to_owned(),
        endpoint: simulator.endpoint(),
        storage: Some(simulator.storage()),
        project: "fresh".to_owned(),
        dataset: "raw".to_owned(),
        registry: Some(simulator.registry()),
        topics: vec![json!({"match": TOPIC, "value_format": "avro", "write": "storage"})],
        ..Plan::default()
    }
}

impl Stage {
    fn add(&mut self) -> Result<()> {
        self.started += 1;
        let name = format!("replica-{}", self.started);
        let mut replica = self.plan.start(&self.place, &name, None)?;
        replica.wait_owning(&self.http, PATIENCE)?;
        self.replicas.push(replica);
        Ok(())
    }

    /// Does something at the beginning of a phase, and waits for its end and until all has been written that
    /// was produced before.
    fn phase(
        &mut self,
        name: &'static str,
        time: Duration,
        deed: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<Phase> {
        let (from, began) = (now_ms(), Instant::now());
        deed(self)?;
        thread::sleep(time.saturating_sub(began.elapsed()));
        // What comes later is none of this phase's, and may meet what the next one does.
        let to = now_ms();
        self.catch_up()?;
        for replica in &mut self.replicas {
            let status = replica.exited()?;
            ensure!(status.is_none(), "{name}: a replica ended\n{}", replica.tail());
        }
        Ok(Phase { name, from, to })
    }

    /// Until what is there now is committed.
    fn catch_up(&self) -> Result<()> {
        let lanes = self.observer.lanes(&[TOPIC.to_owned()])?;
        let (ends, began) = (self.observer.ends(&lanes)?, Instant::now());
        loop {
            let committed = self.observer.committed(&lanes)?;
            if ends.iter().all(|(lane, end)| committed.get(lane) >= Some(end)) {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "{committed:?} of {ends:?} are committed");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Each replica ends by SIGTERM, and the next one after it once its successor owns something.
    fn restart(&mut self) -> Result<()> {
        for _ in 0..REPLICAS {
            let mut old = self.replicas.remove(0);
            old.stop(PATIENCE)?;
            self.add()?;
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.replicas.remove(0).kill()?;
        self.add()
    }

    fn end(mut self, options: &Options, phases: &[Phase]) -> Result<()> {
        let lanes = self.observer.lanes(&[TOPIC.to_owned()])?;
        self.observer.wait_for_no_lag(&lanes, PATIENCE)?;
        for replica in &mut self.replicas {
            replica.stop(PATIENCE)?;
        }
        let (stored, again) = self.stored()?;
        let mut ages: Vec<Vec<i64>> = phases.iter().map(|_| Vec::new()).collect();
        let (mut records, mut lost) = (0_u64, 0_u64);
        self.observer.read(&lanes, |message| {
            records += 1;
            let lane = (message.topic().to_owned(), message.partition());
            let at = message.timestamp().to_millis().context("a record without a timestamp")?;
            let Some(stored_ms) = stored.get(&lane).and_then(|lane| lane.get(&message.offset()))
            else {
                lost += 1;
                return Ok(());
            };
            let age = stored_ms - at + i64::try_from(options.answer_delay.as_millis())?;
            let phase = phases.iter().position(|phase| (phase.from..phase.to).contains(&at));
            if let Some(phase) = phase {
                ages[phase].push(age);
            }
            Ok(())
        })?;
        println!(
            "{} records/s, {REPLICAS} replicas, {PARTITIONS} partitions, answers after {:?}; \
             milliseconds from a record's timestamp until it was acknowledged",
            options.rate, options.answer_delay
        );
        println!("phase               records      p50      p99    p99.9      max");
        for (phase, ages) in phases.iter().zip(&mut ages) {
            ages.sort_unstable();
            let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(|share| quantile(ages, share));
            let count = ages.len();
            println!("{:<16} {count:>10} {p50:>8} {p99:>8} {p999:>8} {max:>8}", phase.name);
        }
        println!("{records} records, {lost} lost, {again} rows again");
        ensure!(lost == 0, "VIOLATION: {lost} records are no rows");
        let calm = ages.first().map_or(i64::MAX, |ages| quantile(ages, 0.99));
        let limit = i64::try_from((CALM_P99 + options.answer_delay).as_millis())?;
        ensure!(calm <= limit, "VIOLATION: p99 while nothing happens is {calm} ms of {limit}");
        println!("verdict: clean");
        Ok(())
    }

    /// The rows, and how many there are more than once.
    fn stored(&self) -> Result<(Stored, u64)> {
        let (mut stored, mut again) = (Stored::new(), 0);
        for entry in self.simulator.ledger(&self.http)? {
            let lane = stored.entry(entry.lane).or_default();
            again += u64::from(lane.contains_key(&entry.offset));
            let first = lane.entry(entry.offset).or_insert(entry.stored_ms);
            *first = entry.stored_ms.min(*first);
        }
        Ok((stored, again))
    }
}

/// Of sorted values.
fn quantile(sorted: &[i64], share: f64) -> i64 {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Produces at a steady rate until it is told to stop.
struct Feed {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Feed {
    fn start(address: &str, schema: u32, rate: u64) -> Result<Self> {
        let sender = Sender::new(address)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || produce(&sender, schema, rate, &over));
        Ok(Self { is_over, thread })
    }

    fn finish(self) -> Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the producer panicked"))?
    }
}

fn produce(sender: &Sender, schema: u32, rate: u64, over: &AtomicBool) -> Result<()> {
    let (began, mut value, mut sent) = (Instant::now(), Vec::new(), 0);
    while !over.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        for index in sent..due {
            workload::encode(&mut value, schema, 0, 5, index);
            let partition = (index % PARTITIONS as u64) as i32;
            sender.send((TOPIC, partition), None, Some(&value))?;
        }
        sent = due;
        sender.poll();
        thread::sleep(TICK);
    }
    sender.flush()
}
