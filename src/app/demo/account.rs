//! Offsets against rows: every record that Kafka has is in BigQuery or a dead letter, exactly once.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::{BorrowedMessage, Headers as _},
};
use serde_json::{Map, Value};

use crate::{
    app::demo::shop::{ORDERS, PARTITIONS, PAYMENTS},
    sim::Simulator,
};

const ANSWER: Duration = Duration::from_secs(10);

/// What became of the records of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Records that Kafka holds: its high watermark.
    pub produced: u64,
    /// The offset that the group has committed.
    pub committed: Option<i64>,
    /// Rows in BigQuery.
    pub rows: u64,
    /// Records in the dead-letter topic.
    pub letters: u64,
    /// Records that are nowhere.
    pub missing: u64,
    /// Rows beyond the first of a record, and rows whose record is a dead letter as well.
    pub twice: u64,
}

/// One dead letter: where it came from, and why it is one.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The original topic.
    pub topic: String,
    /// The original partition.
    pub partition: i32,
    /// The original offset.
    pub offset: i64,
    /// The stage that refused it.
    pub stage: String,
    /// The reason.
    pub reason: String,
    /// The first bytes of its value.
    pub value: String,
}

/// A partition of the demo's topics.
pub type Lane = (String, i32);

/// Compares what Kafka holds with what the simulator stored and what was dead-lettered.
///
/// # Errors
///
/// The broker does not answer.
pub fn accounts(
    probe: &BaseConsumer,
    simulator: &Simulator,
    letters: &[Letter],
) -> anyhow::Result<BTreeMap<Lane, Account>> {
    let rows = stored(simulator);
    let mut accounts = BTreeMap::new();
    for lane in lanes() {
        let (_, high) = probe.fetch_watermarks(&lane.0, lane.1, ANSWER)?;
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&lane.0, lane.1);
        let committed = probe.committed_offsets(asked, ANSWER)?;
        let committed = committed.elements().first().and_then(|found| match found.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        });
        let letters = letters.iter().filter(|l| l.topic == lane.0 && l.partition == lane.1);
        let letters: Vec<i64> = letters.map(|letter| letter.offset).collect();
        let none = BTreeMap::new();
        let account = balance(high, rows.get(&lane).unwrap_or(&none), &letters);
        accounts.insert(lane, Account { committed, ..account });
    }
    Ok(accounts)
}

/// The account of a partition that ends at `high`: `rows` is how many rows each offset has.
fn balance(high: i64, rows: &BTreeMap<i64, u64>, letters: &[i64]) -> Account {
    let diverted = |offset: &i64| letters.contains(offset);
    let both = rows.keys().filter(|offset| diverted(offset)).count() as u64;
    let stored: u64 = rows.values().sum();
    Account {
        produced: high.max(0).unsigned_abs(),
        committed: None,
        rows: stored,
        letters: letters.len() as u64,
        missing: (0..high).filter(|at| !rows.contains_key(at) && !diverted(at)).count() as u64,
        twice: stored - rows.len() as u64 + both,
    }
}

fn lanes() -> impl Iterator<Item = Lane> {
    [ORDERS, PAYMENTS]
        .into_iter()
        .flat_map(|topic| (0..PARTITIONS).map(move |partition| (topic.to_owned(), partition)))
}

/// How many rows there are of each record, by the rows' own metadata columns.
fn stored(simulator: &Simulator) -> BTreeMap<Lane, BTreeMap<i64, u64>> {
    simulator.with_core(|core, _| {
        let mut found: BTreeMap<Lane, BTreeMap<i64, u64>> = BTreeMap::new();
        for row in core.bigquery().tables().flat_map(|(_, table)| table.store.rows()) {
            let (lane, offset) = coordinates(row);
            *found.entry(lane).or_default().entry(offset).or_default() += 1;
        }
        found
    })
}

/// A row without coordinates counts for a lane that does not exist.
fn coordinates(row: &Map<String, Value>) -> (Lane, i64) {
    let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
    let partition = text("_kafka_partition").parse().unwrap_or(-1);
    let offset = text("_kafka_offset").parse().unwrap_or(-1);
    ((text("_kafka_topic").to_owned(), partition), offset)
}

/// A consumer that belongs to `group` by name only: it asks, and never joins.
///
/// # Errors
///
/// The client cannot be created.
pub fn probe(brokers: &str, group: &str) -> anyhow::Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .context("demo consumer")
}

/// Reads every dead letter of a topic with one partition.
///
/// # Errors
///
/// The broker does not answer.
pub fn letters(probe: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<Letter>> {
    let (_, high) = probe.fetch_watermarks(topic, 0, ANSWER)?;
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_offset(topic, 0, Offset::Beginning)?;
    probe.assign(&wanted)?;
    let mut letters = Vec::new();
    while letters.len() < usize::try_from(high)? {
        let message = probe.poll(ANSWER).context("the dead-letter topic cannot be read")??;
        letters.push(letter(&message));
    }
    probe.unassign()?;
    Ok(letters)
}

fn letter(message: &BorrowedMessage<'_>) -> Letter {
    let header = |name: &str| {
        let headers = message.headers();
        let found = headers.and_then(|headers| headers.iter().find(|header| header.key == name));
        let value = found.and_then(|header| header.value).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    };
    let number = |name: &str| header(name).parse::<i64>().unwrap_or(-1);
    Letter {
        topic: header("__connect.errors.topic"),
        partition: i32::try_from(number("__connect.errors.partition")).unwrap_or(-1),
        offset: number("__connect.errors.offset"),
        stage: header("kcbq.error.stage"),
        reason: header("kcbq.error.reason"),
        value: String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_doubled_records_are_found() {
        let rows = BTreeMap::from([(0, 1), (1, 3), (4, 1)]);
        let account = balance(6, &rows, &[2, 4]);
        let expected =
            Account { produced: 6, committed: None, rows: 5, letters: 2, missing: 2, twice: 3 };
        assert_eq!(account, expected);
        assert_eq!(balance(2, &BTreeMap::from([(0, 1)]), &[1]).missing, 0);
    }
}
