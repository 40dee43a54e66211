//! One worker: a production core, its queue, and its requests under way.

use std::collections::{BTreeSet, VecDeque};

use super::{
    coverage::Mark,
    env::{Env, Who},
    group::MemberId,
    letters::{self, LetterAnswer},
    process::{Done, Process},
    records::LogRecord,
    topics,
};
use crate::{
    batch::LaneSlot,
    delivery::{
        action::{Action, BatchId, LetterId, LoadId, Progress},
        core::{Core, Pressure},
        encoder::NeedId,
        lane::{Halt, Until},
    },
    pipeline::{
        encoder::{TopicEncoder, staging::KnownTopic},
        news,
    },
    record::{Headers, Record, TopicPartition},
    source::{AssignedLane, OwnedLane},
    write::{
        WriteOutcome,
        load::{job::LoadFormat, run::JobEnd},
    },
};

/// Records of one lane between the poll thread and the core.
#[derive(Debug)]
pub(crate) struct Parcel {
    /// The lane's number in the core.
    pub(crate) slot: LaneSlot,
    /// The lane.
    pub(crate) lane: TopicPartition,
    /// The records, by offset; none where a resume was carried out instead.
    pub(crate) records: Vec<(i64, LogRecord)>,
}

/// What the poll thread has to do for the core.
#[derive(Debug)]
pub(crate) enum Flow {
    /// Stop fetching.
    Pause(LaneSlot),
    /// Fetch again from there.
    Resume(LaneSlot, i64),
    /// Give the lane up and take it over again.
    Restart(LaneSlot),
}

/// A request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    /// Rows on their way, or an object.
    Batch(BatchId),
    /// A load job.
    Load(LoadId),
}

/// Objects that may be deleted once an offset of the lane is committed.
#[derive(Debug)]
struct Spent {
    slot: LaneSlot,
    lane: TopicPartition,
    offset: i64,
    uris: Vec<String>,
}

/// What of a lane was not resolved when it was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nothing.
    Nothing,
    /// What a halt holds, what waits for something that may last, or what no job brings any more though
    /// rows behind it are stored: nobody waits for it, the next owner reads it again with all that is
    /// behind it.
    Held,
    /// What is staged for a job that does not exist yet, and nothing behind it is stored.
    Staged,
    /// The time was up.
    UnderWay,
}

/// What a core may hold beyond its limit: one or two polls' records, encoded.
const POLL_BYTES: usize = 384 * 1024;

/// One worker.
#[derive(Debug)]
pub(crate) struct Worker {
    who: Who,
    index: usize,
    /// The core.
    pub(crate) core: Core<TopicEncoder>,
    process: Process,
    /// Records on their way in.
    pub(crate) inbox: VecDeque<Parcel>,
    effects: BTreeSet<Effect>,
    /// Those whose lanes are lost.
    zombies: BTreeSet<Effect>,
    spent: Vec<Spent>,
    /// Jobs under way that are commits of PENDING streams.
    commits: BTreeSet<LoadId>,
    news_seen: u64,
}

impl Worker {
    /// A worker without lanes.
    pub(crate) fn new(env: &Env, who: Who, index: usize, process: Process) -> Self {
        let mut encoder = topics::encoder(&env.plan, &process.paths);
        encoder.defect = env.defect;
        let mut core = Core::new(encoder, env.plan.core);
        core.defect = env.defect;
        Self {
            who,
            index,
            core,
            process,
            inbox: VecDeque::new(),
            effects: BTreeSet::new(),
            zombies: BTreeSet::new(),
            spent: Vec::new(),
            commits: BTreeSet::new(),
            news_seen: 0,
        }
    }

    /// Takes over a lane, as the production worker does.
    pub(crate) fn assign(&mut self, slot: LaneSlot, assigned: &AssignedLane) {
        let OwnedLane { lane, epoch } = assigned.lane.clone();
        let partitions = assigned.topic_partitions.unwrap_or(1);
        let known = KnownTopic { id: None, partitions };
        self.core.encoder_mut().learn_topic(&lane.topic, known);
        self.core.assign(slot, lane, epoch, assigned.start);
        if let Some(metadata) = &assigned.metadata {
            self.core.recall(slot, metadata.nodes.clone());
        }
        if assigned.genesis {
            self.process.commits.note(self.core.progress_of(slot).into_iter().collect());
        }
    }

    /// Tells the commit loop what may be committed.
    pub(crate) fn note_progress(&mut self) {
        self.process.commits.note(self.core.progress());
    }

    /// What became of a lane that is given up or lost; the core forgets it.
    pub(crate) fn drop_lane(&mut self, slot: LaneSlot) -> (Left, Option<Progress>) {
        self.note_progress();
        let left = self.left(slot);
        let progress = self.core.progress_of(slot);
        self.core.drop_lanes(&[slot]);
        self.spent.retain(|spent| spent.slot != slot);
        (left, progress)
    }

    fn left(&self, slot: LaneSlot) -> Left {
        let mut lanes = self.core.lanes().filter(|(found, _)| *found == slot);
        let lane = lanes.next().map(|(_, lane)| lane);
        match self.core.is_drained(slot) {
            false => Left::UnderWay,
            true if lane.is_none_or(|lane| lane.tracker.unresolved() == 0) => Left::Nothing,
            true if lane
                .is_some_and(|lane| lane.halt.is_none() && !self.repeats(slot, lane.streamed))
                && self.core.blocked_records(slot) == 0 =>
            {
                Left::Staged
            }
            true => Left::Held,
        }
    }

    /// Whether rows behind those that no job brings any more are stored.
    fn repeats(&self, slot: LaneSlot, streamed: i64) -> bool {
        let mut chains = self.core.chains().filter(|(key, _)| key.lane == slot);
        chains.any(|(_, chain)| chain.is_abandoned && chain.unloaded_from <= streamed)
    }

    /// All lanes are lost: whatever is answered from now on is nobody's.
    pub(crate) fn is_lost(&mut self) {
        self.zombies.extend(&self.effects);
    }

    /// Logs where everything stands.
    pub(crate) fn describe(&self, env: &mut Env) {
        let core = &self.core;
        let (memory, pressure, idle) = (core.memory_bytes(), core.pressure(), core.is_idle());
        let (parcels, effects) = (self.inbox.len(), &self.effects);
        env.log(format_args!(
            "  worker {} memory {memory} pressure {pressure:?} idle {idle} parcels {parcels} \
             under way {effects:?}",
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

    /// Whether the source is to hand nothing over.
    pub(crate) fn is_holding(&self) -> bool {
        self.core.pressure() == Pressure::Hold
    }

    /// Whether requests are without an answer.
    pub(crate) fn is_writing(&self) -> bool {
        !self.effects.is_empty()
    }

    /// Takes in what is queued, does what is due, starts what the core asks for.
    pub(crate) fn turn(&mut self, env: &mut Env, member: Option<MemberId>) -> Vec<Flow> {
        if env.healed.is_some() || env.rng.chance(800) {
            while let Some(parcel) = self.inbox.pop_front() {
                self.take_in(env, member, &parcel);
            }
            self.core.intake_done(env.instant());
        }
        self.follow_paths(env);
        news::follow(&mut self.core, &self.process.news, &mut self.news_seen);
        self.core.tick(env.instant());
        self.operator(env);
        let flow = self.act(env);
        self.delete_spent(env);
        // A pause does not stop what one poll has brought already; batches grow by doubling.
        let bound = 2 * env.plan.core.memory_bytes_max + POLL_BYTES;
        if self.core.memory_bytes() > bound {
            env.violation(format!("memory: {} of {bound} bytes", self.core.memory_bytes()));
        }
        if self.core.pressure() != Pressure::Free {
            env.mark(Mark::Throttle);
        }
        flow
    }

    /// What the production service decides by backlog and quotas is here decided by chance.
    fn follow_paths(&mut self, env: &mut Env) {
        if env.healed.is_none() && env.rng.chance(env.plan.loading.switch) {
            self.process.paths.toggle(env.rng.bits());
        }
        for (table, is_staged) in self.core.encoder_mut().follow_paths() {
            env.mark(if is_staged { Mark::ToLoad } else { Mark::ToStreaming });
            env.log(format_args!("path {:?}.{} {table:?} {is_staged}", self.who, self.index));
            self.core.switched(table, is_staged, env.instant());
        }
    }

    fn take_in(&mut self, env: &mut Env, member: Option<MemberId>, parcel: &Parcel) {
        if parcel.records.is_empty() {
            return self.core.resumed(parcel.slot);
        }
        let before = self.next(parcel.slot);
        for (offset, record) in &parcel.records {
            if record.value.is_none() {
                env.mark(Mark::Skipped);
            }
            let record = Record {
                offset: *offset,
                timestamp_ms: Some(record.timestamp_ms),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: Headers::from_encoded(&record.headers),
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
            let attentive = if env.healed.is_some() { 250 } else { 20 };
            if env.rng.chance(attentive) {
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
                    env.log(format_args!(
                        "write {who:?}.{worker} {:?} {} rows {}",
                        write.id, write.table.table, write.rows
                    ));
                    self.effects.insert(Effect::Batch(write.id));
                    self.process.write(env, who, worker, write);
                }
                Action::Stage(stage) => {
                    env.log(format_args!(
                        "stage {who:?}.{worker} {:?} {} rows {} from {}",
                        stage.id, stage.chain, stage.rows, stage.first
                    ));
                    self.effects.insert(Effect::Batch(stage.id));
                    self.process.stage(env, who, worker, stage);
                }
                Action::Append { id, append, series } => {
                    env.log(format_args!(
                        "append {who:?}.{worker} {id:?} {} rows {}",
                        append.table.table, append.rows
                    ));
                    self.effects.insert(Effect::Batch(id));
                    self.process.append(env, who, worker, (id, append, series));
                }
                Action::Locate { key, chain, table, from } => {
                    env.log(format_args!("locate {who:?}.{worker} {chain} from {from:?}"));
                    self.process.locate(env, who, worker, (key, chain, table, from));
                }
                Action::Load { id, key, job } => {
                    env.log(format_args!(
                        "load {who:?}.{worker} {} to {} rows {}",
                        job.id, job.end, job.rows
                    ));
                    if let LoadFormat::Avro(_) = job.format {
                        env.mark(Mark::ContainerJob);
                    }
                    if job.format.is_pending() {
                        self.commits.insert(id);
                    }
                    self.effects.insert(Effect::Load(id));
                    self.process.load(env, who, worker, (key, id, job));
                }
                Action::Discard(slot, uris, committed) => self.discard(env, slot, uris, committed),
                Action::Restart(slot) => {
                    env.mark(Mark::LaneRestarted);
                    flow.push(Flow::Restart(slot));
                }
                Action::DeadLetter { id, letter } => {
                    letters::send(env, (who, worker, id), letter);
                }
                Action::Prepare(need) => self.prepare(env, need),
                Action::Pause(slot) => flow.push(Flow::Pause(slot)),
                Action::Resume(slot, next) => flow.push(Flow::Resume(slot, next)),
            }
        }
        flow
    }

    fn discard(
        &mut self,
        env: &mut Env,
        slot: LaneSlot,
        uris: Vec<String>,
        committed: Option<i64>,
    ) {
        let mut lanes = self.core.lanes().filter(|(found, _)| *found == slot);
        match (committed, lanes.next().map(|(_, lane)| lane.lane.clone())) {
            (None, _) => self.process.discard(env, self.who, self.index, uris),
            (Some(offset), Some(lane)) => self.spent.push(Spent { slot, lane, offset, uris }),
            (Some(_), None) => {}
        }
    }

    fn delete_spent(&mut self, env: &mut Env) {
        let commits = &self.process.commits;
        let is_due = |spent: &mut Spent| commits.committed(&spent.lane) >= Some(spent.offset);
        let due: Vec<Spent> = self.spent.extract_if(.., is_due).collect();
        for Spent { uris, .. } in due {
            self.process.discard(env, self.who, self.index, uris);
        }
    }

    fn prepare(&mut self, env: &mut Env, need: NeedId) {
        env.mark(Mark::SchemaWait);
        let Some(request) = self.core.encoder_mut().request(need) else { return };
        env.log(format_args!("prepare {:?}.{} {}", self.who, self.index, request.table));
        self.process.prepare(env, self.who, self.index, (need, request));
    }

    /// A task has ended.
    pub(crate) fn finished(&mut self, env: &mut Env, done: Done) {
        let now = env.instant();
        let (who, index) = (self.who, self.index);
        match done {
            Done::Written(id, outcome) => {
                self.answered(env, Effect::Batch(id));
                env.log(format_args!("outcome {who:?}.{index} {id:?} {}", name(&outcome)));
                self.core.written(id, outcome, now);
            }
            Done::Staged(id, result) => {
                self.answered(env, Effect::Batch(id));
                env.log(format_args!("staged {who:?}.{index} {id:?} {result:?}"));
                env.mark(if result.is_ok() { Mark::Staged } else { Mark::StageFault });
                self.core.staged(id, result, now);
            }
            Done::Appended(id, result) => {
                self.answered(env, Effect::Batch(id));
                let said = result.as_ref().map_err(name);
                env.log(format_args!("appended {who:?}.{index} {id:?} {said:?}"));
                env.mark(match &result {
                    Ok(_) => Mark::Pending,
                    Err(WriteOutcome::Partial { .. }) => Mark::PendingRejected,
                    Err(_) => Mark::PendingRefused,
                });
                self.core.appended(id, result, now);
            }
            Done::Located(key, result) => {
                env.log(format_args!("located {who:?}.{index} {key:?} {result:?}"));
                env.mark(if result.is_ok() { Mark::ChainFound } else { Mark::LocateFault });
                self.core.located(key, result, now);
            }
            Done::Loaded(key, id, result) => {
                self.answered(env, Effect::Load(id));
                env.log(format_args!("loaded {who:?}.{index} {key:?} {id:?} {result:?}"));
                env.mark(match (&result, self.commits.remove(&id)) {
                    (Ok(JobEnd::Loaded { .. }), false) => Mark::JobLoaded,
                    (Ok(JobEnd::Failed(_)), false) => Mark::JobFailed,
                    (Err(_), false) => Mark::JobUnknown,
                    (Ok(JobEnd::Loaded { .. }), true) => Mark::Committed,
                    (Ok(JobEnd::Failed(_)), true) => Mark::CommitFailed,
                    (Err(_), true) => Mark::CommitInDoubt,
                });
                self.core.loaded((key, id), result, now);
            }
            Done::Discarded => {}
            Done::Prepared(need, Ok(prepared)) => {
                let (columns, refused) = (prepared.schema.columns.len(), prepared.refused.len());
                env.log(format_args!("prepared {who:?}.{index} {columns} refused {refused}"));
                self.core.encoder_mut().install(need, prepared);
                self.core.prepared(need, Ok(()), now);
            }
            Done::Prepared(need, Err(reason)) => {
                env.log(format_args!("unprepared {who:?}.{index} {}", reason.message));
                self.core.encoder_mut().dismiss(need);
                self.core.prepared(need, Err(reason), now);
            }
        }
    }

    fn answered(&mut self, env: &mut Env, effect: Effect) {
        self.effects.remove(&effect);
        if self.zombies.remove(&effect) {
            env.mark(Mark::ZombieAnswer);
        }
    }

    /// A dead letter has an outcome.
    pub(crate) fn lettered(&mut self, env: &mut Env, id: LetterId, answer: LetterAnswer) {
        self.core.lettered(id, letters::result(answer), env.instant());
    }
}

fn name(outcome: &WriteOutcome) -> String {
    match outcome {
        WriteOutcome::Acked => "acked".to_owned(),
        WriteOutcome::Partial { rejected, unsent, .. } => {
            format!("partial {} rejected {} unsent", rejected.len(), unsent.len())
        }
        WriteOutcome::Refused(fault) => format!("refused {}", fault.reason),
        WriteOutcome::Unknown(fault) => format!("unknown {}", fault.reason),
    }
}
