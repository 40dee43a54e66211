//! The poll thread's side of the pipeline: lanes are dealt to workers, records handed over.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc as std_mpsc,
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::{
    batch::LaneSlot,
    committer::LaneCommit,
    pipeline::{
        commit::{Commits, LaneFacts},
        deal::deal,
        fingerprint::Fingerprints,
        now_ms,
    },
    record::TopicPartition,
    source::{
        AssignedLane, Flow, LaneBatch, LostBroker, Messages, MissingTopic, OwnedLane, SourceFault,
        SourceHandler,
    },
    telemetry::{BrokerStatus, LaneState, LaneStatus, Telemetry, Teller},
};

mod board;

/// What a worker is told. Its inbox is bounded.
#[derive(Debug)]
pub enum Message<M> {
    /// A lane is this worker's from now on.
    Assign(LaneSlot, AssignedLane),
    /// What one poll brought for this worker's lanes.
    Records(Vec<(LaneSlot, M)>),
    /// What follows of a lane begins where its resume said.
    Resumed(LaneSlot),
    /// Finish these lanes; answer when nothing of them is unresolved.
    Drain(Vec<LaneSlot>, std_mpsc::SyncSender<()>),
    /// Forget these lanes; answer when their last progress is noted.
    Drop(Vec<LaneSlot>, std_mpsc::SyncSender<()>),
    /// An operator releases a halted lane.
    Release(TopicPartition, tokio::sync::oneshot::Sender<Released>),
}

/// What became of an operator's release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// The lane goes on.
    Done,
    /// It was not halted.
    NotHalted,
    /// It is not this process's.
    NotOwned,
    /// The process is stopping.
    Stopping,
}

/// What the workers ask of the source: pauses and resumes, of which the last word for a lane wins,
/// and holds.
#[derive(Debug, Default)]
pub struct FlowBoard {
    lanes: Mutex<HashMap<OwnedLane, Option<i64>>>,
    restarts: Mutex<Vec<OwnedLane>>,
    /// How many workers hold.
    holding: AtomicUsize,
}

impl FlowBoard {
    /// Stop fetching.
    pub fn pause(&self, lane: OwnedLane) {
        self.set(lane, None);
    }

    /// Fetch again from `offset`.
    pub fn resume(&self, lane: OwnedLane, offset: i64) {
        self.set(lane, Some(offset));
    }

    /// Give the lane up and take it over again.
    pub fn restart(&self, lane: OwnedLane) {
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
    }

    /// One more worker holds, or one less.
    pub fn hold(&self, begins: bool) {
        if begins {
            self.holding.fetch_add(1, Ordering::Relaxed);
        } else {
            self.holding.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn set(&self, lane: OwnedLane, resume: Option<i64>) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).insert(lane, resume);
    }

    fn take(&self) -> Flow {
        let mut board = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let hold = self.holding.load(Ordering::Relaxed) > 0;
        let restarts = &mut *self.restarts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut flow = Flow { hold, restart: std::mem::take(restarts), ..Flow::default() };
        for (lane, resume) in board.drain() {
            match resume {
                None => flow.pause.push(lane),
                Some(offset) => flow.resume.push((lane, offset)),
            }
        }
        flow
    }
}

/// Deals lanes to workers by hash, and answers the source.
#[derive(Debug)]
pub struct Dispatcher<M> {
    workers: Vec<mpsc::Sender<Message<M>>>,
    lanes: HashMap<OwnedLane, (usize, LaneSlot)>,
    last_slot: u32,
    flow: Arc<FlowBoard>,
    commits: Arc<Commits>,
    fingerprints: Fingerprints,
    drain_timeout: Duration,
    telemetry: Arc<Telemetry>,
}

impl<M: Messages> Dispatcher<M> {
    /// A dispatcher to `workers`, which must not be empty.
    pub fn new(
        workers: Vec<mpsc::Sender<Message<M>>>,
        flow: Arc<FlowBoard>,
        commits: Arc<Commits>,
        fingerprints: Fingerprints,
        drain_timeout: Duration,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let lanes = HashMap::new();
        Self { workers, lanes, last_slot: 0, flow, commits, fingerprints, drain_timeout, telemetry }
    }

    /// Waits for room in the worker's inbox. A worker waits for nothing but the CPU, so this takes
    /// the time to encode a few polls at most; false if the worker is gone.
    fn tell(&self, worker: usize, message: Message<M>) -> bool {
        self.workers.get(worker).is_some_and(|inbox| inbox.blocking_send(message).is_ok())
    }

    fn by_worker(&self, lanes: &[OwnedLane]) -> HashMap<usize, Vec<LaneSlot>> {
        let mut slots: HashMap<usize, Vec<LaneSlot>> = HashMap::new();
        for (worker, slot) in lanes.iter().filter_map(|lane| self.lanes.get(lane)) {
            slots.entry(*worker).or_default().push(*slot);
        }
        slots
    }

    /// Sends every worker that has some of `lanes` a message, and waits for all answers or the
    /// deadline.
    fn ask(
        &self,
        lanes: &[OwnedLane],
        timeout: Duration,
        message: impl Fn(Vec<LaneSlot>, std_mpsc::SyncSender<()>) -> Message<M>,
    ) -> bool {
        let deadline = Instant::now() + timeout;
        let asked = self.by_worker(lanes);
        let (done, answers) = std_mpsc::sync_channel(asked.len());
        let mut expected = 0;
        for (worker, slots) in asked {
            expected += usize::from(self.tell(worker, message(slots, done.clone())));
        }
        (0..expected).all(|_| {
            let left = deadline.saturating_duration_since(Instant::now());
            answers.recv_timeout(left).is_ok()
        })
    }

    fn forget(&mut self, lanes: &[OwnedLane]) {
        // The workers answer within one turn; longer than this only if one is gone.
        const ANSWER: Duration = Duration::from_secs(10);
        self.ask(lanes, ANSWER, Message::Drop);
        for owned in lanes {
            self.lanes.remove(owned);
            let status = &self.telemetry.status;
            status.remove_lane(&owned.lane.topic, owned.lane.partition);
        }
    }

    fn facts(&self, assigned: &AssignedLane) -> LaneFacts {
        let config = self.fingerprints.of(&assigned.lane.lane.topic);
        // An id that the brokers do not tell this time is still the one that was committed.
        let before = assigned.metadata.clone().unwrap_or_default();
        LaneFacts {
            topic_id: assigned.topic_id.clone().or(before.topic_id),
            config: config.map(ToString::to_string),
            topic_partitions: assigned.topic_partitions,
            tables: Vec::new(),
        }
    }

    /// A partition whose last commit was made under another configuration may be handed over after
    /// a change, once. Where it goes on, two deployments with different configurations share the
    /// group.
    fn report_config_changes(&self, lanes: &[AssignedLane]) {
        let mut changed: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for assigned in lanes {
            let topic: &str = &assigned.lane.lane.topic;
            let before = assigned.metadata.as_ref().and_then(|before| before.config.as_deref());
            let own = self.fingerprints.of(topic).map(|own| &**own);
            if let Some(before) = before.filter(|before| own != Some(before)) {
                *changed.entry((topic, before)).or_default() += 1;
            }
        }
        for ((topic, before), partitions) in changed {
            let own = self.fingerprints.of(topic).map(|own| &**own);
            tracing::warn!(
                topic,
                partitions,
                before,
                own,
                "the last commits of these partitions were made under another configuration of the topic: expected once after a change; if it goes on, two deployments share the consumer group"
            );
            self.telemetry.topic(topic).config_changes.inc_by(partitions);
        }
    }

    fn show(&self, lane: &TopicPartition, change: impl FnOnce(&mut LaneStatus)) {
        self.telemetry.status.update_lane(&lane.topic, lane.partition, change);
    }

    /// What the board says of these lanes.
    fn shown(&self, lanes: &[OwnedLane]) -> Vec<LaneStatus> {
        let status = &self.telemetry.status;
        lanes
            .iter()
            .filter_map(|owned| status.lane(&owned.lane.topic, owned.lane.partition))
            .collect()
    }
}

impl<M: Messages> SourceHandler<M> for Dispatcher<M> {
    fn records(&mut self, batches: Vec<LaneBatch<M>>) {
        // One message a worker, however many lanes: with hundreds, each has a few records of a poll.
        let mut polls: Vec<_> = self.workers.iter().map(|_| Vec::new()).collect();
        for LaneBatch { lane, messages } in batches {
            if let Some((worker, slot)) = self.lanes.get(&lane)
                && let Some(poll) = polls.get_mut(*worker)
            {
                poll.push((*slot, messages));
            }
        }
        for (worker, poll) in polls.into_iter().enumerate() {
            if !poll.is_empty() {
                self.tell(worker, Message::Records(poll));
            }
        }
    }

    fn recovering(&mut self, lanes: &[OwnedLane]) {
        let at_ms = now_ms();
        for owned in lanes {
            let TopicPartition { topic, partition } = owned.lane.clone();
            self.telemetry.status.put_lane(LaneStatus::new(topic, partition, owned.epoch, at_ms));
        }
    }

    fn assigned(&mut self, lanes: Vec<AssignedLane>) {
        self.telemetry.metrics.rebalances.with_label_values(&["assign"]).inc();
        self.report_config_changes(&lanes);
        for assigned in lanes {
            tracing::info!(
                topic = %assigned.lane.lane.topic,
                partition = assigned.lane.lane.partition,
                epoch = assigned.lane.epoch,
                offset = assigned.start,
                high_watermark = assigned.high,
                "the partition is assigned"
            );
            self.last_slot += 1;
            let slot = LaneSlot(self.last_slot);
            let held = self.lanes.values().map(|(worker, _)| *worker);
            let worker = deal(&assigned.lane.lane, held, self.workers.len());
            let facts = self.facts(&assigned);
            let before = assigned.metadata.as_ref().and_then(|before| before.config.clone());
            self.show(&assigned.lane.lane, |status| {
                status.next_offset = Some(assigned.start);
                status.start_offset = Some(assigned.start);
                status.high_watermark = Some(assigned.high);
                status.committed_offset = (!assigned.genesis).then_some(assigned.start);
                status.lag = Some((assigned.high - assigned.start).max(0));
                status.config_before =
                    before.filter(|before| facts.config.as_ref() != Some(before));
                status.config = facts.config.clone();
                status.held_by_source = false;
                status.enter(LaneState::Running, None, now_ms());
                status.troubles.tell(Teller::Source, None);
            });
            self.commits.assigned(&assigned, slot, facts);
            self.lanes.insert(assigned.lane.clone(), (worker, slot));
            self.tell(worker, Message::Assign(slot, assigned));
        }
        crate::failpoint!("assigned");
        self.telemetry.status.ready();
    }

    fn revoke(&mut self, lanes: &[OwnedLane]) -> Vec<LaneCommit> {
        self.telemetry.metrics.rebalances.with_label_values(&["revoke"]).inc();
        for owned in lanes {
            self.show(&owned.lane, |status| status.enter(LaneState::Draining, None, now_ms()));
        }
        let is_drained = self.ask(lanes, self.drain_timeout, Message::Drain);
        crate::failpoint!("revoke_drained");
        let left = if is_drained { Vec::new() } else { self.shown(lanes) };
        self.forget(lanes);
        let finals = self.commits.give_up(lanes);
        report_unfinished(&left, &finals);
        tracing::info!(
            partitions = lanes.len(),
            to_commit = finals.len(),
            "partitions are given up"
        );
        finals
    }

    fn lost(&mut self, lanes: &[OwnedLane]) {
        self.telemetry.metrics.rebalances.with_label_values(&["lost"]).inc();
        tracing::warn!(partitions = lanes.len(), "partitions were lost to another member");
        // What has not landed can be committed no more.
        report_unfinished(&self.shown(lanes), &[]);
        self.forget(lanes);
        self.commits.give_up(lanes);
    }

    fn restarted(&mut self, lanes: &[OwnedLane]) {
        for OwnedLane { lane, .. } in lanes {
            tracing::info!(topic = %lane.topic, partition = lane.partition,
                "what a load job could not bring is read again from the committed offset");
        }
        self.forget(lanes);
        self.commits.give_up(lanes);
    }

    fn read_again(&mut self, lane: &OwnedLane) {
        self.show_read_again(&lane.lane);
    }

    fn flow(&mut self) -> Flow {
        let flow = self.flow.take();
        // Behind what was delivered before it, ahead of what comes of it.
        for (lane, _) in &flow.resume {
            if let Some((worker, slot)) = self.lanes.get(lane) {
                self.tell(*worker, Message::Resumed(*slot));
            }
        }
        flow
    }

    fn brokers(&mut self, lost: Vec<LostBroker>) {
        let now = now_ms();
        let status = |lost: LostBroker| BrokerStatus {
            broker: lost.broker,
            since_ms: now - i64::try_from(lost.since.elapsed().as_millis()).unwrap_or(0),
            reason: lost.reason,
        };
        self.telemetry.status.unreachable(lost.into_iter().map(status).collect());
    }

    fn missing(&mut self, topics: Vec<MissingTopic>) {
        self.show_missing(topics);
    }

    fn fault(&mut self, fault: SourceFault) {
        match &fault {
            SourceFault::Unavailable { .. } => {
                tracing::warn!(error = %fault, "a request to Kafka failed")
            }
            SourceFault::Fatal { .. } => tracing::error!(error = %fault, "Kafka has failed"),
            SourceFault::Recovering { lane, .. } => {
                self.show_fault(lane, "recover", &fault, Some(LaneState::Recovering));
            }
            SourceFault::Read { lane, lasts, .. } => self.show_read_failure(lane, &fault, *lasts),
            SourceFault::RetentionLoss { lane, halted, .. } => {
                tracing::error!(error = %fault, remedy = fault.remedy(), "records were lost to retention");
                let topic: &str = &lane.topic;
                self.telemetry.metrics.retention_losses.with_label_values(&[topic]).inc();
                self.show_fault(lane, "recover", &fault, halted.then_some(LaneState::Halted));
            }
            SourceFault::Truncated { lane, .. }
            | SourceFault::Recreated { lane, .. }
            | SourceFault::OtherTopic { lane, .. } => {
                tracing::error!(
                    error = %fault, remedy = fault.remedy(),
                    "the partition is not the one that was committed"
                );
                self.show_fault(lane, "recover", &fault, Some(LaneState::Halted));
            }
        }
    }

    fn tick(&mut self) {
        self.telemetry.liveness.poll_turned(Instant::now());
    }
}

/// Says of each lane that its next owner reads again, and from where: an operator who finds a row twice
/// finds its cause by these offsets.
fn report_unfinished(left: &[LaneStatus], finals: &[LaneCommit]) {
    for (lane, offset) in unfinished(left, finals) {
        tracing::warn!(
            topic = &*lane.topic,
            partition = lane.partition,
            offset,
            next_offset = lane.next_offset,
            "the partition is given up before everything of it was acknowledged; its next owner \
             reads again from the offset"
        );
    }
}

/// The lanes of which more was read than will have been committed, and where their next owner begins: after
/// the last commit, or, where there is none, where the topic's configuration says.
fn unfinished<'a>(
    left: &'a [LaneStatus],
    finals: &[LaneCommit],
) -> impl Iterator<Item = (&'a LaneStatus, Option<i64>)> {
    let finals: BTreeMap<_, _> =
        finals.iter().map(|last| (last.lane.clone(), last.offset)).collect();
    let ends = left.iter().map(move |lane| {
        let last = finals.get(&TopicPartition::new(&*lane.topic, lane.partition));
        (lane, last.copied().or(lane.committed_offset))
    });
    ends.filter(|(lane, offset)| *offset < lane.next_offset)
}

#[cfg(test)]
mod tests;
