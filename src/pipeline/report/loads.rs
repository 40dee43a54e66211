//! Load jobs on the status page and in the metrics.

use std::time::Instant;

use super::{
    OnTheWire, Report, cause_of,
    wait::{Wait, Waits},
};
use crate::{
    delivery::{
        action::{BatchId, LoadId, Stage},
        chain::Chain,
        core::Core,
    },
    fault::{Certainty, Fault, FaultKind},
    pipeline::{encoder::TopicEncoder, now_ms},
    telemetry::{Cause, LaneState},
    write::{
        WriteOutcome,
        load::{job::LoadJob, run::JobEnd},
        storage::pending::Append,
    },
};

impl Report {
    /// An object is to be stored.
    pub fn staging(&mut self, stage: &Stage, now: Instant) {
        let entry =
            OnTheWire::new(self.table(&stage.table), stage.rows, stage.content.bytes(), now);
        self.writes.insert(stage.id, entry);
    }

    /// It is stored, or not.
    pub fn staged(&mut self, id: BatchId, stored: bool, now: Instant) {
        let Some(sent) = self.writes.remove(&id).filter(|_| stored) else { return };
        self.telemetry.liveness.progressed(now);
        let bytes = sent.bytes as u64;
        sent.table.staged_bytes.inc_by(bytes);
        sent.table.load_cost.inc_by(self.paths.prices().loaded(bytes).0);
    }

    /// Rows are to be appended to a PENDING stream.
    pub fn appending(&mut self, id: BatchId, append: &Append, now: Instant) {
        let entry = OnTheWire::new(self.table(&append.table), append.rows, append.body.len(), now);
        self.writes.insert(id, entry);
    }

    /// They were appended, or not.
    pub fn appended(&mut self, id: BatchId, result: &Result<String, WriteOutcome>, now: Instant) {
        let Some(sent) = self.writes.remove(&id) else { return };
        match result {
            Ok(_) => {
                self.telemetry.liveness.progressed(now);
                self.show_written(&sent.name);
                let bytes = sent.bytes as u64;
                sent.table.staged_bytes.inc_by(bytes);
                sent.table.storage_cost.inc_by(self.paths.prices().appended(bytes).0);
            }
            Err(WriteOutcome::Refused(fault) | WriteOutcome::Unknown(fault)) => {
                sent.table.retried(fault.kind.name());
            }
            Err(WriteOutcome::Partial { .. } | WriteOutcome::Acked) => {}
        }
    }

    /// A job is to be created, or streams are to be committed.
    pub fn loading(&mut self, id: LoadId, job: &LoadJob, now: Instant) {
        let (name, table) = self.table(&job.table);
        let (id_of, rows, end, sources) = (&job.id, job.rows, job.end, job.sources.len());
        match job.format.is_pending() {
            true => tracing::debug!(
                commit = id_of, table = %name, rows, streams = sources, "streams are committed"
            ),
            false => tracing::info!(
                job = id_of, table = %name, rows, end, objects = sources, "a load job begins"
            ),
        }
        let rows = u32::try_from(job.rows).unwrap_or(u32::MAX);
        let loading = OnTheWire::new((name, table), rows, 0, now);
        self.loads.insert(id, Loading { sent: loading, is_commit: job.format.is_pending() });
    }

    /// It is done, or a call about it failed.
    pub fn loaded(&mut self, id: LoadId, result: &Result<JobEnd, Fault>, now: Instant) {
        let Some(Loading { sent, is_commit }) = self.loads.remove(&id) else { return };
        if is_commit {
            return self.committed(&sent, result, now);
        }
        let seconds = now.duration_since(sent.since).as_secs_f64();
        let table = &*sent.name;
        match result {
            Ok(JobEnd::Loaded { end }) => {
                self.telemetry.liveness.progressed(now);
                sent.table.rows_written.inc_by(u64::from(sent.rows));
                sent.table.load_job("loaded");
                tracing::info!(table, end, rows = sent.rows, seconds, "a load job is done");
            }
            Ok(JobEnd::Failed(fault)) => {
                sent.table.load_job("failed");
                self.paths.not_loaded(&sent.name, fault);
                tracing::warn!(table, %fault, seconds, "a load job has failed; nothing of it is in the table");
            }
            Err(fault) => {
                sent.table.load_job("unknown");
                self.paths.not_loaded(&sent.name, fault);
                match fault.certainty {
                    Certainty::Refused => {
                        tracing::warn!(table, %fault, "a call about a load job is refused; trying again");
                    }
                    Certainty::Unknown => {
                        tracing::warn!(table, %fault, "what became of a load job is not known yet; asking again");
                    }
                }
            }
        }
    }

    fn committed(&self, sent: &OnTheWire, result: &Result<JobEnd, Fault>, now: Instant) {
        let table = &*sent.name;
        match result {
            Ok(JobEnd::Loaded { .. }) => {
                self.telemetry.liveness.progressed(now);
                sent.table.rows_written.inc_by(u64::from(sent.rows));
                sent.table.stream_commit("committed");
            }
            Ok(JobEnd::Failed(fault)) => {
                sent.table.stream_commit("failed");
                tracing::warn!(table, %fault, "streams are not committed; their rows are read again");
            }
            Err(fault) => {
                sent.table.stream_commit("unknown");
                tracing::warn!(table, %fault, "whether streams are committed is not known yet; asking again");
            }
        }
    }
}

/// A load job or a commit under way.
pub(super) struct Loading {
    sent: OnTheWire,
    is_commit: bool,
}

/// Says of the lanes whose rows are staged what they wait for.
pub(super) fn waits(core: &Core<TopicEncoder>, waits: &mut Waits, now: Instant) {
    for (key, chain) in core.chains() {
        if let Some(wait) = fault(chain) {
            waits.insert(key.lane, wait);
        } else if let Some(reason) = loading(chain, now) {
            waits.entry(key.lane).or_insert_with(|| Wait::calm(LaneState::Loading, reason));
        }
    }
}

fn fault(chain: &Chain) -> Option<Wait> {
    let table = &chain.facts.table;
    let job = chain.loading.as_ref();
    let failed = job.and_then(|job| Some((job.job.id.as_str(), job.fault.as_ref()?)));
    let (what, fault) = match (failed, &chain.fault) {
        (Some((id, fault)), _) => (format!("{table}: {} {id}", what(chain)), fault),
        (None, Some(fault)) => (format!("{table}: looking for its load jobs"), fault),
        (None, None) => return None,
    };
    let cause = match fault.kind {
        FaultKind::InvalidRequest => Cause::LoadJob,
        _ => cause_of(fault),
    };
    Some(Wait::fault(&what, fault, cause, now_ms()))
}

fn loading(chain: &Chain, now: Instant) -> Option<String> {
    let table = &chain.facts.table;
    if let Some(job) = &chain.loading {
        let rows = job.job.rows;
        let (what, id) = (what(chain), &job.job.id);
        return Some(format!("{table}: {what} {id} of {rows} rows is under way"));
    }
    let due = chain.due.filter(|_| chain.unloaded > 0)?;
    let seconds = due.saturating_duration_since(now).as_secs();
    let rows = chain.unloaded;
    let what = what(chain);
    Some(format!("{table}: {rows} rows are staged; the next {what} is due in {seconds} s"))
}

/// What brings the chain's rows.
fn what(chain: &Chain) -> &'static str {
    if chain.facts.is_pending { "commit" } else { "load job" }
}
