//! One assignment of a topic-partition, as the core knows it.

use std::{collections::BTreeMap, time::Instant};

use crate::{
    batch::{Batch, SpanId},
    dead_letter::Reason,
    delivery::{budget::Budget, tracker::Tracker},
    record::TopicPartition,
};

/// Where a lane stands in its life. `Recovering` is the source's state, before the core knows the
/// lane; `Gone` is its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Records are taken in.
    Running,
    /// Nothing is taken in any more; what was taken in is finished.
    Draining,
}

/// What ends a halt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// A person.
    Released,
    /// The cause may pass: the held records are tried again then.
    Retry(Instant),
    /// They are being tried; the halt is over when these spans are resolved.
    Tried(Vec<SpanId>),
}

/// Why a lane does not go on until someone, or time, releases it.
#[derive(Clone, Debug)]
pub struct Halt {
    /// The record's refusal that caused it; the last one, if it was tried again.
    pub reason: Reason,
    /// What stands in the way of diverting it, and what to do.
    pub remedy: String,
    /// The record's offset.
    pub offset: i64,
    /// What ends it.
    pub until: Until,
}

/// One lane.
#[derive(Debug)]
pub struct Lane<O> {
    /// The topic-partition.
    pub lane: TopicPartition,
    /// The assignment's epoch.
    pub epoch: u64,
    /// What the encoder wants to know again.
    pub origin: O,
    /// Its progress.
    pub tracker: Tracker,
    /// The last offset of a row that was streamed.
    pub streamed: i64,
    /// How many records have waited for something to be prepared.
    pub waited: u64,
    /// Where it stands in its life.
    pub phase: Phase,
    /// Payload bytes taken in and not resolved.
    pub bytes: usize,
    /// How far it was acknowledged when the source was last told to hold back.
    pub watermark_at_hold: i64,
    /// What [`bytes`](Self::bytes) was when it had not moved while the others were held back for it.
    pub stuck: Option<usize>,
    /// Whether the source was told to pause it.
    pub paused: bool,
    /// Whether a record was ignored because the lane was paused: what comes lies behind a gap, until
    /// the source has gone back.
    pub deaf: bool,
    /// For how many different things its records wait.
    pub needs: usize,
    /// Whether no record is taken in because its records wait for too many different things.
    pub crowded: bool,
    /// Why it is halted.
    pub halt: Option<Halt>,
    /// The bad records that the halt holds back, not encoded.
    pub held: Batch,
    /// The dead-letter budget.
    pub budget: Budget,
    /// A node of each chain of the lane that is known of, by `ChainId::short`.
    pub nodes: BTreeMap<String, i64>,
}

impl<O> Lane<O> {
    /// A running lane whose next record is `start` or later.
    pub fn new(lane: TopicPartition, epoch: u64, origin: O, start: i64) -> Self {
        Self {
            lane,
            epoch,
            origin,
            tracker: Tracker::new(start),
            streamed: i64::MIN,
            waited: 0,
            phase: Phase::Running,
            bytes: 0,
            watermark_at_hold: start,
            stuck: None,
            paused: false,
            deaf: false,
            needs: 0,
            crowded: false,
            halt: None,
            held: Batch::default(),
            budget: Budget::default(),
            nodes: BTreeMap::new(),
        }
    }

    /// A row is streamed.
    pub fn streams(&mut self, offset: i64) {
        self.streamed = self.streamed.max(offset);
    }

    /// Payload bytes of what is under way; what the halt holds back is not.
    pub fn bytes_under_way(&self) -> usize {
        self.bytes.saturating_sub(self.held.memory_bytes())
    }

    /// How many records the halt holds back; each is unresolved.
    pub fn held_records(&self) -> u64 {
        self.held.rows().len() as u64
    }

    /// Whether it is halted and what the halt held back is tried: some of it waits for what refused it
    /// before.
    pub fn is_tried(&self) -> bool {
        matches!(self.halt, Some(Halt { until: Until::Tried(_), .. }))
    }
}
