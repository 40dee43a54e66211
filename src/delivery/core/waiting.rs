//! Records that wait for something: a schema, a table.

use std::time::Instant;

use super::{Core, Past, Place};
use crate::{
    batch::{Batch, LaneSlot},
    delivery::{
        action::Action,
        encoder::{Encoder, NeedId},
    },
    record::Record,
};

/// Different things that the records of one lane wait for at a time, such as schemas. A producer can
/// name any number of them, and each costs a task and a place in the tables of the encoder.
pub(super) const NEEDS_MAX: usize = 128;

/// Records that cannot be encoded yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) batch: Batch,
    /// The lanes that they are of, each once.
    pub(super) lanes: Vec<LaneSlot>,
    pub(super) past: Past,
    pub(super) preparing: bool,
}

impl<E: Encoder> Core<E> {
    /// Puts a record aside until `need` is prepared.
    pub(super) fn wait(&mut self, need: NeedId, place: Place, record: &Record<'_>, past: Past) {
        let waiting = self.waiting.entry(need).or_default();
        let is_new = waiting.batch.is_empty();
        // Most records come from the lane of the one before.
        let is_last = waiting.batch.rows().last().is_some_and(|row| row.lane == place.lane);
        if !is_last && !waiting.lanes.contains(&place.lane) {
            waiting.lanes.push(place.lane);
            if let Some(lane) = self.lanes.get_mut(&place.lane) {
                lane.needs += 1;
            }
        }
        let before = waiting.batch.memory_bytes();
        waiting.batch.push_unencoded(place.lane, place.span, record);
        waiting.past.replans = waiting.past.replans.max(past.replans);
        waiting.past.is_doubtful |= past.is_doubtful;
        let after = waiting.batch.memory_bytes();
        self.recharge(before, after);
        self.comes_late(place.lane);
        if is_new && past.replans == 0 {
            self.prepare(need);
        }
    }

    /// What records wait for may be there by now: it is prepared without waiting for its time.
    pub fn look_again(&mut self, need: NeedId) {
        self.prepare(need);
    }

    /// Asks the driver to prepare `need`, once.
    pub(super) fn prepare(&mut self, need: NeedId) {
        let Some(waiting) = self.waiting.get_mut(&need).filter(|waiting| !waiting.preparing) else {
            return;
        };
        waiting.preparing = true;
        self.actions.push_back(Action::Prepare(need));
    }

    /// `need` is prepared (or can never be): its records are routed and encoded again, into batches
    /// of their own, so that rows which come back once more do not take others along.
    pub fn prepared(
        &mut self,
        need: NeedId,
        result: Result<(), Box<crate::dead_letter::Reason>>,
        now: Instant,
    ) {
        let Some(waiting) = self.waiting.remove(&need) else { return };
        for slot in &waiting.lanes {
            if let Some(lane) = self.lanes.get_mut(slot) {
                lane.needs -= 1;
            }
        }
        match result {
            Ok(()) => {
                self.encode_again(&waiting.batch, waiting.past, now);
                self.close_owed();
            }
            Err(reason) => {
                for row in waiting.batch.rows() {
                    let place = Place { lane: row.lane, span: row.span };
                    self.refuse(place, &waiting.batch.record(row), (*reason).clone(), now);
                }
            }
        }
        self.release_memory(waiting.batch.memory_bytes());
        self.flow(now);
    }

    /// Needs that records wait for, with those records' rows.
    pub fn needs(&self) -> impl Iterator<Item = (NeedId, &[crate::batch::Row])> {
        self.waiting.iter().map(|(need, waiting)| (*need, waiting.batch.rows()))
    }

    /// Records of a lane that wait for something that may last: what they need is not to be had, or
    /// their dead letter was not taken.
    pub fn blocked_records(&self, slot: LaneSlot) -> u64 {
        let refused = |letter: &&super::Letter| letter.place.lane == slot && letter.fault.is_some();
        let letters = self.letters.values().filter(refused).count() as u64;
        letters + self.waiting_records(slot, |need| self.encoder.is_blocked(need))
    }

    /// Records of a lane that wait for any such need.
    pub(super) fn waiting_records(&self, slot: LaneSlot, choose: impl Fn(NeedId) -> bool) -> u64 {
        let waiting = self
            .waiting
            .iter()
            .filter(|(need, waiting)| waiting.lanes.contains(&slot) && choose(**need));
        let rows = waiting.flat_map(|(_, waiting)| waiting.batch.rows());
        rows.filter(|row| row.lane == slot).count() as u64
    }
}
