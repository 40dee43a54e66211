//! Bad records: diverted to the dead-letter topic within the budget, or the lane halts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Core, Place, Timer, halt::Cause};
use crate::{
    batch::LaneSlot,
    dead_letter::{DeadLetter, Reason},
    delivery::{
        action::{Action, LetterId},
        encoder::Encoder,
    },
    fault::Fault,
    record::{Coordinates, Record},
};

/// The longest pause between two attempts to send a dead letter.
const LETTER_PAUSE_MAX: Duration = Duration::from_secs(15);

/// A dead letter that was handed to the driver.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) place: Place,
    pub(super) bytes: usize,
    pub(super) letter: DeadLetter,
    pub(super) attempts: u32,
    pub(super) since: Instant,
    /// Why it was not taken the last time, also while it is sent again.
    pub(super) fault: Option<Fault>,
}

/// A dead letter that is not acknowledged yet, for the status page.
#[derive(Clone, Copy, Debug)]
pub struct OpenLetter<'a> {
    /// The lane of its record.
    pub lane: LaneSlot,
    /// The record's offset.
    pub offset: i64,
    /// The dead-letter topic.
    pub topic: &'a Arc<str>,
    /// When it was sent first.
    pub since: Instant,
    /// Why it was not taken the last time.
    pub fault: Option<&'a Fault>,
}

impl<E: Encoder> Core<E> {
    /// Dead letters that are not acknowledged yet.
    pub fn open_letters(&self) -> impl Iterator<Item = OpenLetter<'_>> {
        self.letters.values().map(|open| OpenLetter {
            lane: open.place.lane,
            offset: open.letter.origin.offset,
            topic: &open.letter.topic,
            since: open.since,
            fault: open.fault.as_ref(),
        })
    }

    /// A record can never become a row: its original bytes go to the dead letter, or it halts its
    /// lane.
    pub(super) fn refuse(
        &mut self,
        place: Place,
        record: &Record<'_>,
        reason: Reason,
        now: Instant,
    ) {
        let Some(lane) = self.lanes.get_mut(&place.lane) else { return };
        let policy = self.encoder.bad_record_policy(&lane.origin);
        let topic = match &policy.dead_letter {
            _ if lane.halt.is_some() => return self.refuse_halted(place, record, reason, now),
            None => return self.halt(place, record, reason, Cause::NoDeadLetter, now),
            Some(topic) => match lane.budget.bad(&policy.budget) {
                Ok(()) => Arc::clone(topic),
                Err(limit) => {
                    return self.halt(place, record, reason, Cause::Budget(limit), now);
                }
            },
        };
        let origin = Coordinates { lane: lane.lane.clone(), offset: record.offset };
        let letter = letter(topic, origin, record, reason);
        let (bytes, id) = (record.bytes(), LetterId(self.next_id()));
        self.charge(bytes);
        let letter = Letter { place, bytes, letter, attempts: 0, since: now, fault: None };
        self.letters.insert(id, letter);
        self.send_letter(id);
    }

    pub(super) fn send_letter(&mut self, id: LetterId) {
        let Some(letter) = self.letters.get_mut(&id) else { return };
        if !self.lanes.contains_key(&letter.place.lane) {
            // The record's next owner reads it again.
            let bytes = letter.bytes;
            self.letters.remove(&id);
            return self.release_memory(bytes);
        }
        letter.attempts += 1;
        self.actions.push_back(Action::DeadLetter { id, letter: letter.letter.clone() });
    }

    /// The answer to `Action::DeadLetter`. A failed one is sent again after a growing wait: the
    /// record is neither stored nor given up.
    pub fn lettered(&mut self, id: LetterId, result: Result<(), Fault>, now: Instant) {
        let Some(mut letter) = self.letters.remove(&id) else {
            debug_assert!(false, "a dead letter was answered twice");
            return;
        };
        match result {
            Ok(()) => {
                self.resolve(letter.place, 1, letter.bytes);
                self.release_memory(letter.bytes);
            }
            // The record's next owner reads it again.
            Err(_) if !self.lanes.contains_key(&letter.place.lane) => {
                self.release_memory(letter.bytes);
            }
            Err(fault) => {
                // What an operator mends goes on within seconds.
                let wait = self.settings.retry.wait(letter.attempts, id.0).min(LETTER_PAUSE_MAX);
                let due = now + wait;
                letter.fault = Some(fault);
                self.letters.insert(id, letter);
                self.at(due, Timer::Letter(id));
            }
        }
        self.flow(now);
    }
}

fn letter(topic: Arc<str>, origin: Coordinates, record: &Record<'_>, reason: Reason) -> DeadLetter {
    DeadLetter {
        topic,
        origin,
        timestamp_ms: record.timestamp_ms,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: record.headers.encoded().to_vec(),
        reason,
    }
}
