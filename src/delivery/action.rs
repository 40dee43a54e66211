//! What the core asks of its driver.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{
    batch::LaneSlot,
    dead_letter::DeadLetter,
    delivery::encoder::{NeedId, TableIx},
    record::{Fingerprint, TopicPartition},
    table::TableRef,
    write::{
        RowForm,
        load::{
            chain::{ChainId, Slot},
            content::Content,
            job::LoadJob,
        },
        storage::pending::{Append, Series},
    },
};

/// A batch under way. Never used twice by one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub u64);

/// A dead letter under way. Never used twice by one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId(pub u64);

/// A load job under way. Never used twice by one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LoadId(pub u64);

/// One lane's rows for one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainKey {
    /// The lane.
    pub lane: LaneSlot,
    /// The table.
    pub table: TableIx,
}

/// One effect for the driver to carry out. Every `Write`, `Stage`, `Append`, `Locate`, `Load`, `DeadLetter` and
/// `Prepare` must be answered exactly once by the event of the same name; forgetting one blocks the
/// watermark.
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
    /// Store the rows as an object; answer with `Core::staged`.
    Stage(Stage),
    /// Append the rows to a PENDING stream of the series; answer with `Core::appended`.
    Append {
        /// Names the answer.
        id: BatchId,
        /// The rows.
        append: Append,
        /// Where they go.
        series: Arc<Series>,
    },
    /// Find the end of a chain; answer with `Core::located`.
    Locate {
        /// Names the answer.
        key: ChainKey,
        /// The chain.
        chain: ChainId,
        /// Its table.
        table: TableRef,
        /// A slot of it.
        from: Slot,
    },
    /// Create the load job and see it through, or commit the streams; answer with `Core::loaded`.
    Load {
        /// Names the answer.
        id: LoadId,
        /// Whose job it is.
        key: ChainKey,
        /// The job.
        job: LoadJob,
    },
    /// Delete these objects once the lane's offset is committed up to here; at once where it is
    /// `None`, because no job knows them. No answer.
    Discard(LaneSlot, Vec<String>, Option<i64>),
    /// Give the lane up and take it over again from its committed offset: another owner has decided
    /// what it staged. No answer.
    Restart(LaneSlot),
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
    /// How they are encoded.
    pub form: RowForm,
    /// Bytes of the rows as BigQuery counts them for their price.
    pub billed_bytes: u64,
    /// The earliest timestamp among its records, milliseconds since the epoch.
    pub oldest_timestamp_ms: Option<i64>,
}

/// One object to be stored.
#[derive(Debug)]
pub struct Stage {
    /// Names the answer, and tells the object from all others of this worker.
    pub id: BatchId,
    /// Whose rows they are.
    pub chain: ChainId,
    /// The table.
    pub table: TableRef,
    /// The rows.
    pub content: Content,
    /// How many rows there are.
    pub rows: u32,
    /// The first row's offset.
    pub first: i64,
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
    /// A node of each of the lane's chains, by [`ChainId::short`], to find its end from.
    pub nodes: BTreeMap<String, i64>,
}
