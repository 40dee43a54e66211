//! Back-pressure, in three degrees.
//!
//! 1. **Hold**: half of the memory is used. The source hands nothing over until a quarter of that is
//!    free again. It keeps what it has fetched, so that this costs nothing and may happen a hundred
//!    times a second: it is how a BigQuery that is slower than Kafka sets the pace.
//! 2. **Stop**: three quarters are used, by what was on its way when the hold began. Every lane is
//!    paused, and what is still on its way is not taken in, but read again when it goes on. This
//!    throws away what the client has prefetched.
//! 3. **Stuck**: neither ends within half a second. The lanes that have not moved since are paused
//!    by themselves, those that hold as much as the average or more, and what they keep counts no
//!    more: the others go on in half of what is left, so that however many lanes are stuck, there is
//!    room for the next.

use std::time::{Duration, Instant};

use super::{Core, Timer, Way, waiting::NEEDS_MAX};
use crate::{
    batch::{LaneSlot, Row},
    delivery::{
        action::Action,
        encoder::Encoder,
        lane::{Lane, Phase},
    },
};

/// A hold that lasts longer is because of lanes that are stuck: several times what BigQuery takes to
/// answer an insert, and little beside what a prefetch thrown away costs.
pub(super) const STALL: Duration = Duration::from_millis(500);

/// A row's size for a byte of its payload: about, in JSON.
const ROW_PER_PAYLOAD: usize = 3;

/// A poll may be larger than the memory: it is looked at again after each such part.
const LOOKS: usize = 16;

/// How far the source is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// Not at all.
    Free,
    /// It hands nothing over.
    Hold,
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

impl Shares {
    /// Whether so much is free that a hold or a stop may end.
    fn has_room(&self) -> bool {
        self.moving < self.room / 4 * 3
    }
}

/// `whole * of / among`, or all of it where there is nothing to share.
fn part(whole: usize, of: usize, among: usize) -> usize {
    let part = (whole as u128 * of as u128).checked_div(among as u128);
    part.map_or(whole, |part| usize::try_from(part).unwrap_or(usize::MAX))
}

impl<E: Encoder> Core<E> {
    /// How far the source is to be held back.
    pub fn pressure(&self) -> Pressure {
        self.pressure
    }

    /// Holds back or lets go as the memory asks for.
    pub(super) fn flow(&mut self, now: Instant) {
        self.load_ready(now);
        let max = self.settings.memory_bytes_max;
        self.look_at = self.memory_bytes + max / LOOKS;
        if self.memory_bytes() >= max {
            self.spares.clear();
        }
        let shares = self.shares();
        match self.pressure {
            Pressure::Free | Pressure::Hold if shares.moving >= shares.room / 2 * 3 => {
                self.stop(now);
            }
            Pressure::Free if shares.moving >= shares.room => self.hold(now),
            Pressure::Hold | Pressure::Stop if shares.has_room() => self.pressure = Pressure::Free,
            _ => {}
        }
        self.go_on(&shares);
    }

    /// Ends a hold or a stop that is no longer needed.
    pub(super) fn let_go(&mut self) {
        let shares = self.shares();
        if shares.has_room() {
            self.pressure = Pressure::Free;
        }
        self.go_on(&shares);
    }

    /// Resumes the lanes that nothing pauses any more. One that was stuck is so no more once it has
    /// moved and what is left of it is a quarter of the room. That is asked at every look, not when
    /// it moves: there may be room only later, and what it has left may never move by itself.
    fn go_on(&mut self, shares: &Shares) {
        for (slot, lane) in self.lanes.iter_mut().filter(|(_, lane)| lane.paused) {
            let has_moved = |payload: usize| lane.bytes < payload;
            if lane.stuck.is_some_and(has_moved) && lane.bytes <= shares.lane_payload_max {
                lane.stuck = None;
            }
            // Going on throws away what the client has prefetched, so there is to be room for many.
            if lane.needs <= NEEDS_MAX / 2 {
                lane.crowded = false;
            }
            if lane.stuck.is_none() && !lane.crowded && self.pressure != Pressure::Stop {
                resume(&mut self.actions, *slot, lane);
            }
        }
    }

    fn hold(&mut self, now: Instant) {
        self.pressure = Pressure::Hold;
        for lane in self.lanes.values_mut() {
            lane.watermark_at_hold = lane.tracker.watermark();
        }
        self.seal_largest();
        self.stall_due = Some(now + STALL);
        self.at(now + STALL, Timer::Stalled);
    }

    fn stop(&mut self, now: Instant) {
        if self.pressure == Pressure::Free {
            self.hold(now);
        }
        self.pressure = Pressure::Stop;
        self.seal_all();
        for (slot, lane) in &mut self.lanes {
            pause(&mut self.actions, *slot, lane);
        }
    }

    /// A hold or a stop has lasted since [`STALL`] before `due`: lanes that have not moved are
    /// stuck. Whether that was enough shows the next look.
    pub(super) fn stalled(&mut self, due: Instant) {
        if self.pressure == Pressure::Free || self.stall_due != Some(due) {
            return;
        }
        self.seal_all();
        self.hasten_kept(due);
        let moving = self.lanes.values().filter(|lane| lane.stuck.is_none() && lane.bytes > 0);
        let (count, bytes) =
            moving.fold((0, 0), |(count, sum), lane| (count + 1, sum + lane.bytes));
        for (slot, lane) in &mut self.lanes {
            // One record that waits does not make a lane stuck that takes hardly any memory.
            let is_large = lane.bytes > 0 && lane.bytes.saturating_mul(count) >= bytes;
            if is_large && lane.tracker.watermark() == lane.watermark_at_hold {
                lane.stuck.get_or_insert(lane.bytes);
                pause(&mut self.actions, *slot, lane);
            }
            lane.watermark_at_hold = lane.tracker.watermark();
        }
        self.stall_due = Some(due + STALL);
        self.at(due + STALL, Timer::Stalled);
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
        let stuck = self.lanes.values().filter(|lane| lane.stuck.is_some() || lane.halt.is_some());
        let stuck = part(used, stuck.map(Lane::bytes_under_way).sum(), payload);
        let max = self.settings.memory_bytes_max;
        let left = max.saturating_sub(gone + held + stuck) / 2;
        // Buffers grow in steps: what is stuck may have taken all there is. Something must be left.
        let least = if self.memory_bytes <= max / 8 * 9 { max / 64 } else { 0 };
        let room = left.max(least);
        Shares {
            moving: used.saturating_sub(stuck),
            room,
            lane_payload_max: part(payload, room / 4, used),
        }
    }

    /// Pauses one lane until its records wait for fewer things. The record that came is not taken in,
    /// nor what is behind it.
    pub(super) fn crowd(&mut self, slot: LaneSlot) {
        if let Some(lane) = self.lanes.get_mut(&slot) {
            (lane.crowded, lane.deaf) = (true, true);
            pause(&mut self.actions, slot, lane);
        }
    }

    /// Pauses one lane: it is halted.
    pub(super) fn pause_lane(&mut self, slot: LaneSlot) {
        if let Some(lane) = self.lanes.get_mut(&slot) {
            pause(&mut self.actions, slot, lane);
        }
    }

    /// Sends what waits for more rows: none come.
    pub(super) fn seal_all(&mut self) {
        let open: Vec<Way> = self.open.keys().copied().collect();
        open.into_iter().for_each(|way| self.seal(way));
    }

    fn seal_largest(&mut self) {
        let largest = self.open.iter().max_by_key(|(_, open)| open.batch.memory_bytes());
        if let Some(way) = largest.map(|(way, _)| *way) {
            self.seal(way);
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

fn resume<O>(actions: &mut Actions, slot: LaneSlot, lane: &mut Lane<O>) {
    if lane.paused && lane.halt.is_none() && lane.phase == Phase::Running {
        lane.paused = false;
        actions.push_back(Action::Resume(slot, lane.tracker.next()));
    }
}
