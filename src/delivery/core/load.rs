//! Load jobs: rows are staged as objects, and a chain's next job brings them when it is due.
//!
//! The rules (`docs/delivery.md`, the slot protocol):
//!
//! 1. Nothing is staged before the chain's end is known.
//! 2. A job is created for the records below an offset once each of them is settled: its row is in an
//!    object of the job, in another chain's, in the table, or in the dead letter. Whoever adopts the
//!    job's end may then pass over all of them.
//! 3. A failed job is followed by another attempt at the same node, once it was seen to have failed.
//! 4. If another owner's job has decided the slot otherwise, the lane is given up and taken over again.

use std::time::{Duration, Instant};

use super::{Core, Sent, Timer, Way};
#[cfg(test)]
use crate::delivery::defect::Defect;
use crate::{
    batch::LaneSlot,
    delivery::{
        action::{Action, BatchId, ChainKey, LoadId, Stage},
        chain::{Chain, Kept, Loading, OBJECTS_MAX, Place, Staged, Suspicion},
        disposition::{self, Disposition},
        encoder::{Encoder, TableIx},
        lane::Phase,
    },
    fault::Fault,
    write::load::{
        chain::Slot,
        content::Content,
        job::{LoadFormat, LoadJob},
        run::JobEnd,
    },
};

mod early;
mod failure;
mod format;
mod locate;
mod pending;

use pending::Commit;

impl<E: Encoder> Core<E> {
    /// A row was added to an open batch of the chain.
    pub(super) fn row_added(&mut self, key: ChainKey, offset: i64, now: Instant) {
        let Some(chain) = self.chains.get_mut(&key) else { return };
        let before = if chain.unloaded > 0 { chain.unloaded_from } else { i64::MAX };
        chain.unloaded_from = before.min(offset);
        chain.unloaded += 1;
        if chain.due.is_none() && chain.closing.is_none() {
            self.arm(key, now);
        }
    }

    /// Rows of the table are staged from now on, or no more: then the last job does not wait for others.
    pub fn switched(&mut self, table: TableIx, is_staged: bool, now: Instant) {
        if is_staged {
            let stranded = self.sent.keys().copied().filter(|id| self.is_stranded(*id));
            let stranded: Vec<BatchId> = stranded.collect();
            stranded.into_iter().for_each(|id| self.change_way(id, now));
        } else {
            self.hasten(table, now);
        }
        self.flow(now);
    }

    /// Hands a batch to the driver, to be stored as an object, or appended to a stream.
    pub(super) fn stage(&mut self, id: BatchId, key: ChainKey, format: LoadFormat) {
        if let LoadFormat::Pending(series) = format {
            return self.append_rows(id, key, series);
        }
        let (Some(sent), Some(chain)) = (self.sent.get(&id), self.chains.get(&key)) else {
            // The lane is gone, and with it whoever would wait for the object.
            return self.forget(id);
        };
        let content = self.content(sent, format);
        if self.encoder.staging(sent.way.slot()).is_some_and(|staging| staging.is_kept_here) {
            return self.keep_here(id, key, format, content);
        }
        self.actions.push_back(Action::Stage(Stage {
            id,
            chain: chain.facts.id.clone(),
            table: chain.facts.table.clone(),
            rows: u32::try_from(sent.batch.rows().len()).unwrap_or(u32::MAX),
            first: sent.batch.rows().first().map_or(0, |row| row.offset),
            content,
        }));
    }

    /// Rows that wait for their job in memory are as safe as in an object: until their offset is committed,
    /// Kafka has them.
    fn keep_here(&mut self, id: BatchId, key: ChainKey, format: LoadFormat, content: Content) {
        let Some(sent) = self.sent.remove(&id) else { return };
        let kept = Kept::Here {
            content,
            memory_bytes: sent.batch.body_memory_bytes(),
            payload_bytes: sent.batch.payload_bytes(),
        };
        let object = Staged::new(kept, format, sent.way.slot(), &sent.batch);
        self.collect(key, object, sent);
    }

    fn forget(&mut self, id: BatchId) {
        if let Some(sent) = self.sent.remove(&id) {
            self.release_memory(sent.batch.memory_bytes());
        }
    }

    /// The answer to `Action::Stage`: the object's address.
    pub fn staged(&mut self, id: BatchId, result: Result<String, Fault>, now: Instant) {
        let Some(sent) = self.sent.remove(&id) else {
            debug_assert!(false, "an object was answered twice");
            return;
        };
        let Way::Staged(slot, key, format) = sent.way else {
            debug_assert!(false, "a streamed batch was answered as an object");
            return;
        };
        match result {
            Ok(uri) if self.chains.contains_key(&key) => {
                let object = Staged::new(Kept::Object(uri), format, slot, &sent.batch);
                self.collect(key, object, sent);
            }
            Ok(uri) => {
                self.actions.push_back(Action::Discard(key.lane, vec![uri], None));
                self.release_memory(sent.batch.memory_bytes());
            }
            Err(_) if !self.chains.contains_key(&key) => {
                self.release_memory(sent.batch.memory_bytes());
            }
            Err(fault) => {
                let wait = wait(&self.settings, &fault, sent.attempts, id.0);
                self.resend_after(wait, id, sent, fault, now);
            }
        }
        self.flow(now);
    }

    /// The rows are safe: their payloads are needed no more.
    fn collect(&mut self, key: ChainKey, mut object: Staged, sent: Sent) {
        let (Some(chain), Some(lane)) = (self.chains.get_mut(&key), self.lanes.get_mut(&key.lane))
        else {
            return;
        };
        for run in &object.runs {
            lane.tracker.settle(run.span, run.records);
            #[cfg(test)]
            if self.defect == Some(Defect::CommitAfterUpload) {
                lane.tracker.resolve_settled(run.span, run.records);
                self.moved.push(key.lane);
            }
        }
        let done_with = sent.batch.payload_bytes() - object.payload_bytes();
        lane.bytes = lane.bytes.saturating_sub(done_with);
        let before = sent.batch.memory_bytes();
        if chain.rows_max == 1 {
            object.suspect = Some(sent.batch);
        } else if let Some(spare) = sent.batch.reclaim(sent.body) {
            self.spares.keep(spare);
        }
        let after = object.memory_bytes();
        chain.staged.push(object);
        let is_full = chain.staged.len() >= OBJECTS_MAX;
        self.recharge(before, after);
        if is_full {
            self.close(key);
        }
    }

    /// The timer of a chain: its next job is due, or one that failed is to be tried again.
    pub(super) fn load_due(&mut self, key: ChainKey, now: Instant) {
        let Some(chain) = self.chains.get_mut(&key) else { return };
        if chain.loading.as_ref().is_some_and(|loading| loading.fault.is_some()) {
            chain.last_job = Some(now);
            self.reload(key);
        } else if chain.due.is_some_and(|due| due <= now) {
            self.close(key);
        }
    }

    /// Seals what is open for the chain and below `offset`: rows that waited for a table come late.
    fn seal_below(&mut self, key: ChainKey, offset: i64) {
        let open = self.open.iter().filter(|(way, open)| {
            way.chain() == Some(key) && open.batch.rows().iter().any(|row| row.offset < offset)
        });
        let ways: Vec<Way> = open.map(|(way, _)| *way).collect();
        ways.into_iter().for_each(|way| self.seal(way));
    }

    /// The next job is wanted for everything that was taken in so far.
    fn close(&mut self, key: ChainKey) {
        self.seal_below(key, i64::MAX);
        let (Some(chain), Some(lane)) = (self.chains.get_mut(&key), self.lanes.get_mut(&key.lane))
        else {
            return;
        };
        lane.tracker.cut();
        chain.series.close();
        chain.due = None;
        if chain.closing.is_none() {
            self.closing.push(key);
        }
        chain.closing = Some(lane.tracker.next());
    }

    /// Wants the jobs that lanes on their way out owe: rows behind what is staged were streamed.
    pub(super) fn close_owed(&mut self) {
        let is_owed = |(key, chain): &(&ChainKey, &Chain)| {
            let lane = self.lanes.get(&key.lane).filter(|lane| lane.phase == Phase::Draining);
            lane.is_some_and(|lane| chain.is_owed(lane.streamed)) && chain.closing.is_none()
        };
        let owed = self.chains.iter().filter(is_owed).map(|(key, _)| *key);
        let owed: Vec<ChainKey> = owed.collect();
        owed.into_iter().for_each(|key| self.close(key));
    }

    /// Creates the jobs that are wanted and ready.
    pub(super) fn load_ready(&mut self, now: Instant) {
        let closing = std::mem::take(&mut self.closing);
        for key in closing {
            if !self.load(key, now) {
                self.closing.push(key);
            }
        }
    }

    /// Creates the chain's next job, or commit, if it is ready; `false` if it is not yet.
    fn load(&mut self, key: ChainKey, now: Instant) -> bool {
        let (Some(chain), Some(lane)) = (self.chains.get(&key), self.lanes.get(&key.lane)) else {
            return true;
        };
        let Some(closing) = chain.closing.filter(|_| !chain.is_abandoned) else { return true };
        if chain.loading.is_some() {
            self.seal_below(key, closing);
            return false;
        }
        if chain.facts.is_pending {
            let Some(Commit { job, rows }) = self.commit_of(key) else { return false };
            self.begin(key, job, rows, now);
            return true;
        }
        let settled = lane.tracker.settled();
        // What a halted lane holds back settles when somebody releases it.
        if settled < closing && lane.halt.is_none() {
            self.seal_below(key, closing);
            return false;
        }
        let limit = closing.min(settled);
        let Some((job, objects)) = self.job_of(key, limit) else {
            if let Some(chain) = self.chains.get_mut(&key) {
                chain.closing = None;
            }
            self.unmix(key, limit);
            self.arm(key, now);
            return true;
        };
        self.begin(key, job, objects, now);
        let is_late = self.is_late(key.lane);
        if let Some(chain) = self.chains.get_mut(&key) {
            chain.formats.cut(is_late);
        }
        true
    }

    /// The job for what is staged below `limit`; `None` where there is none to make.
    fn job_of(&mut self, key: ChainKey, limit: i64) -> Option<(LoadJob, Vec<Staged>)> {
        let chain = self.chains.get_mut(&key)?;
        let Place::End(slot) = chain.place else { return None };
        let (objects, end) = chain.take(limit)?;
        let job = LoadJob {
            id: chain.facts.id.job(slot),
            table: chain.facts.table.clone(),
            sources: objects.iter().filter_map(Staged::uri).cloned().collect(),
            rows_here: objects.iter().filter_map(Staged::rows_here).cloned().collect(),
            format: objects.first().map_or(LoadFormat::NdjsonGz, |object| object.format),
            end,
            rows: objects.iter().map(Staged::rows).sum(),
        };
        #[cfg(test)]
        let job = match self.defect {
            Some(Defect::EndOffsetInJobId) => LoadJob { id: format!("{}-{end}", job.id), ..job },
            _ => job,
        };
        Some((job, objects))
    }

    /// Hands a job to the driver; none if it has no rows.
    fn begin(&mut self, key: ChainKey, job: LoadJob, objects: Vec<Staged>, now: Instant) {
        let Some(chain) = self.chains.get_mut(&key) else { return };
        chain.closing = None;
        if !objects.is_empty() {
            chain.unloaded = chain.unloaded.saturating_sub(job.rows);
            chain.last_job = Some(now);
            let id = LoadId(0);
            chain.loading = Some(Loading { id, job, objects, attempts: 0, fault: None });
            self.reload(key);
        }
        self.arm(key, now);
    }

    /// Sets the timer for the next job, if there are rows for it and none is wanted already.
    fn arm(&mut self, key: ChainKey, now: Instant) {
        let Some(chain) = self.chains.get_mut(&key) else { return };
        if chain.unloaded > 0 && chain.due.is_none() && chain.closing.is_none() {
            let due = if chain.rows_max < u64::MAX { now } else { chain.next_job(now) };
            chain.due = Some(due);
            self.at(due, Timer::Load(key));
        }
    }

    /// Hands the chain's job to the driver, for the first time or again.
    fn reload(&mut self, key: ChainKey) {
        let id = LoadId(self.next_id());
        let Some(loading) = self.chains.get_mut(&key).and_then(|chain| chain.loading.as_mut())
        else {
            return;
        };
        (loading.id, loading.fault) = (id, None);
        loading.attempts += 1;
        let job = loading.job.clone();
        self.actions.push_back(Action::Load { id, key, job });
    }

    /// The answer to `Action::Load`.
    pub fn loaded(
        &mut self,
        (key, id): (ChainKey, LoadId),
        result: Result<JobEnd, Fault>,
        now: Instant,
    ) {
        let is_this = |loading: &Loading| loading.id == id;
        let chain = self.chains.get_mut(&key);
        let loading = chain.and_then(|chain| chain.loading.take_if(|loading| is_this(loading)));
        // The lane is gone: its next owner finds the job.
        let Some(loading) = loading else { return };
        #[cfg(test)]
        let result = match result {
            Ok(JobEnd::Failed(_)) if self.has(Defect::DoneTakenForSuccess) => {
                Ok(JobEnd::Loaded { end: loading.job.end })
            }
            result => result,
        };
        match result {
            Ok(JobEnd::Loaded { end }) if end == loading.job.end => self.arrived(key, loading),
            // Another owner's job has the id, with another end: what is staged here may lie on both sides of
            // it.
            Ok(JobEnd::Loaded { .. }) => self.abandon(key, loading.objects),
            Ok(JobEnd::Failed(fault)) => self.job_failed(key, loading, fault, now),
            Err(fault) => {
                let wait = wait(&self.settings, &fault, loading.attempts, id.0);
                self.reload_after(wait, key, loading, fault, now);
            }
        }
        self.arm(key, now);
        self.flow(now);
    }

    /// The job's rows are in the table.
    fn arrived(&mut self, key: ChainKey, loading: Loading) {
        let (Some(chain), Some(lane)) = (self.chains.get_mut(&key), self.lanes.get_mut(&key.lane))
        else {
            return;
        };
        let end = loading.job.end;
        let kept: usize = loading.objects.iter().map(Staged::payload_bytes).sum();
        lane.bytes = lane.bytes.saturating_sub(kept);
        if !chain.facts.is_pending {
            chain.place = Place::End(Slot::at(end));
        }
        chain.rows_max = chain.rows_max.saturating_mul(2);
        let lines_jobs = chain.formats.arrived();
        let suspect = (lane.lane.clone(), key.table);
        if let Some(suspicion) = self.suspicions.get_mut(&suspect) {
            *suspicion = Suspicion { rows_max: chain.rows_max, lines_jobs };
        }
        let mut moved = false;
        for run in loading.objects.iter().flat_map(|object| &object.runs) {
            #[cfg(test)]
            if self.defect == Some(Defect::CommitAfterUpload) {
                break;
            }
            moved |= lane.tracker.resolve_settled(run.span, run.records);
        }
        if moved && !self.moved.contains(&key.lane) {
            self.moved.push(key.lane);
        }
        self.note_node(key);
        let committed = Some(end);
        #[cfg(test)]
        let committed = committed.filter(|_| !self.has(Defect::ObjectsDeletedBeforeCommit));
        self.discard(key.lane, loading.objects, committed);
        self.end_halt(key.lane);
    }

    fn discard(&mut self, slot: LaneSlot, objects: Vec<Staged>, committed: Option<i64>) {
        let memory: usize = objects.iter().map(Staged::memory_bytes).sum();
        self.release_memory(memory);
        let uris: Vec<String> = objects.iter().filter_map(Staged::uri).cloned().collect();
        if !uris.is_empty() {
            self.actions.push_back(Action::Discard(slot, uris, committed));
        }
    }

    /// Rows of the lane that no job brings soon, and records whose chain is not found yet.
    pub(super) fn unloaded(&self, slot: LaneSlot) -> u64 {
        let chains = self.chains.iter().filter(|(key, _)| key.lane == slot);
        let streamed = self.lanes.get(&slot).map_or(i64::MIN, |lane| lane.streamed);
        let of = |chain: &Chain| {
            let unloaded = if chain.is_owed(streamed) { 0 } else { chain.unloaded };
            let waiting = chain.waiting.rows();
            let is_awaited = waiting.first().is_some_and(|row| row.offset < streamed);
            unloaded + if is_awaited { 0 } else { waiting.len() as u64 }
        };
        chains.map(|(_, chain)| of(chain)).sum()
    }

    /// Forgets the chains of lanes that are gone. Their jobs go on, and the jobs' objects stay; objects of
    /// no job are useless.
    pub(super) fn drop_chains(&mut self) {
        let is_gone = |key: &ChainKey| !self.lanes.contains_key(&key.lane);
        let of_gone = |way: &&Way| way.chain().is_some_and(|key| is_gone(&key));
        let ways: Vec<Way> = self.open.keys().filter(of_gone).copied().collect();
        let keys: Vec<ChainKey> = self.chains.keys().filter(|key| is_gone(key)).copied().collect();
        for way in ways {
            self.filled.remove(&way);
            if let Some(open) = self.open.remove(&way) {
                self.release_memory(open.batch.memory_bytes());
            }
        }
        for key in keys {
            let Some(chain) = self.chains.remove(&key) else { continue };
            let loading = chain.loading.iter().flat_map(|loading| &loading.objects);
            let memory =
                chain.waiting.memory_bytes() + loading.map(Staged::memory_bytes).sum::<usize>();
            self.release_memory(memory);
            self.discard(key.lane, chain.staged, None);
        }
    }
}

/// Until the next attempt after a fault: nothing is given up.
fn wait(settings: &super::CoreSettings, fault: &Fault, attempts: u32, key: u64) -> Duration {
    let backoff = match disposition::of_request(fault) {
        Disposition::Retry | Disposition::Replan => settings.retry,
        Disposition::RetrySlowly | Disposition::Split => settings.retry_slowly,
    };
    backoff.wait(attempts, key).max(fault.retry_after.unwrap_or(Duration::ZERO))
}
