//! What all replicas share: virtual time, the event queue, chance, the remote systems, the checkers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    bigquery::BigQuery,
    checkers::Checkers,
    coverage::Mark,
    group::{Group, MemberId, Verdict},
    history::History,
    plan::{Chances, Plan},
    records,
    rng::Rng,
    wire::{LetterAnswer, WriteAnswer, WriteOnWire},
};
use crate::{
    delivery::{
        action::{BatchId, LetterId},
        commit_book::Entry,
        defect::Defect,
        encoder::NeedId,
    },
    record::TopicPartition,
};

/// A process: a replica and which life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    pub(crate) entries: Vec<Entry<()>>,
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

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A turn of a process's loops.
    Turn(Who),
    /// An insertAll reaches BigQuery.
    WriteArrives(WriteOnWire),
    /// Its outcome reaches the client.
    WriteAnswered(Who, usize, BatchId, u64, WriteAnswer),
    /// The outcome of a dead letter.
    LetterArrives(Who, usize, LetterId, TopicPartition, i64, LetterAnswer),
    /// Its answer.
    LetterAnswered(Who, usize, LetterId, LetterAnswer),
    /// A need's table is looked at.
    Look(Who, usize, NeedId),
    /// A need's columns are added to the table as it was looked at.
    Change(Who, usize, NeedId, String, Vec<serde_json::Value>),
    /// A need that can never be prepared.
    Forbid(Who, usize, NeedId),
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
    /// Some replica stops for so many milliseconds.
    Stop(u64),
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
#[derive(Debug)]
pub(crate) struct Env {
    /// Milliseconds since the start.
    pub(crate) now: u64,
    base: Instant,
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
    /// Every lane there is.
    pub(crate) lanes: BTreeSet<TopicPartition>,
    /// Whether faults are over.
    pub(crate) healed: bool,
    /// The deliberate mistake.
    pub(crate) defect: Option<Defect>,
    ids: u64,
}

impl Env {
    /// The world of one seed before anything happens.
    pub(crate) fn new(seed: u64, defect: Option<Defect>, keep: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        Self {
            now: 0,
            base: Instant::now(),
            queue: BTreeMap::new(),
            sequence: 0,
            bigquery: BigQuery::new(&plan),
            rng,
            plan,
            history: History::new(keep),
            group: Group::default(),
            checkers: Checkers::default(),
            lanes: BTreeSet::new(),
            healed: false,
            defect,
            ids: 0,
        }
    }

    /// The present as the core sees it.
    pub(crate) fn instant(&self) -> Instant {
        self.base + Duration::from_millis(self.now)
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

    /// How often things go wrong now.
    pub(crate) fn chances(&self) -> Chances {
        if self.healed { Chances::default() } else { self.plan.chances }
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
        self.ids += 1;
        let mix = self.plan.mix;
        let record = records::produce(&mut self.rng, &mix, lane, offset, self.ids);
        self.checkers.produced(lane, record);
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

    fn accept(&mut self, entry: &Entry<()>, member: MemberId, late: bool) {
        let lane = &entry.lane;
        if self.group.holder.get(lane) != Some(&member) && !late {
            let what = format!("zombie commit: {lane} at {} by {member:?}", entry.offset);
            self.history.violation(self.now, what);
        }
        self.history.log(self.now, format_args!("committed {lane} {}", entry.offset));
        self.group.committed.insert(lane.clone(), entry.offset);
        self.checkers.committed(lane, entry.offset, late, &mut self.history, self.now);
    }
}
