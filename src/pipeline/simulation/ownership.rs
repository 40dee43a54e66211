//! The ownership set as the Kafka adapter keeps it, without the lock: in virtual time the lock is the
//! commit in flight.

use std::collections::BTreeMap;

use crate::record::TopicPartition;

/// What is owned, and under which epoch.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    lanes: BTreeMap<TopicPartition, u64>,
}

impl Ownership {
    /// Adds a lane.
    pub(crate) fn claim(&mut self, lane: &TopicPartition, epoch: u64) {
        self.lanes.insert(lane.clone(), epoch);
    }

    /// Removes a lane.
    pub(crate) fn release(&mut self, lane: &TopicPartition, epoch: u64) {
        if self.owns(lane, epoch) {
            self.lanes.remove(lane);
        }
    }

    /// Whether the lane is owned under this very epoch.
    pub(crate) fn owns(&self, lane: &TopicPartition, epoch: u64) -> bool {
        self.lanes.get(lane) == Some(&epoch)
    }

    /// The group has gone on without this member.
    pub(crate) fn expel(&mut self) {
        self.lanes.clear();
    }
}
