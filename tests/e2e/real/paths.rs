//! A handful of records of every type by every write path into the public emulators: streamed, by Avro containers,
//! by gzipped JSON. Each cell must be its source's, and so the same on every path; what the emulator does otherwise
//! must be on the list.

use std::{
    collections::BTreeSet,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rdkafka::Message;
use serde_json::{Value, json};

use super::{Rows, compare, rows_by_offset};
use crate::rig::{
    avro::Schemas,
    bigquery::{self, Dataset, LocalBigQuery},
    broker::Broker,
    clients::{self, Observer, Sender},
    http::Http,
    place::Place,
    simulator::{Simulator, SimulatorPlan},
    sink::Plan,
    storage::FakeGcs,
    workload,
};

/// A path's name, the topic's `write`, and `bigquery.load.format`.
const WAYS: [(&str, &str, &str); 3] = [
    ("streamed", "streaming", "auto"),
    ("containers", "load", "auto"),
    ("lines", "load", "ndjson"),
];
/// How long the records of a type may take; then the emulator does not take them.
const PATIENCE: Duration = Duration::from_secs(60);
/// The topic of JSON objects without schema.
const OBJECTS: &str = "objects";

/// What the emulator does otherwise: type, path, what is found, why.
const DIFFERENCES: [(&str, &str, &str, &str); 3] = [
    ("bytes", "lines", "QVArQQ==", NOT_DECODED),
    ("fixed", "lines", "QVA4PQ==", NOT_DECODED),
    ("record", "lines", "QVA4PQ==", NOT_DECODED),
];
const NOT_DECODED: &str =
    "a JSON load without a schema keeps base64 text as it is, where BigQuery goes by the table";
/// Types whose containers the emulator refuses: an Avro map does not become an array of key and value, an Avro
/// decimal has at most 38 digits. The service loads them as JSON.
const REFUSED: [&str; 2] = ["map", "bignumeric"];
/// So many types at least must have gone by containers. JSON text and objects never do, and rows that waited for a
/// schema may go as JSON.
const CONTAINERS_MIN: usize = 15;

/// A type's name, its Avro schema, and values.
type Case = (&'static str, &'static str, Vec<Vec<u8>>);

fn cases() -> Vec<Case> {
    let longs = |values: &[i64]| values.iter().copied().map(long).collect::<Vec<_>>();
    let texts = |values: &[&str]| values.iter().map(|text| bytes(text.as_bytes())).collect();
    let micros = [0, -1, 1_709_251_199_999_999, -62_135_596_800_000_000, 253_402_300_799_999_999];
    let millis = micros.map(|micros: i64| micros.div_euclid(1_000));
    vec![
        ("boolean", r#""boolean""#, vec![vec![0], vec![1]]),
        ("long", r#""long""#, longs(&[0, -1, i64::MIN, i64::MAX])),
        ("float", r#""float""#, [0.1, -0.0, f32::MAX].map(|f: f32| f.to_le_bytes().into()).into()),
        ("double", r#""double""#, [0.1, -0.0, 5e-324, 1e300].map(double).into()),
        (
            "specials",
            r#""double""#,
            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(double).into(),
        ),
        (
            "string",
            r#""string""#,
            texts(&["", "a \"b\" \\ \n\u{1}\u{e9}\u{1f600}", "2024-02-29", "7"]),
        ),
        ("bytes", r#""bytes""#, vec![bytes(&[]), bytes(&[0, 0xff, 0x80])]),
        ("fixed", r#"{"type":"fixed","name":"F","size":2}"#, vec![vec![0, 0xff]]),
        ("enum", r#"{"type":"enum","name":"E","symbols":["A","B"]}"#, longs(&[0, 1])),
        ("date", r#"{"type":"int","logicalType":"date"}"#, longs(&[0, -1, -719_162, 2_932_896])),
        ("time_millis", r#"{"type":"int","logicalType":"time-millis"}"#, longs(&[0, 86_399_999])),
        (
            "time_micros",
            r#"{"type":"long","logicalType":"time-micros"}"#,
            longs(&[0, 86_399_999_999]),
        ),
        ("timestamp_millis", r#"{"type":"long","logicalType":"timestamp-millis"}"#, longs(&millis)),
        ("timestamp_micros", r#"{"type":"long","logicalType":"timestamp-micros"}"#, longs(&micros)),
        ("datetime", r#"{"type":"long","logicalType":"local-timestamp-micros"}"#, longs(&micros)),
        (
            "numeric",
            r#"{"type":"bytes","logicalType":"decimal","precision":20,"scale":4}"#,
            vec![bytes(&[0]), bytes(&[0xff]), bytes(&[0x7f; 8]), bytes(&[0x80, 0, 0])],
        ),
        (
            "bignumeric",
            r#"{"type":"bytes","logicalType":"decimal","precision":38,"scale":18}"#,
            vec![bytes(&[0]), bytes(&[0xff]), bytes(&[0x0f; 15]), bytes(&[0xf0; 15])],
        ),
        (
            "json",
            r#"{"type":"string","connect.name":"io.debezium.data.Json"}"#,
            texts(&["{\"b\": 1, \"a\": [null, 2.5]}", "\"x\"", "7"]),
        ),
        ("nullable", r#"["null","string"]"#, vec![vec![0], [&[2][..], &bytes(b"x")].concat()]),
        (
            "array",
            r#"{"type":"array","items":"string"}"#,
            vec![vec![0], [&[4, 2, b'a', 2, b'b', 0][..]].concat()],
        ),
        ("map", r#"{"type":"map","values":"long"}"#, vec![vec![0], vec![2, 2, b'k', 13, 0]]),
        (
            "record",
            r#"{"type":"record","name":"R","fields":[{"name":"x","type":"long"},
               {"name":"b","type":"bytes"},{"name":"s","type":["null","string"]}]}"#,
            vec![vec![1, 4, 0, 0xff, 0], vec![2, 0, 2, 2, b'"']],
        ),
    ]
}

fn long(value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    workload::push_long(&mut out, value);
    out
}

fn bytes(bytes: &[u8]) -> Vec<u8> {
    [&long(bytes.len() as i64), bytes].concat()
}

fn double(value: f64) -> Vec<u8> {
    value.to_le_bytes().into()
}

/// Objects without schema: every type that is inferred, and keys left out.
fn objects() -> Vec<Value> {
    vec![
        json!({"i": i64::MAX, "f": 2.5, "s": "a \"b\"\n", "b": true,
            "o": {"x": 1, "tags": ["p", "q"]}, "list": [{"y": 1}, {"y": null, "z": "t"}]}),
        json!({"i": -1, "f": 0.1, "s": "2024-02-29", "o": {"x": null}, "list": []}),
        json!({"i": 0, "s": null}),
    ]
}

/// Runs it.
pub(crate) fn run(binary: &Path) -> Result<()> {
    let place = Place::new("paths")?;
    let http = Http::new(Duration::from_secs(120))?;
    let broker = Broker::start(&place)?;
    // Of the simulator only the schema registry is used.
    let plan = SimulatorPlan::new(binary, "count");
    let registry = Simulator::start(&place, &http, plan)?;
    let bucket = FakeGcs::start(&place, &http)?;
    let emulator = LocalBigQuery::start_reading(&place, &http, Some(&bucket))?;
    let schemas = produce(&broker.address(), &registry, &http)?;
    let mut sinks = Vec::new();
    for way in WAYS {
        let plan = plan_of(binary, way, (&broker, &registry, &bucket, &emulator));
        sinks.push(plan.start(&place, way.0, None)?);
    }
    let names: Vec<&str> = cases().iter().map(|(name, ..)| *name).chain([OBJECTS]).collect();
    let end = Instant::now() + PATIENCE;
    let mut verdict = Verdict::default();
    for (way, ..) in WAYS {
        let observer = Observer::new(&broker.address(), &format!("kcbq-paths-{way}"))?;
        let dataset = Dataset {
            http: &http,
            endpoint: emulator.endpoint(),
            project: LocalBigQuery::PROJECT,
            dataset: way,
            keeps_text_in_records: way == "streamed",
        };
        for name in &names {
            let outcome = check(&observer, &dataset, &schemas, name, end);
            verdict.judge(name, way, outcome);
        }
    }
    let types = by_containers(&http, &emulator)?;
    println!("{} types went by containers", types.len());
    ensure!(types.len() >= CONTAINERS_MIN, "only {types:?}");
    let Verdict { held, differ, wrong } = verdict;
    println!(
        "{held} of {} types and paths have every cell of their sources, {differ} differ as listed",
        held + differ + wrong
    );
    if wrong > 0 {
        sinks.iter().for_each(|sink| println!("{}", sink.tail()));
    }
    ensure!(wrong == 0, "{wrong} outcomes are not the listed ones");
    Ok(())
}

/// How many outcomes there are of each kind.
#[derive(Default)]
struct Verdict {
    held: u32,
    differ: u32,
    wrong: u32,
}

impl Verdict {
    fn judge(&mut self, name: &str, way: &str, outcome: Result<()>) {
        let said = outcome.err().map(|error| format!("{error:#}"));
        let listed = DIFFERENCES.iter().find(|(ty, on, ..)| (*ty, *on) == (name, way));
        match (said, listed) {
            (None, None) => self.held += 1,
            (Some(said), Some((_, _, found, why))) if said.contains(found) => {
                self.differ += 1;
                println!("{name:<16} {way:<10} differs: {why}");
            }
            (said, _) => {
                self.wrong += 1;
                let said = said.unwrap_or_else(|| "it holds; take it off the list".to_owned());
                println!("{name:<16} {way:<10} WRONG: {said}");
            }
        }
    }
}

fn produce(address: &str, registry: &Simulator, http: &Http) -> Result<Schemas> {
    let cases = cases();
    let topics: Vec<_> = cases.iter().map(|(name, ..)| (*name, 1)).chain([(OBJECTS, 1)]).collect();
    clients::create_topics(address, &topics)?;
    let sender = Sender::new(address)?;
    let mut schemas = Schemas::default();
    for (name, ty, values) in cases {
        let schema =
            format!(r#"{{"type":"record","name":"Row","fields":[{{"name":"f","type":{ty}}}]}}"#);
        let id = registry.register(http, &format!("{name}-value"), &schema)?;
        schemas.add(id, &schema)?;
        for value in values {
            let value = [&[0][..], &id.to_be_bytes(), &value].concat();
            sender.send((name, 0), None, Some(&value))?;
        }
    }
    for object in objects() {
        sender.send((OBJECTS, 0), None, Some(object.to_string().as_bytes()))?;
    }
    sender.flush()?;
    Ok(schemas)
}

fn plan_of(
    binary: &Path,
    (way, write, format): (&str, &str, &str),
    (broker, registry, bucket, emulator): (&Broker, &Simulator, &FakeGcs, &LocalBigQuery),
) -> Plan {
    let topic = |name: &str, value_format: &str| json!({"match": name, "value_format": value_format, "write": write, "freshness": "1s"});
    let avro = cases().iter().map(|(name, ..)| topic(name, "avro")).collect::<Vec<_>>();
    Plan {
        binary: binary.to_owned(),
        bootstrap: broker.address(),
        group: format!("kcbq-paths-{way}"),
        endpoint: emulator.endpoint(),
        project: LocalBigQuery::PROJECT.to_owned(),
        dataset: way.to_owned(),
        registry: Some(registry.registry()),
        topics: [avro, vec![topic(OBJECTS, "json")]].concat(),
        paths: json!({"load": {"jobs_per_table_day": 1_000_000, "format": format}}),
        gcs: json!({"bucket": FakeGcs::BUCKET, "prefix": format!("{way}/"), "endpoint": bucket.endpoint()}),
        ..Plan::default()
    }
}

/// Waits for the topic's records, and compares the cells of the topic's table with them.
fn check(
    observer: &Observer,
    dataset: &Dataset<'_>,
    schemas: &Schemas,
    topic: &str,
    end: Instant,
) -> Result<()> {
    let lanes = observer.lanes(&[topic.to_owned()])?;
    while observer.lag(&lanes)? > 0 {
        ensure!(Instant::now() < end, "not stored");
        thread::sleep(Duration::from_millis(200));
    }
    let columns = dataset.columns(topic)?;
    let mut expected = Rows::new();
    observer.read(&lanes, |message| {
        let value = message.payload().unwrap_or_default();
        let row = match topic {
            OBJECTS => bigquery::inferred_row(&columns, &serde_json::from_slice(value)?)?,
            _ => schemas.read(value)?,
        };
        expected.insert((i64::from(message.partition()), message.offset()), row);
        Ok(())
    })?;
    compare(topic, &expected, &rows_by_offset(dataset, topic)?)?;
    Ok(())
}

/// The types that were loaded by Avro containers. A job that has failed is one of a type whose containers are
/// refused, and of such none is loaded.
fn by_containers(http: &Http, emulator: &LocalBigQuery) -> Result<BTreeSet<String>> {
    let project = LocalBigQuery::PROJECT;
    let url = format!("{}/bigquery/v2/projects/{project}/jobs", emulator.endpoint());
    let list = http.get(&format!("{url}?maxResults=100000"))?.json()?;
    let mut types = BTreeSet::new();
    for job in list.get("jobs").and_then(Value::as_array).into_iter().flatten() {
        let text = |path: &str| job.pointer(path).and_then(Value::as_str);
        let Some(table) = text("/configuration/load/destinationTable/tableId") else { continue };
        let is_avro = text("/configuration/load/sourceFormat") == Some("AVRO");
        let is_loaded = job.pointer("/status/errorResult").is_none_or(Value::is_null);
        let may_fail = is_avro && REFUSED.contains(&table);
        ensure!(is_loaded != may_fail, "a job with another outcome than listed: {job}");
        if is_avro && is_loaded {
            types.insert(table.to_owned());
        }
    }
    Ok(types)
}
