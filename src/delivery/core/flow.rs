//! Back-pressure, in three degrees.
//!
//! 1. **Hold**: half of the memory is used. The source hands nothing over until a quarter of that is
//!    free again. It keeps what it has fetched, so that this costs nothing and may happen a hundred
//!    times a second: it is how a BigQuery that is slower than Kafka sets the pace.
//! 2. **Pause**: a hold that does not end is somebody's fault. The lanes that have not moved since it
//!    began are paused, and what they keep counts no more: the others go on in half of what is left,
//!    so that however many lanes are stuck, there is room. A pause throws away what the client has
//!    prefetched of a lane; what was on its way to it is not taken in, but read again.
//! 3. **Stop**: all of the memory is used, by what was on its way when the hold began. Every lane is
//!    paused until an eighth of it is free, however much of the rest is stuck.

use std::time::{Duration, Instant};

use super::{Core, Timer};
use crate::{
    batch::{LaneSlot, Row},
    delivery::{
        action::Action,
        encoder::{Encoder, SlotId},
        lane::{Lane, Phase},
    },
};

/// A hold that lasts longer is because of lanes that are stuck: several times what BigQuery takes to
/// answer an insert, and little beside what a prefetch thrown away costs.
pub(super) const STALL: Duration = Duration::from_millis(500);

/// A row's size for a byte of its payload: about, in JSON.
const ROW_PER_PAYLOAD: usize = 3;

/// How far the source is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressure {
    /// Not at all.
    Free,
    /// It hands nothing over.
    Hold {
        /// Since when.
        since: Instant,
    },
    /// Every lane is paused.
    Stop,
}

/// Memory by the lanes that it is used for, in proportion to their payloads: rows are as many times
/// larger for one lane as for another, near enough.
struct Shares {
    /// Used for lanes that are neither paused nor gone.
    moving: usize,
    /// What those may use before the source is held back.
    room: usize,
    /// Payload that a paused lane may hold when it goes on: a quarter of the room.
    lane_payload_max: usize,
}

/// `whole * of / among`, or all of it where there is nothing to share.
fn part(whole: usize, of: usize, among: usize) -> usize {
    let part = (whole as u128 * of as u128).checked_div(among as u128);
    part.map_or(whole, |part| usize::try_from(part).unwrap_or(usize::MAX))
}

impl<E: Encoder> Core<E> {
    /// Whether the source should hand nothing over for the moment.
    pub fn is_holding(&self) -> bool {
        matches!(self.pressure, Pressure::Hold { .. })
    }

    /// Whether all lanes are paused because the memory is used up.
    pub fn is_stopped(&self) -> bool {
        self.pressure == Pressure::Stop
    }

    /// Holds back or lets go as the memory asks for.
    pub(super) fn flow(&mut self, now: Instant) {
        let max = self.settings.memory_bytes_max;
        if self.memory_bytes() >= max {
            self.spares.clear();
        }
        if self.memory_bytes >= max && self.pressure != Pressure::Stop {
            self.pressure = Pressure::Stop;
            self.seal_largest();
            for (slot, lane) in &mut self.lanes {
                pause(&mut self.actions, *slot, lane);
            }
            return;
        }
        if self.pressure == Pressure::Free {
            let shares = self.shares();
            if shares.moving >= shares.room {
                self.hold(now);
            }
        }
        self.let_go();
    }

    /// Ends a hold or a stop that is no longer needed.
    pub(super) fn let_go(&mut self) {
        match self.pressure {
            Pressure::Hold { .. } => {
                let shares = self.shares();
                if shares.moving < shares.room / 4 * 3 {
                    self.pressure = Pressure::Free;
                }
            }
            Pressure::Stop if self.memory_bytes <= self.settings.memory_bytes_max / 8 * 7 => {
                self.pressure = Pressure::Free;
                let most = self.shares().lane_payload_max;
                for (slot, lane) in &mut self.lanes {
                    resume(&mut self.actions, *slot, lane, most);
                }
            }
            Pressure::Free | Pressure::Stop => {}
        }
    }

    fn hold(&mut self, now: Instant) {
        self.pressure = Pressure::Hold { since: now };
        for lane in self.lanes.values_mut() {
            lane.watermark_at_hold = lane.tracker.watermark();
        }
        self.seal_largest();
        self.at(now + STALL, Timer::Stalled);
    }

    /// A hold has lasted since [`STALL`] before `due`: lanes that have not moved are paused, and what
    /// waits for more rows is sent, since none come. Whether that was enough shows the next look.
    pub(super) fn stalled(&mut self, due: Instant) {
        if !matches!(self.pressure, Pressure::Hold { since } if since + STALL == due) {
            return;
        }
        self.pressure = Pressure::Free;
        let open: Vec<SlotId> = self.open.keys().copied().collect();
        open.into_iter().for_each(|slot| self.seal(slot));
        for (slot, lane) in &mut self.lanes {
            if lane.tracker.unresolved() > 0 && lane.tracker.watermark() == lane.watermark_at_hold {
                pause(&mut self.actions, *slot, lane);
            }
        }
    }

    /// How the memory is shared out.
    fn shares(&self) -> Shares {
        let is_gone = |row: &Row| !self.lanes.contains_key(&row.lane);
        let gone = self.sent.values().filter(|sent| sent.batch.rows().iter().all(is_gone));
        let gone: usize = gone.map(|sent| sent.batch.memory_bytes()).sum();
        // What halts hold is no row: it is known to the byte, and as stuck as can be.
        let held: usize = self.lanes.values().map(|lane| lane.held.memory_bytes()).sum();
        // What waits to be encoded will take its rows' memory all at once.
        let waiting = self.waiting.values().map(|waiting| waiting.batch.memory_bytes());
        let rows = waiting.sum::<usize>() * ROW_PER_PAYLOAD;
        let used = (self.memory_bytes + rows).saturating_sub(gone + held);
        let payload: usize = self.lanes.values().map(Lane::bytes_under_way).sum();
        let paused = self.lanes.values().filter(|lane| lane.paused);
        let stuck = part(used, paused.map(Lane::bytes_under_way).sum(), payload);
        let room = self.settings.memory_bytes_max.saturating_sub(gone + held + stuck) / 2;
        Shares {
            moving: used.saturating_sub(stuck),
            room,
            lane_payload_max: part(payload, room / 4, used),
        }
    }

    /// Pauses one lane: it is halted.
    pub(super) fn pause_lane(&mut self, slot: LaneSlot) {
        if let Some(lane) = self.lanes.get_mut(&slot) {
            pause(&mut self.actions, slot, lane);
        }
    }

    /// Resumes one lane that may go on.
    pub(super) fn unlimit_lane(&mut self, slot: LaneSlot) {
        let paused = self.lanes.get(&slot).is_some_and(|lane| lane.paused);
        if !paused || self.pressure == Pressure::Stop {
            return;
        }
        let most = self.shares().lane_payload_max;
        if let Some(lane) = self.lanes.get_mut(&slot) {
            resume(&mut self.actions, slot, lane, most);
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

fn resume<O>(actions: &mut Actions, slot: LaneSlot, lane: &mut Lane<O>, payload_max: usize) {
    let may = lane.halt.is_none() && lane.bytes <= payload_max;
    if lane.paused && may && lane.phase == Phase::Running {
        lane.paused = false;
        actions.push_back(Action::Resume(slot, lane.tracker.next()));
    }
}
