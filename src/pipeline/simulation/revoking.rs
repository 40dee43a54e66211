//! Lanes that are given up, step by step as the production dispatcher and poll loop do it: drain, forget,
//! commit for the last time, release.

use std::collections::BTreeMap;

use super::{checkers::STAGED, coverage::Mark, env::Env, replica::Replica, worker::Left};
use crate::{
    committer::{LaneCommit, LaneOutcome, finals::Finals},
    record::TopicPartition,
    source::OwnedLane,
};

/// How long last commits are tried.
const FINALS_MS: u64 = 15_000;

/// Lanes that are on their way out.
#[derive(Debug)]
pub(crate) struct Revoking {
    /// Which.
    pub(crate) lanes: Vec<OwnedLane>,
    until: u64,
    /// Once the lanes are forgotten: what is still to be committed.
    finals: Option<Finals>,
    /// Whether some of it cannot be.
    refused: bool,
    /// What each lane came to when it was forgotten: what was left of it, and its offset.
    reached: BTreeMap<OwnedLane, (Left, Option<i64>)>,
    /// Whether the process ends with it.
    leave: bool,
}

impl Revoking {
    /// Takes in the answer to last commits.
    pub(crate) fn answered(&mut self, commits: &[LaneCommit], outcomes: &[LaneOutcome]) {
        for (commit, outcome) in commits.iter().zip(outcomes) {
            let finals = self.finals.as_mut();
            self.refused |= finals.is_some_and(|finals| !finals.answered(&commit.lane, outcome));
        }
    }
}

impl Replica {
    /// The lanes are to be given up.
    pub(crate) fn revoke(&mut self, env: &mut Env, lanes: Vec<TopicPartition>, leave: bool) {
        env.log(format_args!("revoke {:?} {lanes:?}", self.who));
        for index in 0..self.workers.len() {
            let mine = lanes.iter().filter_map(|lane| self.lanes.get(lane));
            let slots: Vec<_> =
                mine.filter(|owned| owned.worker == index).map(|owned| owned.slot).collect();
            self.workers[index].core.drain(&slots);
        }
        let lanes = lanes.iter().filter_map(|lane| Some(self.lanes.get(lane)?.of(lane))).collect();
        self.revoking = Some(Revoking {
            lanes,
            until: env.now + env.plan.drain_ms,
            finals: None,
            refused: false,
            reached: BTreeMap::new(),
            leave,
        });
    }

    /// Waits until the lanes are drained, commits what they have come to, and lets them go.
    pub(crate) fn give_up(&mut self, env: &mut Env) {
        // Whatever is done here waits for the commit in flight.
        let Some(revoking) = self.revoking.take_if(|_| self.flight.is_none()) else { return };
        let revoking = self.forget(env, revoking);
        let due = revoking.finals.as_ref().map(Finals::due);
        let is_late = env.now >= revoking.until + FINALS_MS;
        match due {
            Some(due) if due.is_empty() || is_late => self.let_go(env, &revoking),
            Some(due) => {
                self.revoking = Some(revoking);
                self.send(env, due, true);
            }
            None => self.revoking = Some(revoking),
        }
    }

    /// Forgets the lanes once they are drained, or the time is up.
    fn forget(&mut self, env: &mut Env, mut revoking: Revoking) -> Revoking {
        let drained = |owned: &OwnedLane| {
            self.lanes
                .get(&owned.lane)
                .is_none_or(|o| self.workers[o.worker].core.is_drained(o.slot))
        };
        let is_drained = revoking.lanes.iter().all(drained);
        if revoking.finals.is_some() || !is_drained && env.now < revoking.until {
            return revoking;
        }
        for owned in &revoking.lanes {
            let Some(lane) = self.lanes.remove(&owned.lane) else { continue };
            let (left, progress) = self.workers[lane.worker].drop_lane(lane.slot);
            if let Some(start) = lane.start {
                self.landed.entry((owned.lane.clone(), owned.epoch)).or_insert(start);
            }
            let reached = (left, progress.map(|progress| progress.offset));
            revoking.reached.insert(owned.clone(), reached);
        }
        let commits = self.process.commits.give_up(&revoking.lanes);
        if commits.windows(2).any(|two| two[0].lane == two[1].lane) {
            env.mark(Mark::CommitBehindUnknown);
        }
        revoking.finals = Some(Finals::new(commits));
        revoking
    }

    fn let_go(&mut self, env: &mut Env, revoking: &Revoking) {
        let settled = revoking.finals.as_ref().is_none_or(|finals| finals.due().is_empty());
        for (owned, (left, reached)) in &revoking.reached {
            let landed = self.landed.remove(&(owned.lane.clone(), owned.epoch));
            let clean = *left == Left::Nothing && *reached == landed;
            env.mark(match left {
                Left::Held | Left::Staged => Mark::DrainHeld,
                _ if clean => Mark::DrainClean,
                _ => Mark::DrainLate,
            });
            env.log(format_args!("released {:?} {} clean {clean}", self.who, owned.lane));
            if clean {
                continue;
            }
            let kept = *left == Left::Staged && *reached == landed;
            env.checkers.unclean(&owned.lane, if kept { STAGED } else { "undrained" });
            if *left != Left::UnderWay && *reached != landed && settled && !revoking.refused {
                let lane = &owned.lane;
                env.violation(format!(
                    "uncommitted: {lane} was drained to {reached:?}, and {landed:?} is committed"
                ));
            }
        }
        self.process.ownership.release(&revoking.lanes);
        let Some(member) = self.member else { return };
        if revoking.leave {
            env.mark(Mark::Shutdown);
            env.group.leave(member, env.now, env.plan.rebalance_ms);
            self.end(env);
        } else {
            env.group.rebalance(env.now, env.plan.rebalance_ms);
        }
    }

    /// Lanes that were lost: nothing can be committed.
    pub(crate) fn abandon(&mut self, env: &mut Env) {
        if self.flight.is_some() {
            return;
        }
        env.log(format_args!("abandon {:?}", self.who));
        let lanes: Vec<_> = self.lanes.iter().map(|(lane, owned)| owned.of(lane)).collect();
        self.process.ownership.release(&lanes);
        self.process.ownership.release(&std::mem::take(&mut self.gone));
        for worker in &mut self.workers {
            worker.is_lost();
        }
        for (_, owned) in std::mem::take(&mut self.lanes) {
            self.workers[owned.worker].drop_lane(owned.slot);
        }
        self.process.commits.give_up(&lanes);
        self.landed.clear();
        self.lost = false;
    }
}
