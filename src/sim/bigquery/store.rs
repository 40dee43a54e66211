//! What is kept of accepted rows: cells, coordinates with a hash, or a number.

use std::{collections::HashSet, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};

use crate::sim::{
    bigquery::hash::value_hash,
    settings::{SimSettings, StoreMode},
};

/// The rows of one table.
#[derive(Debug)]
pub struct Store {
    mode: StoreMode,
    rows: Vec<Map<String, Value>>,
    ledger: Vec<LedgerRow>,
    topics: HashSet<Arc<str>>,
    count: u64,
}

/// One row of the ledger. A row without one of the coordinates has −1 (or an empty topic) there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// The record's topic.
    pub topic: Arc<str>,
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The hash of the other cells.
    pub hash: u64,
    /// When it was there, in milliseconds since the epoch.
    pub stored_ms: u64,
}

/// A part of the ledger: everything, unless something is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Only this topic.
    pub topic: Option<String>,
    /// Only this partition.
    pub partition: Option<i32>,
    /// Only this offset and what follows.
    pub from: Option<i64>,
}

impl Span {
    fn has(&self, row: &LedgerRow) -> bool {
        self.partition.is_none_or(|partition| partition == row.partition)
            && self.from.is_none_or(|from| from <= row.offset)
            && self.topic.as_deref().is_none_or(|topic| topic == &*row.topic)
    }
}

impl Store {
    /// An empty store.
    pub fn new(mode: StoreMode) -> Self {
        Self { mode, rows: Vec::new(), ledger: Vec::new(), topics: HashSet::new(), count: 0 }
    }

    /// Keeps one row of canonical cells.
    pub fn push(&mut self, row: Map<String, Value>, settings: &SimSettings, now: Duration) {
        self.count += 1;
        match self.mode {
            StoreMode::Rows => self.rows.push(row),
            StoreMode::Ledger => {
                let row = self.ledger_row(&row, settings, now);
                self.ledger.push(row);
            }
            StoreMode::Count => {}
        }
    }

    /// Counts rows that were not looked at.
    pub fn add_count(&mut self, rows: u64) {
        self.count += rows;
    }

    /// Takes over the rows of another store of the same mode, which are there from now on.
    pub fn append(&mut self, mut other: Self, now: Duration) {
        other.ledger.iter_mut().for_each(|row| row.stored_ms = milliseconds(now));
        self.count += other.count;
        self.rows.append(&mut other.rows);
        self.ledger.append(&mut other.ledger);
        self.topics.extend(other.topics);
    }

    /// Drops the last rows.
    pub fn drop_last(&mut self, rows: u64) {
        let kept = |length: usize| length.saturating_sub(usize::try_from(rows).unwrap_or(length));
        self.count = self.count.saturating_sub(rows);
        self.rows.truncate(kept(self.rows.len()));
        self.ledger.truncate(kept(self.ledger.len()));
    }

    /// Removes the rows that are so; only where every cell is kept.
    pub fn remove(&mut self, is: impl Fn(&Map<String, Value>) -> bool) {
        let before = self.rows.len();
        self.rows.retain(|row| !is(row));
        self.count = self.count.saturating_sub((before - self.rows.len()) as u64);
    }

    /// How many rows there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The rows in canonical form, in the order of acceptance; empty unless the mode is `Rows`.
    pub fn rows(&self) -> &[Map<String, Value>] {
        &self.rows
    }

    /// The ledger, in the order of acceptance; empty unless the mode is `Ledger`.
    pub fn ledger(&self) -> &[LedgerRow] {
        &self.ledger
    }

    /// One JSON object per row, in whatever form the mode keeps; empty in `Count`. Of a ledger only
    /// what `span` has.
    pub fn dump<'a>(&'a self, span: &'a Span) -> impl Iterator<Item = Value> + 'a {
        let rows = self.rows.iter().map(|row| json!({"row": row}));
        let ledger = self.ledger.iter().filter(|row| span.has(row)).map(|row| {
            json!({
                "topic": row.topic.as_ref(),
                "partition": row.partition,
                "offset": row.offset,
                "hash": format!("{:016x}", row.hash),
                "stored_ms": row.stored_ms,
            })
        });
        rows.chain(ledger)
    }

    fn ledger_row(
        &mut self,
        row: &Map<String, Value>,
        settings: &SimSettings,
        now: Duration,
    ) -> LedgerRow {
        let [topic, partition, offset] = &settings.coordinates;
        let text = |path: &str| at_path(row, path).and_then(Value::as_str);
        let topic = text(topic).unwrap_or_default();
        let topic = self.topics.get(topic).cloned().unwrap_or_else(|| {
            let topic: Arc<str> = topic.into();
            self.topics.insert(Arc::clone(&topic));
            topic
        });
        LedgerRow {
            topic,
            partition: text(partition).and_then(|text| text.parse().ok()).unwrap_or(-1),
            offset: text(offset).and_then(|text| text.parse().ok()).unwrap_or(-1),
            hash: value_hash(row, &settings.metadata_prefix),
            stored_ms: milliseconds(now),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn at_path<'a>(row: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut names = path.split('.');
    let first = row.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}
