//! Staged objects that nobody needs any more.

use super::{Done, Worker};
use crate::{
    batch::LaneSlot,
    source::{Messages, OwnedLane},
};

/// Objects that may be deleted once an offset of the lane is committed.
pub(super) struct Spent {
    pub(super) lane: OwnedLane,
    pub(super) offset: i64,
    pub(super) uris: Vec<String>,
}

impl<M: Messages> Worker<M> {
    pub(super) fn discard(&mut self, slot: LaneSlot, uris: Vec<String>, committed: Option<i64>) {
        match (committed, self.lanes.get(&slot)) {
            (None, _) => self.delete(uris),
            (Some(offset), Some(owned)) => {
                self.spent.push(Spent { lane: owned.clone(), offset, uris });
            }
            // The next owner reads the records again, finds the job and needs no object.
            (Some(_), None) => {}
        }
    }

    /// Deletes the objects whose offsets are committed.
    pub(super) fn delete_spent(&mut self) {
        let commits = &self.shared.commits;
        let is_due = |spent: &mut Spent| commits.committed(&spent.lane.lane) >= Some(spent.offset);
        let due: Vec<Spent> = self.spent.extract_if(.., is_due).collect();
        due.into_iter().for_each(|spent| self.delete(spent.uris));
    }

    fn delete(&mut self, uris: Vec<String>) {
        let Some(loads) = self.shared.loads.clone() else { return };
        let task = async move {
            loads.discard(uris).await;
            Done::Discarded
        };
        self.tasks.spawn_on(task, &self.shared.runtime);
    }
}
