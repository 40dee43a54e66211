//! One process: its place in the group, its poll loop, its workers, its commits.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    coverage::Mark,
    env::{Env, Event, Who},
    group::{Beat, MemberId},
    ownership::Ownership,
    worker::{Flow, Parcel, Worker},
};
use crate::{
    batch::LaneSlot,
    delivery::commit_book::{CommitBook, Entry},
    record::TopicPartition,
};

/// A lane in this process.
#[derive(Debug)]
pub(crate) struct Owned {
    /// Its worker.
    pub(crate) worker: usize,
    /// Its number there.
    pub(crate) slot: LaneSlot,
    /// Its assignment.
    pub(crate) epoch: u64,
    /// Where it started; `None` while it recovers.
    pub(crate) start: Option<i64>,
    recovered_ms: u64,
    next: i64,
    paused: bool,
}

/// Lanes that are on their way out.
#[derive(Debug)]
pub(crate) struct Revoking {
    /// Which.
    pub(crate) lanes: Vec<TopicPartition>,
    until: u64,
    /// Final commits sent so far.
    pub(crate) finals: u32,
    /// Whether the process ends with it.
    leave: bool,
}

/// A process.
#[derive(Debug)]
pub(crate) struct Replica {
    /// Who it is.
    pub(crate) who: Who,
    /// Whether it runs.
    pub(crate) up: bool,
    /// Until when it is stopped.
    pub(crate) stopped_until: u64,
    pub(crate) member: Option<MemberId>,
    pub(crate) generation: i32,
    pub(crate) workers: Vec<Worker>,
    pub(crate) lanes: BTreeMap<TopicPartition, Owned>,
    pub(crate) ownership: Ownership,
    pub(crate) book: CommitBook<()>,
    pub(crate) flight: Option<(u64, Vec<Entry<()>>)>,
    pub(crate) flights: u64,
    pub(crate) commit_due: u64,
    pub(crate) revoking: Option<Revoking>,
    pub(crate) lost: bool,
    /// Pauses and resumes that the poll thread has not taken yet; the last word for a lane wins.
    board: BTreeMap<(usize, LaneSlot), Option<i64>>,
    slots: u32,
    epochs: u64,
}

impl Replica {
    /// A process that does not run yet.
    pub(crate) fn new(replica: usize) -> Self {
        Self {
            who: Who { replica, life: 0 },
            up: false,
            stopped_until: 0,
            member: None,
            generation: -1,
            workers: Vec::new(),
            lanes: BTreeMap::new(),
            ownership: Ownership::default(),
            book: CommitBook::default(),
            flight: None,
            flights: 0,
            commit_due: 0,
            revoking: None,
            lost: false,
            board: BTreeMap::new(),
            slots: 0,
            epochs: 0,
        }
    }

    /// Logs where everything stands, to see why a world is stuck.
    pub(crate) fn describe(&self, env: &mut Env) {
        env.log(format_args!(
            "{:?} up {} member {:?} lost {} revoking {:?} flight {:?} book {}",
            self.who,
            self.up,
            self.member,
            self.lost,
            self.revoking,
            self.flight,
            self.book.pending()
        ));
        for (lane, owned) in &self.lanes {
            env.log(format_args!("  {lane} {owned:?}"));
        }
        for worker in &self.workers {
            worker.describe(env);
        }
    }

    /// Starts a new life.
    pub(crate) fn start(&mut self, env: &mut Env) {
        let who = Who { replica: self.who.replica, life: self.who.life + 1 };
        *self = Self { who, up: true, ..Self::new(who.replica) };
        self.workers = (0..2).map(|index| Worker::new(env, who, index)).collect();
        env.log(format_args!("start {who:?}"));
        env.after(1, Event::Turn(who));
    }

    /// Ends it where it stands.
    pub(crate) fn kill(&mut self, env: &mut Env) {
        env.mark(Mark::Kill);
        if self.workers.iter().any(Worker::is_writing) && !self.lanes.is_empty() {
            env.mark(Mark::KillWithUnacknowledged);
        }
        env.log(format_args!("kill {:?}", self.who));
        if let Some(member) = self.member {
            for lane in env.group.held_by(member) {
                env.checkers.unclean(&lane, "kill");
            }
        }
        self.up = false;
        self.workers.clear();
        self.lanes.clear();
    }

    /// Ends it in good order: all lanes are given up, then it leaves.
    pub(crate) fn shut_down(&mut self, env: &mut Env) {
        if self.revoking.is_none() && !self.lost && self.member.is_some() {
            env.log(format_args!("shutdown {:?}", self.who));
            let all = self.lanes.keys().cloned().collect();
            self.revoke(env, all, true);
        }
    }

    /// One turn of all loops.
    pub(crate) fn turn(&mut self, env: &mut Env) {
        // The commit loop has a thread of its own: it may come before the news from the group.
        if self.flight.is_none() && self.revoking.is_none() && !self.lost && env.rng.chance(100) {
            self.commit(env);
        }
        self.membership(env);
        if self.lost {
            self.abandon(env);
        } else if self.revoking.is_some() {
            self.give_up(env);
        } else {
            self.recover(env);
            if env.healed || env.rng.chance(700) {
                self.carry_out(env);
            }
            self.fetch(env);
        }
        if !self.up {
            return;
        }
        for index in 0..self.workers.len() {
            let flow = self.workers[index].turn(env, self.member);
            self.board.extend(flow.into_iter().map(|flow| match flow {
                Flow::Pause(slot) => ((index, slot), None),
                Flow::Resume(slot, next) => ((index, slot), Some(next)),
            }));
        }
        if env.now >= self.commit_due && self.flight.is_none() && !self.lost {
            self.commit_due = env.now + 500;
            self.commit(env);
        }
        let pause = env.rng.between(80, 220);
        env.after(pause, Event::Turn(self.who));
    }

    fn membership(&mut self, env: &mut Env) {
        let Some(member) = self.member else {
            if !self.lost && env.now >= env.group.away_until {
                self.member = Some(env.group.enter(env.now, env.plan.rebalance_ms));
                self.generation = -1;
            }
            return;
        };
        match env.group.beat(member, env.now) {
            Beat::Away => {}
            Beat::Unknown => self.expelled(env),
            Beat::Rebalance => {
                if self.revoking.is_none() && !self.lost && !env.group.has_joined(member) {
                    env.group.join(member, self.lanes.keys().cloned().collect());
                }
            }
            Beat::Stable(generation) if generation != self.generation => {
                self.generation = generation;
                // One that is about to leave takes nothing more.
                if self.revoking.is_none() {
                    self.assignment(env, member);
                }
            }
            Beat::Stable(_) => {}
        }
    }

    /// The group has gone on without this member.
    pub(crate) fn expelled(&mut self, env: &mut Env) {
        env.mark(Mark::Lost);
        env.log(format_args!("lost {:?}", self.who));
        self.member = None;
        self.lost = true;
        self.revoking = None;
        self.ownership.expel();
    }

    fn assignment(&mut self, env: &mut Env, member: MemberId) {
        let assigned = env.group.assignment(member);
        let mine: BTreeSet<_> = self.lanes.keys().cloned().collect();
        env.log(format_args!("assignment {:?} gen {} {assigned:?}", self.who, self.generation));
        for lane in assigned.difference(&mine) {
            self.assign(env, lane);
        }
        let gone: Vec<_> = mine.difference(&assigned).cloned().collect();
        if !gone.is_empty() {
            self.revoke(env, gone, false);
        }
    }

    fn assign(&mut self, env: &mut Env, lane: &TopicPartition) {
        self.slots += 1;
        self.epochs += 1;
        let hash = lane.topic.len() + lane.topic.as_bytes()[0] as usize + lane.partition as usize;
        let owned = Owned {
            worker: hash % self.workers.len(),
            slot: LaneSlot(self.slots),
            epoch: self.epochs,
            start: None,
            recovered_ms: env.now + env.rng.between(10, 800),
            next: 0,
            paused: false,
        };
        self.ownership.claim(lane, owned.epoch);
        self.lanes.insert(lane.clone(), owned);
    }

    /// Reads the committed offsets of new lanes; their records follow.
    fn recover(&mut self, env: &mut Env) {
        if env.now < env.group.away_until {
            return;
        }
        for (lane, owned) in &mut self.lanes {
            if owned.start.is_some() || owned.recovered_ms > env.now {
                continue;
            }
            let start = env.group.committed.get(lane).copied().unwrap_or(0);
            env.log(format_args!("assigned {:?} {lane} from {start}", self.who));
            let holds = env.group.holder.get(lane).copied() == self.member;
            if holds {
                env.checkers.assigned(lane, start, &mut env.history, env.now);
            }
            (owned.start, owned.next) = (Some(start), start);
            let core = &mut self.workers[owned.worker].core;
            core.assign(owned.slot, lane.clone(), owned.epoch, start);
        }
    }

    fn fetch(&mut self, env: &mut Env) {
        for (lane, owned) in &mut self.lanes {
            if owned.start.is_none() || owned.paused {
                continue;
            }
            let most = env.rng.between(1, 9) as usize;
            let Some(log) = env.checkers.log(lane) else { continue };
            let records = log.range(owned.next..).take(most);
            let records: Vec<_> =
                records.map(|(offset, record)| (*offset, record.value.clone())).collect();
            let Some((last, _)) = records.last() else { continue };
            owned.next = last + 1;
            let parcel = Parcel { slot: owned.slot, lane: lane.clone(), records };
            self.workers[owned.worker].inbox.push_back(parcel);
        }
    }

    /// Takes the board, as the poll thread does from time to time.
    fn carry_out(&mut self, env: &mut Env) {
        for ((worker, slot), next) in std::mem::take(&mut self.board) {
            let mut lanes = self.lanes.iter_mut();
            let found = lanes.find(|(_, owned)| owned.worker == worker && owned.slot == slot);
            let Some((lane, owned)) = found else { continue };
            // It was resumed in between, and nobody looked.
            if owned.paused && next.is_none() {
                continue;
            }
            owned.paused = next.is_none();
            match next {
                // The client's own idea of its position is not trusted: here it is wrong.
                None => owned.next += env.rng.between(1, 50) as i64,
                Some(next) => {
                    owned.next = next;
                    let parcel = Parcel { slot, lane: lane.clone(), records: Vec::new() };
                    self.workers[worker].inbox.push_back(parcel);
                }
            }
            env.mark(if next.is_none() { Mark::Pause } else { Mark::Resume });
        }
    }

    fn revoke(&mut self, env: &mut Env, lanes: Vec<TopicPartition>, leave: bool) {
        env.log(format_args!("revoke {:?} {lanes:?}", self.who));
        for index in 0..self.workers.len() {
            let mine = lanes.iter().filter_map(|lane| self.lanes.get(lane));
            let slots: Vec<_> =
                mine.filter(|owned| owned.worker == index).map(|owned| owned.slot).collect();
            self.workers[index].core.drain(&slots);
        }
        let until = env.now + env.plan.drain_ms;
        self.revoking = Some(Revoking { lanes, until, finals: 0, leave });
    }

    /// Waits until the lanes are drained, commits what they have come to, and lets them go.
    fn give_up(&mut self, env: &mut Env) {
        let Some(revoking) = &self.revoking else { return };
        let drained = |lane: &TopicPartition| {
            self.lanes.get(lane).is_none_or(|o| self.workers[o.worker].core.is_drained(o.slot))
        };
        if !revoking.lanes.iter().all(drained) && env.now < revoking.until {
            return;
        }
        // Under the lock of the commit in flight.
        if self.flight.is_some() {
            return;
        }
        let finals = revoking.finals;
        let settled = revoking.lanes.iter().all(|lane| self.is_committed(lane));
        if finals == 0 || (!settled && finals < 3 && env.now < revoking.until) {
            self.revoking.as_mut().unwrap().finals += 1;
            self.commit(env);
            if self.flight.is_some() || self.lost {
                return;
            }
        }
        let revoking = self.revoking.take().unwrap();
        for lane in &revoking.lanes {
            self.let_go(env, lane);
        }
        let member = self.member.unwrap();
        if revoking.leave {
            env.mark(Mark::Shutdown);
            env.group.leave(member, env.now, env.plan.rebalance_ms);
            self.up = false;
        } else {
            env.group.rebalance(env.now, env.plan.rebalance_ms);
        }
    }

    /// Whether all that a lane took in is resolved and committed.
    fn is_committed(&self, lane: &TopicPartition) -> bool {
        let Some(owned) = self.lanes.get(lane) else { return true };
        let core = &self.workers[owned.worker].core;
        let Some(progress) = core.progress_of(owned.slot) else { return owned.start.is_none() };
        let committed = self.book.committed(lane).or(owned.start);
        // What a halt holds is read again by the next owner, and all that lies behind it.
        let mut lanes = core.lanes().filter(|(slot, _)| *slot == owned.slot);
        let resolved = lanes.all(|(_, lane)| lane.tracker.unresolved() == 0);
        resolved && committed == Some(progress.offset)
    }

    fn let_go(&mut self, env: &mut Env, lane: &TopicPartition) {
        let clean = self.is_committed(lane);
        env.mark(if clean { Mark::DrainClean } else { Mark::DrainLate });
        env.log(format_args!("released {:?} {lane} clean {clean}", self.who));
        if !clean {
            env.checkers.unclean(lane, "undrained");
        }
        self.forget(lane);
    }

    fn forget(&mut self, lane: &TopicPartition) {
        use crate::delivery::defect::Defect;
        let Some(owned) = self.lanes.remove(lane) else { return };
        let core = &mut self.workers[owned.worker].core;
        // The mistake is made on both sides of the wall: in the core and in the commit path.
        if core.defect != Some(Defect::CommitAfterRevoke) {
            self.ownership.release(lane, owned.epoch);
        }
        core.drop_lane(owned.slot);
        self.book.forget(lane, owned.epoch);
    }

    /// Lanes that were lost: nothing can be committed.
    fn abandon(&mut self, env: &mut Env) {
        if self.flight.is_some() {
            return;
        }
        env.log(format_args!("abandon {:?}", self.who));
        let lanes: Vec<_> = self.lanes.keys().cloned().collect();
        for lane in &lanes {
            self.forget(lane);
        }
        self.lost = false;
    }
}
