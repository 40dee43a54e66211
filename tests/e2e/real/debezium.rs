//! Captured Debezium events: what declares its schema goes into the public emulator up to the first
//! change of it (the emulator cannot change nested columns), and everything into the simulator.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

use super::{Rows, compare, rows_by_offset};
use crate::{
    odd::{Letter, Letters, read_letters},
    rig::{
        avro::Schemas,
        bigquery::{self, Dataset, LocalBigQuery},
        broker::Broker,
        cell,
        clients::{self, Observer, Sender},
        connect::Node,
        http::Http,
        place::Place,
        simulator::{Simulator, SimulatorPlan},
        sink::Plan,
    },
};

/// Topic, format, file; the schemaless ones go to the simulator only.
const FILES: [(&str, &str, &str); 8] = [
    ("pgj.public.orders", "connect_json", "pgj.public.orders.jsonl"),
    ("pgj.public.customers", "connect_json", "pgj.public.customers.jsonl"),
    ("pgj.transaction", "connect_json", "pgj.transaction.jsonl"),
    ("mdb", "connect_json", "mdb.jsonl"),
    ("mdb.shop.orders", "connect_json", "mdb.shop.orders.jsonl"),
    ("pga.public.orders", "avro", "pga.public.orders.avro.jsonl"),
    ("pgs.public.orders", "json", "pgs.public.orders.jsonl"),
    (BACKWARDS, "json", "pgs.public.orders.jsonl"),
];
/// The last event first, all in one partition: here "NaN" and "Infinity" make the columns that later
/// hold numbers.
const BACKWARDS: &str = "pgs.backwards";
const PARTITIONS: i32 = 3;

/// One captured event, as it is produced.
struct Event {
    partition: i32,
    value: Option<Vec<u8>>,
    source: Value,
}

/// Runs it.
pub(crate) fn run(binary: &Path) -> Result<()> {
    let place = Place::new("debezium")?;
    let http = Http::new(Duration::from_secs(120))?;
    let mut broker = Broker::start(&place)?;
    let plan = SimulatorPlan::new(binary, "rows");
    let simulator = Simulator::start(&place, &http, plan)?;
    let schemas = preload(&simulator, &http)?;
    let emulator = LocalBigQuery::start(&place, &http)?;
    let scene = Scene {
        place: &place,
        http: &http,
        binary,
        broker: &broker,
        schemas: &schemas,
        registry: simulator.registry(),
    };
    scene.play("emulator", emulator.endpoint(), true)?;
    scene.play("simulator", simulator.endpoint(), false)?;
    broker.kill().map(drop)
}

/// Reads every captured event with the independent readers; how many there are.
pub(crate) fn read_all() -> Result<usize> {
    let schemas = load_schemas()?.0;
    let mut count = 0;
    for (_, format, file) in FILES {
        for (number, event) in read_events(file)?.iter().enumerate() {
            let Some(value) = &event.value else { continue };
            let row = match format {
                "avro" => schemas.read(value),
                "json" => Ok(event.source.clone()),
                _ => connect_row(&event.source),
            };
            if !row.as_ref().is_err_and(is_unstorable) {
                row.with_context(|| format!("{file}, line {}", number + 1))?;
            }
            count += 1;
        }
    }
    Ok(count)
}

struct Scene<'a> {
    place: &'a Place,
    http: &'a Http,
    binary: &'a Path,
    broker: &'a Broker,
    schemas: &'a Schemas,
    registry: String,
}

impl Scene<'_> {
    /// Produces the files into topics of their own and compares the tables.
    fn play(&self, name: &str, endpoint: String, until_change: bool) -> Result<()> {
        let address = self.broker.address();
        let sender = Sender::new(&address)?;
        let (mut topics, mut sources) = (Vec::new(), Vec::new());
        let dead = format!("{name}.dead");
        clients::create_topics(&address, &[(&dead, 1)])?;
        for (source, format, file) in
            FILES.iter().filter(|(_, form, _)| !until_change || *form != "json")
        {
            let topic = format!("{name}.{source}");
            clients::create_topics(&address, &[(&topic, PARTITIONS)])?;
            let mut events = read_events(file)?;
            if *source == BACKWARDS {
                events.reverse();
                events.iter_mut().for_each(|event| event.partition = 0);
            }
            if until_change {
                let kept = events
                    .iter()
                    .take_while(|event| shape(event) == shape(&events[0]) || event.value.is_none());
                let kept = kept.count();
                events.truncate(kept);
            }
            for event in &events {
                sender.send((&topic, event.partition), None, event.value.as_deref())?;
            }
            topics.push(json!({"match": topic, "value_format": format, "table": "{topic}",
                "dead_letter": dead}));
            sources.push((topic, *format, events));
        }
        sender.flush()?;
        let project = LocalBigQuery::PROJECT;
        let plan = self.plan(name, &endpoint, topics);
        let mut sink = plan.start(self.place, name, None)?;
        let observer = Observer::new(&address, &plan.group)?;
        let names: Vec<String> = sources.iter().map(|(topic, ..)| topic.clone()).collect();
        let lanes = observer.lanes(&names)?;
        let waited = observer.wait_for_no_lag(&lanes, Duration::from_secs(60));
        waited.map_err(|error| {
            let status = sink.status(self.http).unwrap_or_default();
            error.context(format!("{}\n/status: {status}", sink.tail()))
        })?;
        sink.stop(Duration::from_secs(60))?;
        let dataset = Dataset {
            http: self.http,
            endpoint,
            project,
            dataset: "raw",
            keeps_text_in_records: until_change,
        };
        let mut letters = read_letters(&observer, &dead)?;
        for (topic, format, events) in &sources {
            self.check(&dataset, topic, format, events, &mut letters)?;
        }
        ensure!(letters.is_empty(), "dead letters that have no reason: {letters:?}");
        Ok(())
    }

    fn plan(&self, name: &str, endpoint: &str, topics: Vec<Value>) -> Plan {
        Plan {
            binary: self.binary.to_owned(),
            bootstrap: self.broker.address(),
            group: format!("kcbq-debezium-{name}"),
            endpoint: endpoint.to_owned(),
            project: LocalBigQuery::PROJECT.to_owned(),
            dataset: "raw".to_owned(),
            registry: Some(self.registry.clone()),
            topics,
            ..Plan::default()
        }
    }

    fn check(
        &self,
        dataset: &Dataset<'_>,
        topic: &str,
        format: &str,
        events: &[Event],
        letters: &mut Letters,
    ) -> Result<()> {
        let table = topic.replace('.', "_");
        let columns = dataset.columns(&table)?;
        let mut expected = Rows::new();
        let mut next: BTreeMap<i32, i64> = BTreeMap::new();
        for event in events {
            let offset = next.entry(event.partition).or_default();
            let place = (i64::from(event.partition), *offset);
            *offset += 1;
            let Some(value) = &event.value else { continue };
            let row = match format {
                "avro" => self.schemas.read(value),
                "json" => bigquery::inferred_row(&columns, &event.source),
                _ => connect_row(&event.source),
            };
            if row.as_ref().is_err_and(is_unstorable) {
                let letter = letters.remove(&((topic.to_owned(), event.partition), place.1));
                let Letter { stage, field, .. } =
                    letter.with_context(|| format!("{place:?}: no dead letter"))?;
                ensure!(stage == "transcode" && field.is_some(), "{stage}, {field:?}");
                println!(
                    "{topic}: {place:?} is a dead letter, field {}",
                    field.unwrap_or_default()
                );
                continue;
            }
            expected.insert(place, row?);
        }
        let found = rows_by_offset(dataset, &table)?;
        let cells = compare(&table, &expected, &found)?;
        ensure!(!expected.is_empty(), "{topic}: nothing to compare");
        println!("{topic}: {} rows, {cells} cells, every one equal to its source", found.len());
        Ok(())
    }
}

fn connect_row(value: &Value) -> Result<Value> {
    let node = Node::of_connect(value.get("schema").context("no schema")?)?;
    let row = node.read_json(value.get("payload").context("no payload")?)?;
    Ok(row.unwrap_or_else(|| cell::record([])))
}

/// Whether a row cannot be read because BigQuery has no value for one of its cells.
fn is_unstorable(error: &anyhow::Error) -> bool {
    error.is::<cell::OutsideBigQuerysYears>()
}

/// What must stay the same for the table to stay the same.
fn shape(event: &Event) -> Value {
    match (event.source.get("schema"), &event.value) {
        (Some(schema), _) => schema.clone(),
        (None, Some(bytes)) => json!(bytes.get(..5)),
        (None, None) => Value::Null,
    }
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/debezium")
}

fn read_events(file: &str) -> Result<Vec<Event>> {
    let text = fs::read_to_string(folder().join(file)).with_context(|| file.to_owned())?;
    text.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line)?;
            let partition =
                line.get("partition").and_then(Value::as_i64).context("no partition")?;
            let source = line.get("value").cloned().unwrap_or(Value::Null);
            let value = match line.get("value_b64") {
                Some(Value::String(text)) => Some(BASE64.decode(text)?),
                _ if source.is_null() => None,
                _ => Some(source.to_string().into_bytes()),
            };
            Ok(Event { partition: i32::try_from(partition)?, value, source })
        })
        .collect()
}

fn preload(simulator: &Simulator, http: &Http) -> Result<Schemas> {
    let (schemas, preloads) = load_schemas()?;
    simulator.preload(http, &preloads)?;
    Ok(schemas)
}

fn load_schemas() -> Result<(Schemas, Value)> {
    let text = fs::read_to_string(folder().join("pga.public.orders.schemas.json"))?;
    let file: BTreeMap<String, Value> = serde_json::from_str(&text)?;
    let mut schemas = Schemas::default();
    let mut preloads = Vec::new();
    for (id, answer) in &file {
        let schema = answer.get("schema").and_then(Value::as_str).context("no schema text")?;
        let id: u32 = id.parse()?;
        schemas.add(id, schema)?;
        preloads.push(json!({"id": id, "schema": schema, "schemaType": "AVRO"}));
    }
    Ok((schemas, Value::Array(preloads)))
}
