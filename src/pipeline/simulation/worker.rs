//! One worker: a production core, its queue, and its requests under way.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{
    bigquery::{self, Look},
    coverage::Mark,
    encoder::{Need, TestEncoder},
    env::{Env, Event, Who},
    group::MemberId,
    wire::{self, LetterAnswer, WriteAnswer},
};
use crate::{
    batch::LaneSlot,
    dead_letter::{Reason, Stage},
    delivery::{
        action::{Action, BatchId, LetterId},
        core::Core,
        encoder::NeedId,
        lane::{Halt, Until},
    },
    record::{Headers, Record, TopicPartition},
};

/// Records of one lane between the poll thread and the core.
#[derive(Debug)]
pub(crate) struct Parcel {
    /// The lane's number in the core.
    pub(crate) slot: LaneSlot,
    /// The lane.
    pub(crate) lane: TopicPartition,
    /// Offsets and values; none where a resume was carried out instead.
    pub(crate) records: Vec<(i64, Option<Vec<u8>>)>,
}

/// What the poll thread has to do for the core.
#[derive(Debug)]
pub(crate) enum Flow {
    /// Stop fetching.
    Pause(LaneSlot),
    /// Fetch again from there.
    Resume(LaneSlot, i64),
}

/// What a core may hold beyond its limit: one or two polls' records, encoded.
const POLL_BYTES: usize = 384 * 1024;

/// One worker.
#[derive(Debug)]
pub(crate) struct Worker {
    who: Who,
    index: usize,
    /// The core.
    pub(crate) core: Core<TestEncoder>,
    /// Records on their way in.
    pub(crate) inbox: VecDeque<Parcel>,
    writes: BTreeMap<u64, (u32, Bytes)>,
    serial: u64,
}

impl Worker {
    /// A worker without lanes.
    pub(crate) fn new(env: &Env, who: Who, index: usize) -> Self {
        let mut core = Core::new(TestEncoder::new(&env.plan, env.defect), env.plan.core);
        core.defect = env.defect;
        Self { who, index, core, inbox: VecDeque::new(), writes: BTreeMap::new(), serial: 0 }
    }

    /// Logs where everything stands.
    pub(crate) fn describe(&self, env: &mut Env) {
        let core = &self.core;
        let (memory, throttled, idle) = (core.memory_bytes(), core.is_throttled(), core.is_idle());
        let (parcels, writes) = (self.inbox.len(), self.writes.len());
        env.log(format_args!(
            "  worker {} memory {memory} throttled {throttled} idle {idle} parcels {parcels} \
             writes {writes}",
            self.index
        ));
        for (slot, lane) in core.lanes() {
            env.log(format_args!(
                "    {slot:?} {} {:?} bytes {} paused {} halt {:?} held {} watermark {} next {} open {}",
                lane.lane,
                lane.phase,
                lane.bytes,
                lane.paused,
                lane.halt.as_ref().map(|halt| halt.offset),
                lane.held.rows().len(),
                lane.tracker.watermark(),
                lane.tracker.next(),
                lane.tracker.unresolved()
            ));
        }
        for (slot, fault, attempts, rows) in core.faults() {
            env.log(format_args!("    {slot:?} {fault} {attempts} {}", rows.len()));
        }
        for (need, rows) in core.needs() {
            env.log(format_args!("    {need:?} {}", rows.len()));
        }
    }

    /// Whether requests are without an answer.
    pub(crate) fn is_writing(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Takes in what is queued, does what is due, starts what the core asks for.
    pub(crate) fn turn(&mut self, env: &mut Env, member: Option<MemberId>) -> Vec<Flow> {
        if env.healed || env.rng.chance(800) {
            while let Some(parcel) = self.inbox.pop_front() {
                self.take_in(env, member, &parcel);
            }
            self.core.intake_done();
        }
        if env.healed {
            self.core.encoder_mut().set_letters();
        }
        self.core.tick(env.instant());
        self.operator(env);
        let flow = self.act(env);
        // A pause does not stop what one poll has brought already; batches grow by doubling.
        let bound = 2 * env.plan.core.memory_bytes_max + POLL_BYTES;
        if self.core.memory_bytes() > bound {
            env.violation(format!("memory: {} of {bound} bytes", self.core.memory_bytes()));
        }
        if self.core.is_throttled() {
            env.mark(Mark::Throttle);
        }
        flow
    }

    fn take_in(&mut self, env: &mut Env, member: Option<MemberId>, parcel: &Parcel) {
        if parcel.records.is_empty() {
            return self.core.resumed(parcel.slot);
        }
        let before = self.next(parcel.slot);
        for (offset, value) in &parcel.records {
            if value.is_none() {
                env.mark(Mark::Skipped);
            }
            let record = Record {
                offset: *offset,
                timestamp_ms: None,
                key: None,
                value: value.as_deref(),
                headers: Headers::default(),
            };
            self.core.record(parcel.slot, &record, env.instant());
        }
        let (Some(before), Some(after)) = (before, self.next(parcel.slot)) else { return };
        if before < after {
            env.log(format_args!(
                "in {:?}.{} {} {before}..{after}",
                self.who, self.index, parcel.lane
            ));
            let holds = env.group.holder.get(&parcel.lane).copied() == member && member.is_some();
            env.checkers.delivered(&parcel.lane, before, after, holds);
        }
    }

    fn next(&self, slot: LaneSlot) -> Option<i64> {
        let mut lanes = self.core.lanes();
        lanes.find(|(found, _)| *found == slot).map(|(_, lane)| lane.tracker.next())
    }

    /// Releases halted lanes after a while.
    fn operator(&mut self, env: &mut Env) {
        let halted = self.core.lanes().filter(|(_, lane)| lane.halt.is_some());
        let mut halted: Vec<LaneSlot> = halted.map(|(slot, _)| slot).collect();
        halted.sort_unstable();
        for slot in halted {
            env.mark(Mark::Halt);
            if self.is_trying(slot) {
                env.mark(Mark::HaltTried);
            }
            if env.rng.chance(20) {
                env.mark(Mark::Release);
                env.log(format_args!("release {:?}.{} {slot:?}", self.who, self.index));
                assert!(self.core.release(slot, env.instant()));
            }
        }
    }

    fn is_trying(&self, slot: LaneSlot) -> bool {
        let mut lanes = self.core.lanes().filter(|(found, _)| *found == slot);
        let tried = |halt: &Halt| matches!(halt.until, Until::Tried(_));
        lanes.any(|(_, lane)| lane.halt.as_ref().is_some_and(tried))
    }

    fn act(&mut self, env: &mut Env) -> Vec<Flow> {
        let (who, worker) = (self.who, self.index);
        let mut flow = Vec::new();
        while let Some(action) = self.core.next_action() {
            match action {
                Action::Write(write) => {
                    self.serial += 1;
                    self.writes.insert(self.serial, (write.rows, write.body.clone()));
                    wire::send_write(env, who, worker, self.serial, write);
                }
                Action::DeadLetter { id, letter } => {
                    let (lane, offset) = (letter.origin.lane, letter.origin.offset);
                    wire::send_letter(env, who, worker, id, lane, offset);
                }
                Action::Prepare(need) => self.prepare(env, need),
                Action::Pause(slot) => flow.push(Flow::Pause(slot)),
                Action::Resume(slot, next) => flow.push(Flow::Resume(slot, next)),
            }
        }
        flow
    }

    /// An insertAll has an outcome, or its time is up; whichever comes first counts.
    pub(crate) fn written(&mut self, env: &mut Env, id: BatchId, serial: u64, answer: WriteAnswer) {
        let Some((rows, body)) = self.writes.remove(&serial) else { return };
        let outcome = wire::outcome(env, answer, rows, &body);
        env.log(format_args!("outcome {:?}.{} #{serial} {}", self.who, self.index, name(&outcome)));
        self.core.written(id, outcome, env.instant());
    }

    /// A dead letter has an outcome.
    pub(crate) fn lettered(&mut self, env: &mut Env, id: LetterId, answer: LetterAnswer) {
        self.core.lettered(id, wire::letter_result(answer), env.instant());
    }

    fn prepare(&mut self, env: &mut Env, need: NeedId) {
        env.mark(Mark::SchemaWait);
        let delay = env.delay();
        let (who, worker) = (self.who, self.index);
        let event = match self.core.encoder_mut().need(need) {
            Need::Columns(..) => Event::Look(who, worker, need),
            Need::Forbidden(_) => Event::Forbid(who, worker, need),
        };
        env.after(delay, event);
    }

    /// Looks at the table that a need is about; creates it, or goes on to add columns.
    pub(crate) fn look(&mut self, env: &mut Env, need: NeedId) {
        let Need::Columns(table, wants) = self.core.encoder_mut().need(need).clone() else {
            unreachable!("forbidden needs are answered otherwise")
        };
        let look = if env.rng.chance(env.chances().table) {
            Look::Failed
        } else {
            match env.bigquery.look(env.now, table) {
                Look::Missing => env.bigquery.create(env.now, table, &wants),
                look => look,
            }
        };
        let Look::Found { etag, fields } = look else { return self.look_again(env, need) };
        if wants.is_subset(&bigquery::names(&fields)) {
            return self.prepared(env, need, &fields);
        }
        let delay = env.delay();
        env.after(delay, Event::Change(self.who, self.index, need, etag, fields));
    }

    /// Adds a need's columns to the table as it was looked at.
    pub(crate) fn change(
        &mut self,
        env: &mut Env,
        need: NeedId,
        etag: &str,
        fields: Vec<serde_json::Value>,
    ) {
        let Need::Columns(table, wants) = self.core.encoder_mut().need(need).clone() else {
            unreachable!("forbidden needs are answered otherwise")
        };
        let names = bigquery::names(&fields);
        let missing: Vec<String> = wants.difference(&names).cloned().collect();
        env.log(format_args!("alter {:?}.{} {table} {missing:?}", self.who, self.index));
        match env.bigquery.add(env.now, table, etag, fields, &missing) {
            Look::Found { fields, .. } => self.prepared(env, need, &fields),
            Look::Missing | Look::Failed => {
                env.mark(Mark::SchemaRace);
                self.look_again(env, need);
            }
        }
    }

    fn look_again(&mut self, env: &mut Env, need: NeedId) {
        let wait = env.rng.between(500, 5_000);
        env.after(wait, Event::Look(self.who, self.index, need));
    }

    fn prepared(&mut self, env: &mut Env, need: NeedId, fields: &[serde_json::Value]) {
        let columns = bigquery::names(fields);
        env.log(format_args!("prepared {:?}.{} {need:?} {}", self.who, self.index, columns.len()));
        self.core.encoder_mut().answered(need, Some(columns));
        self.core.prepared(need, Ok(()), env.instant());
    }

    /// A need is refused by policy.
    pub(crate) fn forbid(&mut self, env: &mut Env, need: NeedId) {
        env.mark(Mark::ColumnRefused);
        self.core.encoder_mut().answered(need, None);
        let message = "the policy refuses the column".to_owned();
        let reason = Reason { stage: Stage::Schema, message, field: None, schema_id: None };
        self.core.prepared(need, Err(Box::new(reason)), env.instant());
    }
}

fn name(outcome: &crate::write::WriteOutcome) -> String {
    use crate::write::WriteOutcome;
    match outcome {
        WriteOutcome::Acked => "acked".to_owned(),
        WriteOutcome::Partial { rejected, unsent } => {
            format!("partial {} rejected {} unsent", rejected.len(), unsent.len())
        }
        WriteOutcome::Refused(fault) => format!("refused {}", fault.reason),
        WriteOutcome::Unknown(fault) => format!("unknown {}", fault.reason),
    }
}
