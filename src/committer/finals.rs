//! The last commits of lanes that are given up: pure.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    committer::{LaneCommit, LaneOutcome},
    record::TopicPartition,
};

/// What is still to be committed before lanes are let go: one commit for each, or two where the outcome
/// of an earlier one is unknown. That one is settled first, so that it cannot land behind the newer.
#[derive(Clone, Debug, Default)]
pub struct Finals {
    /// Each lane's in the order they were earned; no queue is empty.
    rest: BTreeMap<TopicPartition, VecDeque<LaneCommit>>,
}

impl Finals {
    /// Finals from each lane's commits in the order they were earned.
    pub fn new(commits: Vec<LaneCommit>) -> Self {
        let mut rest: BTreeMap<_, VecDeque<_>> = BTreeMap::new();
        for commit in commits {
            rest.entry(commit.lane.clone()).or_default().push_back(commit);
        }
        Self { rest }
    }

    /// What to send now, at most one commit per lane; empty once all is settled.
    pub fn due(&self) -> Vec<LaneCommit> {
        self.rest.values().filter_map(|commits| commits.front().cloned()).collect()
    }

    /// Takes in the outcome of a commit that [`due`](Self::due) gave. Returns whether the lane can still
    /// be committed; what remains of one that cannot is forgotten.
    pub fn answered(&mut self, lane: &TopicPartition, outcome: &LaneOutcome) -> bool {
        let Some(commits) = self.rest.get_mut(lane) else { return false };
        match outcome {
            LaneOutcome::Unknown(_) => return true,
            // Certainly not committed, and a newer one says the same and more.
            LaneOutcome::Refused { retryable: true, .. } if commits.len() == 1 => return true,
            LaneOutcome::Refused { retryable: true, .. } | LaneOutcome::Landed => {
                commits.pop_front();
                if !commits.is_empty() {
                    return true;
                }
            }
            LaneOutcome::Refused { retryable: false, .. }
            | LaneOutcome::Lost(_)
            | LaneOutcome::NotOwned => {}
        }
        self.rest.remove(lane);
        matches!(outcome, LaneOutcome::Landed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, FaultKind};

    fn commit(partition: i32, offset: i64) -> LaneCommit {
        let lane = TopicPartition::new("t", partition);
        LaneCommit { lane, epoch: 1, offset, metadata: String::new() }
    }

    fn fault() -> Fault {
        Fault::unknown(FaultKind::Transient, "", "")
    }

    #[test]
    fn an_unknown_commit_is_settled_before_the_newer_one_is_sent() {
        let (one, other) = (commit(0, 0).lane, commit(1, 0).lane);
        let mut finals = Finals::new(vec![commit(0, 5), commit(1, 7), commit(0, 9)]);
        assert_eq!(finals.due(), [commit(0, 5), commit(1, 7)]);
        assert!(finals.answered(&one, &LaneOutcome::Unknown(fault())));
        assert!(finals.answered(&other, &LaneOutcome::Landed));
        assert_eq!(finals.due(), [commit(0, 5)]);
        assert!(finals.answered(&one, &LaneOutcome::Landed));
        assert_eq!(finals.due(), [commit(0, 9)]);
        assert!(finals.answered(&one, &LaneOutcome::Landed));
        assert!(finals.due().is_empty());
    }

    #[test]
    fn a_refused_one_gives_way_to_the_newer_and_a_lost_lane_is_forgotten() {
        let (one, other) = (commit(0, 0).lane, commit(1, 0).lane);
        let refused = |retryable| LaneOutcome::Refused { fault: fault(), retryable };
        let mut finals = Finals::new(vec![commit(0, 5), commit(0, 9), commit(1, 7)]);
        assert!(finals.answered(&one, &refused(true)));
        assert_eq!(finals.due(), [commit(0, 9), commit(1, 7)]);
        assert!(finals.answered(&one, &refused(true)));
        assert_eq!(finals.due(), [commit(0, 9), commit(1, 7)]);
        assert!(!finals.answered(&one, &LaneOutcome::NotOwned));
        assert!(!finals.answered(&other, &LaneOutcome::Lost(fault())));
        assert!(finals.due().is_empty());
    }
}
