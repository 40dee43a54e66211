//! The lanes on the status page, and the log of their halts.

use std::{collections::HashMap, time::Instant};

use super::wait::Wait;
use crate::{
    batch::LaneSlot,
    dead_letter::Reason,
    delivery::lane::{Halt, Lane, Phase, Until},
    pipeline::{encoder::origin::Origin, now_ms},
    record::TopicPartition,
    source::OwnedLane,
    telemetry::{Cause, LaneState, LastError, Telemetry, Teller, Trouble},
};

/// Different reasons that are logged while a lane is halted: with each try another of the records
/// that it holds may be the first to be refused.
const REASONS_MAX: usize = 8;

/// Says once why a lane stands still; `/status` goes on saying it.
fn log_halt(lane: &TopicPartition, halt: &Halt) {
    tracing::error!(
        topic = %lane.topic,
        partition = lane.partition,
        offset = halt.offset,
        stage = halt.reason.stage.name(),
        field = halt.reason.field.as_deref(),
        reason = %halt.reason.message,
        remedy = %halt.remedy,
        "the partition is halted"
    );
}

/// What was logged of the halts that last.
#[derive(Default)]
pub(super) struct Halts(HashMap<LaneSlot, Vec<Reason>>);

impl Halts {
    /// Forgets the lanes that are gone.
    pub(super) fn retain(&mut self, lanes: &HashMap<LaneSlot, OwnedLane>) {
        self.0.retain(|slot, _| lanes.contains_key(slot));
    }

    /// One line per halt and reason: a try that meets the same reason again says nothing new.
    pub(super) fn note(&mut self, telemetry: &Telemetry, slot: LaneSlot, lane: &Lane<Origin>) {
        let Some(halt) = &lane.halt else {
            if self.0.remove(&slot).is_some() {
                tracing::info!(
                    topic = %lane.lane.topic,
                    partition = lane.lane.partition,
                    "the partition is halted no more"
                );
            }
            return;
        };
        let logged = self.0.entry(slot).or_default();
        if logged.len() >= REASONS_MAX || logged.contains(&halt.reason) {
            return;
        }
        logged.push(halt.reason.clone());
        log_halt(&lane.lane, halt);
        let at_ms = now_ms();
        telemetry.status.update_lane(&lane.lane.topic, lane.lane.partition, |status| {
            status.last_error = Some(LastError {
                stage: halt.reason.stage.name().to_owned(),
                field: halt.reason.field.clone(),
                message: halt.reason.message.clone(),
                remedy: Some(halt.remedy.clone()),
                at_ms,
            });
        });
    }
}

/// Writes a lane's state to the board.
pub(super) fn show(telemetry: &Telemetry, lane: &Lane<Origin>, wait: Option<&Wait>, now: Instant) {
    let (state, reason) = match (&lane.halt, lane.phase, wait) {
        (Some(halt), _, _) => (
            LaneState::Halted,
            Some(format!("offset {}: {}; {}", halt.offset, halt.reason.message, halt.remedy)),
        ),
        (None, Phase::Draining, _) => (LaneState::Draining, None),
        (None, Phase::Running, Some(wait)) => (wait.state, Some(wait.reason.clone())),
        (None, Phase::Running, None) if lane.stuck.is_some() => (
            LaneState::Paused,
            Some("what it holds is not acknowledged, and the others need the memory".to_owned()),
        ),
        (None, Phase::Running, None) if lane.paused => {
            (LaneState::Paused, Some("as much is in flight as the memory allows".to_owned()))
        }
        (None, Phase::Running, None) => (LaneState::Running, None),
    };
    let at = now_ms();
    let trouble = match &lane.halt {
        Some(halt) => Some(halted(halt, at)),
        None => wait.and_then(|wait| wait.trouble.clone()),
    };
    // Whatever keeps it, the first record that does stands at the watermark.
    let trouble = trouble.map(|trouble| {
        let offset = trouble.offset.unwrap_or(lane.tracker.watermark());
        trouble.at(Some(offset))
    });
    telemetry.status.update_lane(&lane.lane.topic, lane.lane.partition, |status| {
        status.next_offset = Some(lane.tracker.next());
        status.in_flight_records = lane.tracker.unresolved();
        status.in_flight_bytes = lane.bytes as u64;
        status.next_try_ms = lane.halt.as_ref().and_then(|halt| next_try_ms(halt, now, at));
        status.enter(state, reason, at);
        status.troubles.tell(Teller::Worker, trouble);
    });
}

fn halted(halt: &Halt, now_ms: i64) -> Trouble {
    let cause = match halt.until {
        Until::Released => Cause::DeadLetterBudget,
        Until::Retry(_) | Until::Tried(_) => Cause::Record,
    };
    Trouble::new(cause, halt.reason.message.clone(), now_ms)
        .with_remedy(Some(halt.remedy.clone()))
        .at(Some(halt.offset))
}

fn next_try_ms(halt: &Halt, now: Instant, now_ms: i64) -> Option<i64> {
    let Until::Retry(due) = halt.until else { return None };
    let wait = due.saturating_duration_since(now).as_millis();
    Some(now_ms.saturating_add(i64::try_from(wait).unwrap_or(i64::MAX)))
}
