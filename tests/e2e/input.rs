//! Unusual input: large batches of the JVM's producer by every codec, decompression bombs, a topic that may not be
//! read, topics that do not exist. What can be read is read; what cannot says so, with a remedy that works.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::rig::{
    broker::Broker,
    clients::{self, Observer},
    http::Http,
    jvm,
    place::Place,
    simulator::{Simulator, SimulatorPlan},
    sink::{Plan, Sink},
};

const CODECS: [&str; 4] = ["zstd", "gzip", "lz4", "snappy"];
/// Flows all the time.
const CALM: &str = "input.calm";
/// May not be read at first.
const DENIED: &str = "input.denied";
/// Does not exist at first; the other is a pattern.
const ABSENT: &str = "input.absent";
const LATER: &str = r"later\..+";
/// The memory limit of the chart.
const RSS_MAX: u64 = 512 << 20;
/// Until a trouble is on the board.
const NOTICED: Duration = Duration::from_secs(30);
/// Until the service goes on by itself when the cause is gone.
const GOES_ON: Duration = Duration::from_secs(30);
/// A batch of the JVM's producer holds so much.
const BATCH_BYTES: usize = 20_000_000;

/// What is to be done.
pub(crate) struct Options {
    /// The product's binary.
    pub(crate) binary: PathBuf,
    /// What a bomb holds, in MB.
    pub(crate) bomb_mb: u64,
}

struct Stage<'a> {
    options: &'a Options,
    place: Place,
    http: Http,
    broker: Broker,
    simulator: Simulator,
    observer: Observer,
}

/// Runs it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let place = Place::new("input")?;
    let http = Http::new(Duration::from_secs(60))?;
    let authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
    let broker = Broker::start_with(&place, |_, _| {
        vec![
            format!("authorizer.class.name={authorizer}"),
            "allow.everyone.if.no.acl.found=true".to_owned(),
        ]
    })?;
    let plan = SimulatorPlan::new(&options.binary, "ledger");
    let simulator = Simulator::start(&place, &http, plan)?;
    let observer = Observer::new(&broker.address(), "kcbq-input")?;
    let stage = Stage { options, place, http, broker, simulator, observer };
    stage.produce()?;
    let topics = [r"input\.(jvm|bomb)\..+", LATER, CALM, DENIED, ABSENT];
    let mut sink = stage.plan(&topics, None).start(&stage.place, "input", None)?;
    let outcome = stage.play(&mut sink);
    let settings = outcome.map_err(|error| error.context(sink.tail()))?;
    sink.stop(Duration::from_secs(60))?;
    // One of them, for the time that it takes.
    let remedied = bomb(CODECS[0]);
    let plan = stage.plan(&[&remedied], Some(settings));
    let mut sink = plan.start(&stage.place, "remedied", None)?;
    let outcome = stage.bomb_is_read(&sink, &remedied);
    outcome.map_err(|error| error.context(sink.tail()))?;
    sink.stop(Duration::from_secs(60))
}

fn large(codec: &str) -> String {
    format!("input.jvm.{codec}")
}

fn bomb(codec: &str) -> String {
    format!("input.bomb.{codec}")
}

/// Writes distinct orders, a line each, about [`BATCH_BYTES`] in all; how many.
fn write_orders(path: &Path) -> Result<u64> {
    let (mut text, mut count) = (String::with_capacity(BATCH_BYTES), 0u64);
    while text.len() < BATCH_BYTES {
        let id = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        write!(text, "{{\"n\":{count},\"id\":\"{id:016x}\",\"lines\":[")?;
        for line in 0..8u64 {
            let article = id.rotate_left(7 * line as u32) % 10_000;
            let comma = if line == 0 { "" } else { "," };
            write!(
                text,
                "{comma}{{\"article\":\"article-{article}\",\"pieces\":{line},\"note\":\"as usual\"}}"
            )?;
        }
        text.push_str("]}\n");
        count += 1;
    }
    std::fs::write(path, text)?;
    Ok(count)
}

impl Stage<'_> {
    fn produce(&self) -> Result<()> {
        let address = self.broker.address();
        let names: Vec<String> =
            CODECS.iter().flat_map(|codec| [large(codec), bomb(codec)]).collect();
        let mut topics: Vec<(&str, i32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        topics.extend([(CALM, 1), (DENIED, 1)]);
        clients::create_topics(&address, &topics)?;
        clients::send_batch(&address, DENIED, "none", [order(0)])?;
        jvm::deny_read(&address, DENIED, true)?;
        let path = self.place.join("orders.json");
        let orders = write_orders(&path)?;
        for codec in CODECS {
            jvm::produce(&address, &large(codec), codec, &path, BATCH_BYTES as u64 * 5 / 4)?;
        }
        let large: Vec<String> = CODECS.map(large).to_vec();
        for (codec, batches) in CODECS.iter().zip(jvm::batches(&self.place, &large)?) {
            let records: u64 = batches.iter().map(|batch| batch.records).sum();
            let most = batches.iter().max_by_key(|batch| batch.records).context("no batch")?;
            println!(
                "JVM, {codec:<6}: {records} records in {} batches, the largest {} records, {} bytes",
                batches.len(),
                most.records,
                most.bytes
            );
            ensure!(records == orders, "{records} records of {orders}");
            ensure!(most.records == orders, "{codec}: not one batch of {BATCH_BYTES} bytes");
        }
        for codec in CODECS {
            self.produce_bomb(codec)?;
        }
        Ok(())
    }

    /// One record before, the bomb, one behind it.
    fn produce_bomb(&self, codec: &str) -> Result<()> {
        let (address, topic) = (self.broker.address(), bomb(codec));
        let (value, count) = match codec {
            // The broker decompresses a block of Snappy as a whole, and has 512 MB itself: many records, each of
            // which takes 320 bytes of the client's memory beside its own.
            "snappy" => (b"{}".to_vec(), self.options.bomb_mb * 3_000),
            _ => {
                let zeros = format!("{{\"z\":\"{}\"}}", "0".repeat(999_990));
                (zeros.into_bytes(), self.options.bomb_mb)
            }
        };
        clients::send_batch(&address, &topic, "none", [order(0)])?;
        clients::send_batch(&address, &topic, codec, (0..count).map(|_| value.clone()))?;
        clients::send_batch(&address, &topic, "none", [order(1)])
    }

    fn plan(&self, topics: &[&str], decompressed_bytes_max: Option<u64>) -> Plan {
        let topic = |name: &&str| json!({"match": name, "value_format": "json"});
        let mut kafka = json!({"discovery_interval_seconds": 30});
        if let Some(bytes) = decompressed_bytes_max {
            kafka["decompressed_bytes_max"] = json!(bytes);
        }
        Plan {
            binary: self.options.binary.clone(),
            bootstrap: self.broker.address(),
            group: "kcbq-input".to_owned(),
            endpoint: self.simulator.endpoint(),
            project: "input".to_owned(),
            dataset: "raw".to_owned(),
            topics: topics.iter().map(topic).collect(),
            kafka,
            ..Plan::default()
        }
    }

    /// What is seen without an operator; the setting that the remedy of a bomb names.
    fn play(&self, sink: &mut Sink) -> Result<u64> {
        sink.wait_owning(&self.http, Duration::from_secs(60))?;
        let began = Instant::now();
        let wanted = self.bombs_say_so(sink)?;
        println!("{:>5.1} s: every bomb's partition says so", began.elapsed().as_secs_f64());
        self.denied_says_so(sink)?;
        self.absent_say_so(sink)?;
        for codec in CODECS {
            self.wait_rows(&large(codec), Duration::from_secs(120))?;
        }
        println!("{:>5.1} s: the JVM's batches are read", began.elapsed().as_secs_f64());
        clients::send_batch(&self.broker.address(), CALM, "zstd", (0..1_000).map(order))?;
        self.wait_rows(CALM, Duration::from_secs(30))?;
        self.goes_on(sink)?;
        let most = sink.usage()?.rss_max_bytes;
        println!("RSS at most {:.0} MB", most as f64 / 1e6);
        ensure!(most <= RSS_MAX, "VIOLATION: {most} bytes of memory");
        Ok(wanted)
    }

    fn bombs_say_so(&self, sink: &Sink) -> Result<u64> {
        let mut wanted = 0;
        for codec in CODECS {
            let bombed = (bomb(codec), 0);
            let end = self.observer.ends(std::slice::from_ref(&bombed))?[&bombed];
            ensure!(end > self.options.bomb_mb as i64, "{codec}: no bomb, the end is {end}");
            let lane = self.until(sink, NOTICED, &format!("the {codec} bomb"), |status| {
                let lane = lane(status, &bomb(codec))?;
                let text = lane.to_string();
                let is_told =
                    lane["state"] == "waiting" && text.contains("kafka.decompressed_bytes_max");
                // The record before the bomb is committed soon after it was read.
                let is_true = lane["lag"].as_i64() == Some(end - 1);
                (is_told && is_true).then(|| lane.clone())
            })?;
            let remedy = lane["last_error"]["remedy"].as_str().context("no remedy")?;
            println!("{codec:<6}: {remedy}");
            ensure!(lane["committed_offset"] == 1, "the record before is not committed: {lane}");
            let number = remedy.split_whitespace().find_map(|word| word.parse::<u64>().ok());
            wanted = wanted.max(number.context("no number in the remedy")?);
        }
        let metrics = sink.metrics(&self.http)?;
        for codec in CODECS {
            let name = format!("kcbq_read_failures_total{{topic=\"{}\"}}", bomb(codec));
            ensure!(metrics.contains(&name), "no {name}");
            let name = format!("kcbq_lag_records{{topic=\"{}\"}}", bomb(codec));
            ensure!(metrics.contains(&name), "no {name}");
        }
        Ok(wanted)
    }

    fn denied_says_so(&self, sink: &Sink) -> Result<()> {
        let denied = self.until(sink, NOTICED, "the denied topic", |status| {
            let lane = lane(status, DENIED)?;
            (lane["state"] == "waiting").then(|| lane.clone())
        })?;
        let remedy = denied["last_error"]["remedy"].as_str().unwrap_or_default();
        ensure!(remedy.contains("ACL `READ`"), "no remedy: {denied}");
        ensure!(denied["lag"] != 0, "a lag of 0, and it cannot be read: {denied}");
        Ok(())
    }

    fn absent_say_so(&self, sink: &Sink) -> Result<()> {
        for wanted in [ABSENT, LATER] {
            let told = self.until(sink, NOTICED, wanted, |status| {
                status["process"]["troubles"].get(wanted).cloned()
            })?;
            ensure!(told["cause"] == "topic_missing", "{told}");
            ensure!(told["remedy"].as_str().is_some_and(|remedy| remedy.contains("`match`")));
            self.until(sink, NOTICED, "a line in the log", |_| {
                sink.log().contains(wanted).then_some(())
            })?;
        }
        let name = "kcbq_troubles{cause=\"topic_missing\",subject=\"process\"} 2";
        ensure!(sink.metrics(&self.http)?.contains(name), "no {name}");
        Ok(())
    }

    /// The causes go, and nobody touches the service.
    fn goes_on(&self, sink: &Sink) -> Result<()> {
        let address = self.broker.address();
        jvm::deny_read(&address, DENIED, false)?;
        let began = Instant::now();
        self.wait_rows(DENIED, GOES_ON)?;
        println!("{:>5.1} s after it was allowed the topic is read", began.elapsed().as_secs_f64());
        self.until(sink, NOTICED, "the allowed topic to run", |status| {
            (lane(status, DENIED)?["state"] == "running").then_some(())
        })?;
        let late = "later.made";
        clients::create_topics(&address, &[(ABSENT, 1), (late, 1)])?;
        let began = Instant::now();
        for topic in [ABSENT, late] {
            clients::send_batch(&address, topic, "none", [order(0)])?;
            self.wait_rows(topic, GOES_ON)?;
        }
        println!(
            "{:>5.1} s after they were made both topics are read",
            began.elapsed().as_secs_f64()
        );
        self.until(sink, NOTICED, "no missing topic", |status| {
            status["process"]["troubles"].as_object()?.is_empty().then_some(())
        })
    }

    fn bomb_is_read(&self, sink: &Sink, topic: &str) -> Result<()> {
        self.wait_rows(topic, Duration::from_secs(120))?;
        let most = sink.usage()?.rss_max_bytes;
        println!("as the remedy says: the bomb is read, RSS at most {:.0} MB", most as f64 / 1e6);
        Ok(())
    }

    /// Waits until every record of the topic is a row.
    fn wait_rows(&self, topic: &str, timeout: Duration) -> Result<()> {
        let lane = (topic.to_owned(), 0);
        let ends: BTreeMap<_, _> = self.observer.ends(std::slice::from_ref(&lane))?;
        let wanted = usize::try_from(ends[&lane])?;
        let until = Instant::now() + timeout;
        loop {
            let rows = self.simulator.stored(&self.http, &lane, 0)?.len();
            if rows == wanted {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{topic}: {rows} rows of {wanted} after {timeout:?}");
            thread::sleep(Duration::from_millis(250));
        }
    }

    /// Waits until `/status` has it.
    fn until<T>(
        &self,
        sink: &Sink,
        timeout: Duration,
        what: &str,
        found: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        let until = Instant::now() + timeout;
        loop {
            let status = sink.status(&self.http)?;
            if let Some(found) = found(&status) {
                return Ok(found);
            }
            if Instant::now() > until {
                bail!("{what}: not within {timeout:?}\n{status:#}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn order(n: u64) -> Vec<u8> {
    format!("{{\"n\":{n}}}").into_bytes()
}

fn lane<'a>(status: &'a Value, topic: &str) -> Option<&'a Value> {
    status["lanes"].as_array()?.iter().find(|lane| lane["topic"] == topic)
}
