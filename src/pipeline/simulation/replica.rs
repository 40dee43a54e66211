//! One process: its place in the group, its poll loop, its workers, its commits.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    commits::Flight,
    coverage::Mark,
    env::{Env, Event, Who},
    group::{Beat, MemberId},
    process::Process,
    recovery,
    revoking::Revoking,
    worker::{Flow, Parcel, Worker},
};
use crate::{
    batch::LaneSlot,
    pipeline::{commit::LaneFacts, deal::deal},
    record::TopicPartition,
    source::{AssignedLane, OwnedLane},
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

impl Owned {
    /// The lane under its assignment.
    pub(crate) fn of(&self, lane: &TopicPartition) -> OwnedLane {
        OwnedLane { lane: lane.clone(), epoch: self.epoch }
    }
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
    pub(crate) process: Process,
    pub(crate) flight: Option<Flight>,
    pub(crate) flights: u64,
    pub(crate) commit_due: u64,
    pub(crate) revoking: Option<Revoking>,
    pub(crate) lost: bool,
    /// Pauses and resumes that the poll thread has not taken yet; the last word for a lane wins.
    board: BTreeMap<(usize, LaneSlot), Option<i64>>,
    /// Lanes that are to be given up and taken over again.
    restarts: Vec<(usize, LaneSlot)>,
    /// Lanes that were lost while they were given up.
    pub(crate) gone: Vec<OwnedLane>,
    /// What is known to have landed, by assignment.
    pub(crate) landed: BTreeMap<(TopicPartition, u64), i64>,
    slots: u32,
    epochs: u64,
}

impl Replica {
    /// A process that does not run yet.
    pub(crate) fn new(env: &mut Env, who: Who) -> Self {
        Self {
            process: Process::new(env, who),
            who,
            up: false,
            stopped_until: 0,
            member: None,
            generation: -1,
            workers: Vec::new(),
            lanes: BTreeMap::new(),
            flight: None,
            flights: 0,
            commit_due: 0,
            revoking: None,
            lost: false,
            board: BTreeMap::new(),
            restarts: Vec::new(),
            gone: Vec::new(),
            landed: BTreeMap::new(),
            slots: 0,
            epochs: 0,
        }
    }

    /// Logs where everything stands, to see why a world is stuck.
    pub(crate) fn describe(&self, env: &mut Env) {
        env.log(format_args!(
            "{:?} up {} member {:?} lost {} revoking {:?} flight {:?}",
            self.who, self.up, self.member, self.lost, self.revoking, self.flight
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
        *self = Self { up: true, ..Self::new(env, who) };
        let process = &self.process;
        self.workers = (0..2).map(|index| Worker::new(env, who, index, process.clone())).collect();
        env.log(format_args!("start {who:?}"));
        env.after(1, Event::Turn(who));
    }

    /// Ends it where it stands.
    pub(crate) fn kill(&mut self, env: &mut Env) {
        env.mark(Mark::Kill);
        if self.is_writing() && !self.lanes.is_empty() {
            env.mark(Mark::KillWithUnacknowledged);
        }
        env.log(format_args!("kill {:?}", self.who));
        if let Some(member) = self.member {
            for lane in env.group.held_by(member) {
                env.checkers.unclean(&lane, "kill");
            }
        }
        self.end(env);
    }

    /// Whether requests are under way.
    pub(crate) fn is_writing(&self) -> bool {
        self.up && self.workers.iter().any(Worker::is_writing)
    }

    /// The process is no more, and its tasks neither.
    pub(crate) fn end(&mut self, env: &mut Env) {
        env.abort(self.who);
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
            if env.healed.is_some() || env.rng.chance(700) {
                self.restart(env);
                self.carry_out(env);
            }
            self.fetch(env);
        }
        if !self.up {
            return;
        }
        for index in 0..self.workers.len() {
            for flow in self.workers[index].turn(env, self.member) {
                match flow {
                    Flow::Pause(slot) => drop(self.board.insert((index, slot), None)),
                    Flow::Resume(slot, next) => drop(self.board.insert((index, slot), Some(next))),
                    Flow::Restart(slot) => self.restarts.push((index, slot)),
                }
            }
        }
        if env.now >= self.commit_due && self.flight.is_none() && !self.lost {
            self.commit_due = env.now + 500;
            self.commit(env);
        }
        let pause = match (env.settled, env.healed) {
            (Some(_), _) => env.rng.between(1_000, 3_000),
            (None, Some(_)) => env.rng.between(250, 750),
            (None, None) => env.rng.between(120, 360),
        };
        env.after(pause * env.plan.slowness, Event::Turn(self.who));
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
        self.gone = self.revoking.take().map(|revoking| revoking.lanes).unwrap_or_default();
    }

    fn assignment(&mut self, env: &mut Env, member: MemberId) {
        let assigned = env.group.assignment(member);
        let mine: BTreeSet<_> = self.lanes.keys().cloned().collect();
        env.log(format_args!("assignment {:?} gen {} {assigned:?}", self.who, self.generation));
        for lane in assigned.difference(&mine) {
            self.assign(env, lane);
        }
        let new =
            assigned.difference(&mine).filter_map(|lane| Some(self.lanes.get(lane)?.of(lane)));
        self.process.ownership.claim(&new.collect::<Vec<_>>());
        let gone: Vec<_> = mine.difference(&assigned).cloned().collect();
        if !gone.is_empty() {
            self.revoke(env, gone, false);
        }
    }

    fn assign(&mut self, env: &mut Env, lane: &TopicPartition) {
        self.slots += 1;
        self.epochs += 1;
        let held = self.lanes.values().map(|owned| owned.worker);
        let owned = Owned {
            worker: deal(lane, held, self.workers.len()),
            slot: LaneSlot(self.slots),
            epoch: self.epochs,
            start: None,
            recovered_ms: env.now + env.rng.between(10, 800),
            next: 0,
            paused: false,
        };
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
            let start = recovery::start(env, lane);
            let offset = start.offset;
            env.log(format_args!("assigned {:?} {lane} from {offset}", self.who));
            let holds = env.group.holder.get(lane).copied() == self.member;
            if holds {
                env.checkers.assigned(lane, offset, &mut env.history, env.now);
            }
            (owned.start, owned.next) = (Some(offset), offset);
            let facts =
                LaneFacts { topic_partitions: start.topic_partitions, ..LaneFacts::default() };
            let assigned = AssignedLane {
                lane: OwnedLane { lane: lane.clone(), epoch: owned.epoch },
                start: offset,
                genesis: start.genesis,
                metadata: recovery::committed(env, lane),
                topic_id: None,
                topic_partitions: start.topic_partitions,
                low: 0,
                high: env.checkers.end(lane),
            };
            self.process.commits.assigned(&assigned, owned.slot, facts);
            self.workers[owned.worker].assign(owned.slot, &assigned);
        }
    }

    fn fetch(&mut self, env: &mut Env) {
        // The poll under way when a hold begins may bring more than there is room for.
        let holds = self.workers.iter().any(Worker::is_holding);
        if holds && (env.healed.is_some() || env.rng.chance(600)) {
            return;
        }
        for (lane, owned) in &mut self.lanes {
            if owned.start.is_none() || owned.paused || env.is_broker_down(lane) {
                continue;
            }
            let most = env.rng.between(1, 9) as usize;
            let Some(log) = env.checkers.log(lane) else { continue };
            let records = log.range(owned.next..).take(most);
            let records: Vec<_> =
                records.map(|(offset, record)| (*offset, record.clone())).collect();
            let Some((last, _)) = records.last() else { continue };
            owned.next = last + 1;
            let parcel = Parcel { slot: owned.slot, lane: lane.clone(), records };
            self.workers[owned.worker].inbox.push_back(parcel);
        }
    }

    /// Gives lanes up and takes them over again under a new epoch, from the committed offset. Waits for a
    /// commit in flight, as the poll thread does at the ownership lock.
    fn restart(&mut self, env: &mut Env) {
        if self.flight.is_some() {
            return;
        }
        for (worker, slot) in std::mem::take(&mut self.restarts) {
            let mut lanes = self.lanes.iter();
            let found = lanes.find(|(_, owned)| owned.worker == worker && owned.slot == slot);
            let Some((lane, owned)) = found.map(|(lane, owned)| (lane.clone(), owned.of(lane)))
            else {
                continue;
            };
            env.log(format_args!("restart {:?} {lane}", self.who));
            self.process.ownership.release(std::slice::from_ref(&owned));
            self.lanes.remove(&lane);
            self.workers[worker].drop_lane(slot);
            self.process.commits.give_up(std::slice::from_ref(&owned));
            self.landed.remove(&(lane.clone(), owned.epoch));
            if self.member.is_some() && env.group.holder.get(&lane).copied() == self.member {
                env.checkers.unclean(&lane, "restarted");
            }
            self.assign(env, &lane);
            let again = self.lanes.get(&lane).map(|owned| owned.of(&lane));
            self.process.ownership.claim(&again.into_iter().collect::<Vec<_>>());
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
}
