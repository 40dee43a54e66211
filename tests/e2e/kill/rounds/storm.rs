//! A rebalance storm: the group has hardly met when it must meet again.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::Game;
use crate::kill::crew::Crew;

impl Game<'_> {
    /// In turn a guest comes and goes, and a replica leaves and is replaced, for so long; none of them dies.
    pub(super) fn storm(&mut self, crew: &mut Crew, time: Duration) -> Result<()> {
        self.feed.set_rate(self.feed.left() / time.as_secs().max(1));
        let (began, mut turns) = (Instant::now(), 0);
        while began.elapsed() < time {
            self.committed = self.stage.observer.committed(&self.stage.lanes)?;
            if turns % 2 == 0 {
                self.invite_guest()?;
                thread::sleep(Duration::from_millis(self.random.below(3_000)));
                self.see_off_guest()?;
            } else {
                let leaver = crew.retire(self.random.index(crew.replicas.len()))?;
                let left = self.logs.unfinished(&leaver.sink);
                self.note_unfinished(left);
                crew.add(self.stage, None)?;
                crew.wait_settled(self.stage)?;
            }
            turns += 1;
            self.note_survivors(crew);
            crew.check_alive()?;
        }
        let seconds = began.elapsed().as_secs_f64();
        // Somebody comes and somebody goes in each.
        println!("{} rebalances in a storm of {seconds:.0} s", 2 * turns);
        Ok(())
    }
}
