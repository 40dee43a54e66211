//! What producers write, and what must become of it.

use serde::{Deserialize, Serialize};

use super::rng::Rng;
use crate::record::TopicPartition;

/// A record's value as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Payload {
    /// Unique over the whole history.
    pub id: u64,
    /// Some text.
    pub v: String,
    /// Which of the topic's tables it is for.
    pub t: u8,
    /// A column that not every table has yet: `x0`, `x1`, …
    pub x: Option<u8>,
    /// A column that the policy refuses.
    pub forbidden: bool,
    /// Cannot be encoded.
    pub unfit: bool,
    /// BigQuery refuses the row.
    pub bad: bool,
    /// Makes it large.
    pub pad: String,
}

/// What must become of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// A row of this table.
    Row(&'static str),
    /// A dead letter.
    Letter,
    /// Nothing.
    Skip,
}

/// One record of a log.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// Its offset.
    pub offset: i64,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// The value, where it can be read.
    pub payload: Option<Payload>,
    /// What must become of it.
    pub fate: Fate,
}

/// The table of a record: `a` and `b` share one, `c` feeds two.
pub fn table_of(lane: &TopicPartition, payload: &Payload) -> &'static str {
    match (&*lane.topic, payload.t) {
        ("a" | "b", _) => "ab",
        (_, 0) => "c0",
        _ => "c1",
    }
}

/// How often what is produced, per 1,000 records.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Tombstones.
    pub null: u64,
    /// Of each kind of bad record.
    pub bad: u64,
    /// With an extra column.
    pub column: u64,
    /// How large records are, in bytes beside the rest.
    pub pad: u64,
}

/// Makes the record at `offset`.
pub fn produce(rng: &mut Rng, mix: &Mix, lane: &TopicPartition, offset: i64, id: u64) -> LogRecord {
    let made = |value, payload, fate| LogRecord { offset, value, payload, fate };
    if rng.chance(mix.null) {
        return made(None, None, Fate::Skip);
    }
    if rng.chance(mix.bad) {
        return made(Some(b"{\"id\":".to_vec()), None, Fate::Letter);
    }
    let payload = Payload {
        id,
        v: format!("{:x}", rng.bits()),
        t: rng.between(0, 2) as u8,
        x: rng.chance(mix.column).then(|| rng.between(0, 4) as u8),
        forbidden: rng.chance(mix.bad),
        unfit: rng.chance(mix.bad),
        bad: rng.chance(mix.bad),
        pad: "p".repeat(rng.between(0, mix.pad + 1) as usize),
    };
    let fate = if payload.forbidden || payload.unfit || payload.bad {
        Fate::Letter
    } else {
        Fate::Row(table_of(lane, &payload))
    };
    made(Some(serde_json::to_vec(&payload).unwrap()), Some(payload), fate)
}
