//! Following a chain and running a slot's job, over the ports.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    fault::{Fault, FaultKind},
    table::TableRef,
    write::load::{
        Inserted, LoadJobs,
        chain::{ChainId, Slot},
        job::{JobState, JobView, LoadJob},
    },
};

/// Between two looks at a job that is not done: at first, and at most.
const LOOK_FIRST: Duration = Duration::from_millis(250);
const LOOK_MAX: Duration = Duration::from_secs(15);

/// How a slot's job ended, whoever made it.
#[derive(Clone, Debug)]
pub enum JobEnd {
    /// The slot's rows are in the table, up to `end`.
    Loaded {
        /// The end of the slot: that of the job that BigQuery has, which may be another owner's.
        end: i64,
    },
    /// The job failed; nothing of it is in the table. There may be another attempt.
    Failed(Fault),
}

/// Finds where a chain ends, from a slot of it on: the slot whose job does not exist yet. Waits for
/// jobs that are not done.
///
/// # Errors
/// A call failed, or a job is not as this service makes them; nothing was changed.
pub async fn locate(
    jobs: &dyn LoadJobs,
    table: &TableRef,
    chain: &ChainId,
    from: Slot,
) -> Result<Slot, Fault> {
    let mut slot = from;
    loop {
        let id = chain.job(slot);
        let Some(view) = jobs.get(table, &id).await? else { return Ok(slot) };
        slot = match finish(jobs, table, &id, view).await? {
            JobEnd::Loaded { end } if end > slot.node => Slot::at(end),
            JobEnd::Loaded { .. } => return Err(backwards(&id)),
            JobEnd::Failed(_) => slot.again(),
        };
    }
}

/// Creates a slot's job, or finds it created, and waits for its end. `media` are its rows if they are
/// not in objects.
///
/// # Errors
/// A call failed: whether the job exists is unknown, and so is its end. Call again with the same job.
pub async fn run(jobs: &dyn LoadJobs, job: &LoadJob, media: Vec<Bytes>) -> Result<JobEnd, Fault> {
    match jobs.insert(job, media).await? {
        Inserted::Created | Inserted::Exists => {}
    }
    crate::failpoint!("load_after_insert");
    // What insert answers is not trusted: success is what a fresh look shows.
    found(jobs, job).await?.ok_or_else(|| vanished(&job.id))
}

/// Waits for the end of a job that there is; `None` if it is not created.
///
/// # Errors
/// A call failed, or the job is not as this service makes them.
pub async fn found(jobs: &dyn LoadJobs, job: &LoadJob) -> Result<Option<JobEnd>, Fault> {
    match jobs.get(&job.table, &job.id).await? {
        Some(view) => finish(jobs, &job.table, &job.id, view).await.map(Some),
        None => Ok(None),
    }
}

async fn finish(
    jobs: &dyn LoadJobs,
    table: &TableRef,
    id: &str,
    mut view: JobView,
) -> Result<JobEnd, Fault> {
    let mut wait = LOOK_FIRST;
    loop {
        match view.state {
            JobState::Active { .. } => {}
            JobState::Failed(fault) => return Ok(JobEnd::Failed(fault)),
            JobState::Loaded { output_rows } if output_rows == Some(view.rows) => {
                return Ok(JobEnd::Loaded { end: view.end });
            }
            JobState::Loaded { output_rows } => return Err(short(id, view.rows, output_rows)),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LOOK_MAX);
        view = jobs.get(table, id).await?.ok_or_else(|| vanished(id))?;
    }
}

/// BigQuery has dropped rows, or invented some. Nobody but a person can say what is in the table.
fn short(id: &str, staged: u64, loaded: Option<u64>) -> Fault {
    let loaded = loaded.map_or_else(|| "no number of".to_owned(), |rows| rows.to_string());
    let message = format!(
        "job {id} reports {loaded} rows where {staged} were staged; compare the table with the \
         topic, then set a higher `load_epoch` or move the group's offset"
    );
    Fault::refused(FaultKind::InvalidRequest, "outputRows", message)
}

fn vanished(id: &str) -> Fault {
    let message = format!("job {id} exists by one answer of BigQuery and not by another");
    Fault::unknown(FaultKind::Transient, "jobNotFound", message)
}

fn backwards(id: &str) -> Fault {
    let message = format!("job {id} ends before it begins: its labels were not written by kcbq");
    Fault::refused(FaultKind::InvalidRequest, "labels", message)
}

#[cfg(test)]
mod tests;
