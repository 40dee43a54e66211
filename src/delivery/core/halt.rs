//! Halts: a lane that may not divert a bad record stands still and holds it back.
//!
//! | cause | what ends it |
//! |---|---|
//! | there is no dead-letter topic | the held records are tried again every `halt_retry`, with a fresh look at table and registry; it is over when none of them is refused any more |
//! | the dead-letter budget is used up | a person: the records are bad one by one, time mends none of them |
//!
//! Either ends with a [`release`](Core::release). While they are tried, the lane stays halted and
//! paused: a cause that has not passed lets no further record in.

use std::time::Instant;

use super::{Core, Place, Timer};
use crate::{
    batch::{LaneSlot, SpanId},
    dead_letter::Reason,
    delivery::{
        encoder::Encoder,
        lane::{Halt, Phase, Until},
    },
    record::Record,
};

/// What stands in the way of diverting a record.
pub(super) enum Cause {
    NoDeadLetter,
    /// With the limit that is exceeded.
    Budget(String),
}

impl Cause {
    fn remedy(&self) -> String {
        match self {
            Self::NoDeadLetter => "no dead_letter topic is configured for this topic; set one, or \
                                   mend the cause: the record is tried again by itself"
                .to_owned(),
            Self::Budget(limit) => format!(
                "the dead-letter budget is used up: {limit}; mend the cause or widen \
                 dead_letter_budget, then release the lane"
            ),
        }
    }
}

impl<E: Encoder> Core<E> {
    /// Halts the lane at a bad record.
    pub(super) fn halt(
        &mut self,
        place: Place,
        record: &Record<'_>,
        reason: Reason,
        cause: Cause,
        now: Instant,
    ) {
        let until = match cause {
            Cause::NoDeadLetter => {
                let due = now + self.settings.halt_retry;
                self.at(due, Timer::Retry(place.lane));
                Until::Retry(due)
            }
            Cause::Budget(_) => Until::Released,
        };
        let Some(lane) = self.lanes.get_mut(&place.lane) else { return };
        lane.halt = Some(Halt { reason, remedy: cause.remedy(), offset: record.offset, until });
        self.hold_back(place, record);
        self.pause_lane(place.lane);
    }

    /// A record is refused while its lane is halted: another one, or one that was tried again.
    pub(super) fn refuse_halted(
        &mut self,
        place: Place,
        record: &Record<'_>,
        reason: Reason,
        now: Instant,
    ) {
        self.hold_back(place, record);
        let due = now + self.settings.halt_retry;
        let is_tried = |halt: &&mut Halt| matches!(halt.until, Until::Tried(_));
        let halt = self.lanes.get_mut(&place.lane).and_then(|lane| lane.halt.as_mut());
        let Some(halt) = halt.filter(is_tried) else { return };
        (halt.reason, halt.offset, halt.until) = (reason, record.offset, Until::Retry(due));
        self.at(due, Timer::Retry(place.lane));
    }

    fn hold_back(&mut self, place: Place, record: &Record<'_>) {
        let Some(lane) = self.lanes.get_mut(&place.lane) else { return };
        let before = lane.held.memory_bytes();
        lane.held.push_unencoded(place.lane, place.span, record);
        let after = lane.held.memory_bytes();
        self.recharge(before, after);
    }

    /// Tries the held records again. A lane that is being given up does not: what is tried would
    /// have to be waited for.
    pub(super) fn retry_held(&mut self, slot: LaneSlot, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&slot).filter(|lane| lane.phase == Phase::Running)
        else {
            return;
        };
        // A release and another halt may have overtaken the timer.
        let is_due = |halt: &&mut Halt| matches!(halt.until, Until::Retry(due) if due <= now);
        let Some(halt) = lane.halt.as_mut().filter(is_due) else { return };
        let mut spans: Vec<SpanId> = lane.held.rows().iter().map(|row| row.span).collect();
        spans.dedup();
        halt.until = Until::Tried(spans);
        self.place_held(slot, now);
    }

    fn place_held(&mut self, slot: LaneSlot, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&slot) else { return };
        let held = std::mem::take(&mut lane.held);
        for row in held.rows() {
            let record = held.record(row);
            let Some(lane) = self.lanes.get(&slot) else { break };
            let route = self.encoder.route_again(&lane.origin, &record);
            self.place(Place { lane: slot, span: row.span }, &record, route, now);
        }
        self.release_memory(held.memory_bytes());
    }

    /// Ends the halt of a lane whose held records were tried and are resolved.
    pub(super) fn end_halt(&mut self, slot: LaneSlot) {
        let Some(lane) = self.lanes.get_mut(&slot) else { return };
        let Some(Halt { until: Until::Tried(spans), .. }) = &lane.halt else { return };
        if spans.iter().all(|span| lane.tracker.is_resolved(*span)) {
            lane.halt = None;
        }
    }

    /// Releases a halted lane: its budget starts afresh and the records that were held back are
    /// tried again. Returns whether the lane was halted.
    pub fn release(&mut self, slot: LaneSlot, now: Instant) -> bool {
        let Some(lane) = self.lanes.get_mut(&slot) else { return false };
        if lane.halt.take().is_none() {
            return false;
        }
        lane.budget.reset();
        self.place_held(slot, now);
        self.flow(now);
        true
    }
}
