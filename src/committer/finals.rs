//! The last commits of lanes that are given up: pure.

use crate::committer::{LaneCommit, LaneOutcome};

/// What is still to be committed before lanes are let go: one commit for each, or two where the outcome
/// of an earlier one is unknown. That one is settled first, so that it cannot land behind the newer.
#[derive(Clone, Debug, Default)]
pub struct Finals {
    /// Each lane's in the order they were earned.
    rest: Vec<LaneCommit>,
}

impl Finals {
    /// Finals from a lane's commits in the order they were earned.
    pub fn new(commits: Vec<LaneCommit>) -> Self {
        Self { rest: commits }
    }

    /// What to send now, at most one commit per lane; empty once all is settled.
    pub fn due(&self) -> Vec<LaneCommit> {
        let mut due: Vec<LaneCommit> = Vec::new();
        for commit in &self.rest {
            if due.iter().all(|first| first.lane != commit.lane) {
                due.push(commit.clone());
            }
        }
        due
    }

    /// Takes in the outcome of a commit that [`due`](Self::due) gave. Returns whether the lane can still
    /// be committed; what remains of one that cannot is forgotten.
    pub fn answered(&mut self, commit: &LaneCommit, outcome: &LaneOutcome) -> bool {
        let is_lane = |other: &LaneCommit| other.lane == commit.lane;
        match outcome {
            LaneOutcome::Unknown(_) => true,
            LaneOutcome::Refused { retryable: true, .. } => {
                // Certainly not committed, and a newer one says the same and more.
                if self.rest.iter().filter(|other| is_lane(other)).count() > 1 {
                    self.rest.retain(|other| other != commit);
                }
                true
            }
            LaneOutcome::Landed => {
                self.rest.retain(|other| other != commit);
                true
            }
            LaneOutcome::Refused { retryable: false, .. }
            | LaneOutcome::Lost(_)
            | LaneOutcome::NotOwned => {
                self.rest.retain(|other| !is_lane(other));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fault::{Fault, FaultKind},
        record::TopicPartition,
    };

    fn commit(partition: i32, offset: i64) -> LaneCommit {
        let lane = TopicPartition::new("t", partition);
        LaneCommit { lane, epoch: 1, offset, metadata: String::new() }
    }

    fn fault() -> Fault {
        Fault::unknown(FaultKind::Transient, "", "")
    }

    #[test]
    fn an_unknown_commit_is_settled_before_the_newer_one_is_sent() {
        let mut finals = Finals::new(vec![commit(0, 5), commit(1, 7), commit(0, 9)]);
        assert_eq!(finals.due(), [commit(0, 5), commit(1, 7)]);
        assert!(finals.answered(&commit(0, 5), &LaneOutcome::Unknown(fault())));
        assert!(finals.answered(&commit(1, 7), &LaneOutcome::Landed));
        assert_eq!(finals.due(), [commit(0, 5)]);
        assert!(finals.answered(&commit(0, 5), &LaneOutcome::Landed));
        assert_eq!(finals.due(), [commit(0, 9)]);
        assert!(finals.answered(&commit(0, 9), &LaneOutcome::Landed));
        assert!(finals.due().is_empty());
    }

    #[test]
    fn a_refused_one_gives_way_to_the_newer_and_a_lost_lane_is_forgotten() {
        let refused = |retryable| LaneOutcome::Refused { fault: fault(), retryable };
        let mut finals = Finals::new(vec![commit(0, 5), commit(0, 9), commit(1, 7)]);
        assert!(finals.answered(&commit(0, 5), &refused(true)));
        assert_eq!(finals.due(), [commit(0, 9), commit(1, 7)]);
        assert!(finals.answered(&commit(0, 9), &refused(true)));
        assert_eq!(finals.due(), [commit(0, 9), commit(1, 7)]);
        assert!(!finals.answered(&commit(0, 9), &LaneOutcome::NotOwned));
        assert!(!finals.answered(&commit(1, 7), &LaneOutcome::Lost(fault())));
        assert!(finals.due().is_empty());
    }
}
