//! What the core asks of its driver.

use bytes::Bytes;

use crate::{
    batch::LaneSlot,
    dead_letter::DeadLetter,
    delivery::encoder::NeedId,
    record::{Fingerprint, TopicPartition},
    table::TableRef,
};

/// A batch under way. Never used twice by one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub u64);

/// A dead letter under way. Never used twice by one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId(pub u64);

/// One effect for the driver to carry out. Every `Write`, `DeadLetter` and `Prepare` must be
/// answered exactly once by the event of the same name; forgetting one blocks the watermark.
#[derive(Debug)]
pub enum Action {
    /// Send the batch; answer with `Core::written`.
    Write(Write),
    /// Send the dead letter; answer with `Core::lettered`.
    DeadLetter {
        /// Names the answer.
        id: LetterId,
        /// What to send.
        letter: DeadLetter,
    },
    /// Prepare what records wait for; answer with `Core::prepared`.
    Prepare(NeedId),
    /// Stop fetching from this lane. No answer.
    Pause(LaneSlot),
    /// Fetch from this lane again, from this offset on. `Core::resumed` follows when that is so, before
    /// the records that come of it; a pause that overtakes it makes it void.
    Resume(LaneSlot, i64),
}

/// One request to a write path.
#[derive(Debug)]
pub struct Write {
    /// Names the answer.
    pub id: BatchId,
    /// The table.
    pub table: TableRef,
    /// The whole request body.
    pub body: Bytes,
    /// How many rows it holds.
    pub rows: u32,
    /// The earliest timestamp among its records, milliseconds since the epoch.
    pub oldest_timestamp_ms: Option<i64>,
}

/// What may be committed for one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The lane's number in this worker.
    pub slot: LaneSlot,
    /// The topic-partition.
    pub lane: TopicPartition,
    /// The assignment's epoch.
    pub epoch: u64,
    /// The offset to commit: everything below is done.
    pub offset: i64,
    /// A record shortly below it, if one was delivered in this assignment.
    pub last: Option<Fingerprint>,
}
