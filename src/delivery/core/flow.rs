//! Back-pressure: which lanes the source fetches from.
//!
//! Two limits. The worker's memory pauses every lane at 100 % and resumes at 50 % (a pause throws the
//! client's prefetched records away, so it must not flap). A lane's own limit pauses that lane alone,
//! so that lanes which feed a table that does not take rows stop before they take the memory from
//! the others: however many they are, half of the memory stays free of them. What was on its way to a
//! lane when it was paused is not taken in, but read again when it is resumed.
//!
//! A lane may hold its equal share of an eighth of the memory, or half of what is left of three
//! eighths, whichever is more: a lane that is busy alone has room, and each one that is stuck leaves
//! less to the next.

use super::Core;
use crate::{
    batch::LaneSlot,
    delivery::{
        action::Action,
        encoder::Encoder,
        lane::{Lane, Phase},
    },
};

/// Bytes of memory for a byte of payload: the payload itself, and the row, which is about three times
/// as large once encoded (JSON).
const MEMORY_PER_PAYLOAD: usize = 4;
const LANE_BYTES_MIN: usize = 32 * 1024;

impl<E: Encoder> Core<E> {
    fn lane_bytes_max(&self) -> usize {
        let (memory, lanes) = (self.settings.memory_bytes_max, self.lanes.len().max(1));
        let share = memory / 8 / MEMORY_PER_PAYLOAD / lanes;
        let spare = (memory / 8 * 3).saturating_sub(self.memory_bytes) / 2;
        share.max(spare).max(LANE_BYTES_MIN)
    }

    /// Pauses or resumes all lanes as the memory asks for.
    pub(super) fn flow(&mut self) {
        let max = self.settings.memory_bytes_max;
        if self.memory_bytes() >= max {
            self.spares.clear();
        }
        if !self.throttled && self.memory_bytes >= max {
            self.throttled = true;
            self.seal_largest();
            for (slot, lane) in &mut self.lanes {
                pause(&mut self.actions, *slot, lane);
            }
        } else if self.throttled && self.memory_bytes <= max / 2 {
            self.throttled = false;
            let lane_bytes_max = self.lane_bytes_max();
            for (slot, lane) in &mut self.lanes {
                resume(&mut self.actions, *slot, lane, lane_bytes_max);
            }
        }
    }

    /// Pauses one lane that holds what it may, or is halted; whether it is paused now.
    pub(super) fn limit_lane(&mut self, slot: LaneSlot) -> bool {
        let lane_bytes_max = self.lane_bytes_max();
        let Some(lane) = self.lanes.get_mut(&slot) else { return false };
        if lane.bytes >= lane_bytes_max || lane.halt.is_some() {
            pause(&mut self.actions, slot, lane);
        }
        lane.paused
    }

    /// Resumes one lane that may go on.
    pub(super) fn unlimit_lane(&mut self, slot: LaneSlot) {
        if self.throttled {
            return;
        }
        let lane_bytes_max = self.lane_bytes_max();
        if let Some(lane) = self.lanes.get_mut(&slot) {
            resume(&mut self.actions, slot, lane, lane_bytes_max);
        }
    }

    fn seal_largest(&mut self) {
        let largest = self.open.iter().max_by_key(|(_, open)| open.batch.memory_bytes());
        if let Some((slot, _)) = largest.map(|(slot, open)| (*slot, open.id)) {
            self.seal(slot);
        }
    }
}

type Actions = std::collections::VecDeque<Action>;

fn pause<O>(actions: &mut Actions, slot: LaneSlot, lane: &mut Lane<O>) {
    if !lane.paused && lane.phase == Phase::Running {
        lane.paused = true;
        actions.push_back(Action::Pause(slot));
    }
}

fn resume<O>(actions: &mut Actions, slot: LaneSlot, lane: &mut Lane<O>, lane_bytes_max: usize) {
    let may = lane.halt.is_none() && lane.bytes <= lane_bytes_max / 2;
    if lane.paused && may && lane.phase == Phase::Running {
        lane.paused = false;
        actions.push_back(Action::Resume(slot, lane.tracker.next()));
    }
}
