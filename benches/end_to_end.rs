//! The end-to-end throughput harness: preloaded topic on a real broker → `kcbq run` → `kcbq sim`
//! that only counts and answers late, beside librdkafka alone reading the same topic in batches.
//!
//! `cargo bench --bench end_to_end -- [--records N] [--runs N] [--answer-delay-ms N] [--budget-mb N]
//! [--ways WAY,…] [--plaintext]`, where a way is `streaming` (the default), `storage`, `load`, `auto`, or `load` with a format or a
//! codec: `load:ndjson`, `load:snappy`, `load:zstandard`, `load:deflate`. Ways take turns within a run; with
//! `load`, `streaming` and `auto` among them, `auto` is compared with what its rows cost by the paths they took.
//! Without a budget it is the service's own default. The sink speaks TLS with the simulator, as it does with Google,
//! unless `--plaintext` says otherwise; with the broker it does not. Never timed by `cargo test`. CPU time and ratios
//! within one run mean something; wall times on a shared machine do not.
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]
#![expect(clippy::indexing_slicing, reason = "the rig indexes what it has just made")]
#![expect(unsafe_code, reason = "the rdkafka crate has no safe call for batch consumption")]

#[path = "../tests/e2e/rig/mod.rs"]
#[expect(dead_code, reason = "the end-to-end tests use the rest")]
mod rig;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use kcbq::pipeline::settings::LimitSettings;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use rdkafka_sys as native;
use serde_json::{Value, json};

use rig::{
    broker::Broker,
    certificates,
    clients::{self, Observer, Sender},
    http::Http,
    place::Place,
    process::{self, Process, Usage},
    simulator::{Simulator, SimulatorPlan},
    sink::{self, Plan},
    workload,
};

const TOPIC: &str = "bench.orders";
const PARTITIONS: i32 = 4;

/// How many times what its rows cost by the paths that they took `auto` may take.
const CHOICE_LIMIT: f64 = 1.1;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "--consume-only") {
        return consume_only(&arguments[1], arguments[2].parse()?);
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("end_to_end: measures only under `cargo bench`");
        return Ok(());
    }
    let option = |name: &str, default: u64| -> Result<u64> {
        let Some(at) = arguments.iter().position(|argument| argument == name) else {
            return Ok(default);
        };
        arguments
            .get(at + 1)
            .with_context(|| format!("{name} needs a number"))?
            .parse()
            .context(name.to_owned())
    };
    let ways = arguments.iter().position(|argument| argument == "--ways");
    let ways = ways.map(|at| arguments.get(at + 1).context("--ways needs names")).transpose()?;
    let ways = ways.map_or("streaming", String::as_str).split(',').map(Way::named);
    let bench = Bench {
        ways: ways.collect::<Result<_>>()?,
        records: option("--records", 1_000_000)?,
        runs: option("--runs", 5)?,
        answer_delay: Duration::from_millis(option("--answer-delay-ms", 50)?),
        budget_bytes: option("--budget-mb", LimitSettings::default().bytes_in_flight as u64 >> 20)?
            << 20,
        plaintext: arguments.iter().any(|argument| argument == "--plaintext"),
    };
    bench.run()
}

/// How rows are to reach BigQuery.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Way {
    name: &'static str,
    /// The topic's `write`.
    write: &'static str,
    /// Of staged rows.
    format: &'static str,
    codec: &'static str,
    /// How many times the consumer's CPU time it may take.
    limit: Option<f64>,
}

impl Way {
    const ALL: [Self; 8] = [
        Self::new("streaming", "streaming").limited(2.6),
        Self::new("storage", "storage").limited(2.2),
        Self::new("load", "load").limited(1.7),
        Self { format: "ndjson", ..Self::new("load:ndjson", "load") },
        Self { codec: "snappy", ..Self::new("load:snappy", "load") },
        Self { codec: "zstandard", ..Self::new("load:zstandard", "load") },
        Self { codec: "deflate", ..Self::new("load:deflate", "load") },
        Self::new("auto", "auto"),
    ];

    const fn new(name: &'static str, write: &'static str) -> Self {
        Self { name, write, format: "auto", codec: "none", limit: None }
    }

    const fn limited(self, limit: f64) -> Self {
        Self { limit: Some(limit), ..self }
    }

    fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|way| way.name == name);
        found.with_context(|| format!("no way is called {name}"))
    }
}

struct Bench {
    ways: Vec<Way>,
    records: u64,
    runs: u64,
    answer_delay: Duration,
    /// The byte budget that the sink is given.
    budget_bytes: u64,
    plaintext: bool,
}

/// One run of the sink.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// From the start of the process until the first row was counted.
    first_seconds: f64,
    /// Records per second while the second and third quarter were counted: neither the start nor the wait of the last
    /// batches is in it. Load jobs bring a partition's rows every ten seconds: the topic must be long beside that.
    rate: f64,
    /// Records per second while the first tenth was counted.
    first_rate: f64,
    /// The share of the rows that load jobs brought.
    loaded: f64,
    sink: Usage,
    broker_cpu_seconds: f64,
    simulator_cpu_seconds: f64,
}

impl Sample {
    /// Its records a second beside those that all cores would bring, if sink, broker and counter had them.
    fn busy(&self, records: u64) -> f64 {
        let all = self.sink.cpu_seconds + self.broker_cpu_seconds + self.simulator_cpu_seconds;
        let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        self.rate * all / (records as f64 * cores)
    }
}

impl Bench {
    fn run(&self) -> Result<()> {
        let place = Place::new("bench")?;
        if !self.plaintext {
            certificates::authority(&place, "ca")?;
            certificates::sign(&place, "sim", &["-nodes"])?;
        }
        let broker = Broker::start(&place)?;
        clients::create_topics(&broker.address(), &[(TOPIC, PARTITIONS)])?;
        let http = Http::new(Duration::from_secs(60))?;
        let binary = sink::binary(env!("CARGO_BIN_EXE_kcbq"));
        let bytes = self.preload(&place, &http, &binary, &broker)?;
        println!(
            "{} records of {bytes} bytes, {PARTITIONS} partitions, {} to the counter, answer \
             delay {:?}, budget {} MB, {} CPUs, {} interleaved runs, the system's allocator",
            self.records,
            if self.plaintext { "plaintext" } else { "TLS" },
            self.answer_delay,
            self.budget_bytes >> 20,
            std::thread::available_parallelism()?,
            self.runs
        );
        println!(
            "run way             consume-only µs | first row s  records/s  of 2 cores  first tenth/s  sink µs  broker µs  counter µs  sink RSS MB  ratio  loaded"
        );
        let mut consumers = Vec::new();
        let mut samples = vec![Vec::new(); self.ways.len()];
        for run in 1..=self.runs {
            let consumer = self.consume(&place, &broker, run)?;
            consumers.push(consumer);
            for (way, samples) in self.ways.iter().zip(&mut samples) {
                let group = format!("kcbq-bench-{run}-{}", way.name);
                let simulator = self.simulator(&place, &http, &binary)?;
                let plan = plan(&binary, &broker, &simulator, (*way, group), self.budget_bytes);
                let sample = self.sink(&place, &http, &broker, &simulator, &plan)?;
                self.print(&format!("{run:>3} {:<14}", way.name), consumer, &sample);
                samples.push(sample);
            }
        }
        let mut over = Vec::new();
        for (way, samples) in self.ways.iter().zip(&samples) {
            if !self.conclude(*way, &consumers, samples) {
                over.push(way.name);
            }
        }
        if !self.conclude_choice(&samples) {
            over.push("auto beside its paths");
        }
        ensure!(over.is_empty(), "over a limit: {}", over.join(", "));
        Ok(())
    }

    fn micros(&self, cpu_seconds: f64) -> f64 {
        cpu_seconds * 1e6 / self.records as f64
    }

    fn print(&self, label: &str, consumer: f64, sample: &Sample) {
        println!(
            "{label} {:>16.2} | {:>11.2} {:>10.0} {:>10.0}% {:>14.0} {:>8.2} {:>10.2} {:>11.2} {:>12.1} {:>6.2} {:>6.0}%",
            self.micros(consumer),
            sample.first_seconds,
            sample.rate,
            100.0 * sample.busy(self.records),
            sample.first_rate,
            self.micros(sample.sink.cpu_seconds),
            self.micros(sample.broker_cpu_seconds),
            self.micros(sample.simulator_cpu_seconds),
            sample.sink.rss_max_bytes as f64 / 1e6,
            sample.sink.cpu_seconds / consumer,
            100.0 * sample.loaded
        );
    }

    /// Registers the schema where the sink will find it under the same id, and fills the topic.
    fn preload(&self, place: &Place, http: &Http, binary: &Path, broker: &Broker) -> Result<usize> {
        let simulator = self.simulator(place, http, binary)?;
        let id = simulator.register(http, &format!("{TOPIC}-value"), &workload::schema(0))?;
        let sender = Sender::new(&broker.address())?;
        let (mut value, mut bytes) = (Vec::new(), 0);
        for index in 0..self.records {
            workload::encode(&mut value, id, 0, 11, index);
            bytes += value.len();
            let partition = (index % PARTITIONS as u64) as i32;
            sender.send((TOPIC, partition), None, Some(&value))?;
        }
        sender.flush()?;
        Ok(bytes / self.records.max(1) as usize)
    }

    fn simulator(&self, place: &Place, http: &Http, binary: &Path) -> Result<Simulator> {
        let (certificate, key) = (place.join("sim.pem"), place.join("sim.key"));
        let plan = SimulatorPlan {
            answer_delay: self.answer_delay,
            tls: (!self.plaintext).then_some((&certificate, &key)),
            ..SimulatorPlan::new(binary, "count")
        };
        Simulator::start(place, http, plan)
    }

    /// CPU seconds of librdkafka reading the topic in batches, in a process of its own.
    fn consume(&self, place: &Place, broker: &Broker, run: u64) -> Result<f64> {
        let mut command = process::command(&std::env::current_exe()?);
        command.args(["--consume-only", &broker.address(), &self.records.to_string()]);
        let mut child = Process::spawn(&format!("consume-{run}"), &mut command, place.path())?;
        let status = child.wait(Duration::from_secs(600))?;
        ensure!(status.success(), "consume-only ended with {status}\n{}", child.tail());
        let text = child.stdout();
        text.trim().parse().with_context(|| format!("consume-only said {text:?}"))
    }

    fn sink(
        &self,
        place: &Place,
        http: &Http,
        broker: &Broker,
        simulator: &Simulator,
        plan: &Plan,
    ) -> Result<Sample> {
        simulator.register(http, &format!("{TOPIC}-value"), &workload::schema(0))?;
        let observer = Observer::new(&broker.address(), &plan.group)?;
        let lanes = observer.lanes(&[TOPIC.to_owned()])?;
        let broker_before = broker.usage()?.cpu_seconds;
        let started = Instant::now();
        let mut sink = match self.plaintext {
            true => plan.start(place, &plan.group, None)?,
            false => plan.start_trusting(place, &plan.group, &place.join("ca.pem"))?,
        };
        let counter = |name: &str| -> Result<u64> {
            let count = simulator.counters(http)?.get(name).and_then(Value::as_u64);
            count.with_context(|| format!("the simulator does not count {name}"))
        };
        let count = || counter("rows");
        let first = wait_for(&count, 1, &mut sink)?;
        let tenth = wait_for(&count, self.records / 10, &mut sink)?;
        let quarter = wait_for(&count, self.records / 4, &mut sink)?;
        let most = wait_for(&count, self.records / 4 * 3, &mut sink)?;
        let (all, _) = wait_for(&count, self.records, &mut sink)?;
        let rate = |(before, since): (u64, Instant), (rows, at): (u64, Instant)| {
            (rows - before) as f64 / (at - since).as_secs_f64().max(1e-3)
        };
        ensure!(all == self.records, "{all} rows for {} records", self.records);
        observer.wait_for_no_lag(&lanes, Duration::from_secs(60))?;
        let sample = Sample {
            first_seconds: (first.1 - started).as_secs_f64(),
            rate: rate(quarter, most),
            first_rate: rate(first, tenth),
            loaded: counter("loaded_rows")? as f64 / all as f64,
            sink: sink.usage()?,
            broker_cpu_seconds: broker.usage()?.cpu_seconds - broker_before,
            simulator_cpu_seconds: simulator.usage()?.cpu_seconds,
        };
        sink.stop(Duration::from_secs(60))?;
        Ok(sample)
    }

    /// Prints what choosing costs `auto`, where both of its paths ran beside it; whether that is within its
    /// limit.
    fn conclude_choice(&self, samples: &[Vec<Sample>]) -> bool {
        let of = |name: &str| {
            let found = self.ways.iter().position(|way| way.name == name);
            found.map(|at| samples[at].iter())
        };
        let (Some(auto), Some(load), Some(streaming)) = (of("auto"), of("load"), of("streaming"))
        else {
            return true;
        };
        let ratio = |((auto, load), streaming): ((&Sample, &Sample), &Sample)| {
            let mix = auto.loaded * load.sink.cpu_seconds
                + (1.0 - auto.loaded) * streaming.sink.cpu_seconds;
            auto.sink.cpu_seconds / mix
        };
        let [least, median, most] = spread(auto.zip(load).zip(streaming).map(ratio).collect());
        println!(
            "\nauto ÷ what its rows cost by the paths they took (at most {CHOICE_LIMIT}): \
             {median:.2} [{least:.2} – {most:.2}]"
        );
        median <= CHOICE_LIMIT
    }

    /// Prints what the runs of one way come to; whether that is within its limits.
    fn conclude(&self, way: Way, consumers: &[f64], samples: &[Sample]) -> bool {
        let of = |value: &dyn Fn(&Sample) -> f64| spread(samples.iter().map(value).collect());
        let (consumer, sink) = (spread(consumers.to_vec()), of(&|sample| sample.sink.cpu_seconds));
        let ratios =
            samples.iter().zip(consumers).map(|(sample, own)| sample.sink.cpu_seconds / own);
        let ratio = spread(ratios.collect());
        let rss = of(&|sample| sample.sink.rss_max_bytes as f64);
        println!("\n{}: median [least – most] of {} runs", way.name, samples.len());
        let line = |what: &str, [least, median, most]: [f64; 3]| {
            println!("{what:<34} {median:>10.2} [{least:.2} – {most:.2}]");
        };
        line("first row after the start, s", of(&|sample| sample.first_seconds));
        line("records/s", of(&|sample| sample.rate));
        let busy = |sample: &Sample| 100.0 * sample.busy(self.records);
        line("of what the cores could bring, %", of(&busy));
        line("consume-only, CPU µs per record", consumer.map(|cpu| self.micros(cpu)));
        line("sink, CPU µs per record", sink.map(|cpu| self.micros(cpu)));
        let limit = way.limit.map_or_else(String::new, |limit| format!(" (at most {limit})"));
        line(&format!("sink ÷ consume-only{limit}"), ratio);
        line("sink, peak RSS in MB", rss.map(|bytes| bytes / 1e6));
        let allowed = (60 << 20) + (4 << 10) * PARTITIONS as u64 + (32 << 10) + self.budget_bytes;
        println!(
            "allowed: 60 MB + 4 KB × {PARTITIONS} lanes + 32 KB × 1 table + budget = {:.2} MB",
            allowed as f64 / 1e6
        );
        let kept = way.limit.is_none_or(|limit| ratio[1] <= limit) && rss[1] < allowed as f64;
        println!("verdict: {}", if kept { "within its limits" } else { "OVER A LIMIT" });
        kept
    }
}

/// Least, median, most.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

fn wait_for(
    count: &impl Fn() -> Result<u64>,
    wanted: u64,
    sink: &mut sink::Sink,
) -> Result<(u64, Instant)> {
    let end = Instant::now() + Duration::from_secs(600);
    loop {
        let rows = count()?;
        if rows >= wanted {
            return Ok((rows, Instant::now()));
        }
        let status = sink.exited()?;
        ensure!(status.is_none(), "the sink ended: {status:?}\n{}", sink.tail());
        ensure!(Instant::now() < end, "only {rows} rows came\n{}", sink.tail());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn plan(
    binary: &Path,
    broker: &Broker,
    simulator: &Simulator,
    (way, group): (Way, String),
    budget_bytes: u64,
) -> Plan {
    let mut topic = json!({"match": TOPIC, "value_format": "avro", "write": way.write});
    if matches!(way.write, "load" | "auto") {
        topic["freshness"] = json!("1s");
    }
    Plan {
        binary: binary.to_owned(),
        bootstrap: broker.address(),
        group,
        endpoint: simulator.endpoint(),
        storage: Some(simulator.storage()),
        project: "bench".to_owned(),
        dataset: "raw".to_owned(),
        registry: Some(simulator.registry()),
        topics: vec![topic],
        limits: json!({"bytes_in_flight": budget_bytes}),
        paths: json!({
            // No share of a quota, but what the machine can do; 16 requests of 1 MB in 50 ms would be less.
            "streaming": {"bytes_per_second": 1_000_000_000, "requests_in_flight_per_table": 64},
            "storage": {"bytes_per_second": 1_000_000_000},
            // A job every ten seconds: what is measured ends soon after the last record.
            "load": {
                "jobs_per_table_day": 1_000_000,
                "format": way.format,
                "avro_codec": way.codec,
            },
        }),
        gcs: json!({"bucket": "stage", "endpoint": simulator.gcs()}),
        ..Plan::default()
    }
}

/// Reads `wanted` records in batches and prints the process's CPU seconds from start to end.
fn consume_only(address: &str, wanted: u64) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "kcbq-bench-consume-only")
        .set("enable.auto.commit", "false")
        .set("fetch.message.max.bytes", "4000000")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.wait.max.ms", "100")
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(TOPIC, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let (mut count, mut bytes) = (0_u64, 0_u64);
    // SAFETY: the handle lives as long as `consumer`; the queue is destroyed before it.
    let queue = unsafe { native::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
    let mut batch = vec![std::ptr::null_mut::<native::rd_kafka_message_t>(); 1_000];
    while count < wanted {
        // SAFETY: `batch` has room for as many pointers as are asked for.
        let got = unsafe {
            native::rd_kafka_consume_batch_queue(queue, 200, batch.as_mut_ptr(), batch.len())
        };
        for message in batch.iter().take(usize::try_from(got).unwrap_or(0)) {
            // SAFETY: the first `got` pointers are messages that are ours until destroyed, once.
            unsafe {
                if (**message).err == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    count += 1;
                    bytes += (**message).len as u64;
                }
                native::rd_kafka_message_destroy(*message);
            }
        }
    }
    // SAFETY: got from `rd_kafka_queue_get_consumer` and not used any more.
    unsafe { native::rd_kafka_queue_destroy(queue) };
    ensure!(bytes > 0, "the records are empty");
    println!("{}", process::usage_of(std::process::id())?.cpu_seconds);
    Ok(())
}
