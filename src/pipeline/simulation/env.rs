//! What all replicas share: virtual time, the event queue, chance, the remote systems, the checkers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::AbortHandle, task::JoinSet};

use super::{
    bigquery::BigQuery,
    checkers::Checkers,
    coverage::Mark,
    doubts::{Appends, Doubts},
    group::{Group, MemberId, Verdict},
    history::History,
    letters::{self, LetterAnswer},
    line::Call,
    plan::{Chances, Plan},
    process::Finished,
    records::{Broken, Contents, Kind},
    rng::Rng,
    wire::{Fate, Reply},
};
use crate::{
    committer::LaneCommit, dead_letter::DeadLetter, delivery::defect::Defect,
    record::TopicPartition, telemetry::Telemetry,
};

/// A process: a replica and which life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who {
    /// Which replica.
    pub(crate) replica: usize,
    /// Which of its lives.
    pub(crate) life: u32,
}

/// A commit on its way.
#[derive(Clone, Debug)]
pub(crate) struct CommitOnWire {
    /// Its number in that process.
    pub(crate) flight: u64,
    /// The member it is stamped with.
    pub(crate) member: MemberId,
    /// The generation it is stamped with.
    pub(crate) generation: i32,
    /// What it commits.
    pub(crate) entries: Vec<LaneCommit>,
    /// Whether its client has given up already.
    pub(crate) late: bool,
    /// Whether an answer gets back.
    pub(crate) answered: bool,
}

/// What a process learns about its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitAnswer {
    /// The coordinator's word.
    Verdict(Verdict),
    /// The coordinator is not ready.
    NotReady,
    /// Nothing.
    Timeout,
}

/// A record that a history needs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// With this extra column.
    Column(u8),
    /// That cannot be read.
    Bad,
}

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A turn of a process's loops.
    Turn(Who),
    /// A call that a process made while it was stopped.
    Calls(Call),
    /// A call reaches its service; when it was made.
    CallArrives(Call, Fate, u64),
    /// Its answer reaches the process.
    Replied(Who, Reply),
    /// A task of a process ended while it was stopped.
    Finished(Finished),
    /// A dead letter reaches its topic.
    LetterArrives(letters::Sender, Box<DeadLetter>, LetterAnswer),
    /// Its answer.
    LetterAnswered(letters::Sender, LetterAnswer),
    /// A commit reaches the coordinator.
    CommitArrives(Who, CommitOnWire),
    /// Its answer.
    CommitAnswered(Who, u64, CommitAnswer),
    /// A producer writes to a lane.
    Produce(TopicPartition),
    /// Some replica is killed.
    Kill,
    /// A replica starts again.
    Start(usize),
    /// This life of a replica ends in good order, and another begins.
    Restart(Who),
    /// Some replica stops for so many milliseconds, if possible one with requests under way.
    Stop(u64),
    /// A broker is away for so many milliseconds.
    Broker(u64, u64),
    /// Some replica is asked to end.
    Shutdown,
    /// The group moves lanes for no reason.
    Storm,
    /// The coordinator is away for so many milliseconds.
    Away(u64),
    /// A topic gets another partition.
    Partition,
    /// Faults and producers stop.
    Heal,
}

/// The shared part of the world.
pub(crate) struct Env {
    /// Milliseconds since the start.
    pub(crate) now: u64,
    base: tokio::time::Instant,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    /// All chance.
    pub(crate) rng: Rng,
    /// The parameters.
    pub(crate) plan: Plan,
    /// The log.
    pub(crate) history: History,
    /// The consumer group.
    pub(crate) group: Group,
    /// BigQuery.
    pub(crate) bigquery: BigQuery,
    /// The checkers.
    pub(crate) checkers: Checkers,
    /// What the processes did not learn.
    pub(crate) doubts: Doubts,
    /// Who appended what.
    pub(crate) appends: Appends,
    /// Every lane there is.
    pub(crate) lanes: BTreeSet<TopicPartition>,
    /// When faults ended.
    pub(crate) healed: Option<u64>,
    /// When everything was committed after that.
    pub(crate) settled: Option<u64>,
    /// The deliberate mistake.
    pub(crate) defect: Option<Defect>,
    /// The records.
    pub(crate) contents: Contents,
    /// Into the network.
    pub(crate) calls: mpsc::Sender<Call>,
    /// The processes' tasks.
    pub(crate) tasks: JoinSet<Finished>,
    handles: BTreeMap<Who, Vec<AbortHandle>>,
    /// Where the production code counts.
    pub(crate) telemetry: Arc<Telemetry>,
    /// From when on the registry knows a schema.
    pub(crate) registered: BTreeMap<u32, u64>,
    /// Until when each broker is away.
    pub(crate) brokers: [u64; 3],
    /// The process that sends the next rows stops with them under way.
    pub(crate) stop_next_writer: bool,
    /// The next write of rows is not answered.
    pub(crate) ambiguous_next: bool,
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").field("now", &self.now).finish_non_exhaustive()
    }
}

/// Tasks of one process whose handles are kept, ended or not.
const HANDLES_MAX: usize = 256;

impl Env {
    /// The world of one seed before anything happens.
    pub(crate) fn new(
        seed: u64,
        plan: fn(&mut Rng) -> Plan,
        defect: Option<Defect>,
        keep: bool,
        calls: mpsc::Sender<Call>,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let plan = plan(&mut rng);
        let contents = Contents::new(rng.bits(), plan.mix, plan.loading);
        let base = tokio::time::Instant::now();
        Self {
            now: 0,
            base,
            queue: BTreeMap::new(),
            sequence: 0,
            bigquery: BigQuery::new(&plan),
            rng,
            plan,
            history: History::new(keep),
            group: Group::default(),
            checkers: Checkers::new(contents),
            doubts: Doubts::new(base),
            appends: Appends::default(),
            lanes: BTreeSet::new(),
            healed: None,
            settled: None,
            defect,
            contents,
            calls,
            tasks: JoinSet::new(),
            handles: BTreeMap::new(),
            telemetry: Arc::new(Telemetry::new(2, Instant::now(), 0).unwrap()),
            registered: BTreeMap::new(),
            brokers: [0; 3],
            stop_next_writer: false,
            ambiguous_next: false,
        }
    }

    /// Runs a task of a process.
    pub(crate) fn spawn(
        &mut self,
        who: Who,
        task: impl Future<Output = Finished> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(task);
        let handles = self.handles.entry(who).or_default();
        if handles.len() >= HANDLES_MAX {
            handles.retain(|handle| !handle.is_finished());
        }
        handles.push(handle);
    }

    /// Ends all tasks of a process where they stand.
    pub(crate) fn abort(&mut self, who: Who) {
        for handle in self.handles.remove(&who).unwrap_or_default() {
            handle.abort();
        }
    }

    /// The present as the core sees it.
    pub(crate) fn instant(&self) -> Instant {
        self.base.into_std() + Duration::from_millis(self.now)
    }

    /// Moves time to where the runtime has it.
    pub(crate) fn catch_up(&mut self) {
        let passed = self.base.elapsed().as_millis() as u64;
        self.now = self.now.max(passed);
    }

    /// When the next thing happens.
    pub(crate) fn due(&self) -> tokio::time::Instant {
        let at = self.queue.first_key_value().map_or(u64::MAX >> 20, |((at, _), _)| *at);
        self.base + Duration::from_millis(at)
    }

    /// Lets something happen after so many milliseconds.
    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + ms, self.sequence), event);
    }

    /// The next thing that happens; time moves there.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let ((at, _), event) = self.queue.pop_first()?;
        self.now = self.now.max(at);
        Some(event)
    }

    /// Adds to the log.
    pub(crate) fn log(&mut self, event: std::fmt::Arguments<'_>) {
        self.history.log(self.now, event);
    }

    /// Counts.
    pub(crate) fn mark(&mut self, mark: Mark) {
        self.history.mark(mark);
    }

    /// A checker's finding.
    pub(crate) fn violation(&mut self, what: String) {
        self.history.violation(self.now, what);
    }

    /// Whether the broker that leads a lane is away.
    pub(crate) fn is_broker_down(&self, lane: &TopicPartition) -> bool {
        let leader = (usize::from(lane.topic.as_bytes()[0]) + lane.partition as usize) % 3;
        self.now < self.brokers[leader]
    }

    /// How often things go wrong now.
    pub(crate) fn chances(&self) -> Chances {
        if self.healed.is_some() { Chances::default() } else { self.plan.chances }
    }

    /// A network delay.
    pub(crate) fn delay(&mut self) -> u64 {
        self.rng.between(2, 80)
    }

    /// A producer writes one record, sometimes behind a gap.
    pub(crate) fn produce(&mut self, lane: &TopicPartition) {
        let mut offset = self.checkers.end(lane);
        if self.rng.chance(100) {
            offset += self.rng.between(1, 4) as i64;
            self.mark(Mark::OffsetGap);
        }
        self.checkers.produced(lane, offset, self.contents.produce(lane, offset));
    }

    /// A producer writes one record of a kind, behind a gap if need be.
    pub(crate) fn produce_one(&mut self, lane: &TopicPartition, wanted: Wanted) {
        let from = self.checkers.end(lane);
        let found = (from..from + 100_000).find(|offset| {
            let content = self.contents.at(lane, *offset);
            match wanted {
                Wanted::Column(column) => {
                    content.kind == Kind::Good && content.extra == Some(column)
                }
                Wanted::Bad => content.kind == Kind::Broken(Broken::Magic),
            }
        });
        if let Some(offset) = found {
            self.checkers.produced(lane, offset, self.contents.produce(lane, offset));
        }
    }

    /// A commit at the coordinator.
    pub(crate) fn commit_arrives(&mut self, who: Who, commit: CommitOnWire) {
        if self.now < self.group.away_until {
            let answer = CommitAnswer::NotReady;
            return self.after(5, Event::CommitAnswered(who, commit.flight, answer));
        }
        let verdict = self.group.commit_verdict(commit.member, commit.generation);
        if verdict == Verdict::Accepted {
            for entry in &commit.entries {
                self.accept(entry, commit.member, commit.late);
            }
        }
        if commit.late {
            self.mark(Mark::CommitLate);
        }
        self.log(format_args!("commit {who:?} {} {verdict:?}", commit.flight));
        if commit.answered {
            let delay = self.delay();
            let answer = CommitAnswer::Verdict(verdict);
            self.after(delay, Event::CommitAnswered(who, commit.flight, answer));
        }
    }

    fn accept(&mut self, entry: &LaneCommit, member: MemberId, late: bool) {
        let lane = &entry.lane;
        if self.group.holder.get(lane) != Some(&member) && !late {
            let what = format!("zombie commit: {lane} at {} by {member:?}", entry.offset);
            self.history.violation(self.now, what);
        }
        self.history.log(self.now, format_args!("committed {lane} {}", entry.offset));
        let committed = (entry.offset, entry.metadata.clone());
        self.group.committed.insert(lane.clone(), committed);
        self.checkers.committed(lane, entry.offset, late, &mut self.history, self.now);
    }
}
