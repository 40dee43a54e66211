//! Answers of the write path: rows are resolved, sent again, planned again, or refused.

use std::time::{Duration, Instant};

use super::{Core, Past, Place, Sent, Timer, Way};
use crate::{
    batch::{Batch, LaneSlot, SpanId},
    dead_letter::{Reason, Stage},
    delivery::{
        action::BatchId,
        disposition::{self, Disposition},
        encoder::{Encoder, SlotId},
    },
    fault::{Certainty, Fault, FaultKind},
    write::{RowFault, WriteOutcome},
};

impl<E: Encoder> Core<E> {
    /// The answer to `Action::Write`.
    pub fn written(&mut self, id: BatchId, outcome: WriteOutcome, now: Instant) {
        let Some(sent) = self.sent.remove(&id) else {
            debug_assert!(false, "a batch was answered twice");
            return;
        };
        #[cfg(test)]
        let outcome = self.with_defects(outcome, &sent);
        self.answered(id, sent, outcome, now);
        self.flow(now);
    }

    /// What becomes of a batch by the outcome of its request.
    pub(super) fn answered(
        &mut self,
        id: BatchId,
        mut sent: Sent,
        outcome: WriteOutcome,
        now: Instant,
    ) {
        match outcome {
            WriteOutcome::Acked => self.acknowledged(sent),
            WriteOutcome::Partial { rejected, unsent, is_doubtful } => {
                sent.past.is_doubtful |= is_doubtful;
                self.partial(&sent, &rejected, &unsent, now);
                self.release_memory(sent.batch.memory_bytes());
            }
            WriteOutcome::Refused(fault) | WriteOutcome::Unknown(fault) => {
                self.failed(id, sent, fault, now);
            }
        }
    }

    fn acknowledged(&mut self, sent: Sent) {
        self.resolve_rows(&sent.batch, |_| true);
        self.release_memory(sent.batch.memory_bytes());
        if let Some(spare) = sent.batch.reclaim(sent.body) {
            self.spares.keep(spare);
        }
    }

    fn failed(&mut self, id: BatchId, mut sent: Sent, fault: Fault, now: Instant) {
        sent.past.is_doubtful |= fault.certainty == Certainty::Unknown;
        if sent.batch.rows().iter().all(|row| !self.lanes.contains_key(&row.lane)) {
            // Their next owners read the records again; nobody here waits for an answer.
            return self.release_memory(sent.batch.memory_bytes());
        }
        let wait = match disposition::of_request(&fault) {
            Disposition::Retry => self.settings.retry.wait(sent.attempts, id.0),
            Disposition::RetrySlowly => self.settings.retry_slowly.wait(sent.attempts, id.0),
            Disposition::Replan => {
                self.replan(&sent, |_| true, now);
                return self.release_memory(sent.batch.memory_bytes());
            }
            Disposition::Split => return self.isolate(sent, &fault, now),
        };
        self.resend_after(wait, id, sent, fault, now);
    }

    pub(super) fn resend_after(
        &mut self,
        wait: Duration,
        id: BatchId,
        mut sent: Sent,
        fault: Fault,
        now: Instant,
    ) {
        let due = now + wait.max(fault.retry_after.unwrap_or(Duration::ZERO));
        sent.fault = Some(fault);
        self.sent.insert(id, sent);
        self.at(due, Timer::Resend(id));
    }

    /// Whether a request was refused as a whole, by a path that rows of its table do not go any more.
    pub(super) fn is_stranded(&self, id: BatchId) -> bool {
        self.sent.get(&id).is_some_and(|sent| {
            let is_refused = sent.fault.is_some() && !sent.past.is_doubtful;
            is_refused && matches!(sent.way, Way::Streamed(slot) if self.encoder.is_staged(slot))
        })
    }

    /// Stages the rows of a stranded request.
    pub(super) fn change_way(&mut self, id: BatchId, now: Instant) {
        let Some(sent) = self.sent.remove(&id) else { return };
        self.encode_again(&sent.batch, sent.past, now);
        self.release_memory(sent.batch.memory_bytes());
    }

    /// Finds the row that the request was refused for, by halves; a single row is to blame itself.
    fn isolate(&mut self, sent: Sent, fault: &Fault, now: Instant) {
        if sent.batch.rows().len() > 1 {
            return self.split(sent);
        }
        for row in sent.batch.rows() {
            let place = Place { lane: row.lane, span: row.span };
            self.refuse(place, &sent.batch.record(row), refusal(fault, None), now);
        }
        self.release_memory(sent.batch.memory_bytes());
    }

    /// Sends the two halves of a batch instead of it.
    pub(super) fn split(&mut self, sent: Sent) {
        let middle = sent.batch.rows().len() / 2;
        for first in [true, false] {
            let half = self.subset(&sent, |index| (index < middle) == first);
            self.charge(half.memory_bytes());
            self.dispatch(sent.way, half, sent.past);
        }
        self.release_memory(sent.batch.memory_bytes());
    }

    /// A new batch of the rows that `keep` chooses, in the same framing, not closed yet.
    fn subset(&self, sent: &Sent, keep: impl Fn(usize) -> bool) -> Batch {
        let slot = sent.way.slot();
        if sent.way.chain().is_some() {
            return sent.batch.subset(&sent.body, b"", |_| {}, keep);
        }
        let open = |body: &mut Vec<u8>| self.encoder.open_body(slot, body);
        sent.batch.subset(&sent.body, self.encoder.separator(slot), open, keep)
    }

    fn partial(&mut self, sent: &Sent, rejected: &[RowFault], unsent: &[u32], now: Instant) {
        let is_unsent = |index: usize| contains(unsent, index);
        let find = |index: usize| rejected.iter().find(|fault| fault.row as usize == index);
        self.resolve_rows(&sent.batch, |index| !is_unsent(index) && find(index).is_none());
        let may_pass: Vec<u32> = rejected
            .iter()
            .filter(|rejected| self.may_pass(sent.way.slot(), rejected))
            .map(|rejected| rejected.row)
            .collect();
        let may_pass = |index: usize| contains(&may_pass, index);
        self.replan(sent, may_pass, now);
        for (index, row) in sent.batch.rows().iter().enumerate() {
            if let Some(rejected) = find(index).filter(|_| !may_pass(index)) {
                let place = Place { lane: row.lane, span: row.span };
                let record = sent.batch.record(row);
                let is_old = rejected.fault.kind == FaultKind::PartitionOutOfRange
                    && sent.way.chain().is_none();
                if is_old && self.stage_instead(sent.way.slot(), place, &record, now) {
                    continue;
                }
                let reason = refusal(&rejected.fault, rejected.field.clone());
                self.refuse(place, &record, reason, now);
            }
        }
        if !unsent.is_empty() {
            self.send_unsent(sent, is_unsent, rejected.is_empty(), now);
        }
    }

    /// Whether the table, once looked at again, may take the row.
    fn may_pass(&self, slot: SlotId, rejected: &RowFault) -> bool {
        let widened = || {
            let (field, from) = (rejected.field.as_ref()?, rejected.taken_for.as_ref()?);
            Some(self.encoder.is_widened(slot, field, from))
        };
        disposition::row_may_pass(&rejected.fault) || widened().unwrap_or(false)
    }

    /// Sends again the rows that BigQuery left out: at once if they were only stopped by a bad row
    /// beside them, after a wait if it was for their own (passing) sake.
    fn send_unsent(
        &mut self,
        sent: &Sent,
        is_unsent: impl Fn(usize) -> bool,
        own_fault: bool,
        now: Instant,
    ) {
        let mut batch = self.subset(sent, is_unsent);
        self.close_body(sent.way, batch.body_mut());
        let body = batch.take_body();
        let id = BatchId(self.next_id());
        let attempts = if own_fault { sent.attempts } else { 0 };
        let fault = own_fault.then(|| {
            Fault::refused(FaultKind::Transient, "backendError", "BigQuery left these rows out")
        });
        let again = Sent { way: sent.way, batch, body, attempts, past: sent.past, fault };
        self.charge(again.batch.memory_bytes());
        self.sent.insert(id, again);
        if own_fault {
            let wait = self.settings.retry.wait(attempts, id.0);
            self.at(now + wait, Timer::Resend(id));
        } else {
            self.resend(id);
        }
    }

    /// Puts the chosen rows aside until the table is looked at again: at once the first time, after
    /// a growing wait when they came back before, because a change that BigQuery has accepted can
    /// take minutes to reach its write path.
    fn replan(&mut self, sent: &Sent, choose: impl Fn(usize) -> bool, now: Instant) {
        let rows = sent.batch.rows().iter().enumerate().filter(|(index, _)| choose(*index));
        let mut need = None;
        for (_, row) in rows {
            let need = *need.get_or_insert_with(|| self.encoder.outdated(sent.way.slot()));
            let place = Place { lane: row.lane, span: row.span };
            let past = Past { replans: sent.past.replans + 1, ..sent.past };
            self.wait(need, place, &sent.batch.record(row), past);
        }
        let Some(need) = need else { return };
        if sent.past.replans == 0 {
            self.prepare(need);
        } else {
            let wait = self.settings.retry.wait(sent.past.replans + 2, u64::from(need.0));
            self.at(now + wait, Timer::Relook(need));
        }
    }

    /// Resolves the chosen rows of a batch, run by run.
    fn resolve_rows(&mut self, batch: &Batch, choose: impl Fn(usize) -> bool) {
        let mut run: Option<(LaneSlot, SpanId, u32, usize)> = None;
        for (index, row) in batch.rows().iter().enumerate() {
            if !choose(index) {
                continue;
            }
            let bytes = row.payload_bytes();
            match &mut run {
                Some((lane, span, rows, total)) if *lane == row.lane && *span == row.span => {
                    *rows += 1;
                    *total += bytes;
                }
                _ => {
                    let done = run.replace((row.lane, row.span, 1, bytes));
                    self.resolve_run(done);
                }
            }
        }
        self.resolve_run(run);
    }

    fn resolve_run(&mut self, run: Option<(LaneSlot, SpanId, u32, usize)>) {
        if let Some((lane, span, rows, bytes)) = run {
            self.resolve(Place { lane, span }, rows, bytes);
        }
    }

    /// Resolves `records` records of one span. A lane that is gone is ignored.
    pub(super) fn resolve(&mut self, place: Place, records: u32, bytes: usize) {
        let Some(lane) = self.lanes.get_mut(&place.lane) else { return };
        lane.bytes = lane.bytes.saturating_sub(bytes);
        if lane.tracker.resolve(place.span, records) && !self.moved.contains(&place.lane) {
            self.moved.push(place.lane);
        }
        self.end_halt(place.lane);
    }

    #[cfg(test)]
    fn with_defects(&mut self, outcome: WriteOutcome, sent: &Sent) -> WriteOutcome {
        use crate::delivery::defect::Defect;
        match outcome {
            WriteOutcome::Unknown(fault) if self.has(Defect::AnswerLostTakenForRefused) => {
                let rows = 0..u32::try_from(sent.batch.rows().len()).unwrap();
                let fault = Fault::refused(FaultKind::InvalidRow, fault.reason, fault.message);
                let rejected = rows.map(|row| RowFault {
                    row,
                    fault: fault.clone(),
                    field: None,
                    taken_for: None,
                });
                WriteOutcome::Partial {
                    rejected: rejected.collect(),
                    unsent: Vec::new(),
                    is_doubtful: false,
                }
            }
            WriteOutcome::Refused(_) if self.has(Defect::NackDoesNotBlock) => WriteOutcome::Acked,
            outcome => outcome,
        }
    }
}

fn contains(sorted: &[u32], index: usize) -> bool {
    u32::try_from(index).is_ok_and(|index| sorted.binary_search(&index).is_ok())
}

fn refusal(fault: &Fault, field: Option<String>) -> Reason {
    Reason { stage: Stage::Write, message: fault.message.clone(), field, schema_id: None }
}
