//! What a producer, and a registry, can do to the service with schema ids: 20,000 ids that nobody knows,
//! then a registry whose schemas refer to hundreds of large ones. Another topic flows meanwhile.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
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
    sink::{Plan, Sink},
};

/// Its records need no registry.
const FREE: &str = "registry.free";
/// Each of its records names an id of its own.
const IDS: &str = "registry.ids";
const DEAD: &str = "registry.dead";

const PARTITIONS: i32 = 4;
const UNKNOWN: u32 = 20_000;
const FIRST_ID: u32 = 1_000_000;
/// Ids that the hostile registry knows.
const HOSTILE: u32 = 40;
/// How long each attack is watched.
const WATCH: Duration = Duration::from_secs(20);
const SOCKETS_MAX: u64 = 64;
const MEMORY_MAX: u64 = 100 << 20;
/// A drain may last longer than this; one that waits for unknown ids lasts for the whole 30 s.
const STOP_MAX: Duration = Duration::from_secs(15);

const SCHEMA: &str = r#"{"type":"record","name":"r","fields":[{"name":"a","type":"long"}]}"#;

struct Stage<'a> {
    http: Http,
    broker: &'a Broker,
    simulator: &'a Simulator,
    sender: Sender,
    observer: Observer,
}

/// What a process holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    memory: u64,
    sockets: u64,
}

impl Held {
    fn of(sink: &Sink) -> Result<Self> {
        let folder = format!("/proc/{}", sink.pid());
        let status = fs::read_to_string(format!("{folder}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
        let mut sockets = 0;
        for entry in fs::read_dir(format!("{folder}/fd"))? {
            // One that was closed meanwhile is no more.
            let target = fs::read_link(entry?.path()).unwrap_or_default();
            sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
        }
        Ok(Self { memory: kib.parse::<u64>()? * 1024, sockets })
    }

    fn most(self, other: Self) -> Self {
        Self { memory: self.memory.max(other.memory), sockets: self.sockets.max(other.sockets) }
    }
}

/// Runs it.
pub(crate) fn run(binary: &Path) -> Result<()> {
    let place = Place::new("registry")?;
    let http = Http::new(Duration::from_secs(60))?;
    let broker = Broker::start(&place)?;
    let simulator = Simulator::start(&place, &http, SimulatorPlan::new(binary, "ledger"))?;
    let address = broker.address();
    clients::create_topics(&address, &[(FREE, 1), (IDS, PARTITIONS), (DEAD, 1)])?;
    let plan = plan_of(binary, &broker, &simulator);
    let stage = Stage {
        http,
        broker: &broker,
        simulator: &simulator,
        sender: Sender::new(&address)?,
        observer: Observer::new(&address, &plan.group)?,
    };
    let mut sink = plan.start(&place, "unknown", None)?;
    let outcome = stage.unknown_ids(&mut sink);
    outcome.map_err(|error| error.context(sink.tail()))?;
    let mut sink = plan.start(&place, "recovered", None)?;
    stage.recover(&sink).map_err(|error| error.context(sink.tail()))?;
    sink.stop(Duration::from_secs(60))?;

    let evil = Plan {
        registry: Some(hostile_registry()?),
        group: "kcbq-registry-hostile".to_owned(),
        ..plan
    };
    let stage = Stage { observer: Observer::new(&address, &evil.group)?, ..stage };
    stage.mark_read(&evil.group)?;
    let mut sink = evil.start(&place, "hostile", None)?;
    stage.hostile(&mut sink).map_err(|error| error.context(sink.tail()))?;
    sink.stop(Duration::from_secs(60))
}

fn plan_of(binary: &Path, broker: &Broker, simulator: &Simulator) -> Plan {
    Plan {
        binary: binary.to_owned(),
        bootstrap: broker.address(),
        group: "kcbq-registry".to_owned(),
        endpoint: simulator.endpoint(),
        project: "registry".to_owned(),
        dataset: "raw".to_owned(),
        registry: Some(simulator.registry()),
        topics: vec![
            json!({"match": FREE, "value_format": "json", "table": "free"}),
            json!({"match": IDS, "value_format": "avro", "table": "ids", "dead_letter": DEAD}),
        ],
        ..Plan::default()
    }
}

impl Stage<'_> {
    fn lanes(&self, topic: &str) -> Result<Vec<Lane>> {
        self.observer.lanes(&[topic.to_owned()])
    }

    /// One record of the free topic goes all the way; how long that took.
    fn go_through(&self) -> Result<Duration> {
        let began = Instant::now();
        self.sender.send((FREE, 0), None, Some(br#"{"a":1}"#))?;
        self.sender.flush()?;
        self.observer.wait_for_no_lag(&self.lanes(FREE)?, Duration::from_secs(20))?;
        Ok(began.elapsed())
    }

    fn calm(&self, sink: &mut Sink) -> Result<Held> {
        sink.wait_owning(&self.http, Duration::from_secs(60))?;
        self.go_through()?;
        let held = Held::of(sink)?;
        println!("{:<28} {} MB, {} sockets", "calm", held.memory >> 20, held.sockets);
        Ok(held)
    }

    /// Samples while another topic flows, and checks what is held beyond the calm service.
    fn watch(&self, sink: &Sink, calm: Held) -> Result<()> {
        let (end, mut most) = (Instant::now() + WATCH, Held::default());
        let (mut records, mut slowest, mut livez) = (0, Duration::ZERO, Duration::ZERO);
        while Instant::now() < end {
            slowest = slowest.max(self.go_through().context("the other topic")?);
            records += 1;
            let began = Instant::now();
            ensure!(sink.is_live(&self.http)?, "/livez does not say that it lives");
            livez = livez.max(began.elapsed());
            most = most.most(Held::of(sink)?);
            thread::sleep(Duration::from_millis(100));
        }
        let (memory, sockets) =
            (most.memory.saturating_sub(calm.memory), most.sockets.saturating_sub(calm.sockets));
        println!("{:<28} {} MB, {sockets} sockets", "at most beyond that", memory >> 20);
        println!(
            "{:<28} {records} records, one after the other, the slowest committed after {slowest:.1?}; \
             /livez 200 within {livez:.1?}",
            "the other topic"
        );
        ensure!(sockets <= SOCKETS_MAX, "{sockets} sockets");
        ensure!(memory <= MEMORY_MAX, "{memory} bytes");
        Ok(())
    }

    fn unknown_ids(&self, sink: &mut Sink) -> Result<()> {
        let calm = self.calm(sink)?;
        for number in 0..UNKNOWN {
            let partition = (number % PARTITIONS as u32) as i32;
            self.sender.send((IDS, partition), None, Some(&record(FIRST_ID + number)))?;
        }
        self.sender.flush()?;
        println!("{:<28} {UNKNOWN} records of 6 bytes", "ids that nobody knows");
        self.watch(sink, calm)?;
        let status = sink.status(&self.http)?;
        let lanes = status.get("lanes").and_then(Value::as_array).context("no lanes")?;
        for lane in lanes.iter().filter(|lane| lane["topic"] == IDS) {
            let reason = lane["reason"].as_str().unwrap_or_default();
            let names = ["schema id", self.simulator.registry().trim_end_matches('/')]
                .iter()
                .all(|word| reason.contains(word));
            ensure!(lane["state"] == "waiting" && names, "{lane}");
        }
        let log = sink.log();
        let lines = log.lines().count();
        println!("{:<28} {lines} lines", "log");
        ensure!(lines < 200, "{lines} lines in the log");
        let began = Instant::now();
        sink.stop(Duration::from_secs(60))?;
        let seconds = began.elapsed();
        println!("{:<28} {seconds:.1?}", "SIGTERM to the end");
        ensure!(seconds < STOP_MAX, "a drain waited for ids that nobody knows");
        Ok(())
    }

    /// All ids are registered: every record becomes a row.
    fn recover(&self, sink: &Sink) -> Result<()> {
        let schemas: Vec<Value> = (FIRST_ID..FIRST_ID + UNKNOWN)
            .map(|id| json!({"id": id, "schema": SCHEMA, "schemaType": "AVRO"}))
            .collect();
        let began = Instant::now();
        self.simulator.preload(&self.http, &json!(schemas))?;
        let lanes = self.lanes(IDS)?;
        self.observer.wait_for_no_lag(&lanes, Duration::from_secs(300))?;
        let rows = self.simulator.row_counts(&self.http)?;
        let rows = rows.get("ids").copied().unwrap_or_default();
        println!(
            "{:<28} {rows} rows after {:.1?}, {} MB",
            "all are registered",
            began.elapsed(),
            Held::of(sink)?.memory >> 20
        );
        ensure!(rows == u64::from(UNKNOWN), "{rows} rows of {UNKNOWN}");
        let letters = self.observer.ends(&[(DEAD.to_owned(), 0)])?;
        ensure!(letters.values().all(|end| *end == 0), "dead letters: {letters:?}");
        Ok(())
    }

    /// The next group begins behind what the first one has read.
    fn mark_read(&self, group: &str) -> Result<()> {
        let mut lanes = self.lanes(IDS)?;
        lanes.extend(self.lanes(FREE)?);
        let ends = self.observer.ends(&lanes)?;
        clients::commit(&self.broker.address(), group, &ends)
    }

    fn hostile(&self, sink: &mut Sink) -> Result<()> {
        let calm = self.calm(sink)?;
        for number in 0..HOSTILE {
            let partition = (number % PARTITIONS as u32) as i32;
            self.sender.send((IDS, partition), None, Some(&record(number)))?;
        }
        self.sender.flush()?;
        println!(
            "{:<28} {HOSTILE} ids, 255 references of 300 KB or 4.9 MB each",
            "hostile registry"
        );
        self.watch(sink, calm)?;
        let lanes = self.lanes(IDS)?;
        self.observer.wait_for_no_lag(&lanes, Duration::from_secs(60))?;
        let letters = self.observer.ends(&[(DEAD.to_owned(), 0)])?.values().sum::<i64>();
        println!("{:<28} {letters} dead letters, lag 0", "its records");
        ensure!(letters == i64::from(HOSTILE), "{letters} dead letters of {HOSTILE}");
        Ok(())
    }
}

/// A record of 6 bytes: the wire header with the id, and the number 1.
fn record(id: u32) -> Vec<u8> {
    let mut value = vec![0];
    value.extend_from_slice(&id.to_be_bytes());
    value.push(2);
    value
}

/// A registry in which every schema refers to 255 large ones.
fn hostile_registry() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    // It lasts for as long as the test does.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    Ok(url)
}

fn answer(mut stream: TcpStream) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    let request = lines.next()?;
    lines.find(String::is_empty)?;
    let path = request.split(' ').nth(1)?;
    let references: Vec<Value> = (0..255)
        .map(|n| json!({"name": "n", "subject": format!("{}s{n}", path.len()), "version": 1}))
        .collect();
    let is_even = path.bytes().last()?.is_multiple_of(2);
    let bytes = if is_even { 300_000 } else { 4_900_000 };
    let text = if path.starts_with("/schemas") { SCHEMA.to_owned() } else { "x".repeat(bytes) };
    let body = json!({"schema": text, "references": references}).to_string();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()
}
