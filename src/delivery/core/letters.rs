//! Bad records: diverted to the dead-letter topic within the budget, or the lane halts.

use std::{sync::Arc, time::Instant};

use super::{Core, Letter, Place, Timer, halt::Cause};
use crate::{
    dead_letter::{DeadLetter, Reason},
    delivery::{
        action::{Action, LetterId},
        encoder::Encoder,
    },
    fault::Fault,
    record::{Coordinates, Record},
};

impl<E: Encoder> Core<E> {
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
        self.divert(place, letter(topic, origin, record, reason), record.bytes());
    }

    fn divert(&mut self, place: Place, letter: DeadLetter, bytes: usize) {
        let id = LetterId(self.next_id());
        self.charge(bytes);
        self.letters.insert(id, Letter { place, bytes, letter, attempts: 0, fault: None });
        self.send_letter(id);
    }

    pub(super) fn send_letter(&mut self, id: LetterId) {
        let Some(letter) = self.letters.get_mut(&id) else { return };
        letter.attempts += 1;
        letter.fault = None;
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
                let due = now + self.settings.retry.wait(letter.attempts, id.0);
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
