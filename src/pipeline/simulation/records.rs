//! What producers write, and what must become of it.

use serde::{Deserialize, Serialize};

use super::rng::Rng;
use crate::record::TopicPartition;

/// A record's value as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Payload {
    /// Unique over the whole history.
    pub(crate) id: u64,
    /// Some text.
    pub(crate) v: String,
    /// Which of the topic's tables it is for.
    pub(crate) t: u8,
    /// A column that not every table has yet: `x0`, `x1`, …
    pub(crate) x: Option<u8>,
    /// A column that the policy refuses.
    pub(crate) forbidden: bool,
    /// Cannot be encoded.
    pub(crate) unfit: bool,
    /// BigQuery refuses the row.
    pub(crate) bad: bool,
    /// Makes it large.
    pub(crate) pad: String,
}

/// What must become of a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fate {
    /// A row of this table.
    Row(&'static str),
    /// A dead letter.
    Letter,
    /// Nothing.
    Skip,
}

/// One record of a log.
#[derive(Clone, Debug)]
pub(crate) struct LogRecord {
    /// Its offset.
    pub(crate) offset: i64,
    /// Its value.
    pub(crate) value: Option<Vec<u8>>,
    /// The value, where it can be read.
    pub(crate) payload: Option<Payload>,
    /// What must become of it.
    pub(crate) fate: Fate,
}

/// The table of a record: `a` and `b` share one, `c` feeds two.
pub(crate) fn table_of(lane: &TopicPartition, payload: &Payload) -> &'static str {
    match (&*lane.topic, payload.t) {
        ("a" | "b", _) => "ab",
        (_, 0) => "c0",
        _ => "c1",
    }
}

/// How often what is produced, per 1,000 records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    /// Tombstones.
    pub(crate) null: u64,
    /// Of each kind of bad record.
    pub(crate) bad: u64,
    /// With an extra column.
    pub(crate) column: u64,
    /// How large records are, in bytes beside the rest.
    pub(crate) pad: u64,
}

/// Makes the record at `offset`.
pub(crate) fn produce(
    rng: &mut Rng,
    mix: &Mix,
    lane: &TopicPartition,
    offset: i64,
    id: u64,
) -> LogRecord {
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
