//! The poll loop: everything that happens on the poll thread, in its order.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    Message as _, TopicPartitionList,
    consumer::Consumer as _,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    topic_partition_list::Offset,
};
use tokio_util::sync::CancellationToken;

use super::{
    commit::SyncCommitter,
    consumer::ConsumeError,
    context::Rebalance,
    deliver::{self, Verdict},
    ffi::{BatchQueue, Client, PolledLane, RawMessages, inflate::BUDGET},
    lanes::{Lane, Lanes, Own, Recovering, State},
    read_failure,
    recovery::{Job, Report},
};
use crate::{
    committer::{Committer as _, LaneCommit, LaneOutcome, finals::Finals, ownership::Ownership},
    record::TopicPartition,
    source::{LaneBatch, MissingTopic, OwnedLane, SourceFault, SourceHandler},
};

mod recover;

/// How long a batch is waited for: the delay of a lone record at worst, and of a rebalance.
const BATCH_WAIT: Duration = Duration::from_millis(20);
/// How long a hold lasts at least: short beside the time that a batch takes to be filled.
const HOLD_WAIT: Duration = Duration::from_millis(2);
/// Events served per turn at most.
const EVENTS_MAX: usize = 64;
/// How often what is due by time is looked for.
const DUE_INTERVAL: Duration = Duration::from_millis(100);
/// How long to wait before a seek that failed is tried again.
const REWIND_WAIT: Duration = Duration::from_millis(500);
/// How long a seek may take.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the final commit of revoked lanes is tried.
const FINAL_COMMIT_TIMEOUT: Duration = Duration::from_secs(15);
/// The pause between two tries.
const FINAL_COMMIT_WAIT: Duration = Duration::from_millis(200);
/// How long stopping may take beyond the handler's own drain deadline.
const STOP_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest wait between two tries of a lane's recovery.
const RECOVERY_WAIT_MAX: Duration = Duration::from_secs(15);

/// To and from the recovery thread.
#[derive(Debug)]
pub struct Channels {
    /// Lanes to recover.
    pub jobs: SyncSender<Vec<Job>>,
    /// What was found out.
    pub reports: Receiver<Report>,
}

/// The state of the poll thread.
pub struct PollLoop<'h, H> {
    client: Arc<Client>,
    queue: BatchQueue,
    ownership: Arc<Ownership>,
    lanes: Lanes,
    channels: Channels,
    committer: SyncCommitter,
    handler: &'h mut H,
    subscribed: Vec<String>,
    /// Whether the last look for topics failed: one outage is one fault.
    undiscovered: bool,
    /// The configured topics that were not there at the last look.
    missing: Vec<MissingTopic>,
    due_next: Instant,
    stopping: bool,
}

impl<H> std::fmt::Debug for PollLoop<'_, H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PollLoop").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl<'h, H: SourceHandler<RawMessages>> PollLoop<'h, H> {
    /// A loop over `client`, whose partitions are read from the queue.
    pub fn new(
        (client, queue): (Arc<Client>, BatchQueue),
        ownership: Arc<Ownership>,
        channels: Channels,
        committer: SyncCommitter,
        handler: &'h mut H,
    ) -> Self {
        Self {
            client,
            queue,
            ownership,
            lanes: Lanes::default(),
            channels,
            committer,
            handler,
            subscribed: Vec::new(),
            undiscovered: false,
            missing: Vec::new(),
            due_next: Instant::now(),
            stopping: false,
        }
    }

    /// Subscribes to exactly these topics.
    ///
    /// # Errors
    ///
    /// What the client says; the earlier subscription stands.
    pub fn subscribe(&mut self, topics: Vec<String>) -> KafkaResult<()> {
        if topics == self.subscribed || topics.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = topics.iter().map(String::as_str).collect();
        self.client.subscribe(&names)?;
        tracing::info!(topics = ?names, "subscribed");
        self.subscribed = topics;
        Ok(())
    }

    /// Turns until `stop`, then until all lanes are given up.
    ///
    /// # Errors
    ///
    /// [`ConsumeError::Fatal`] if the client fails for good.
    pub fn run(&mut self, stop: &CancellationToken) -> Result<(), ConsumeError> {
        let mut deadline = None;
        loop {
            self.turn()?;
            if stop.is_cancelled() && deadline.is_none() {
                self.stopping = true;
                self.client.unsubscribe();
                deadline = Some(Instant::now() + STOP_TIMEOUT);
            }
            let Some(deadline) = deadline else { continue };
            if self.lanes.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                tracing::error!("the group did not take the partitions back in time");
                self.give_up_all();
                return Ok(());
            }
        }
    }

    fn turn(&mut self) -> Result<(), ConsumeError> {
        self.serve_events()?;
        while let Some(rebalance) = self.client.context().next_rebalance() {
            match rebalance {
                Rebalance::Assign(lanes) => self.assign(lanes),
                Rebalance::Revoke(lanes, lost) => self.revoke(&lanes, lost),
            }
        }
        self.serve_reports();
        self.serve_due();
        if self.serve_flow() {
            std::thread::sleep(HOLD_WAIT);
        } else {
            let polled = self.queue.poll(BATCH_WAIT);
            self.deliver(polled);
        }
        self.handler.tick();
        Ok(())
    }

    /// Serves the client's own events: rebalances, logs, errors, token refreshes.
    fn serve_events(&mut self) -> Result<(), ConsumeError> {
        for _ in 0..EVENTS_MAX {
            match self.client.poll(Duration::ZERO) {
                None => {}
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    let message = code.to_string();
                    self.handler.fault(SourceFault::Fatal { message: message.clone() });
                    return Err(ConsumeError::Fatal(message));
                }
                // Reported with its reason through the context.
                Some(Err(_)) => {}
                // Its partition's queue was not forwarded: fetch it again through the right one.
                Some(Ok(message)) => {
                    let lane = TopicPartition::new(message.topic(), message.partition());
                    self.queue.attach(&lane);
                    self.rewind(&lane, Code::Fail, "a record came through the event queue");
                }
            }
            if self.queue.events_pending() == 0 {
                break;
            }
        }
        let context = Arc::clone(self.client.context());
        while let Some(message) = context.next_error() {
            self.handler.fault(SourceFault::Unavailable { message });
        }
        if let Some(lost) = context.next_lost() {
            self.handler.brokers(lost);
        }
        Ok(())
    }

    fn assign(&mut self, lanes: Vec<TopicPartition>) {
        // Answers the rebalance at once; the lanes join the assignment as their recovery completes,
        // so that a broker's silence about one of them does not hold up the rest.
        self.log_failure("assign", self.client.incremental_assign(&TopicPartitionList::new()));
        self.take_over(lanes);
    }

    /// Makes lanes ours under a new epoch, and asks where they go on.
    fn take_over(&mut self, lanes: Vec<TopicPartition>) {
        let owned = self.lanes.assign(lanes);
        self.ownership.claim(&owned);
        if owned.is_empty() {
            return;
        }
        self.handler.recovering(&owned);
        self.ask(owned.into_iter().map(|lane| (lane, None)).collect());
    }

    fn revoke(&mut self, lanes: &[TopicPartition], lost: bool) {
        let owned = self.lanes.owned(lanes);
        if lost || self.ownership.expelled() {
            self.ownership.release(&owned);
            self.handler.lost(&owned);
        } else {
            let commits = self.handler.revoke(&owned);
            self.commit_finally(commits);
            self.ownership.release(&owned);
        }
        let assigned = self.lanes.remove(&owned);
        let removed = self.unassign(&assigned);
        if removed.is_err() {
            // librdkafka waits for an answer: an empty one rather than none.
            self.log_failure("unassign", removed);
            let empty = TopicPartitionList::new();
            self.log_failure("unassign", self.client.incremental_unassign(&empty));
        }
    }

    /// Gives lanes up and takes them over again: what was read of them is read again from the committed
    /// offset, under a new epoch.
    fn restart(&mut self, lanes: &[OwnedLane]) {
        let mut owned: Vec<OwnedLane> = lanes.to_vec();
        owned.retain(|lane| self.lanes.owned_mut(lane).is_some());
        if owned.is_empty() {
            return;
        }
        self.ownership.release(&owned);
        self.handler.restarted(&owned);
        let assigned = self.lanes.remove(&owned);
        self.log_failure("unassign", self.unassign(&assigned));
        self.take_over(owned.into_iter().map(|owned| owned.lane).collect());
    }

    fn commit_finally(&self, commits: Vec<LaneCommit>) {
        let deadline = Instant::now() + FINAL_COMMIT_TIMEOUT;
        let mut finals = Finals::new(commits);
        let mut failed = Vec::new();
        loop {
            let due = finals.due();
            if due.is_empty() {
                break;
            }
            let last = Instant::now() >= deadline;
            let outcome = self.committer.commit(&due);
            let mut wait = false;
            for (commit, outcome) in due.iter().zip(outcome.lanes) {
                let again = finals.answered(&commit.lane, &outcome) && !last;
                match outcome {
                    LaneOutcome::Landed | LaneOutcome::NotOwned => {}
                    _ if again => wait = true,
                    outcome => failed.push((commit.clone(), outcome)),
                }
            }
            if last {
                break;
            }
            if wait {
                std::thread::sleep(FINAL_COMMIT_WAIT);
            }
        }
        for (LaneCommit { lane, offset, .. }, outcome) in failed {
            tracing::warn!(topic = %lane.topic, partition = lane.partition, offset, ?outcome,
                "the last commit of a revoked partition failed; its next owner reads again from the last one that landed");
        }
    }

    fn give_up_all(&mut self) {
        let owned = self.lanes.all();
        self.ownership.release(&owned);
        self.handler.lost(&owned);
        self.lanes.remove(&owned);
    }

    fn unassign(&self, lanes: &[TopicPartition]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(lanes.len());
        for lane in lanes {
            list.add_partition(&lane.topic, lane.partition);
        }
        self.client.incremental_unassign(&list)
    }

    fn serve_due(&mut self) {
        let now = Instant::now();
        if now < self.due_next {
            return;
        }
        self.due_next = now + DUE_INTERVAL;
        let due = self.lanes.take_due(now);
        self.ask(due);
        let rewinds = self.lanes.rewinds_due(now);
        if !rewinds.is_empty() {
            self.seek(&rewinds);
        }
        for lane in self.lanes.take_read_again(now) {
            self.handler.read_again(&lane);
        }
    }

    /// Carries out restarts, pauses and resumes; whether to hold.
    fn serve_flow(&mut self) -> bool {
        let flow = self.handler.flow();
        self.restart(&flow.restart);
        let mut pause = flow.pause;
        pause.retain(|lane| self.lanes.set_flow(lane, None));
        if !pause.is_empty() {
            let list = list(pause.iter().map(|lane| (lane, Offset::Invalid)));
            let paused = list.and_then(|list| self.client.pause(&list));
            self.log_failure("pause", paused);
        }
        let mut resume = flow.resume;
        resume.retain(|(lane, next)| self.lanes.set_flow(lane, Some(*next)));
        if !resume.is_empty() {
            self.seek(&resume);
            let list = list(resume.iter().map(|(lane, _)| (lane, Offset::Invalid)));
            let resumed = list.and_then(|list| self.client.resume(&list));
            self.log_failure("resume", resumed);
        }
        flow.hold
    }

    /// Seeks lanes to their own next offset; those that cannot be sought are tried again later, and
    /// deliver nothing until then.
    fn seek(&mut self, lanes: &[(OwnedLane, i64)]) {
        let to = list(lanes.iter().map(|(lane, next)| (lane, Offset::Offset(*next))));
        let sought = to.and_then(|to| self.client.seek_partitions(to, SEEK_TIMEOUT));
        let refused = match &sought {
            Ok(list) => super::ffi::elements(list)
                .into_iter()
                .filter(|element| element.error.is_some())
                .map(|element| element.lane)
                .collect(),
            Err(error) => {
                tracing::warn!(%error, "seeking failed; trying again");
                lanes.iter().map(|(owned, _)| owned.lane.clone()).collect::<Vec<_>>()
            }
        };
        for (owned, _) in lanes {
            if let Some(running) = self.lanes.running_mut(owned) {
                let now = Instant::now();
                running.rewind = refused.contains(&owned.lane).then(|| now + REWIND_WAIT);
                if let Some(failing) = running.failing.as_mut().filter(|_| running.rewind.is_none())
                {
                    failing.tried(now);
                }
            }
        }
    }

    /// Reads a lane again from its next offset, after a wait that grows while no record comes.
    fn rewind(&mut self, lane: &TopicPartition, code: Code, message: &str) {
        let Some(Lane { state: State::Running(running), .. }) = self.lanes.get_mut(lane) else {
            return;
        };
        if running.rewind.is_some() {
            return;
        }
        let refusal = BUDGET.refusal(message);
        let failing = running.failing.get_or_insert_default();
        running.rewind = Some(Instant::now() + failing.again(refusal));
        let (next, lasts, lane) = (running.next, failing.lasts(), lane.clone());
        let (message, remedy) = read_failure::told(&lane.topic, code, message, refusal);
        self.handler.fault(SourceFault::Read { lane, next, message, remedy, lasts });
    }

    fn deliver(&mut self, polled: Vec<PolledLane>) {
        let mut batches = Vec::with_capacity(polled.len());
        for polled in polled {
            let lane = TopicPartition::new(polled.topic, polled.partition);
            // The records came before the errors.
            batches.extend(self.admit(&lane, polled.messages));
            for error in polled.errors {
                self.read_error(&lane, error.code, &error.message);
            }
        }
        if !batches.is_empty() {
            self.handler.records(batches);
        }
    }

    /// What is to be delivered of one lane's records.
    fn admit(
        &mut self,
        lane: &TopicPartition,
        mut messages: RawMessages,
    ) -> Option<LaneBatch<RawMessages>> {
        let held = self.lanes.get_mut(lane).filter(|_| !self.stopping)?;
        let State::Running(running) = &mut held.state else { return None };
        let owned = OwnedLane { lane: lane.clone(), epoch: held.epoch };
        match deliver::admit(running, &mut messages) {
            Verdict::Nothing => None,
            Verdict::Foreign(offset) => {
                self.halt_running(lane, SourceFault::Recreated { lane: lane.clone(), offset });
                None
            }
            Verdict::Deliver => {
                if running.failing.take().is_some_and(|failing| failing.lasts()) {
                    self.handler.read_again(&owned);
                }
                Some(LaneBatch { lane: owned, messages })
            }
        }
    }

    fn halt_running(&mut self, lane: &TopicPartition, fault: SourceFault) {
        if let Some(held) = self.lanes.get_mut(lane) {
            held.state = State::Halted;
        }
        self.log_failure("unassign", self.unassign(std::slice::from_ref(lane)));
        self.handler.fault(fault);
    }

    /// What came behind an error was dropped: it is fetched again.
    fn read_error(&mut self, lane: &TopicPartition, code: Code, message: &str) {
        if self.lanes.get_mut(lane).is_none() {
            let message = format!("{lane}: {message}");
            self.handler.fault(SourceFault::Unavailable { message });
            return;
        }
        if !matches!(code, Code::AutoOffsetReset | Code::OffsetOutOfRange) {
            self.rewind(lane, code, message);
            return;
        }
        // The offset is gone, or was never there: what to do is decided as at an assignment.
        let Some(held) = self.lanes.get_mut(lane) else { return };
        let State::Running(running) = &held.state else { return };
        let own = Some(Own { next: running.next, paused: running.paused });
        held.state =
            State::Recovering(Recovering { own, due: Some(Instant::now()), ..Default::default() });
        self.log_failure("unassign", self.unassign(std::slice::from_ref(lane)));
        let message = message.to_owned();
        self.handler.fault(SourceFault::Recovering { lane: lane.clone(), message });
    }

    fn log_failure(&self, what: &str, result: KafkaResult<()>) {
        if let Err(error) = result {
            tracing::error!(what, %error, "the Kafka client refused a call");
        }
    }
}

fn list<'a>(
    lanes: impl Iterator<Item = (&'a OwnedLane, Offset)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (owned, offset) in lanes {
        list.add_partition(&owned.lane.topic, owned.lane.partition).set_offset(offset)?;
    }
    Ok(list)
}
