//! One chain of slots, as its present owner sees it: what is staged for which job.

use std::{
    mem::size_of,
    time::{Duration, Instant},
};

use crate::{
    batch::{Batch, SpanId},
    delivery::{
        action::LoadId,
        encoder::{ChainFacts, SlotId},
    },
    fault::Fault,
    write::load::{
        chain::Slot,
        content::Content,
        job::{LoadFormat, LoadJob},
    },
};

pub mod format;
pub mod series;

use format::Formats;
use series::OpenSeries;

/// A job takes 10,000 addresses
/// (<https://docs.cloud.google.com/bigquery/quotas#load_jobs>).
pub const OBJECTS_MAX: usize = 9_000;

/// From a job to the last one before rows are streamed, at most.
const END_JOB: Duration = Duration::from_secs(60);

/// Rows of one object that share a span: what remains of them once they are staged.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The span that waits for them.
    pub span: SpanId,
    /// How many.
    pub records: u32,
}

/// Where staged rows are kept for their job.
#[derive(Debug)]
pub enum Kept {
    /// In the object with this address.
    Object(String),
    /// In the PENDING stream of this name.
    Stream(String),
    /// In this process, where there is no bucket.
    Here {
        /// The rows.
        content: Content,
        /// The memory that they take.
        memory_bytes: usize,
        /// Bytes of their payloads, by which the lane's share of the memory is known.
        payload_bytes: usize,
    },
}

/// An object whose rows no job has brought yet, in the bucket or here; or the rows of an append that are not
/// committed yet.
#[derive(Debug)]
pub struct Staged {
    /// Where it is.
    pub kept: Kept,
    /// How its rows stand in it.
    pub format: LoadFormat,
    /// The offset of its first row.
    pub first: i64,
    /// The offset of its last row.
    pub last: i64,
    /// Its rows.
    pub runs: Vec<Run>,
    /// The rows' slot: what is to be prepared anew if the table does not take them.
    pub slot: SlotId,
    /// Its only row with its payload, where it is under suspicion.
    pub suspect: Option<Batch>,
}

impl Staged {
    /// What is left of `batch`, a staged object's rows.
    pub fn new(kept: Kept, format: LoadFormat, slot: SlotId, batch: &Batch) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        for row in batch.rows() {
            match runs.last_mut() {
                Some(run) if run.span == row.span => run.records += 1,
                _ => runs.push(Run { span: row.span, records: 1 }),
            }
        }
        runs.shrink_to_fit();
        let offsets = batch.rows().iter().map(|row| row.offset);
        let (first, last) = (offsets.clone().min(), offsets.max());
        Self {
            kept,
            format,
            first: first.unwrap_or_default(),
            last: last.unwrap_or_default(),
            runs,
            slot,
            suspect: None,
        }
    }

    /// How many rows.
    pub fn rows(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.records)).sum()
    }

    /// Its address, if it is in the bucket.
    pub fn uri(&self) -> Option<&String> {
        match &self.kept {
            Kept::Object(uri) => Some(uri),
            Kept::Stream(_) | Kept::Here { .. } => None,
        }
    }

    /// The stream that its rows are in.
    pub fn stream(&self) -> Option<&String> {
        match &self.kept {
            Kept::Stream(name) => Some(name),
            Kept::Object(_) | Kept::Here { .. } => None,
        }
    }

    /// Its rows, if they are here.
    pub fn rows_here(&self) -> Option<&Content> {
        match &self.kept {
            Kept::Object(_) | Kept::Stream(_) => None,
            Kept::Here { content, .. } => Some(content),
        }
    }

    /// Bytes of the payloads that its rows count for until its job is done.
    pub fn payload_bytes(&self) -> usize {
        match self.kept {
            Kept::Object(_) | Kept::Stream(_) => 0,
            Kept::Here { payload_bytes, .. } => payload_bytes,
        }
    }

    /// Memory that it holds until its job is done.
    pub fn memory_bytes(&self) -> usize {
        let suspect = self.suspect.as_ref().map_or(0, Batch::memory_bytes);
        let kept = match &self.kept {
            Kept::Object(name) | Kept::Stream(name) => name.capacity(),
            Kept::Here { memory_bytes, .. } => *memory_bytes,
        };
        size_of::<Self>() + kept + self.runs.capacity() * size_of::<Run>() + suspect
    }
}

/// A job under way, or to be tried again.
#[derive(Debug)]
pub struct Loading {
    /// Names the job's answer.
    pub id: LoadId,
    /// The job.
    pub job: LoadJob,
    /// Its objects.
    pub objects: Vec<Staged>,
    /// Calls for this very job that failed.
    pub attempts: u32,
    /// The fault of the last call or job, while it waits for the next.
    pub fault: Option<Fault>,
}

/// Where the chain stands.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Its end is not known yet: it is somewhere behind this slot.
    Unknown(Slot),
    /// The driver looks for it.
    Sought(Slot),
    /// This is its end: no job of this slot exists.
    End(Slot),
}

/// What is to be done otherwise with a chain, because it did not do.
#[derive(Clone, Copy, Debug)]
pub struct Suspicion {
    /// No more rows than this in a job.
    pub rows_max: u64,
    /// Jobs for which rows are staged as lines.
    pub lines_jobs: u32,
}

impl Default for Suspicion {
    fn default() -> Self {
        Self { rows_max: u64::MAX, lines_jobs: 0 }
    }
}

/// One chain.
#[derive(Debug)]
pub struct Chain {
    /// Names and paces its jobs.
    pub facts: ChainFacts,
    /// Where it stands.
    pub place: Place,
    /// Calls to find its end that failed.
    pub attempts: u32,
    /// The fault of the last such call.
    pub fault: Option<Fault>,
    /// Records that came before its end is known.
    pub waiting: Batch,
    /// Objects for the next job.
    pub staged: Vec<Staged>,
    /// When the next job is due, once there are rows for it.
    pub due: Option<Instant>,
    /// The next job is wanted for the records below this offset.
    pub closing: Option<i64>,
    /// The job under way.
    pub loading: Option<Loading>,
    /// When the last job was created.
    pub last_job: Option<Instant>,
    /// Rows that no job brings yet, staged or to be staged.
    pub unloaded: u64,
    /// No such row lies below this offset.
    pub unloaded_from: i64,
    /// No more rows than this in a job: a row among more of them is bad.
    pub rows_max: u64,
    /// In which format rows are staged.
    pub formats: Formats,
    /// The series of streams that rows are appended to, where they are.
    pub series: OpenSeries,
    /// Rows of it were let go, to be read again: a job of those behind them would have the next owner pass
    /// over them.
    pub is_abandoned: bool,
}

impl Chain {
    /// A chain of which `node` is known.
    pub fn new(facts: ChainFacts, node: i64, suspicion: Suspicion) -> Self {
        let place = match facts.is_pending {
            true => Place::End(Slot::FIRST),
            false => Place::Unknown(Slot::at(node)),
        };
        Self {
            facts,
            place,
            attempts: 0,
            fault: None,
            waiting: Batch::default(),
            staged: Vec::new(),
            due: None,
            closing: None,
            loading: None,
            last_job: None,
            unloaded: 0,
            unloaded_from: i64::MAX,
            rows_max: suspicion.rows_max,
            formats: Formats::held(suspicion.lines_jobs),
            series: OpenSeries::default(),
            is_abandoned: false,
        }
    }

    /// Whether nothing is staged, and no answer is awaited.
    pub fn is_idle(&self) -> bool {
        self.unloaded == 0
            && self.loading.is_none()
            && self.waiting.is_empty()
            && !matches!(self.place, Place::Sought(_))
    }

    /// The slots of its rows that are staged.
    pub fn slots(&self) -> impl Iterator<Item = SlotId> {
        let loading = self.loading.iter().flat_map(|loading| &loading.objects);
        self.staged.iter().chain(loading).map(|object| object.slot)
    }

    /// A node of the chain: rows below it are in the table.
    pub fn node(&self) -> i64 {
        match self.place {
            Place::Unknown(slot) | Place::Sought(slot) | Place::End(slot) => slot.node,
        }
    }

    /// Whether no job can have brought the record at `offset`; `false` while nobody knows.
    pub fn is_new(&self, offset: i64) -> bool {
        matches!(self.place, Place::End(slot) if offset >= slot.node)
    }

    /// Whether rows that no job brings yet have streamed rows behind them, of which `streamed` is the last,
    /// or came back from there: they are not left to the next owner, who would read rows once more that
    /// are stored. A row that came back shares its span with some before it. A commit is cheap, and its rows
    /// are never left.
    pub fn is_owed(&self, streamed: i64) -> bool {
        let is_behind = self.facts.is_pending || self.unloaded_from <= streamed;
        self.unloaded > 0 && is_behind && !self.is_abandoned
    }

    /// When the last job before rows are streamed may be created.
    pub fn end_job(&self, now: Instant) -> Instant {
        self.job_after(self.facts.interval.min(END_JOB), now)
    }

    /// When the next job may be created at the soonest, if its rows take memory that others need.
    pub fn soonest_job(&self, now: Instant) -> Instant {
        self.job_after(self.facts.soonest, now)
    }

    fn job_after(&self, wait: Duration, now: Instant) -> Instant {
        let wanted = self.last_job.map_or(now, |last| now.max(last + wait));
        self.facts.turn.map_or(wanted, |turn| turn.next(Duration::ZERO, wanted))
    }

    /// When the next job may be created.
    pub fn next_job(&self, now: Instant) -> Instant {
        let ChainFacts { first, interval, turn, .. } = self.facts;
        let Some(turn) = turn else {
            return self.last_job.map_or(now + first, |last| now.max(last + interval));
        };
        let round = turn.round(first, interval);
        match self.last_job {
            // From turn to turn: what the last job was late by does not add up.
            Some(last) => turn.next(round, now.max(turn.last(round, last) + interval)),
            None => match turn.last(round, now + first) {
                latest if latest >= now => latest,
                _ => turn.next(round, now),
            },
        }
    }

    /// When a job that failed may be tried again, `wait` from now or later.
    pub fn again(&self, wait: Duration, now: Instant) -> Instant {
        let wanted = now + wait.max(self.facts.interval);
        let ChainFacts { first, interval, turn, .. } = self.facts;
        turn.map_or(wanted, |turn| turn.next(turn.round(first, interval), wanted))
    }

    /// Whether objects below `limit` are of several formats.
    pub fn is_mixed(&self, limit: i64) -> bool {
        let mut formats = self.staged.iter().filter(|object| object.last < limit);
        let first = formats.next().map(|object| object.format);
        formats.any(|object| Some(object.format) != first)
    }

    /// Takes out the objects for a job of which every row lies below `limit`, all of one format, and
    /// says where the slot ends: below that, nothing is left out.
    pub fn take(&mut self, limit: i64) -> Option<(Vec<Staged>, i64)> {
        self.staged.sort_by_key(|object| object.first);
        let format = self.staged.first()?.format;
        let end = slot_end(&self.staged, format, limit, self.rows_max);
        let fits = |object: &mut Staged| object.last < end;
        let objects: Vec<Staged> = self.staged.extract_if(.., fits).collect();
        (!objects.is_empty()).then_some((objects, end))
    }

    /// Takes out what was appended to series that are closed. Where the rows lie in the partition does not
    /// matter: a commit is no promise to another owner.
    pub fn take_closed(&mut self) -> Vec<Staged> {
        let open = self.series.format();
        self.staged.extract_if(.., |appended| appended.format < open).collect()
    }
}

/// The largest offset up to `limit` that no object straddles, such that those below it are of one
/// format and few enough. `objects` are sorted by their first offset.
fn slot_end(objects: &[Staged], format: LoadFormat, limit: i64, rows_max: u64) -> i64 {
    let mut end = limit;
    let mut rows = 0;
    for (index, object) in objects.iter().enumerate() {
        rows += object.rows();
        let is_left_out = object.format != format || (rows > rows_max && index > 0);
        if (is_left_out || index >= OBJECTS_MAX || object.last >= end) && object.first < end {
            end = object.first;
        }
    }
    // With each step down, an object that begins below the end may straddle it.
    let straddles = |end: i64| {
        let found = objects.iter().filter(|object| object.first < end && object.last >= end);
        found.map(|object| object.first).min()
    };
    while let Some(first) = straddles(end) {
        end = first;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::TopicPartition,
        table::TableRef,
        write::load::{
            chain::{ChainId, ChainOf},
            pace::{Clock, Turn},
        },
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn chain(turn: Turn) -> Chain {
        let lane = TopicPartition::new("t", 1);
        let table = TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() };
        let of = ChainOf { group: "g", lane: &lane, topic_id: None, table: &table, load_epoch: 0 };
        let id = ChainId::new(&of);
        let (first, interval) = (10 * SECOND, 60 * SECOND);
        Chain::new(
            ChainFacts {
                id,
                table,
                is_pending: false,
                first,
                interval,
                soonest: interval,
                turn: Some(turn),
            },
            0,
            Suspicion::default(),
        )
    }

    #[test]
    fn a_job_waits_for_its_partitions_turn_and_lateness_does_not_add_up() {
        let now = Instant::now();
        let turn = Turn::of(1, 4, Clock { at: now, unix_ms: 1_767_225_600_000 }).unwrap();
        let mut chain = chain(turn);
        let first = chain.next_job(now);
        assert!(first > now && first <= now + 10 * SECOND, "{:?}", first - now);
        assert_eq!(turn.next(10 * SECOND, first), first);
        chain.last_job = Some(first + 3 * SECOND);
        assert_eq!(chain.next_job(first + 4 * SECOND), first + 60 * SECOND);
        assert_eq!(chain.next_job(first + 61 * SECOND), first + 70 * SECOND, "after a pause");
        assert_eq!(chain.again(SECOND, first + 3 * SECOND), first + 70 * SECOND);
        assert_eq!(chain.end_job(first + 80 * SECOND), first + 80 * SECOND);
    }
}
