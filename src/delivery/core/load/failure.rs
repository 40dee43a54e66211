//! Load jobs that did not bring their rows: the call failed, the job failed, or it was another owner's.

use std::time::{Duration, Instant};

#[cfg(test)]
use crate::delivery::defect::Defect;
use crate::{
    dead_letter::{Reason, Stage},
    delivery::{
        action::{Action, ChainKey},
        chain::{Loading, Place, Staged},
        core::{Core, Place as RecordPlace, Timer},
        disposition::{self, Disposition},
        encoder::Encoder,
        lane::Phase,
    },
    fault::Fault,
    write::load::job::LoadFormat,
};

use super::wait;

impl<E: Encoder> Core<E> {
    pub(super) fn reload_after(
        &mut self,
        wait: Duration,
        key: ChainKey,
        mut loading: Loading,
        fault: Fault,
        now: Instant,
    ) {
        loading.fault = Some(fault);
        if let Some(chain) = self.chains.get_mut(&key) {
            chain.loading = Some(loading);
        }
        self.at(now + wait, Timer::Load(key));
    }

    /// Gives the chain up as it is, and lets the rows of its last job go: nothing more is taken in for the
    /// lane, which is given up and taken over again, so that they are read again with all that comes
    /// after them.
    pub(super) fn abandon(&mut self, key: ChainKey, objects: Vec<Staged>) {
        if let Some(chain) = self.chains.get_mut(&key) {
            chain.unloaded += objects.iter().map(Staged::rows).sum::<u64>();
            chain.is_abandoned = true;
        }
        self.discard(key.lane, objects, None);
        if let Some(lane) = self.lanes.get_mut(&key.lane) {
            lane.phase = Phase::Draining;
            self.actions.push_back(Action::Restart(key.lane));
        }
    }

    pub(super) fn job_failed(
        &mut self,
        key: ChainKey,
        mut loading: Loading,
        fault: Fault,
        now: Instant,
    ) {
        let Some(chain) = self.chains.get_mut(&key) else { return };
        let Place::End(slot) = chain.place else { return };
        if chain.facts.is_pending {
            // The streams are gone, or are not what was appended: the rows are read and appended again.
            self.plan_again(&loading);
            return self.abandon(key, loading.objects);
        }
        let next = slot.again();
        #[cfg(test)]
        let next = match self.defect {
            Some(Defect::FailedJobIdReused) => slot,
            _ => next,
        };
        chain.place = Place::End(next);
        match disposition::of_request(&fault) {
            Disposition::Retry | Disposition::RetrySlowly => {
                loading.job.id = chain.facts.id.job(next);
                // Failed jobs count, too, against what the table may have in a day.
                let wait = wait(&self.settings, &fault, next.attempt, loading.id.0);
                let wait = chain.again(wait, now) - now;
                self.reload_after(wait, key, loading, fault, now);
            }
            // The table is not what the rows were encoded for: they are read and encoded again.
            Disposition::Replan => {
                self.plan_again(&loading);
                self.abandon(key, loading.objects);
            }
            // Lines are tried before any row is to blame: what BigQuery makes of a container is less known
            // than what it makes of a line.
            Disposition::Split if loading.job.format != LoadFormat::NdjsonGz => {
                self.plan_again(&loading);
                self.only_lines(key);
                self.abandon(key, loading.objects);
            }
            Disposition::Split => self.suspect(key, loading, &fault, now),
        }
    }

    fn plan_again(&mut self, loading: &Loading) {
        let Some(object) = loading.objects.first() else { return };
        let need = self.encoder.outdated(object.slot);
        self.waiting.entry(need).or_default();
        self.prepare(need);
    }

    /// A row of the job is bad: fewer of them next time, until it is alone.
    fn suspect(&mut self, key: ChainKey, mut loading: Loading, fault: &Fault, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&key.lane) else { return };
        // Of several rows, each keeps what it holds until the job is over.
        let is_alone = loading.job.rows == 1;
        let only = loading.objects.first_mut().filter(|_| is_alone);
        match only.and_then(|object| object.suspect.take()) {
            Some(batch) => {
                if let Some(row) = batch.rows().first() {
                    lane.tracker.unsettle(row.span, 1);
                    let reason = Reason {
                        stage: Stage::Write,
                        message: fault.message.clone(),
                        field: None,
                        schema_id: None,
                    };
                    let place = RecordPlace { lane: row.lane, span: row.span };
                    self.refuse(place, &batch.record(row), reason, now);
                }
                self.release_memory(batch.memory_bytes());
                self.discard(key.lane, loading.objects, None);
            }
            None => {
                let rows_max = (loading.job.rows / 2).max(1);
                let suspect = (lane.lane.clone(), key.table);
                self.suspicions.entry(suspect).or_default().rows_max = rows_max;
                self.abandon(key, loading.objects);
            }
        }
    }
}
