//! The core of one worker: its lanes, its open batches, and everything under way.

mod flow;
mod halt;
mod intake;
mod letters;
mod load;
mod outcome;
mod waiting;

pub use flow::Pressure;
pub use intake::Intake;
pub use letters::OpenLetter;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    batch::{Batch, LaneSlot, Size, SpanId, spares::Spares},
    delivery::{
        action::{Action, BatchId, ChainKey, LetterId, Progress, Write},
        backoff::Backoff,
        chain::{Chain, Suspicion},
        encoder::{BatchLimits, Encoder, NeedId, SlotId, TableIx},
        lane::{Lane, Phase},
    },
    fault::Fault,
    path::price::ROW_BYTES_MIN,
    record::TopicPartition,
    write::{RowForm, load::job::LoadFormat},
};

use letters::Letter;
use waiting::Waiting;

/// The part of the memory that may be kept in buffers for later batches.
const SPARES_SHARE: usize = 4;

type Timers = BinaryHeap<Reverse<(Instant, Timer)>>;

type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::FixedState>;

/// Sizes and waits of one worker's core.
#[derive(Clone, Copy, Debug)]
pub struct CoreSettings {
    /// No body is larger than this; what the remote takes.
    pub body_bytes_max: usize,
    /// Memory for everything taken in and not acknowledged, buffers as allocated.
    pub memory_bytes_max: usize,
    /// Between attempts after a passing fault.
    pub retry: Backoff,
    /// Between attempts after a fault that passes in minutes.
    pub retry_slowly: Backoff,
    /// Until a halted lane tries again what it holds, where the cause can pass.
    pub halt_retry: Duration,
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Seal(Way, BatchId),
    Resend(BatchId),
    Relook(NeedId),
    Letter(LetterId),
    Retry(LaneSlot),
    Stalled,
    Locate(ChainKey),
    Load(ChainKey),
}

/// Which batches a row joins: those of a slot on their way to BigQuery, or those that are staged for
/// a chain's next job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Way {
    Streamed(SlotId),
    Staged(SlotId, ChainKey, LoadFormat),
}

impl Way {
    fn slot(self) -> SlotId {
        match self {
            Self::Streamed(slot) | Self::Staged(slot, ..) => slot,
        }
    }

    fn chain(self) -> Option<ChainKey> {
        match self {
            Self::Streamed(_) => None,
            Self::Staged(_, key, _) => Some(key),
        }
    }

    /// Whether rows of it are appended to a PENDING stream.
    fn is_pending(self) -> bool {
        matches!(self, Self::Staged(_, _, format) if format.is_pending())
    }
}

/// A batch that still takes rows.
#[derive(Debug)]
struct Open {
    id: BatchId,
    batch: Batch,
    limits: BatchLimits,
}

/// A batch that was handed to the driver.
#[derive(Debug)]
struct Sent {
    way: Way,
    batch: Batch,
    body: Bytes,
    /// Times this very body was sent.
    attempts: u32,
    past: Past,
    /// The fault of the last attempt, while it waits for the next.
    fault: Option<Fault>,
}

/// What rows have been through.
#[derive(Clone, Copy, Debug, Default)]
struct Past {
    /// Times they came back for a new plan.
    replans: u32,
    /// A request with them had an unknown outcome, so that they may be stored: they are only ever
    /// streamed again, because a load job knows nothing of insertIds.
    is_doubtful: bool,
}

/// Who waits for a record.
#[derive(Clone, Copy, Debug)]
struct Place {
    lane: LaneSlot,
    span: SpanId,
}

/// The delivery core of one worker. See the module's rules.
#[derive(Debug)]
pub struct Core<E: Encoder> {
    encoder: E,
    settings: CoreSettings,
    lanes: Map<LaneSlot, Lane<E::Origin>>,
    open: Map<Way, Open>,
    /// Ways whose last batch was full, and its size: their next one most likely will be like it.
    filled: Map<Way, Size>,
    chains: Map<ChainKey, Chain>,
    /// Chains whose next job is wanted, and waits for records to settle.
    closing: Vec<ChainKey>,
    /// Chains of which a job could not be made, or failed for its rows.
    suspicions: Map<(TopicPartition, TableIx), Suspicion>,
    sent: Map<BatchId, Sent>,
    waiting: Map<NeedId, Waiting>,
    letters: Map<LetterId, Letter>,
    timers: Timers,
    actions: VecDeque<Action>,
    moved: Vec<LaneSlot>,
    spares: Spares,
    memory_bytes: usize,
    pressure: Pressure,
    /// How much memory must be in use for another look at it.
    look_at: usize,
    /// When lanes that have not moved since the source was held back are stuck.
    stall_due: Option<Instant>,
    last_id: u64,
    /// A deliberate mistake, to show that the checkers catch it.
    #[cfg(test)]
    pub defect: Option<crate::delivery::defect::Defect>,
}

impl<E: Encoder> Core<E> {
    /// A core without lanes.
    pub fn new(encoder: E, settings: CoreSettings) -> Self {
        Self {
            encoder,
            settings,
            lanes: Map::default(),
            open: Map::default(),
            filled: Map::default(),
            chains: Map::default(),
            closing: Vec::new(),
            suspicions: Map::default(),
            sent: Map::default(),
            waiting: Map::default(),
            letters: Map::default(),
            timers: BinaryHeap::new(),
            actions: VecDeque::new(),
            moved: Vec::new(),
            spares: Spares::new(settings.memory_bytes_max / SPARES_SHARE),
            memory_bytes: 0,
            pressure: Pressure::Free,
            look_at: 0,
            stall_due: None,
            last_id: 0,
            #[cfg(test)]
            defect: None,
        }
    }

    /// The encoder, for the driver to install what it prepared.
    pub fn encoder_mut(&mut self) -> &mut E {
        &mut self.encoder
    }

    /// The encoder, to ask.
    pub fn encoder(&self) -> &E {
        &self.encoder
    }

    /// The next effect to carry out.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Takes over an assignment. `slot` was never used before in this core.
    pub fn assign(&mut self, slot: LaneSlot, lane: TopicPartition, epoch: u64, start: i64) {
        let origin = self.encoder.origin(&lane);
        let mut lane = Lane::new(lane, epoch, origin, start);
        if self.pressure == Pressure::Stop {
            lane.paused = true;
            self.actions.push_back(Action::Pause(slot));
        }
        self.lanes.insert(slot, lane);
    }

    /// Whether anybody looks at the headers of a lane's records.
    pub fn wants_headers(&self, slot: LaneSlot) -> bool {
        self.lanes.get(&slot).is_some_and(|lane| self.encoder.wants_headers(&lane.origin))
    }

    /// What the committed offset of a lane says of its chains; before its first record.
    pub fn recall(&mut self, slot: LaneSlot, nodes: BTreeMap<String, i64>) {
        if let Some(lane) = self.lanes.get_mut(&slot) {
            lane.nodes = nodes;
        }
    }

    /// Stops taking in records of these lanes and sends what is open, so that they finish soon. What is
    /// staged for a job that does not exist yet is left to the next owner, who reads it again: a job
    /// apiece for every rebalance would use up the table's quota. Only where rows behind it are streamed
    /// already, the job is made: the next owner would stream them once more. What is appended to PENDING streams
    /// is committed.
    pub fn drain(&mut self, slots: &[LaneSlot]) {
        for slot in slots {
            if let Some(lane) = self.lanes.get_mut(slot) {
                lane.phase = Phase::Draining;
            }
        }
        self.seal_all();
        self.close_owed();
    }

    /// Whether nothing of this lane is under way. What a halt holds back is not, nor what no job
    /// brings, nor what waits for something that may last: it is the next owner's, and the watermark
    /// stays below it. True for a lane that is gone.
    pub fn is_drained(&self, slot: LaneSlot) -> bool {
        self.lanes.get(&slot).is_none_or(|lane| {
            let waiting = match lane.is_tried() {
                true => self.waiting_records(slot, |_| true),
                false => self.blocked_records(slot),
            };
            let left = lane.held_records() + waiting + self.unloaded(slot);
            lane.tracker.unresolved() == left
        })
    }

    /// Forgets lanes. Whatever is under way for them goes on, and its answers are ignored.
    pub fn drop_lanes(&mut self, slots: &[LaneSlot]) {
        #[cfg(test)]
        if self.has(crate::delivery::defect::Defect::CommitAfterRevoke) {
            return;
        }
        for slot in slots {
            if let Some(lane) = self.lanes.remove(slot) {
                self.release_memory(lane.held.memory_bytes());
            }
        }
        self.drop_chains();
        self.let_go();
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, now: Instant) {
        while let Some(Reverse((due, timer))) = self.timers.peek().copied() {
            if due > now {
                break;
            }
            self.timers.pop();
            self.due(timer, due, now);
        }
        if self.is_idle() {
            self.spares.clear();
        }
        self.flow(now);
    }

    /// When [`tick`](Self::tick) has something to do next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes what may newly be committed, lane by lane.
    pub fn progress(&mut self) -> Vec<Progress> {
        let moved = std::mem::take(&mut self.moved);
        moved.into_iter().filter_map(|slot| self.progress_of(slot)).collect()
    }

    /// What may be committed for one lane, whether it moved or not.
    pub fn progress_of(&self, slot: LaneSlot) -> Option<Progress> {
        let lane = self.lanes.get(&slot)?;
        let offset = lane.tracker.watermark();
        #[cfg(test)]
        let offset = match self.defect {
            Some(crate::delivery::defect::Defect::CommitBeforeAcknowledgement) => {
                lane.tracker.next()
            }
            _ => offset,
        };
        Some(Progress {
            slot,
            lane: lane.lane.clone(),
            epoch: lane.epoch,
            offset,
            last: lane.tracker.last(),
            nodes: lane.nodes.clone(),
        })
    }

    /// The lanes, for the status page.
    pub fn lanes(&self) -> impl Iterator<Item = (LaneSlot, &Lane<E::Origin>)> {
        self.lanes.iter().map(|(slot, lane)| (*slot, lane))
    }

    /// Memory held by everything taken in and not acknowledged, and by buffers kept for later.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes + self.spares.memory_bytes()
    }

    /// Batches that wait for another attempt, with the fault of the last one, and the lanes that
    /// wait for them.
    pub fn faults(&self) -> impl Iterator<Item = (SlotId, &Fault, u32, &[crate::batch::Row])> {
        self.sent.values().filter_map(|sent| {
            Some((sent.way.slot(), sent.fault.as_ref()?, sent.attempts, sent.batch.rows()))
        })
    }

    /// The chains of load jobs, and the lanes and tables that they are of.
    pub fn chains(&self) -> impl Iterator<Item = (ChainKey, &Chain)> {
        self.chains.iter().map(|(key, chain)| (*key, chain))
    }

    /// The slots of all rows that are encoded and not stored.
    pub fn slots_in_use(&self) -> impl Iterator<Item = SlotId> {
        let sent = self.sent.values().map(|sent| sent.way);
        let ways = self.open.keys().copied().chain(sent);
        let staged = self.chains.values().flat_map(Chain::slots);
        ways.map(Way::slot).chain(staged)
    }

    /// Whether no request and no dead letter is without an answer, and no record waits.
    pub fn is_idle(&self) -> bool {
        self.sent.is_empty()
            && self.open.is_empty()
            && self.waiting.is_empty()
            && self.letters.is_empty()
            && self.chains.values().all(Chain::is_idle)
    }

    fn due(&mut self, timer: Timer, due: Instant, now: Instant) {
        match timer {
            Timer::Seal(way, id) => {
                if self.open.get(&way).is_some_and(|open| open.id == id) {
                    self.seal(way);
                }
            }
            Timer::Resend(id) if self.is_stranded(id) => self.change_way(id, now),
            Timer::Resend(id) => self.resend(id),
            Timer::Relook(need) => self.prepare(need),
            Timer::Letter(id) => self.send_letter(id),
            Timer::Retry(slot) => self.retry_held(slot, now),
            Timer::Stalled => self.stalled(due),
            Timer::Locate(key) => self.locate(key),
            Timer::Load(key) => self.load_due(key, now),
        }
    }

    /// Hands the open batch of `way` to the driver.
    fn seal(&mut self, way: Way) {
        let Some(open) = self.open.remove(&way) else { return };
        self.filled.remove(&way);
        self.dispatch(way, open.batch, Past::default());
    }

    /// Hands a batch to the driver, cut in two for as long as it is too large.
    fn dispatch(&mut self, way: Way, mut batch: Batch, past: Past) {
        if batch.is_empty() {
            return self.release_memory(batch.memory_bytes());
        }
        let before = batch.memory_bytes();
        self.close_body(way, batch.body_mut());
        let body = batch.take_body();
        let oversized = body.len() > self.settings.body_bytes_max && batch.rows().len() > 1;
        let sent = Sent { way, batch, body, attempts: 0, past, fault: None };
        self.recharge(before, sent.batch.memory_bytes());
        if oversized && (way.chain().is_none() || way.is_pending()) {
            return self.split(sent);
        }
        let id = BatchId(self.next_id());
        self.sent.insert(id, sent);
        self.resend(id);
    }

    /// Staged rows need no framing: each is complete by itself.
    fn close_body(&self, way: Way, body: &mut Vec<u8>) {
        if way.chain().is_none() {
            self.encoder.close_body(way.slot(), body);
        }
    }

    /// Sends a batch, for the first time or again, with the same bytes.
    fn resend(&mut self, id: BatchId) {
        let Some(sent) = self.sent.get_mut(&id) else { return };
        sent.fault = None;
        sent.attempts += 1;
        if let Way::Staged(_, key, format) = sent.way {
            return self.stage(id, key, format);
        }
        let form = self.encoder.form(sent.way.slot());
        let counted = if form == RowForm::Json { ROW_BYTES_MIN } else { 0 };
        self.actions.push_back(Action::Write(Write {
            id,
            table: self.encoder.table(sent.way.slot()),
            body: sent.body.clone(),
            rows: u32::try_from(sent.batch.rows().len()).unwrap_or(u32::MAX),
            billed_bytes: sent.batch.counted_bytes(counted),
            form,
            oldest_timestamp_ms: sent.batch.oldest_timestamp_ms(),
        }));
    }

    fn at(&mut self, due: Instant, timer: Timer) {
        self.timers.push(Reverse((due, timer)));
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn charge(&mut self, bytes: usize) {
        self.memory_bytes += bytes;
    }

    fn release_memory(&mut self, bytes: usize) {
        debug_assert!(self.memory_bytes >= bytes, "released more memory than was charged");
        self.memory_bytes = self.memory_bytes.saturating_sub(bytes);
    }

    fn recharge(&mut self, before: usize, after: usize) {
        self.charge(after);
        self.release_memory(before);
    }

    #[cfg(test)]
    fn has(&self, defect: crate::delivery::defect::Defect) -> bool {
        self.defect == Some(defect)
    }
}

#[cfg(test)]
mod tests;
