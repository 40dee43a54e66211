//! Which lanes this member owns, under which epoch, guarded by the lock that commits hold.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    committer::{LaneCommit, LaneOutcome},
    record::TopicPartition,
    source::{Epoch, OwnedLane},
};

/// The set of owned lanes.
///
/// A commit holds the lock from the ownership check until the broker's answer, and a lane is
/// released under the same lock before a rebalance is answered. So no rebalance completes while a
/// commit is in flight, and no commit names a lane that is gone.
#[derive(Debug, Default)]
pub struct Ownership(Mutex<Held>);

/// What is owned; held locked for the whole of a commit.
#[derive(Debug, Default)]
pub struct Held {
    lanes: HashMap<TopicPartition, Epoch>,
    expelled: bool,
    /// A deliberate mistake, to show that the checkers catch it: a released lane stays owned.
    #[cfg(test)]
    pub(crate) keeps_released: bool,
}

impl Held {
    /// Whether `lane` is owned under this very epoch.
    pub fn owns(&self, lane: &TopicPartition, epoch: Epoch) -> bool {
        self.lanes.get(lane) == Some(&epoch)
    }

    /// Which of these may be sent: one answer for each, in their order.
    pub fn admit(&self, commits: &[LaneCommit]) -> Vec<bool> {
        commits.iter().map(|commit| self.owns(&commit.lane, commit.epoch)).collect()
    }

    /// Takes in what the broker answered for a lane. If it says that this member is gone, nothing is
    /// owned any more, and the rebalance that follows is a loss, whatever librdkafka calls it
    /// (librdkafka#5604).
    pub fn answered(&mut self, outcome: &LaneOutcome) {
        if matches!(outcome, LaneOutcome::Lost(_)) {
            self.lanes.clear();
            self.expelled = true;
        }
    }
}

impl Ownership {
    /// Locks the set; waits for a commit in flight.
    pub fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds lanes. An assignment ends an expulsion: the member is part of the group again.
    pub fn claim(&self, lanes: &[OwnedLane]) {
        let mut held = self.lock();
        held.expelled = false;
        held.lanes.extend(lanes.iter().map(|owned| (owned.lane.clone(), owned.epoch)));
    }

    /// Removes lanes; returns once no commit that could name them is in flight.
    pub fn release(&self, lanes: &[OwnedLane]) {
        let mut held = self.lock();
        #[cfg(test)]
        if held.keeps_released {
            return;
        }
        for owned in lanes {
            if held.owns(&owned.lane, owned.epoch) {
                held.lanes.remove(&owned.lane);
            }
        }
    }

    /// Whether a commit was answered with an expulsion since the last assignment.
    pub fn expelled(&self) -> bool {
        self.lock().expelled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(partition: i32, epoch: Epoch) -> OwnedLane {
        OwnedLane { lane: TopicPartition::new("t", partition), epoch }
    }

    #[test]
    fn an_epoch_is_owned_until_released_and_a_stale_release_changes_nothing() {
        let ownership = Ownership::default();
        ownership.claim(&[owned(0, 1)]);
        ownership.release(&[owned(0, 1)]);
        assert!(!ownership.lock().owns(&owned(0, 1).lane, 1));
        ownership.claim(&[owned(0, 2)]);
        ownership.release(&[owned(0, 1)]);
        let held = ownership.lock();
        assert!(held.owns(&owned(0, 2).lane, 2) && !held.owns(&owned(0, 2).lane, 1));
    }

    #[test]
    fn an_expulsion_ends_all_ownership_until_the_next_assignment() {
        let ownership = Ownership::default();
        ownership.claim(&[owned(0, 1), owned(1, 2)]);
        let fault = || crate::fault::Fault::refused(crate::fault::FaultKind::Conflict, "", "");
        ownership.lock().answered(&LaneOutcome::Unknown(fault()));
        assert!(!ownership.expelled() && ownership.lock().owns(&owned(1, 2).lane, 2));
        ownership.lock().answered(&LaneOutcome::Lost(fault()));
        assert!(ownership.expelled() && !ownership.lock().owns(&owned(1, 2).lane, 2));
        ownership.claim(&[owned(0, 3)]);
        assert!(!ownership.expelled() && ownership.lock().owns(&owned(0, 3).lane, 3));
    }

    #[test]
    fn a_release_waits_for_the_commit_in_flight() {
        let ownership = Ownership::default();
        ownership.claim(&[owned(0, 1)]);
        let committed = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let held = ownership.lock();
            let releasing = scope.spawn(|| {
                ownership.release(&[owned(0, 1)]);
                assert!(committed.load(std::sync::atomic::Ordering::SeqCst));
            });
            std::thread::sleep(std::time::Duration::from_millis(30));
            assert!(!releasing.is_finished());
            committed.store(true, std::sync::atomic::Ordering::SeqCst);
            drop(held);
        });
    }
}
