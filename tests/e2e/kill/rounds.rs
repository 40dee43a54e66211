//! The rounds: a random kill arms its replacement with a failpoint, the failpoint's death ends the
//! next round, and so on; in the middle the broker dies.

mod disturbed;
mod storm;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    os::unix::process::ExitStatusExt,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use super::{
    Options, Path, Stage,
    crew::Crew,
    feed::Feed,
    left::{self, Left, Logs},
};
use crate::rig::{broker::Broker, clients::Lane, random::Random, sink::Sink};

/// How often at most the ledger is read again until it stands still.
const SETTLE_LOOKS: usize = 5;

/// How long the group may take to begin to meet again after the broker's restart.
const MEETING: Duration = Duration::from_secs(10);

/// The boundaries, and how often at most each is passed before the process kills itself there.
const STREAMING: [(&str, u64); 2] = [("write_before_send", 20), ("write_after_answer", 20)];
/// The same where rows are committed.
const PENDING: [(&str, u64); 5] = [
    ("append_before_send", 20),
    ("streams_after_commit", 6),
    ("append_after_answer", 20),
    ("streams_before_commit", 6),
    ("load_after_done", 6),
];
/// Those behind either.
const SHARED: [(&str, u64); 8] = [
    ("commit_before", 4),
    ("commit_after", 4),
    ("letter_before_send", 3),
    ("letter_after_ack", 3),
    ("alter_before", 1),
    ("alter_after", 1),
    ("revoke_drained", 1),
    ("assigned", 2),
];
/// The same where rows are loaded.
const LOAD: [(&str, u64); 11] = [
    ("stage_before_put", 20),
    ("stage_after_put", 20),
    ("load_before_insert", 6),
    ("load_after_insert", 6),
    ("load_after_done", 6),
    ("commit_before", 4),
    ("commit_after", 4),
    ("letter_before_send", 3),
    ("letter_after_ack", 3),
    ("revoke_drained", 1),
    ("assigned", 2),
];

/// The same where the path is switched: to load jobs for a boundary of theirs, by a quota on streaming
/// inserts that lasts as long as the round.
const AUTO: [(&str, u64); 12] = [
    ("write_before_send", 20),
    ("stage_after_put", 6),
    ("write_after_answer", 20),
    ("load_after_insert", 3),
    ("commit_before", 4),
    ("load_after_done", 3),
    ("commit_after", 4),
    ("letter_before_send", 3),
    ("load_before_insert", 3),
    ("letter_after_ack", 3),
    ("revoke_drained", 1),
    ("assigned", 2),
];

/// One death, whether or not it counts.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// What died and where.
    pub(crate) cause: String,
    /// Whether the victim owned partitions and had unacknowledged records.
    pub(crate) counts: bool,
    /// Lanes that the victim owned, as it said itself.
    pub(crate) owned: u64,
    /// Records in flight, as it said itself.
    pub(crate) in_flight: u64,
    /// Per lane of the victim: the offset committed and the highest one stored, when it was dead.
    pub(crate) exposed: BTreeMap<Lane, BTreeSet<i64>>,
    /// Distinct rows that were stored and not committed then.
    pub(crate) uncommitted: u64,
    /// Rows stored again because of it (counted at the end).
    pub(crate) duplicates: u64,
    /// How often each of them may have been stored again.
    pub(crate) repeats: u32,
    /// When, in seconds of the run.
    pub(crate) at_seconds: f64,
}

/// Plays until enough rounds count.
pub(crate) fn play(
    stage: &Stage,
    broker: &mut Broker,
    crew: &mut Crew,
    feed: &Feed,
    options: &Options,
) -> Result<Vec<Round>> {
    let mut game = Game {
        stage,
        feed,
        random: Random::new(options.seed),
        rounds: Vec::new(),
        began: Instant::now(),
        boundaries: match options.path {
            Path::Streaming | Path::Storage => [&STREAMING[..], &SHARED].concat(),
            Path::Load => LOAD.to_vec(),
            Path::Pending => [&PENDING[..], &SHARED].concat(),
            // What is staged nowhere has no boundary there.
            Path::Upload => LOAD.split_at(2).1.to_vec(),
            Path::Auto => AUTO.to_vec(),
        },
        path: options.path,
        boundary: 0,
        retries: 0,
        guest: None,
        committed: BTreeMap::new(),
        logs: Logs::default(),
    };
    let mut broker_is_due = true;
    let wanted = options.rounds + options.zombies + options.faults;
    while game.counted() < wanted {
        ensure!(game.rounds.len() < 4 * wanted as usize + 8, "too few rounds count");
        ensure!(feed.left() > 0, "the records did not last through all rounds: give more");
        game.pace(wanted);
        crew.wait_settled(stage)?;
        game.committed = stage.observer.committed(&stage.lanes)?;
        if broker_is_due && game.counted() >= wanted / 2 {
            broker_is_due = false;
            game.restart_broker(broker, crew)?;
            continue;
        }
        let at_boundary = game.rounds.iter().filter(|round| round.is_boundary() && round.counts);
        let (zombies, disturbances) = (game.having("zombie"), game.having("disturbed"));
        let deaths = game.counted() - zombies - disturbances;
        let next = if zombies < options.zombies && zombies <= deaths {
            game.zombie(crew)?
        } else if disturbances < options.faults {
            game.disturb(crew, disturbances as usize)?
        } else if deaths >= options.rounds {
            game.zombie(crew)?
        } else if at_boundary.count() as u32 * 2 <= deaths {
            game.boundary(crew)?
        } else {
            game.random_moment(crew)?
        };
        game.push(next);
        game.note_survivors(crew);
        crew.check_alive()?;
    }
    game.refuse_streaming(false)?;
    if !options.storm.is_zero() {
        game.storm(crew, options.storm)?;
    }
    crew.wait_settled(stage)?;
    Ok(game.rounds)
}

impl Round {
    fn is_boundary(&self) -> bool {
        self.cause.starts_with("at ")
    }

    fn line(&self) -> String {
        format!(
            "{:>7.1} s  {:<28} {:<7} {:>3} {:>9} {:>11} {:>10}",
            self.at_seconds,
            self.cause,
            if self.counts { "counts" } else { "-" },
            self.owned,
            self.in_flight,
            self.uncommitted,
            self.duplicates
        )
    }
}

/// The rounds as text.
pub(crate) fn table(rounds: &[Round]) -> String {
    let mut text = String::from(
        "   time    victim                       counts  own in flight stored+unc. duplicates\n",
    );
    for round in rounds {
        // Writing to a String cannot fail.
        _ = writeln!(text, "{}", round.line());
    }
    text
}

struct Game<'a> {
    stage: &'a Stage,
    feed: &'a Feed,
    random: Random,
    rounds: Vec<Round>,
    began: Instant,
    boundaries: Vec<(&'static str, u64)>,
    boundary: usize,
    retries: u32,
    path: Path,
    /// Comes and goes to move lanes.
    guest: Option<Sink>,
    /// What was committed when the round began.
    committed: BTreeMap<Lane, i64>,
    logs: Logs,
}

impl Game<'_> {
    fn counted(&self) -> u32 {
        self.rounds.iter().filter(|round| round.counts).count() as u32
    }

    /// Spreads the records that are left over the rounds that are left.
    fn pace(&self, wanted: u32) {
        let done = self.counted();
        let each = match done {
            0 => 20.0,
            // A first round that was quick says little about the next.
            _ => (self.began.elapsed().as_secs_f64() / f64::from(done)).max(12.0),
        };
        // The group takes its time to meet again after the broker's restart.
        let had_broker = self.rounds.iter().any(|round| round.cause.starts_with("broker"));
        let broker = if had_broker { 0.0 } else { 60.0 };
        let seconds = each * f64::from(wanted - done + 3) + broker;
        self.feed.set_rate((self.feed.left() as f64 / seconds) as u64);
    }

    fn having(&self, cause: &str) -> u32 {
        let rounds = self.rounds.iter().filter(|round| round.counts);
        rounds.filter(|round| round.cause.starts_with(cause)).count() as u32
    }

    /// Kills a replica at a moment that nobody chose, while something is in flight.
    fn random_moment(&mut self, crew: &mut Crew) -> Result<Round> {
        let (victim, held) = self.pick_busy(crew)?;
        crew.replicas[victim].sink.kill()?;
        let name = crew.replicas[victim].sink.name().to_owned();
        let round = self.bury(crew, victim, format!("random, {name}"), held)?;
        crew.add(self.stage, None)?;
        Ok(round)
    }

    /// A replica at a moment that nobody chose, if possible with something in flight; its lanes and its
    /// records in flight.
    fn pick_busy(&mut self, crew: &mut Crew) -> Result<(usize, (u64, u64))> {
        thread::sleep(Duration::from_millis(300 + self.random.below(2_500)));
        let victim = self.random.index(crew.replicas.len());
        let (mut owned, mut in_flight) = (0, 0);
        for _ in 0..100 {
            crew.look(self.stage);
            let lanes = &crew.replicas[victim].lanes;
            owned = lanes.len() as u64;
            in_flight = lanes.iter().map(|lane| lane.in_flight_records).sum();
            if owned > 0 && in_flight > 0 {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        crew.check_alive()?;
        Ok((victim, (owned, in_flight)))
    }

    /// Replaces a replica by one that dies at the next boundary, and waits for that.
    fn boundary(&mut self, crew: &mut Crew) -> Result<Round> {
        let (name, most) = self.boundaries[self.boundary % self.boundaries.len()];
        // With every retry the boundary is nearer.
        let nth = if name == "assigned" { most } else { 1 + self.random.below(most) };
        let nth = (nth >> self.retries.min(6)).max(1);
        let is_loading = name.starts_with("stage_") || name.starts_with("load_");
        self.refuse_streaming(false)?;
        let leaver = crew.retire(self.random.index(crew.replicas.len()))?;
        let left = self.logs.unfinished(&leaver.sink);
        self.note_unfinished(left);
        if self.path == Path::Auto && is_loading {
            self.refuse_streaming(true)?;
        }
        crew.add(self.stage, Some(format!("{name}:{nth}")))?;
        let died = self.wait_for_death(crew, name)?;
        let victim = crew.replicas.len() - 1;
        let (mut owned, mut in_flight) = (0, 0);
        let cause = match died {
            true => {
                let said = crew.replicas[victim].sink.failpoint_line();
                (owned, in_flight) = said.unwrap_or_default();
                format!("at {name}:{nth}")
            }
            false => {
                crew.replicas[victim].sink.kill()?;
                format!("not reached {name}:{nth}")
            }
        };
        let round = self.bury(crew, victim, cause, (owned, in_flight))?;
        self.see_off_guest()?;
        self.retries += 1;
        if round.counts || self.retries > 3 {
            (self.boundary, self.retries) = (self.boundary + 1, 0);
        }
        crew.add(self.stage, None)?;
        Ok(round)
    }

    fn refuse_streaming(&self, is_refused: bool) -> Result<()> {
        self.stage.simulator.refuse_streaming(&self.stage.http, is_refused)
    }

    /// Does what leads to the boundary until the last replica is dead.
    fn wait_for_death(&mut self, crew: &mut Crew, name: &str) -> Result<bool> {
        let end = Instant::now() + Duration::from_secs(60);
        let mut nudged = false;
        loop {
            let armed = crew.replicas.len() - 1;
            crew.look(self.stage);
            if let Some(status) = crew.replicas[armed].sink.exited()? {
                if status.signal() != Some(9) {
                    bail!("VIOLATION: ended with {status}\n{}", crew.replicas[armed].sink.tail());
                }
                return Ok(true);
            }
            if !nudged && crew.replicas[armed].lanes.iter().any(|lane| lane.state == "running") {
                nudged = true;
                self.nudge(name)?;
            }
            // What the death leaves behind is looked at before the guest has it: nobody waits for it here.
            if self.guest.as_ref().is_some_and(|guest| guest.is_owning(&self.stage.http)) {
                self.see_off_guest()?;
            }
            if Instant::now() > end {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn nudge(&mut self, name: &str) -> Result<()> {
        match name {
            "alter_before" | "alter_after" => {
                self.feed.evolve(self.stage)?;
            }
            "revoke_drained" | "assigned" => {
                self.invite_guest()?;
            }
            _ => {}
        }
        Ok(())
    }

    fn invite_guest(&mut self) -> Result<()> {
        self.guest = Some(self.stage.plan.start(&self.stage.place, "guest", None)?);
        Ok(())
    }

    /// The guest leaves once it owns something: that is one more rebalance.
    fn see_off_guest(&mut self) -> Result<()> {
        let Some(mut guest) = self.guest.take() else { return Ok(()) };
        // The armed replica may have died first, and the guest wait for the dead one's session.
        guest.wait_owning(&self.stage.http, Duration::from_secs(60))?;
        guest.stop(Duration::from_secs(60))?;
        // The next guest has a log of the same name.
        self.note_unfinished(Logs::default().unfinished(&guest));
        Ok(())
    }

    /// What those who live have given up in a rebalance, and not in time.
    fn note_survivors(&mut self, crew: &Crew) {
        for replica in &crew.replicas {
            let left = self.logs.unfinished(&replica.sink);
            self.note_unfinished(left);
        }
    }

    /// Somebody has given lanes up, and not in time: what it has stored and not committed is stored again.
    fn note_unfinished(&mut self, left: Vec<Left>) {
        if left.is_empty() {
            return;
        }
        let exposed = left::exposed(left, &self.committed);
        let round = self.round(exposed, "left unfinished".to_owned());
        self.push(round);
    }

    fn push(&mut self, round: Round) {
        println!("{}", round.line());
        self.rounds.push(round);
    }

    /// Kills the broker while everybody works, and starts it again.
    fn restart_broker(&mut self, broker: &mut Broker, crew: &mut Crew) -> Result<()> {
        let every: BTreeSet<Lane> = self.stage.lanes.iter().cloned().collect();
        let committed = self.committed(&every)?;
        let away = broker.restart()?;
        let cause = format!("broker, away {:.1} s", away.as_secs_f64());
        // Nobody can commit until the group has met again, and everybody goes on writing what was
        // fetched: whatever was not committed when the broker died may be read again. Where the broker
        // was away for longer than a session, the first to come back even owns everything for a while.
        thread::sleep(MEETING);
        crew.wait_settled(self.stage)?;
        let round = self.expose(&committed, cause)?;
        self.push(round);
        self.note_survivors(crew);
        crew.check_alive()
    }

    /// Takes a dead replica out and notes what its death may lead to.
    fn bury(
        &mut self,
        crew: &mut Crew,
        victim: usize,
        cause: String,
        (owned, in_flight): (u64, u64),
    ) -> Result<Round> {
        crew.look(self.stage);
        let lanes = crew.lanes_left_by(self.stage, victim);
        let dead = crew.replicas.remove(victim);
        let left = self.logs.unfinished(&dead.sink);
        self.note_unfinished(left);
        // What the dead process had sent is in the simulator's hands now; nobody else owns its
        // lanes before its session ends.
        thread::sleep(Duration::from_millis(250));
        let committed = self.committed(&lanes)?;
        let round = self.expose(&committed, cause)?;
        Ok(Round {
            owned,
            in_flight,
            counts: round.is_boundary_or_random() && owned > 0 && in_flight > 0,
            ..round
        })
    }

    /// What is stored at or behind these offsets, once the simulator has dealt with everything that the
    /// dead had sent: on a busy machine it may still be reading.
    fn expose(&self, committed: &BTreeMap<Lane, i64>, cause: String) -> Result<Round> {
        let mut exposed = self.stored_from(committed)?;
        for _ in 0..SETTLE_LOOKS {
            thread::sleep(Duration::from_millis(100));
            let later = self.stored_from(committed)?;
            let settled = later == exposed;
            exposed = later;
            if settled {
                break;
            }
        }
        Ok(self.round(exposed, cause))
    }

    /// A round that does not count, and exposed this.
    fn round(&self, exposed: BTreeMap<Lane, BTreeSet<i64>>, cause: String) -> Round {
        let uncommitted = exposed.values().map(|offsets| offsets.len() as u64).sum();
        Round {
            cause,
            counts: false,
            owned: 0,
            in_flight: 0,
            exposed,
            uncommitted,
            duplicates: 0,
            repeats: 1,
            at_seconds: self.began.elapsed().as_secs_f64(),
        }
    }

    fn committed(&self, lanes: &BTreeSet<Lane>) -> Result<BTreeMap<Lane, i64>> {
        let wanted: Vec<Lane> = lanes.iter().cloned().collect();
        self.stage.observer.committed(&wanted)
    }

    /// What is stored at or behind these offsets.
    fn stored_from(
        &self,
        committed: &BTreeMap<Lane, i64>,
    ) -> Result<BTreeMap<Lane, BTreeSet<i64>>> {
        let stored = |(lane, from): (&Lane, &i64)| {
            let offsets = self.stage.simulator.stored(&self.stage.http, lane, *from)?;
            Ok((lane.clone(), offsets))
        };
        committed.iter().map(stored).collect()
    }
}

impl Round {
    fn is_boundary_or_random(&self) -> bool {
        self.is_boundary() || self.cause.starts_with("random")
    }
}
