//! One history from its seed to its end.

use tokio::{sync::mpsc, time::sleep_until};

use super::{
    coverage::{Coverage, Mark},
    env::{Env, Event, Wanted, Who},
    letters,
    line::{CALLS_MAX, Call},
    plan::Plan,
    process::Finished,
    records::RARE_COLUMN,
    replica::Replica,
    rng::Rng,
    wire,
};
use crate::{delivery::defect::Defect, record::TopicPartition};

/// Virtual time for what is still under way once everything is committed.
const AFTER_MS: u64 = 30_000;
/// How long a history goes on to reach what every history must.
const INSIST_MS: u64 = 15_000;

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
    /// The load jobs, by when they were created, with the reason of those that failed.
    pub(crate) jobs: Vec<(u64, Option<String>)>,
}

/// Runs one history, in the paused time of a runtime of its own.
pub(crate) fn run(seed: u64, defect: Option<Defect>, keep: bool) -> Report {
    run_plan(seed, Plan::draw, defect, keep)
}

/// Runs one history by a plan of its own.
pub(crate) fn run_plan(
    seed: u64,
    plan: fn(&mut Rng) -> Plan,
    defect: Option<Defect>,
    keep: bool,
) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(live(seed, plan, defect, keep))
}

async fn live(seed: u64, plan: fn(&mut Rng) -> Plan, defect: Option<Defect>, keep: bool) -> Report {
    let (sender, mut calls) = mpsc::channel(CALLS_MAX);
    let mut env = Env::new(seed, plan, defect, keep, sender);
    let replicas = (0..env.plan.replicas)
        .map(|replica| Replica::new(&mut env, Who { replica, life: 0 }))
        .collect();
    let mut world = World { env, replicas, advanced: None };
    world.set_up();
    while !world.is_over() {
        let due = world.env.due();
        tokio::select! {
            biased;
            Some(call) = calls.recv() => {
                world.env.catch_up();
                world.called(call);
            }
            // A task that was ended with its process has nothing to say.
            Some(done) = world.env.tasks.join_next() => if let Ok(finished) = done {
                world.env.catch_up();
                world.happen(Event::Finished(finished));
            },
            () = sleep_until(due) => {
                let Some(event) = world.env.next() else { break };
                world.happen(event);
            }
        }
    }
    world.report(seed)
}

#[derive(Debug)]
struct World {
    env: Env,
    replicas: Vec<Replica>,
    /// Until when the coordinator has done its part.
    advanced: Option<u64>,
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
        if env.plan.calm {
            for (part, event) in
                [Event::Shutdown, Event::Kill, Event::Storm].into_iter().enumerate()
            {
                env.after(heal * (part as u64 + 1) / 5, event);
            }
            return env.after(heal, Event::Heal);
        }
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
        some(0, 3, |rng| Event::Broker(rng.between(0, 3), rng.between(1_000, 20_000)));
        some(0, 2, |_| Event::Partition);
        env.after(heal, Event::Heal);
    }

    fn happen(&mut self, event: Event) {
        let Some(event) = self.deliver(event) else { return };
        let env = &mut self.env;
        match event {
            Event::Calls(call) => self.called(call),
            Event::CallArrives(call, fate, sent) => wire::arrives(env, call, fate, sent),
            Event::LetterArrives(sender, letter, answer) => {
                letters::arrives(env, sender, &letter, answer);
            }
            Event::CommitArrives(who, commit) => env.commit_arrives(who, commit),
            Event::Produce(lane) => env.produce(&lane),
            Event::Start(replica) => {
                if !self.replicas[replica].up {
                    self.replicas[replica].start(env);
                }
            }
            Event::Restart(who) => self.restart(who),
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
            Event::Broker(broker, ms) => {
                env.mark(Mark::BrokerDown);
                env.brokers[broker as usize] = env.now + ms;
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
            | Event::Replied(who, ..)
            | Event::Finished(Finished { who, .. })
            | Event::LetterAnswered((who, ..), ..)
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
            // What waits in the sockets may be read before or after the loops have turned.
            let late = match &event {
                Event::Replied(..) => env.rng.between(0, 600),
                _ => 0,
            };
            env.after(replica.stopped_until - env.now + late, event);
            return None;
        }
        match event {
            Event::Turn(_) => replica.turn(env),
            Event::Replied(_, reply) => {
                for (lane, offset) in reply.deliver() {
                    env.checkers.ambiguous(&lane, offset);
                }
            }
            Event::Finished(Finished { worker, done, .. }) => {
                replica.workers[worker].finished(env, done);
            }
            Event::LetterAnswered((_, worker, id), answer) => {
                replica.workers[worker].lettered(env, id, answer);
            }
            Event::CommitAnswered(_, flight, answer) => replica.committed(env, flight, answer),
            _ => unreachable!("not for a process"),
        }
        self.advance();
        None
    }

    /// A process makes a call; one that is stopped makes it when it goes on.
    fn called(&mut self, call: Call) {
        let Who { replica: index, life } = call.who;
        let replica = &self.replicas[index];
        if !replica.up || replica.who.life != life {
            return;
        }
        let env = &mut self.env;
        match replica.stopped_until.checked_sub(env.now).filter(|left| *left > 0) {
            Some(left) => env.after(left, Event::Calls(call)),
            None => {
                let writes = call.is_write();
                wire::send(env, call);
                if writes && std::mem::take(&mut env.stop_next_writer) {
                    self.stop(index, self.env.plan.session_ms + 3_000);
                }
            }
        }
    }

    fn trouble(&mut self, event: Event) {
        let env = &mut self.env;
        let up = |index: &usize| self.replicas[*index].up;
        let mut up: Vec<usize> = (0..self.replicas.len()).filter(up).collect();
        if matches!(event, Event::Stop(_))
            && up.iter().any(|index| self.replicas[*index].is_writing())
        {
            up.retain(|index| self.replicas[*index].is_writing());
        }
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
            Event::Stop(ms) => self.stop(index, ms),
            _ => {
                replica.shut_down(env);
                env.after(env.plan.drain_ms + 10_000 + again, Event::Start(index));
            }
        }
    }

    fn stop(&mut self, index: usize, ms: u64) {
        let (env, replica) = (&mut self.env, &mut self.replicas[index]);
        env.mark(Mark::Pausing);
        env.log(format_args!("stop {:?} for {ms}", replica.who));
        replica.stopped_until = env.now + ms;
    }

    /// Faults end, once the history has reached what every history must.
    fn heal(&mut self) {
        let missing = match self.env.plan.calm {
            true => Vec::new(),
            false => self.env.history.coverage.missing(&Mark::EACH),
        };
        for mark in &missing {
            self.insist(*mark);
        }
        let env = &mut self.env;
        if !missing.is_empty() && env.now < env.plan.heal_ms + 12 * INSIST_MS {
            return env.after(INSIST_MS, Event::Heal);
        }
        env.log(format_args!("heal"));
        env.healed = Some(env.now);
        env.group.away_until = env.group.away_until.min(env.now);
        env.brokers = [0; 3];
        env.bigquery.heal();
        for replica in &mut self.replicas {
            replica.stopped_until = replica.stopped_until.min(env.now);
        }
        // There is a dead-letter topic for all from now on; who runs learns of it by a restart.
        if std::mem::take(&mut env.plan.letterless) {
            for replica in &self.replicas {
                env.after(1_000, Event::Restart(replica.who));
            }
        }
    }

    fn restart(&mut self, who: Who) {
        let (env, replica) = (&mut self.env, &mut self.replicas[who.replica]);
        if replica.who != who {
            return;
        }
        if replica.up {
            replica.shut_down(env);
        } else {
            replica.start(env);
        }
        env.after(1_000, Event::Restart(who));
    }

    /// Makes likely what has not happened yet.
    fn insist(&mut self, mark: Mark) {
        let env = &mut self.env;
        env.log(format_args!("insist {mark:?}"));
        let lane = TopicPartition::new("a", 0);
        match mark {
            Mark::Kill => env.after(1_000, Event::Kill),
            Mark::CoordinatorAway => env.after(1_000, Event::Away(3_000)),
            Mark::SchemaChange => {
                env.produce_one(&lane, Wanted::Column(RARE_COLUMN));
            }
            Mark::DeadLetter => env.produce_one(&lane, Wanted::Bad),
            Mark::AmbiguousAnswer => {
                env.ambiguous_next = true;
                env.produce(&lane);
            }
            Mark::Lost | Mark::ZombieAnswer => {
                for lane in env.lanes.clone() {
                    env.produce(&lane);
                }
                env.stop_next_writer = true;
            }
            _ => env.after(1_000, Event::Storm),
        }
    }

    /// The coordinator's own time.
    fn advance(&mut self) {
        let env = &mut self.env;
        if self.advanced.replace(env.now) == Some(env.now) {
            return;
        }
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
        let Some(healed) = env.healed else { return false };
        if let Some(settled) = env.settled {
            return env.now > settled + AFTER_MS;
        }
        // A late commit may have put the offset back behind its owner's back; that owner is done.
        let behind =
            |lane: &&TopicPartition| env.checkers.committed_max(lane) < env.checkers.end(lane);
        if !env.checkers.lanes().any(|lane| behind(&lane)) {
            env.settled = Some(env.now);
            env.log(format_args!("settled"));
        } else if env.now > healed + env.plan.settled_ms {
            let behind: Vec<_> = env.checkers.lanes().filter(behind).cloned().collect();
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
            settled_ms: env.settled.unwrap_or(env.now) - env.healed.unwrap_or(env.now),
            jobs: env.bigquery.jobs(),
        }
    }
}
