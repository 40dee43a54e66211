//! What the core needs to know about records: where they go and how they become rows.

use std::{sync::Arc, time::Duration};

use crate::{
    dead_letter::Reason,
    delivery::budget::BudgetSettings,
    record::{Record, TopicPartition},
    table::{ColumnKind, TableRef},
    write::{
        RowForm,
        load::{
            chain::ChainId,
            job::{LoadFormat, SchemaIx},
            pace::Turn,
        },
    },
};

/// A table together with one way of encoding rows for it (a plan). Rows of one slot share batches;
/// so a batch has one schema version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// Something that must be prepared before records can be encoded: a schema to fetch, a table to
/// create or change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NeedId(pub u32);

/// A table by its number in this encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableIx(pub u32);

/// How rows of a slot are staged, for a load job or a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staging {
    /// The slot's table.
    pub table: TableIx,
    /// How the rows stand. In objects they can always stand as lines, too; of a series of streams the
    /// number does not count.
    pub format: LoadFormat,
    /// Bytes of rows in one object, before compression, or in one append.
    pub object_bytes: usize,
    /// Whether they wait in memory, because there is no bucket.
    pub is_kept_here: bool,
}

/// One lane's rows for one table, as load jobs or commits bring them.
#[derive(Clone, Debug)]
pub struct ChainFacts {
    /// Names the jobs.
    pub id: ChainId,
    /// The table.
    pub table: TableRef,
    /// Whether the rows are in PENDING streams. Nobody finds another owner's: the chain has no end to
    /// look for.
    pub is_pending: bool,
    /// Until the first job after the chain was taken over.
    pub first: Duration,
    /// From one job to the next: what is wanted, or else what the quotas of the table allow.
    pub interval: Duration,
    /// What the quotas allow.
    pub soonest: Duration,
    /// When it is the lane's turn; `None` is any time.
    pub turn: Option<Turn>,
}

/// Where a record goes.
#[derive(Debug)]
pub enum Route {
    /// Into a row of this slot.
    Row(SlotId),
    /// Nowhere, by an explicit setting; it counts as done.
    Skip,
    /// It cannot become a row until this is prepared.
    Wait(NeedId),
    /// It can never become a row.
    Bad(Box<Reason>),
}

/// Why a record did not become a row.
#[derive(Debug)]
pub enum NotEncoded {
    /// It can once this is prepared.
    Wait(NeedId),
    /// It never can.
    Bad(Box<Reason>),
}

/// What is done with the bad records of a topic.
#[derive(Clone, Debug)]
pub struct BadRecordPolicy {
    /// Where they go; `None` halts the lane at the first one.
    pub dead_letter: Option<Arc<str>>,
    /// How many may go there before the lane halts.
    pub budget: BudgetSettings,
}

/// When an open batch is sent: as soon as one of these is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Rows.
    pub rows: usize,
    /// Age of the first row.
    pub linger: Duration,
}

/// Turns records into rows.
///
/// Pure as seen by the core: between two calls of the driver that installs prepared plans, the same
/// record gives the same answer. Nothing blocks. Needs are interned: asking twice for the same thing
/// gives the same [`NeedId`] until the driver has answered it.
pub trait Encoder {
    /// What the encoder wants to know again about a lane: its settings, its row identity prefix.
    type Origin;

    /// Called once per assignment.
    fn origin(&mut self, lane: &TopicPartition) -> Self::Origin;

    /// What is done with bad records from there.
    fn bad_record_policy<'a>(&'a self, origin: &'a Self::Origin) -> &'a BadRecordPolicy;

    /// Whether anybody looks at the headers of the lane's records: where not, they come without.
    fn wants_headers(&self, _origin: &Self::Origin) -> bool {
        true
    }

    /// Where the record goes.
    fn route(&mut self, origin: &Self::Origin, record: &Record<'_>) -> Route;

    /// Where a record goes that was refused before: what the refusal rested on, the table or the
    /// registry, is looked at again first, where it can have changed.
    fn route_again(&mut self, origin: &Self::Origin, record: &Record<'_>) -> Route {
        self.route(origin, record)
    }

    /// Appends the record's row, in the write path's own framing, to `body`. On an error the caller
    /// cuts the body back.
    ///
    /// # Errors
    /// The record needs something prepared, or can never become a row.
    fn encode(
        &mut self,
        slot: SlotId,
        origin: &Self::Origin,
        record: &Record<'_>,
        body: &mut Vec<u8>,
    ) -> Result<(), NotEncoded>;

    /// How the slot's streamed rows are encoded.
    fn form(&self, _slot: SlotId) -> RowForm {
        RowForm::Json
    }

    /// Writes the framing before the first row of a slot.
    fn open_body(&self, slot: SlotId, body: &mut Vec<u8>);

    /// What [`encode`](Self::encode) writes before a row that is not the body's first, and no row
    /// begins with: `,` in JSON; empty where rows are length-delimited. Needed to cut rows out.
    fn separator(&self, slot: SlotId) -> &'static [u8];

    /// Writes the framing behind the last row. It changes nothing of what is there.
    fn close_body(&self, slot: SlotId, body: &mut Vec<u8>);

    /// How rows of the slot are staged where load jobs bring them; `None` where they never do. With an
    /// answer, a load job of an earlier owner may have brought any row, so the end of its chain is
    /// looked up before the first row, whichever way it goes.
    fn staging(&self, _slot: SlotId) -> Option<Staging> {
        None
    }

    /// Whether rows of the slot are staged now, where they can be. The answer changes between two calls
    /// of the driver, from one row to the next.
    fn is_staged(&self, slot: SlotId) -> bool {
        self.staging(slot).is_some()
    }

    /// Appends the record's row as it stands in staged objects: in the format of its
    /// [`staging`](Self::staging), or as a line. Otherwise as [`encode`](Self::encode).
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    fn encode_staged(
        &mut self,
        (slot, _format): (SlotId, LoadFormat),
        origin: &Self::Origin,
        record: &Record<'_>,
        body: &mut Vec<u8>,
    ) -> Result<(), NotEncoded> {
        self.encode(slot, origin, record, body)
    }

    /// The schema of Avro containers.
    fn container_schema(&self, _schema: SchemaIx) -> Option<Arc<str>> {
        None
    }

    /// The chain of a lane's rows for a table; `None` for an encoder that stages nothing.
    fn chain(&self, _origin: &Self::Origin, _table: TableIx) -> Option<ChainFacts> {
        None
    }

    /// The slot's table.
    fn table(&self, slot: SlotId) -> TableRef;

    /// When a batch of the slot is sent.
    fn limits(&self, slot: SlotId) -> BatchLimits;

    /// Whether BigQuery has checked a value of this slot against an older type of the column, which was
    /// widened since: like a new column, that takes minutes to reach the write path.
    fn is_widened(&self, slot: SlotId, field: &str, from: &ColumnKind) -> bool;

    /// Whether something is in the way of `need` that may last: a remote that does not answer, or does
    /// not know what it was asked for.
    fn is_blocked(&self, _need: NeedId) -> bool {
        false
    }

    /// BigQuery does not take this slot's rows as they are encoded: the table is not what the plan
    /// was compiled for (or is not visible as such yet). The plan is dropped; what the slot's
    /// records now wait for is returned.
    fn outdated(&mut self, slot: SlotId) -> NeedId;
}
