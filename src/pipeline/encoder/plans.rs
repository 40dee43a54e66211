//! The plans that are kept: bounded by bytes, so that schemas that never repeat do not fill the memory.
//!
//! What is over the bound is taken from the table that has most of it, and never its last plan: however
//! many schemas one topic brings, the others keep theirs. A plan that was given up is prepared again
//! with the next record that needs it.

use std::collections::{HashSet, VecDeque};

use super::{Map, TopicEncoder, slot::Slot};
use crate::delivery::encoder::{SlotId, TableIx};

/// Memory for the plans of one worker.
const PLANS_BYTES_MAX: usize = 48 << 20;

/// Slots without a plan that are looked through for those whose rows are all gone.
const GIVEN_UP_MAX: usize = 256;

/// The plans of one table, the oldest first.
#[derive(Debug, Default)]
struct OfTable {
    slots: VecDeque<SlotId>,
    bytes: usize,
}

/// What is kept of which table.
#[derive(Debug, Default)]
pub(super) struct KeptPlans {
    tables: Map<TableIx, OfTable>,
    bytes: usize,
    /// Slots whose plans were given up: their rows may still be on their way.
    given_up: Vec<SlotId>,
    /// Ids of slots that are no more.
    free: Vec<SlotId>,
}

impl TopicEncoder {
    /// Puts a slot in its place. Where the table is as it was, so are the rows: the slot keeps its id, or
    /// looking again and again would leave slots behind without end.
    pub(super) fn put(&mut self, slot: Slot) {
        let (key, bytes) = (slot.key, slot.bytes);
        let known = self.plans.get(&key).copied();
        let same = known.filter(|id| self.slot(*id).is_some_and(|old| old.schema == slot.schema));
        if let Some(place) = same.and_then(|id| self.slots.get_mut(id.0 as usize)) {
            let before = place.replace(slot).map_or(0, |old| old.bytes);
            self.kept_plans.recount(key.table, before, bytes);
            return;
        }
        if let Some(old) = known {
            self.give_up(old);
        }
        let id = self.kept_plans.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            SlotId(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
        });
        if let Some(place) = self.slots.get_mut(id.0 as usize) {
            *place = Some(slot);
        }
        self.plans.insert(key, id);
        self.last_plan = None;
        self.kept_plans.tables.entry(key.table).or_default().slots.push_back(id);
        self.kept_plans.recount(key.table, 0, bytes);
        while self.kept_plans.bytes > PLANS_BYTES_MAX {
            let Some(oldest) = self.kept_plans.oldest_of_largest() else { break };
            self.give_up(oldest);
        }
    }

    /// Gives the plans of a slot up. Rows that were encoded by them go on.
    pub(super) fn give_up(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let (key, bytes) = (slot.key, std::mem::take(&mut slot.bytes));
        (slot.plans, slot.refused, slot.satisfied) = (None, Vec::new(), Vec::new());
        if self.plans.get(&key) == Some(&id) {
            self.plans.remove(&key);
        }
        self.last_plan = None;
        self.kept_plans.recount(key.table, bytes, 0);
        if let Some(table) = self.kept_plans.tables.get_mut(&key.table) {
            table.slots.retain(|kept| *kept != id);
        }
        self.kept_plans.given_up.push(id);
    }

    /// Bytes of plans and of Connect schemas.
    #[cfg(test)]
    pub(super) fn bytes_kept(&self) -> [usize; 2] {
        [self.kept_plans.bytes, self.payloads.bytes_kept()]
    }

    /// Whether there are so many slots without a plan that [`reclaim`](Self::reclaim) is worth its time.
    pub fn wants_to_reclaim(&self) -> bool {
        self.kept_plans.given_up.len() >= GIVEN_UP_MAX
    }

    /// Forgets the slots that were given up, but for those in use.
    pub fn reclaim(&mut self, in_use: &HashSet<SlotId>) {
        let given_up = std::mem::take(&mut self.kept_plans.given_up);
        for id in given_up {
            if in_use.contains(&id) {
                self.kept_plans.given_up.push(id);
            } else if let Some(place) = self.slots.get_mut(id.0 as usize) {
                *place = None;
                self.kept_plans.free.push(id);
            }
        }
    }
}

impl KeptPlans {
    fn recount(&mut self, table: TableIx, before: usize, now: usize) {
        let of_table = &mut self.tables.entry(table).or_default().bytes;
        *of_table = *of_table + now - before;
        self.bytes = self.bytes + now - before;
    }

    /// The oldest plan of the table that has most, where it has more than one.
    fn oldest_of_largest(&self) -> Option<SlotId> {
        let several = self.tables.values().filter(|table| table.slots.len() > 1);
        several.max_by_key(|table| table.bytes)?.slots.front().copied()
    }
}
