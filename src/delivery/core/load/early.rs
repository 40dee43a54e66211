//! Jobs that come before their time.

use std::{cmp::Reverse, time::Instant};

use crate::delivery::{
    action::ChainKey,
    chain::Chain,
    core::{Core, Timer, Timers},
    encoder::{Encoder, TableIx},
};

impl<E: Encoder> Core<E> {
    /// The last job before rows of the table are streamed.
    pub(super) fn hasten(&mut self, table: TableIx, now: Instant) {
        for (key, chain) in self.chains.iter_mut().filter(|(key, _)| key.table == table) {
            let due = chain.end_job(now);
            bring_forward(&mut self.timers, *key, chain, due);
        }
    }

    /// Where rows wait in memory and it is short, their jobs come as soon as the quotas allow.
    pub(in crate::delivery::core) fn hasten_kept(&mut self, now: Instant) {
        for (key, chain) in &mut self.chains {
            if chain.staged.iter().any(|object| object.rows_here().is_some()) {
                let due = chain.soonest_job(now);
                bring_forward(&mut self.timers, *key, chain, due);
            }
        }
    }
}

/// The chain's next job is due then, unless it is so before.
fn bring_forward(timers: &mut Timers, key: ChainKey, chain: &mut Chain, due: Instant) {
    if chain.due.is_some_and(|before| before > due) {
        chain.due = Some(due);
        timers.push(Reverse((due, Timer::Load(key))));
    }
}
