//! Odd records: each with its documented outcome, and nothing else delayed by them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rdkafka::{Message, message::Headers};
use serde_json::{Value, json};

use crate::{
    real::{Rows, rows_by_offset},
    rig::{
        bigquery::Dataset,
        broker::Broker,
        clients::{self, Lane, Observer, Sender},
        http::Http,
        place::Place,
        simulator::{Simulator, SimulatorPlan},
        sink::{Plan, Sink},
        workload,
    },
};

const DEAD: &str = "odd.dead";
const BULK: u64 = 50_000;
const POISON_AT: u64 = 31_337;
const POISON: &[u8] = b"\x09poison";
/// Has no dead-letter topic: its first bad record halts it.
const HALTING: &str = "odd.halting";

/// What must become of a record.
enum Outcome {
    /// A row in which these cells stand.
    Row(Value),
    /// A dead letter of this stage, at this field.
    Letter(&'static [&'static str], Option<&'static str>),
    /// Neither, and the offset is committed.
    Nothing,
}

struct Case {
    name: &'static str,
    topic: &'static str,
    value: Option<Vec<u8>>,
    outcome: Outcome,
}

/// What a dead letter says and holds.
#[derive(Debug)]
pub(crate) struct Letter {
    /// The stage that refused the record.
    pub(crate) stage: String,
    /// The field's path.
    pub(crate) field: Option<String>,
    /// The record's value, unchanged.
    value: Option<Vec<u8>>,
}

/// Dead letters by the lane and offset of their records.
pub(crate) type Letters = BTreeMap<(Lane, i64), Letter>;

const VALUES: &str = r#"{"type":"record","name":"Odd","fields":[
  {"name":"f","type":"double"},
  {"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":76,"scale":38}},
  {"name":"t","type":{"type":"long","logicalType":"timestamp-micros"}},
  {"name":"tags","type":{"type":"array","items":["null","string"]}}]}"#;

/// Runs it.
pub(crate) fn run(binary: PathBuf) -> Result<()> {
    let place = Place::new("odd")?;
    let http = Http::new(Duration::from_secs(120))?;
    let broker = Broker::start(&place)?;
    let plan = SimulatorPlan {
        answer_delay: Duration::from_millis(20),
        ..SimulatorPlan::new(&binary, "rows")
    };
    let simulator = Simulator::start(&place, &http, plan)?;
    let topics = [
        ("odd.bulk", 4),
        ("odd.values", 1),
        ("odd.json", 1),
        ("odd.names", 1),
        (HALTING, 1),
        (DEAD, 1),
    ];
    clients::create_topics(&broker.address(), &topics)?;
    let cases = produce(&broker.address(), &simulator, &http)?;
    let plan = plan_of(binary.clone(), &broker, &simulator);
    let mut sink = plan.start(&place, "odd", None)?;
    let observer = Observer::new(&broker.address(), &plan.group)?;
    let names: Vec<String> = topics.iter().take(4).map(|(name, _)| (*name).to_owned()).collect();
    let lanes = observer.lanes(&names)?;
    let waited = observer.wait_for_no_lag(&lanes, Duration::from_secs(180));
    waited.map_err(|error| error.context(sink.tail()))?;
    check_halt(&mut sink, &http, &observer)?;
    sink.stop(Duration::from_secs(60))?;
    let endpoint = simulator.endpoint();
    let dataset = Dataset {
        http: &http,
        endpoint,
        project: "odd",
        dataset: "raw",
        keeps_text_in_records: false,
    };
    let letters = read_letters(&observer, DEAD)?;
    check_bulk(&simulator.places(&http, "odd.raw.odd_bulk")?, &letters)?;
    check_cases(&dataset, &letters, &cases)
}

fn plan_of(binary: PathBuf, broker: &Broker, simulator: &Simulator) -> Plan {
    let topic = |name: &str, format: &str| json!({"match": name, "value_format": format, "dead_letter": DEAD});
    Plan {
        binary,
        bootstrap: broker.address(),
        group: "kcbq-odd".to_owned(),
        endpoint: simulator.endpoint(),
        project: "odd".to_owned(),
        dataset: "raw".to_owned(),
        registry: Some(simulator.registry()),
        topics: vec![
            topic("odd.bulk", "avro"),
            topic("odd.values", "avro"),
            topic("odd.json", "json"),
            topic("odd.names", "connect_json"),
            json!({"match": HALTING, "value_format": "json"}),
        ],
        kafka: json!({"record_bytes_max": 16_000_000}),
        limits: json!({}),
        ..Plan::default()
    }
}

fn produce(address: &str, simulator: &Simulator, http: &Http) -> Result<Vec<Case>> {
    let sender = Sender::new(address)?;
    let bulk = simulator.register(http, "odd.bulk-value", &workload::schema(0))?;
    let odd = simulator.register(http, "odd.values-value", VALUES)?;
    let mut value = Vec::new();
    for index in 0..BULK {
        workload::encode(&mut value, bulk, 0, 6, index);
        if index == POISON_AT {
            value = POISON.to_vec();
        }
        sender.send(("odd.bulk", (index % 4) as i32), None, Some(&value))?;
    }
    let cases = cases(odd);
    for case in &cases {
        sender.send((case.topic, 0), Some(b"k"), case.value.as_deref())?;
    }
    for value in [r#"{"n": 1}"#, "no JSON", r#"{"n": 2}"#] {
        sender.send((HALTING, 0), None, Some(value.as_bytes()))?;
    }
    sender.flush()?;
    Ok(cases)
}

/// One record of [`VALUES`]; every tag is a letter or null.
fn odd_value(
    id: u32,
    f: f64,
    unscaled: &[u8],
    micros: i64,
    tags: &[Option<u8>],
) -> Option<Vec<u8>> {
    let mut value = vec![0];
    value.extend_from_slice(&id.to_be_bytes());
    value.extend_from_slice(&f.to_le_bytes());
    long(&mut value, unscaled.len() as i64);
    value.extend_from_slice(unscaled);
    long(&mut value, micros);
    if !tags.is_empty() {
        long(&mut value, tags.len() as i64);
    }
    for tag in tags {
        match tag {
            None => value.push(0),
            Some(letter) => value.extend_from_slice(&[2, 2, *letter]),
        }
    }
    value.push(0);
    Some(value)
}

fn long(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn cases(id: u32) -> Vec<Case> {
    use Outcome::{Letter, Nothing, Row};
    let big = {
        // 10^75 + 1 unscaled: 38 digits before the point and 38 after it are in use.
        let digits = format!("1{}1", "0".repeat(74));
        unscaled_of(&digits)
    };
    let big_text = format!("1{}.{}1", "0".repeat(37), "0".repeat(37));
    let case = |name, topic, value, outcome| Case { name, topic, value, outcome };
    let value = |f: f64, d: &[u8], t, tags: &[Option<u8>]| odd_value(id, f, d, t, tags);
    let blob =
        |size: usize| Some(format!(r#"{{"id":1,"blob":"{}"}}"#, "x".repeat(size)).into_bytes());
    let names = json!({
        "schema": {"type": "struct", "name": "N", "fields": [
            {"field": "a.b", "type": "int32"}, {"field": "a_b", "type": "int32"},
            {"field": "A_B", "type": "int32"}]},
        "payload": {"a.b": 1, "a_b": 2, "A_B": 3},
    });
    vec![
        case("NaN", "odd.values", value(f64::NAN, &[1], 0, &[]), Row(json!({"f": "NaN"}))),
        case(
            "Infinity",
            "odd.values",
            value(f64::INFINITY, &[1], 0, &[]),
            Row(json!({"f": "inf"})),
        ),
        case(
            "-Infinity",
            "odd.values",
            value(f64::NEG_INFINITY, &[1], 0, &[]),
            Row(json!({"f": "-inf"})),
        ),
        case("decimal(76,38)", "odd.values", value(0.5, &big, 0, &[]), Row(json!({"d": big_text}))),
        case("before 1970", "odd.values", value(0.5, &[1], -1, &[]), Row(json!({"t": "-1"}))),
        case(
            "year 1600",
            "odd.values",
            value(0.5, &[1], -11_676_096_000_000_000, &[]),
            Row(json!({"t": "-11676096000000000"})),
        ),
        case(
            "after 9999",
            "odd.values",
            value(0.5, &[1], 253_402_300_800_000_000, &[]),
            Letter(&["transcode"], Some("t")),
        ),
        case(
            "null in an array",
            "odd.values",
            value(0.5, &[1], 0, &[Some(b'a'), None]),
            Letter(&["transcode"], Some("tags")),
        ),
        case(
            "array without null",
            "odd.values",
            value(0.5, &[1], 0, &[Some(b'a')]),
            Row(json!({"tags": ["a"]})),
        ),
        case("tombstone", "odd.values", None, Nothing),
        case("12 MB", "odd.json", blob(12_000_000), Letter(&["transcode", "write"], None)),
        case("9 MB", "odd.json", blob(9_000_000), Row(json!({"id": "1"}))),
        case("not JSON", "odd.json", Some(b"{\"id\":".to_vec()), Letter(&["decode"], None)),
        case(
            "colliding names",
            "odd.names",
            Some(names.to_string().into_bytes()),
            Row(json!({"a_b": "1"})),
        ),
    ]
}

/// The shortest two's-complement big-endian form of a positive decimal number.
fn unscaled_of(digits: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = vec![0];
    for digit in digits.bytes() {
        let mut carry = u32::from(digit - b'0');
        for byte in bytes.iter_mut().rev() {
            let value = u32::from(*byte) * 10 + carry;
            *byte = value as u8;
            carry = value >> 8;
        }
        if carry > 0 {
            bytes.insert(0, carry as u8);
        }
    }
    if bytes[0] & 0x80 != 0 {
        bytes.insert(0, 0);
    }
    bytes
}

/// The dead letters of a topic.
pub(crate) fn read_letters(observer: &Observer, topic: &str) -> Result<Letters> {
    let lanes = observer.lanes(&[topic.to_owned()])?;
    let mut letters = Letters::new();
    observer.read(&lanes, |message| {
        let headers = message.headers().context("a dead letter without headers")?;
        let text = |end: &str| {
            let mut found = headers.iter().filter(|header| header.key.ends_with(end));
            Some(String::from_utf8_lossy(found.next()?.value?).into_owned())
        };
        let number = |end: &str| text(end).and_then(|text| text.parse::<i64>().ok());
        let topic = text("errors.topic").context("no topic")?;
        let partition = number("errors.partition").context("no partition")?;
        let offset = number("errors.offset").context("no offset")?;
        let own = |end: &str| {
            let mut found = headers.iter().filter(|header| {
                !header.key.starts_with("__connect.") && header.key.ends_with(end)
            });
            Some(String::from_utf8_lossy(found.next()?.value?).into_owned())
        };
        let stage = own("stage").context("no stage")?;
        let lane = (topic, i32::try_from(partition)?);
        let value = message.payload().map(<[u8]>::to_vec);
        letters.insert((lane, offset), Letter { stage, field: own("field"), value });
        Ok(())
    })?;
    Ok(letters)
}

/// Without a dead-letter topic the lane stands at the bad record, and `/status` and the log say why.
fn check_halt(sink: &mut Sink, http: &Http, observer: &Observer) -> Result<()> {
    let status = sink.status(http)?;
    let mut lanes = status.get("lanes").and_then(Value::as_array).into_iter().flatten();
    let lane = lanes.find(|lane| lane["topic"] == HALTING).context("no lane in /status")?;
    ensure!(lane["state"] == "halted", "its state is {}", lane["state"]);
    let reason = lane["reason"].as_str().unwrap_or_default();
    ensure!(reason.starts_with("offset 1: ") && reason.contains("dead_letter"), "{reason}");
    let lag = observer.lag(&observer.lanes(&[HALTING.to_owned()])?)?;
    ensure!(lag == 2, "the halted lane's lag is {lag}");
    let log = sink.tail();
    ensure!(log.contains("the partition is halted"), "the log does not say so:\n{log}");
    println!("{:<20} halted at the record, said so in /status and the log", "no dead_letter");
    Ok(())
}

fn check_bulk(rows: &[(i64, i64)], letters: &Letters) -> Result<()> {
    let place = (("odd.bulk".to_owned(), (POISON_AT % 4) as i32), (POISON_AT / 4) as i64);
    let letter = letters.get(&place).context("the poison record is no dead letter")?;
    ensure!(letter.stage == "decode", "the poison record's stage is {}", letter.stage);
    ensure!(letter.value.as_deref() == Some(POISON), "the dead letter has another value");
    let different: BTreeSet<&(i64, i64)> = rows.iter().collect();
    let (stored, expected) = (different.len() as u64, BULK - 1);
    ensure!(stored == expected && rows.len() == different.len(), "{stored} rows of {expected}");
    println!(
        "{:<20} dead letter, decode; the other {} records are rows",
        "poison in 50,000",
        rows.len()
    );
    Ok(())
}

fn check_cases(dataset: &Dataset<'_>, letters: &Letters, cases: &[Case]) -> Result<()> {
    let mut next: BTreeMap<&str, i64> = BTreeMap::new();
    let mut tables: BTreeMap<&str, Rows> = BTreeMap::new();
    let mut wrong = 0;
    for case in cases {
        let offset = next.entry(case.topic).or_default();
        if !tables.contains_key(case.topic) {
            let rows = rows_by_offset(dataset, &case.topic.replace('.', "_"))?;
            tables.insert(case.topic, rows);
        }
        let verdict = check_case(&tables[case.topic], letters, case, *offset);
        *offset += 1;
        match verdict {
            Ok(found) => println!("{:<20} {found}", case.name),
            Err(error) => {
                println!("{:<20} WRONG: {error:#}", case.name);
                wrong += 1;
            }
        }
    }
    let expected = cases.iter().filter(|case| matches!(case.outcome, Outcome::Letter(..))).count();
    ensure!(wrong == 0, "{wrong} odd records met another outcome than the documented one");
    ensure!(letters.len() == expected + 1, "{} dead letters", letters.len());
    Ok(())
}

fn check_case(rows: &Rows, letters: &Letters, case: &Case, offset: i64) -> Result<String> {
    let row = rows.get(&(0, offset));
    let letter = letters.get(&((case.topic.to_owned(), 0), offset));
    match (&case.outcome, row, letter) {
        (Outcome::Nothing, None, None) => Ok("skipped, committed".to_owned()),
        (Outcome::Row(cells), Some(row), None) => {
            for (name, cell) in cells.as_object().into_iter().flatten() {
                let found = row.get(name).unwrap_or(&Value::Null);
                ensure!(found == cell, "{name} is {found}, not {cell}");
            }
            if case.name == "colliding names" {
                let count = row.as_object().map_or(0, serde_json::Map::len);
                ensure!(count == 3, "three fields took {count} columns: {row}");
                let values = row.as_object().into_iter().flat_map(|row| row.values());
                let values: BTreeSet<_> = values.filter_map(Value::as_str).collect();
                ensure!(values == BTreeSet::from(["1", "2", "3"]), "{row}");
            }
            Ok("row".to_owned())
        }
        (Outcome::Letter(stages, field), None, Some(Letter { stage, field: found, value })) => {
            ensure!(stages.contains(&stage.as_str()), "the stage is {stage}");
            ensure!(*value == case.value, "the dead letter has another value");
            if let Some(field) = field {
                let found = found.as_deref().unwrap_or("none");
                ensure!(found.starts_with(field), "the field is {found}");
            }
            Ok(format!("dead letter, {stage}, field {}", found.as_deref().unwrap_or("-")))
        }
        (_, row, letter) => {
            let letter = letter.map(|letter| (&letter.stage, &letter.field));
            anyhow::bail!("row: {}, dead letter: {letter:?}", row.is_some())
        }
    }
}
