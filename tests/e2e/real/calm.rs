//! Avro records by load jobs into the public emulators as they are produced, once as Avro containers and once as
//! gzipped JSON, with nothing in their way: every cell of every row is its source's, none is lost, none is there
//! twice, and no staged object is left.

use std::{
    collections::BTreeMap,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::Message;
use serde_json::{Value, json};

use super::compare_cells;
use crate::rig::{
    avro::Schemas,
    bigquery::{Dataset, LocalBigQuery},
    broker::Broker,
    cell,
    clients::{self, Lane, Observer, Sender},
    http::Http,
    place::Place,
    simulator::{Simulator, SimulatorPlan},
    sink::Plan,
    storage::FakeGcs,
    workload,
};

const DATASET: &str = "raw";
const PARTITIONS: i32 = 4;
/// Records per second, so that jobs follow each other.
const RATE: u64 = 10_000;
/// Records between two looks at the clock.
const STEP: u64 = 500;
/// `bigquery.load.format`, and the format of the jobs that it must lead to.
const FORMATS: [(&str, &str); 2] = [("auto", "AVRO"), ("ndjson", "NEWLINE_DELIMITED_JSON")];
/// How long the service may take for one format.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long the last staged objects may take to go after the last commit.
const DISCARD: Duration = Duration::from_secs(30);

struct Stage<'a> {
    binary: &'a Path,
    place: Place,
    http: Http,
    broker: Broker,
    registry: Simulator,
    bucket: FakeGcs,
    emulator: LocalBigQuery,
    schemas: Schemas,
    schema: u32,
}

/// Records by partition and offset: the timestamp and the value.
type Sources = BTreeMap<(i64, i64), (i64, Vec<u8>)>;

/// Runs it with so many records.
pub(crate) fn run(binary: &Path, records: u64) -> Result<()> {
    let stage = Stage::new(binary)?;
    for (format, source_format) in FORMATS {
        stage.pass(records, format, source_format).with_context(|| format!("format {format}"))?;
    }
    Ok(())
}

impl<'a> Stage<'a> {
    fn new(binary: &'a Path) -> Result<Self> {
        let place = Place::new("calm")?;
        let http = Http::new(Duration::from_secs(120))?;
        let broker = Broker::start(&place)?;
        clients::create_topics(
            &broker.address(),
            &FORMATS.map(|(format, _)| (format, PARTITIONS)),
        )?;
        // Of the simulator only the schema registry is used.
        let plan = SimulatorPlan::new(binary, "count");
        let registry = Simulator::start(&place, &http, plan)?;
        let schema = registry.register(&http, "calm-value", &workload::schema(0))?;
        let mut schemas = Schemas::default();
        schemas.add(schema, &workload::schema(0))?;
        let bucket = FakeGcs::start(&place, &http)?;
        let emulator = LocalBigQuery::start_reading(&place, &http, Some(&bucket))?;
        Ok(Self { binary, place, http, broker, registry, bucket, emulator, schemas, schema })
    }

    fn produce(&self, topic: &str, records: u64) -> Result<()> {
        let sender = Sender::new(&self.broker.address())?;
        let (began, mut value) = (Instant::now(), Vec::new());
        for index in 0..records {
            workload::encode(&mut value, self.schema, 0, 1, index);
            let partition = i32::try_from(index % PARTITIONS as u64)?;
            sender.send((topic, partition), None, Some(&value))?;
            if index % STEP == 0 {
                sender.poll();
                let due = Duration::from_secs_f64(index as f64 / RATE as f64);
                thread::sleep(due.saturating_sub(began.elapsed()));
            }
        }
        sender.flush()
    }

    /// A topic into a table, each called by the format, by load jobs of it.
    fn pass(&self, records: u64, format: &str, source_format: &str) -> Result<()> {
        let plan = self.plan(format);
        let observer = Observer::new(&self.broker.address(), &plan.group)?;
        let lanes = observer.lanes(&[format.to_owned()])?;
        let began = Instant::now();
        let mut sink = plan.start(&self.place, format, None)?;
        self.produce(format, records)?;
        let waited = observer.wait_for_no_lag(&lanes, PATIENCE);
        waited.map_err(|error| error.context(sink.tail()))?;
        let seconds = began.elapsed().as_secs_f64();
        self.wait_for_an_empty_bucket()?;
        sink.stop(Duration::from_secs(60))?;
        let (jobs, objects) = self.jobs(format, source_format, records)?;
        println!(
            "{format}: {records} records in {seconds:.0} s, {jobs} jobs of {source_format}, {objects} objects, none left"
        );
        let cells = self.compare(format, self.sources(&observer, &lanes, records)?)?;
        println!("{format}: {records} rows, {cells} cells, every one equal to its source");
        Ok(())
    }

    fn plan(&self, format: &str) -> Plan {
        let topic =
            json!({"match": format, "value_format": "avro", "write": "load", "freshness": "2s"});
        Plan {
            binary: self.binary.to_owned(),
            bootstrap: self.broker.address(),
            group: format!("kcbq-calm-{format}"),
            endpoint: self.emulator.endpoint(),
            project: LocalBigQuery::PROJECT.to_owned(),
            dataset: DATASET.to_owned(),
            registry: Some(self.registry.registry()),
            topics: vec![topic],
            paths: json!({"load": {"jobs_per_table_day": 1_000_000, "format": format}}),
            gcs: json!({"bucket": FakeGcs::BUCKET, "endpoint": self.bucket.endpoint()}),
            ..Plan::default()
        }
    }

    /// Staged objects go once their offsets are committed.
    fn wait_for_an_empty_bucket(&self) -> Result<()> {
        let end = Instant::now() + DISCARD;
        loop {
            let objects = self.bucket.objects(&self.http)?;
            if objects.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{} staged objects are left: {objects:?}", objects.len());
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The jobs into `table` and the objects they read; each must have been loaded, in the format, and all
    /// together as many rows as there are records.
    fn jobs(&self, table: &str, source_format: &str, records: u64) -> Result<(u64, u64)> {
        let project = LocalBigQuery::PROJECT;
        let url = format!("{}/bigquery/v2/projects/{project}/jobs", self.emulator.endpoint());
        let list = self.http.get(&format!("{url}?maxResults=100000"))?.json()?;
        let (mut jobs, mut objects, mut rows) = (0, 0, 0);
        for job in list.get("jobs").and_then(Value::as_array).into_iter().flatten() {
            let text = |path: &str| job.pointer(path).and_then(Value::as_str);
            if text("/configuration/load/destinationTable/tableId") != Some(table) {
                continue;
            }
            let is_loaded = text("/status/state") == Some("DONE")
                && job.pointer("/status/errorResult").is_none_or(Value::is_null);
            ensure!(is_loaded, "a job was not loaded: {job}");
            ensure!(text("/configuration/load/sourceFormat") == Some(source_format), "{job}");
            let number = |path: &str| text(path).and_then(|text| text.parse::<u64>().ok());
            objects += number("/statistics/load/inputFiles").with_context(|| format!("{job}"))?;
            rows += number("/statistics/load/outputRows").with_context(|| format!("{job}"))?;
            jobs += 1;
        }
        ensure!(rows == records, "{jobs} jobs have loaded {rows} rows of {records}");
        Ok((jobs, objects))
    }

    fn sources(&self, observer: &Observer, lanes: &[Lane], records: u64) -> Result<Sources> {
        let mut sources = Sources::new();
        observer.read(lanes, |message| {
            let place = (i64::from(message.partition()), message.offset());
            let timestamp = message.timestamp().to_millis().context("no timestamp")?;
            sources.insert(place, (timestamp, message.payload().unwrap_or_default().to_vec()));
            Ok(())
        })?;
        ensure!(sources.len() as u64 == records, "Kafka holds {} records", sources.len());
        Ok(sources)
    }

    /// Compares every cell, the metadata's, too; how many there are.
    fn compare(&self, table: &str, mut sources: Sources) -> Result<usize> {
        let reader = Dataset {
            http: &self.http,
            endpoint: self.emulator.endpoint(),
            project: LocalBigQuery::PROJECT,
            dataset: DATASET,
            keeps_text_in_records: false,
        };
        let mut cells = 0;
        reader.each_row(table, |row| {
            let number = |name: &str| row.get(name)?.as_str()?.parse::<i64>().ok();
            let place = number("_kafka_partition").zip(number("_kafka_offset"));
            let place = place.with_context(|| format!("a row without its metadata: {row}"))?;
            let Some((timestamp, value)) = sources.remove(&place) else {
                bail!("{place:?} is there twice, or has no source");
            };
            let mut expected = self.schemas.read(&value)?;
            expected["_kafka_topic"] = cell::text(table);
            expected["_kafka_partition"] = cell::text(place.0.to_string());
            expected["_kafka_offset"] = cell::text(place.1.to_string());
            expected["_kafka_timestamp"] = cell::timestamp(timestamp * 1_000);
            compare_cells(&expected, &row).with_context(|| format!("{place:?}"))?;
            cells += super::count(&expected);
            Ok(())
        })?;
        let lost = sources.keys().next();
        ensure!(lost.is_none(), "{} records are lost, the first is {lost:?}", sources.len());
        Ok(cells)
    }
}
