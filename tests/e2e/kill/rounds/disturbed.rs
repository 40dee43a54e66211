//! Rounds in which nobody dies: a replica sleeps through a rebalance, or a hop is disturbed.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{Game, Round};
use crate::{
    kill::{Path, crew::Crew},
    rig::clients::Lane,
};

/// How long it may take until every lane moves again.
const RECOVERY: Duration = Duration::from_secs(240);

impl Game<'_> {
    /// Freezes a replica until the group has gone on without it, and lets it go on where it was: it must
    /// find out by itself, and take part again. Where the path is switched, two sleep through each path in
    /// turn: the second of them certainly.
    pub(super) fn zombie(&mut self, crew: &mut Crew) -> Result<Round> {
        if self.path == Path::Auto {
            self.refuse_streaming(self.having("zombie") / 2 % 2 == 1)?;
        }
        let (victim, (owned, in_flight)) = self.pick_busy(crew)?;
        crew.replicas[victim].sink.freeze()?;
        let mut zombie = crew.replicas.remove(victim);
        let lanes: BTreeSet<Lane> = zombie.lanes.iter().map(|lane| lane.lane.clone()).collect();
        thread::sleep(Duration::from_millis(250));
        let committed = self.committed(&lanes)?;
        let ends = self.stage.observer.ends(&lanes.iter().cloned().collect::<Vec<_>>())?;
        // What it has sent is written once more by whoever owns its lanes next.
        let asleep = self.expose(&committed, format!("asleep, {}", zombie.sink.name()))?;
        self.push(asleep);
        crew.wait_settled(self.stage)?;
        thread::sleep(Duration::from_millis(self.random.below(4_000)));
        zombie.sink.thaw()?;
        let cause = format!("zombie, {}", zombie.sink.name());
        crew.replicas.push(zombie);
        crew.wait_settled(self.stage)?;
        // It may have written anything that it had read, again or after all.
        let mut round = self.expose(&committed, cause)?;
        for (lane, offsets) in &mut round.exposed {
            let end = ends.get(lane).copied().unwrap_or_default();
            offsets.retain(|offset| *offset < end);
        }
        round.uncommitted = round.exposed.values().map(|offsets| offsets.len() as u64).sum();
        Ok(Round { owned, in_flight, counts: owned > 0 && in_flight > 0, ..round })
    }

    /// Disturbs a hop of every replica for some seconds. Whatever was not committed before may be sent again
    /// any number of times.
    pub(super) fn disturb(&mut self, crew: &mut Crew, number: usize) -> Result<Round> {
        let (name, hop, fault) = self.stage.hops.nth(number, self.path);
        let (_, (owned, in_flight)) = self.pick_busy(crew)?;
        let every: BTreeSet<Lane> = self.stage.lanes.iter().cloned().collect();
        let committed = self.committed(&every)?;
        hop.disturb(Some(fault));
        if name.starts_with("registry") {
            self.feed.evolve(self.stage)?;
        }
        thread::sleep(Duration::from_millis(4_000 + self.random.below(6_000)));
        hop.disturb(None);
        self.wait_moved(crew, &every)?;
        crew.wait_settled(self.stage)?;
        let round = self.expose(&committed, format!("disturbed: {name}"))?;
        let counts = owned > 0 && in_flight > 0;
        Ok(Round { owned, in_flight, counts, repeats: u32::MAX, ..round })
    }

    /// Waits until every lane commits again: what a connection has swallowed is missed only after a while.
    fn wait_moved(&self, crew: &mut Crew, lanes: &BTreeSet<Lane>) -> Result<()> {
        let before = self.committed(lanes)?;
        let end = Instant::now() + RECOVERY;
        loop {
            crew.check_alive()?;
            let now = self.committed(lanes)?;
            let stuck = before.iter().filter(|(lane, offset)| now.get(*lane) <= Some(offset));
            let stuck: Vec<_> = stuck.map(|(lane, _)| lane).collect();
            if stuck.is_empty() {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "VIOLATION: after {RECOVERY:?} these do not move: {stuck:?}"
            );
            thread::sleep(Duration::from_millis(200));
        }
    }
}
