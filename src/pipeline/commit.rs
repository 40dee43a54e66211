//! The commit loop: what the workers finished becomes committed offsets.
//!
//! One thread commits; the revoke path waits for it and then takes over the lanes it gives up. So
//! one commit is in flight at a time, none is reordered, and none names a lane that is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    batch::LaneSlot,
    committer::{CommitMetadata, CommitOutcome, Committer, LaneCommit, LaneOutcome},
    delivery::{
        action::Progress,
        commit_book::{CommitBook, Entry, Outcome},
    },
    fault::Fault,
    pipeline::commit::failing::{Failing, News},
    record::{Fingerprint, TopicPartition},
    source::{AssignedLane, OwnedLane},
    telemetry::{Cause, LastError, Telemetry, Teller, Trouble},
};

mod failing;

/// What goes into a lane's commit metadata beside the last record: fixed for the assignment.
#[derive(Clone, Debug, Default)]
pub struct LaneFacts {
    /// The topic's id, where known.
    pub topic_id: Option<String>,
    /// The fingerprint of the topic's configuration.
    pub config: Option<String>,
    /// How many partitions the topic had when the group first met it.
    pub topic_partitions: Option<u32>,
    /// The tables that the lane feeds, where they do not depend on the record.
    pub tables: Vec<String>,
}

/// What a lane's progress says beside the offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Marks {
    last: Option<Fingerprint>,
    nodes: BTreeMap<String, i64>,
}

#[derive(Debug, Default)]
struct Books {
    book: CommitBook<Marks>,
    facts: BTreeMap<TopicPartition, Arc<LaneFacts>>,
}

/// The progress of all lanes of the process, shared by workers, commit thread and revoke path.
pub struct Commits {
    books: Mutex<Books>,
    /// Held from choosing what to commit until the answers are noted. Revoking takes it, so that no
    /// commit chosen before a lane was given up is still on its way when the final one is made.
    in_flight: Mutex<()>,
    failing: Mutex<Failing>,
    stop: Mutex<bool>,
    stopped: Condvar,
    telemetry: Arc<Telemetry>,
}

impl std::fmt::Debug for Commits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commits").finish_non_exhaustive()
    }
}

impl Commits {
    /// Nothing to commit yet.
    pub fn new(telemetry: Arc<Telemetry>) -> Self {
        Self {
            books: Mutex::default(),
            in_flight: Mutex::default(),
            failing: Mutex::default(),
            stop: Mutex::new(false),
            stopped: Condvar::new(),
            telemetry,
        }
    }

    /// How far the lane is known to be committed in its present assignment.
    pub fn committed(&self, lane: &TopicPartition) -> Option<i64> {
        lock(&self.books).book.committed(lane)
    }

    /// Registers an assignment's facts. Where the committed metadata says something else, the same
    /// offset is committed again with them, so that a lane without new records does not go on
    /// saying it.
    pub fn assigned(&self, assigned: &AssignedLane, slot: LaneSlot, facts: LaneFacts) {
        let before = assigned.metadata.as_ref();
        let same = before.is_some_and(|before| {
            before.config == facts.config && before.topic_id == facts.topic_id
        });
        let OwnedLane { lane, epoch } = assigned.lane.clone();
        lock(&self.books).facts.insert(lane.clone(), Arc::new(facts));
        if !same && !assigned.genesis {
            let last = before.and_then(|before| before.last);
            let nodes = before.map(|before| before.nodes.clone()).unwrap_or_default();
            let offset = assigned.start;
            self.note(vec![Progress { slot, lane, epoch, offset, last, nodes }]);
        }
    }

    /// Notes progress.
    pub fn note(&self, progress: Vec<Progress>) {
        if progress.is_empty() {
            return;
        }
        let mut books = lock(&self.books);
        for Progress { lane, epoch, offset, last, nodes, .. } in progress {
            books.book.note(Entry { lane, epoch, offset, metadata: Marks { last, nodes } });
        }
    }

    /// Takes lanes out of the loop and returns what is still to be committed for them, each lane's in
    /// the order it was earned. Waits for a commit in flight.
    pub fn give_up(&self, lanes: &[OwnedLane]) -> Vec<LaneCommit> {
        let _none_in_flight = lock(&self.in_flight);
        let mut books = lock(&self.books);
        let Books { book, facts } = &mut *books;
        let mut finals = Vec::new();
        for owned in lanes {
            let left = book.give_up(&owned.lane, owned.epoch);
            finals.extend(left.iter().map(|entry| render(entry, facts)));
            facts.remove(&owned.lane);
        }
        finals
    }

    /// Commits what is due, once. Blocks until the outcome is known or the client gives up.
    pub fn round(&self, committer: &dyn Committer) {
        let _in_flight = lock(&self.in_flight);
        let commits = self.begin();
        if commits.is_empty() {
            return;
        }
        crate::failpoint!("commit_before");
        let started = Instant::now();
        let outcome = committer.commit(&commits);
        crate::failpoint!("commit_after");
        self.telemetry.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        self.finish(&commits, &outcome);
    }

    /// What the next commit says. It is in flight until [`finish`](Self::finish).
    pub(crate) fn begin(&self) -> Vec<LaneCommit> {
        let mut books = lock(&self.books);
        let due = books.book.take_due();
        due.iter().map(|entry| render(entry, &books.facts)).collect()
    }

    /// Notes what became of a commit.
    pub(crate) fn finish(&self, commits: &[LaneCommit], outcome: &CommitOutcome) {
        let (mut landed, mut faults) = (Vec::new(), Vec::new());
        {
            let mut books = lock(&self.books);
            for (commit, outcome) in commits.iter().zip(&outcome.lanes) {
                let (outcome, fault) = read(outcome);
                books.book.settle(&commit.lane, commit.epoch, outcome);
                if outcome == Outcome::Landed {
                    landed.push(commit);
                }
                faults.extend(fault.map(|fault| (commit, fault)));
            }
        }
        if !faults.is_empty() || !landed.is_empty() {
            self.show_faults(&faults);
        }
        self.show_landed(&landed);
    }

    fn show_faults(&self, faults: &[(&LaneCommit, &Fault)]) {
        let causes: BTreeSet<_> = faults.iter().map(|(_, fault)| fault.kind.name()).collect();
        for cause in causes {
            self.telemetry.metrics.commit_failures.with_label_values(&[cause]).inc();
        }
        for (commit, fault) in faults {
            self.telemetry.status.update_lane(&commit.lane.topic, commit.lane.partition, |lane| {
                let at_ms = crate::pipeline::now_ms();
                let trouble = Trouble::new(Cause::Commit, fault.what(), at_ms);
                let trouble = trouble.with_remedy(fault.remedy.as_deref()).at(Some(commit.offset));
                lane.troubles.tell(Teller::Commit, Some(trouble));
                lane.last_error = Some(LastError {
                    stage: "commit".to_owned(),
                    field: None,
                    message: fault.what(),
                    remedy: fault.remedy.as_deref().map(str::to_owned),
                    at_ms,
                });
            });
        }
        let faults = faults.iter().map(|(_, fault)| *fault);
        for news in lock(&self.failing).round(faults, Instant::now()) {
            match news {
                News::Failing { fault, lanes } => tracing::warn!(
                    partitions = lanes,
                    error = %fault,
                    "offsets cannot be committed; they are tried again while the partitions are owned"
                ),
                News::Passed { after } => {
                    tracing::info!(seconds = after.as_secs(), "offsets are committed again");
                }
            }
        }
    }

    fn show_landed(&self, landed: &[&LaneCommit]) {
        if landed.is_empty() {
            return;
        }
        self.telemetry.metrics.commits.inc();
        self.telemetry.liveness.progressed(Instant::now());
        for commit in landed {
            self.telemetry.status.update_lane(&commit.lane.topic, commit.lane.partition, |lane| {
                lane.committed_offset = Some(commit.offset);
                lane.troubles.tell(Teller::Commit, None);
                lane.lag = lane.high_watermark.map(|high| (high - commit.offset).max(0));
            });
        }
    }

    /// Commits every `interval` until [`stop`](Self::stop).
    pub fn run(&self, committer: &dyn Committer, interval: Duration) {
        loop {
            let stop = lock(&self.stop);
            let waited = self.stopped.wait_timeout_while(stop, interval, |stop| !*stop);
            let stop = *waited.unwrap_or_else(PoisonError::into_inner).0;
            if stop {
                return;
            }
            self.round(committer);
        }
    }

    /// Ends [`run`](Self::run).
    pub fn stop(&self) {
        *lock(&self.stop) = true;
        self.stopped.notify_all();
    }
}

fn render(entry: &Entry<Marks>, facts: &BTreeMap<TopicPartition, Arc<LaneFacts>>) -> LaneCommit {
    let facts = facts.get(&entry.lane).cloned().unwrap_or_default();
    let metadata = CommitMetadata {
        topic_id: facts.topic_id.clone(),
        config: facts.config.clone(),
        last: entry.metadata.last,
        nodes: entry.metadata.nodes.clone(),
        topic_partitions: facts.topic_partitions,
        tables: facts.tables.clone(),
    };
    LaneCommit {
        lane: entry.lane.clone(),
        epoch: entry.epoch,
        offset: entry.offset,
        metadata: metadata.encode(),
    }
}

/// What an outcome means for the book, and the fault to show.
fn read(outcome: &LaneOutcome) -> (Outcome, Option<&Fault>) {
    match outcome {
        LaneOutcome::Landed => (Outcome::Landed, None),
        LaneOutcome::Refused { fault, retryable: true } => (Outcome::Refused, Some(fault)),
        LaneOutcome::Refused { fault, retryable: false } | LaneOutcome::Lost(fault) => {
            (Outcome::Gone, Some(fault))
        }
        LaneOutcome::Unknown(fault) => (Outcome::Unknown, Some(fault)),
        LaneOutcome::NotOwned => (Outcome::Gone, None),
    }
}

/// A panic while a lock was held leaves at worst progress that is noted again.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
