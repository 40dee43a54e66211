//! One history from its seed to its end.

use super::{
    coverage::{Coverage, Mark},
    env::{Env, Event, Who},
    replica::Replica,
    wire,
};
use crate::{delivery::defect::Defect, record::TopicPartition};

/// Virtual time after which a world without faults that has not settled is stuck.
const STUCK_MS: u64 = 900_000;
/// Virtual time for what is still under way once everything is committed.
const AFTER_MS: u64 = 30_000;

/// What a history came to.
#[derive(Debug)]
pub(crate) struct Report {
    /// Its seed.
    pub(crate) seed: u64,
    /// The hash over all events, and their number.
    pub(crate) fingerprint: (u64, u64),
    /// What was reached.
    pub(crate) coverage: Coverage,
    /// What the checkers found.
    pub(crate) violations: Vec<String>,
    /// The events, if they were kept.
    pub(crate) trace: Vec<String>,
    /// How long it took to settle after the faults, in virtual milliseconds.
    pub(crate) settled_ms: u64,
}

/// Runs one history.
pub(crate) fn run(seed: u64, defect: Option<Defect>, keep: bool) -> Report {
    let env = Env::new(seed, defect, keep);
    let replicas = (0..env.plan.replicas).map(Replica::new).collect();
    let mut world = World { env, replicas, settled: None };
    world.set_up();
    while let Some(event) = world.env.next() {
        world.happen(event);
        if world.is_over() {
            break;
        }
    }
    world.report(seed)
}

#[derive(Debug)]
struct World {
    env: Env,
    replicas: Vec<Replica>,
    settled: Option<u64>,
}

impl World {
    fn set_up(&mut self) {
        let env = &mut self.env;
        for (topic, partitions) in ["a", "b", "c"].into_iter().zip(env.plan.partitions) {
            for partition in 0..partitions {
                env.lanes.insert(TopicPartition::new(topic, partition));
            }
        }
        for lane in env.lanes.clone() {
            for _ in 0..env.plan.records / 3 {
                env.produce(&lane);
            }
            for _ in 0..env.plan.records * 2 / 3 {
                let at = env.rng.between(0, env.plan.heal_ms * 8 / 10);
                env.after(at, Event::Produce(lane.clone()));
            }
        }
        for replica in 0..self.replicas.len() {
            let at = env.rng.between(0, 4_000);
            env.after(at, Event::Start(replica));
        }
        self.plan_faults();
    }

    fn plan_faults(&mut self) {
        let env = &mut self.env;
        let heal = env.plan.heal_ms;
        let mut some = |least: u64, most: u64, make: fn(&mut super::rng::Rng) -> Event| {
            for _ in 0..env.rng.between(least, most) {
                let at = env.rng.between(8_000, heal - 5_000);
                let event = make(&mut env.rng);
                env.after(at, event);
            }
        };
        some(1, 4, |_| Event::Kill);
        some(0, 3, |rng| Event::Stop(rng.between(3_000, 25_000)));
        some(0, 2, |_| Event::Shutdown);
        some(0, 5, |_| Event::Storm);
        some(0, 3, |rng| Event::Away(rng.between(1_000, 15_000)));
        some(0, 2, |_| Event::Partition);
        env.after(heal, Event::Heal);
    }

    fn happen(&mut self, event: Event) {
        let Some(event) = self.deliver(event) else { return };
        let env = &mut self.env;
        match event {
            Event::WriteArrives(wire) => wire::write_arrives(env, wire),
            Event::LetterArrives(who, worker, id, lane, offset, answer) => {
                wire::letter_arrives(env, (who, worker, id), &lane, offset, answer);
            }
            Event::CommitArrives(who, commit) => env.commit_arrives(who, commit),
            Event::Produce(lane) => env.produce(&lane),
            Event::Start(replica) => {
                if !self.replicas[replica].up {
                    self.replicas[replica].start(env);
                }
            }
            Event::Kill | Event::Stop(_) | Event::Shutdown => self.trouble(event),
            Event::Storm => {
                env.mark(Mark::Storm);
                let shuffled: Vec<_> =
                    env.lanes.clone().into_iter().filter(|_| env.rng.chance(500)).collect();
                env.group.shuffle.extend(shuffled);
                env.group.rebalance(env.now, env.plan.rebalance_ms);
            }
            Event::Away(ms) => {
                env.mark(Mark::CoordinatorAway);
                env.group.away_until = env.now + ms;
            }
            Event::Partition => {
                env.mark(Mark::NewPartition);
                let new = env.lanes.iter().filter(|lane| &*lane.topic == "c").count() as i32;
                let lane = TopicPartition::new("c", new);
                env.lanes.insert(lane.clone());
                for _ in 0..env.plan.records / 3 {
                    env.produce(&lane);
                }
                env.group.rebalance(env.now, env.plan.rebalance_ms);
            }
            Event::Heal => self.heal(),
            _ => unreachable!("delivered to a process"),
        }
        self.advance();
    }

    /// Hands an event that is for a process to it, if it is that life still; later, if it is stopped.
    fn deliver(&mut self, event: Event) -> Option<Event> {
        let who = match &event {
            Event::Turn(who)
            | Event::WriteAnswered(who, ..)
            | Event::LetterAnswered(who, ..)
            | Event::Look(who, ..)
            | Event::Change(who, ..)
            | Event::Forbid(who, ..)
            | Event::CommitAnswered(who, ..) => *who,
            _ => return Some(event),
        };
        let Who { replica, life } = who;
        let env = &mut self.env;
        let replica = &mut self.replicas[replica];
        if !replica.up || replica.who.life != life {
            return None;
        }
        if replica.stopped_until > env.now {
            env.after(replica.stopped_until - env.now, event);
            return None;
        }
        match event {
            Event::Turn(_) => replica.turn(env),
            Event::WriteAnswered(_, worker, id, serial, answer) => {
                replica.workers[worker].written(env, id, serial, answer);
            }
            Event::LetterAnswered(_, worker, id, answer) => {
                replica.workers[worker].lettered(env, id, answer);
            }
            Event::Look(_, worker, need) => replica.workers[worker].look(env, need),
            Event::Change(_, worker, need, etag, fields) => {
                replica.workers[worker].change(env, need, &etag, fields);
            }
            Event::Forbid(_, worker, need) => replica.workers[worker].forbid(env, need),
            Event::CommitAnswered(_, flight, answer) => replica.committed(env, flight, answer),
            _ => unreachable!("not for a process"),
        }
        self.advance();
        None
    }

    fn trouble(&mut self, event: Event) {
        let env = &mut self.env;
        let up: Vec<usize> =
            (0..self.replicas.len()).filter(|index| self.replicas[*index].up).collect();
        let Some(index) = up.get(env.rng.index(up.len())).copied() else {
            return env.after(1_000, event);
        };
        let replica = &mut self.replicas[index];
        let again = env.rng.between(500, 15_000);
        match event {
            Event::Kill => {
                replica.kill(env);
                env.after(again, Event::Start(index));
            }
            Event::Stop(ms) => {
                env.mark(Mark::Pausing);
                env.log(format_args!("stop {:?} for {ms}", replica.who));
                replica.stopped_until = env.now + ms;
            }
            _ => {
                replica.shut_down(env);
                env.after(env.plan.drain_ms + 10_000 + again, Event::Start(index));
            }
        }
    }

    fn heal(&mut self) {
        let env = &mut self.env;
        env.log(format_args!("heal"));
        env.healed = true;
        env.group.away_until = env.group.away_until.min(env.now);
        for replica in &mut self.replicas {
            replica.stopped_until = replica.stopped_until.min(env.now);
        }
    }

    /// The coordinator's own time.
    fn advance(&mut self) {
        let env = &mut self.env;
        let plan = &env.plan;
        let advanced = env.group.advance(env.now, plan.session_ms, plan.rebalance_ms, &env.lanes);
        for (member, lanes) in advanced.evicted {
            env.log(format_args!("evicted {member:?} {lanes:?}"));
            for lane in lanes {
                env.checkers.unclean(&lane, "evicted");
            }
            let zombie = self.replicas.iter().any(|r| r.up && r.member == Some(member));
            if zombie {
                env.mark(Mark::Zombie);
            }
        }
        if advanced.rebalanced {
            env.mark(Mark::Rebalance);
        }
    }

    fn is_over(&mut self) -> bool {
        let env = &mut self.env;
        if !env.healed {
            return false;
        }
        if let Some(settled) = self.settled {
            return env.now > settled + AFTER_MS;
        }
        // A late commit may have put the offset back behind its owner's back; that owner is done.
        let behind =
            |lane: &&TopicPartition| env.checkers.committed_max(lane) < env.checkers.end(lane);
        let behind: Vec<_> = env.checkers.lanes().filter(behind).cloned().collect();
        if behind.is_empty() {
            self.settled = Some(env.now);
            env.log(format_args!("settled"));
        } else if env.now > env.plan.heal_ms + STUCK_MS {
            env.violation(format!("stuck: {behind:?}"));
            for replica in &self.replicas {
                replica.describe(env);
            }
            return true;
        }
        false
    }

    fn report(mut self, seed: u64) -> Report {
        let env = &mut self.env;
        let dedupe_ms = env.plan.dedupe_ms;
        env.checkers.finish(dedupe_ms, &mut env.history, env.now);
        Report {
            seed,
            fingerprint: env.history.fingerprint(),
            coverage: env.history.coverage.clone(),
            violations: std::mem::take(&mut env.history.violations),
            trace: env.history.trace().to_vec(),
            settled_ms: self.settled.unwrap_or(env.now).saturating_sub(env.plan.heal_ms),
        }
    }
}
