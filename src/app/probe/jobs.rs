//! Load jobs: what their ids are good for.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::json;

use crate::{
    app::probe::{
        Outcome,
        lab::{Lab, ProbeTable},
        transcript::{Comparison, Question, Trouble},
    },
    fault::{Fault, FaultKind},
    gcp::jobs::Jobs,
    write::load::{
        Inserted, LoadJobs as _,
        content::Content,
        job::{JobState, JobView, LoadFormat, LoadJob},
    },
};

/// How long a job of two rows may take.
const JOB_WAIT: Duration = Duration::from_secs(90);
const JOB_PAUSE: Duration = Duration::from_secs(1);

/// What the jobs' labels say: any numbers, to be read again.
const END: i64 = 17;
const ROWS: u64 = 2;

const GOOD: &[u8] = b"{\"n\": 1}\n{\"n\": 2}\n";
const BAD: &[u8] = b"{\"n\": \"none\"}\n{\"n\": 2}\n";

pub(crate) static TWINS: Question = Question {
    name: "job-id-and-location",
    asks: "Is a job's id taken for good in its dataset's location, and can a twin of it run elsewhere?",
    assumes: "the same id is refused with 409, with the location or without; with another location no job loads into \
              the dataset; the job is found again in its dataset's location",
    rests: "`gcp::jobs` and `write::load::run`: the id is the fence of exactly-once loads",
};

pub(crate) async fn twins(lab: &Lab) -> Outcome {
    let table = lab.table("twins", json!({})).await?;
    let home = Some(table.location.clone()).filter(|location| !location.is_empty());
    let work = Work { lab, job: job(lab, &table, "twins") };
    let mut seen = Comparison::default();
    let first = work.insert(home.as_deref(), GOOD).await??;
    seen.check(first == Inserted::Created, || "an id that is made of the time is taken".to_owned());
    let done = work.wait(home.as_deref()).await?;
    seen.check(is_loaded(&done), || format!("the first job: {}", state(&done)));
    for (place, location) in [("in its location", home.as_deref()), ("without a location", None)] {
        let again = work.insert(location, GOOD).await?;
        if let Ok(Inserted::Created) = again {
            // Its rows are to be counted below, if it can be found.
            work.wait(location).await.ok();
        }
        seen.check(matches!(again, Ok(Inserted::Exists)), || {
            format!("again {place}: {}", said(&again))
        });
    }
    let away = if table.location.eq_ignore_ascii_case("US") { "EU" } else { "US" };
    if let Ok(Inserted::Created) = work.insert(Some(away), GOOD).await? {
        let twin = work.wait(Some(away)).await?;
        seen.check(!is_loaded(&twin), || format!("a twin in {away}: {}", state(&twin)));
    }
    let jobs = Jobs::new(Arc::clone(&lab.rest()?), lab.remotes.location.clone());
    let found = jobs.get(&work.job.table, &work.job.id).await?;
    seen.check(found.is_some(), || "the service does not find the job again".to_owned());
    let rows = lab.count(&table).await?;
    seen.check(rows == 2, || format!("2 rows were loaded once, a query finds {rows}"));
    Ok(seen.verdict())
}

pub(crate) static BURNED: Question = Question {
    name: "job-id-after-failure",
    asks: "Can the id of a job that has failed be used again, and can its configuration still be read?",
    assumes: "no, 409; the failed job and its labels are still there, and nothing of it is in the table",
    rests: "`write::load::chain` and `write::load::run`: the next attempt has an id of its own, made after the \
            failure was read",
};

pub(crate) async fn burned(lab: &Lab) -> Outcome {
    let table = lab.table("burned", json!({})).await?;
    let home = Some(table.location.clone()).filter(|location| !location.is_empty());
    let work = Work { lab, job: job(lab, &table, "burned") };
    work.insert(home.as_deref(), BAD).await??;
    let failed = work.wait(home.as_deref()).await?;
    let again = work.insert(home.as_deref(), GOOD).await?;
    let read = work.wait(home.as_deref()).await?;
    let rows = lab.count(&table).await?;
    let mut seen = Comparison::default();
    seen.check(is_failed(&failed), || format!("the job with a bad row: {}", state(&failed)));
    seen.check(matches!(again, Ok(Inserted::Exists)), || format!("the id again: {}", said(&again)));
    seen.check(is_failed(&read), || format!("afterwards the job: {}", state(&read)));
    seen.check((read.end, read.rows) == (END, ROWS), || "its labels are others".to_owned());
    seen.check(rows == 0, || format!("a query finds {rows} rows of it"));
    Ok(seen.verdict())
}

fn job(lab: &Lab, table: &ProbeTable, name: &str) -> LoadJob {
    LoadJob {
        id: format!("{}_{name}", lab.remotes.prefix()),
        table: table.table.clone(),
        sources: Vec::new(),
        rows_here: vec![Content::Lines(Bytes::from_static(GOOD))],
        format: LoadFormat::NdjsonGz,
        end: END,
        rows: ROWS,
    }
}

/// A job id at work.
struct Work<'a> {
    lab: &'a Lab,
    job: LoadJob,
}

impl Work<'_> {
    fn jobs(&self, location: Option<&str>) -> Result<Jobs, Trouble> {
        Ok(Jobs::at(Arc::clone(&self.lab.rest()?), location.map(str::to_owned)))
    }

    /// Creates the job, or is refused.
    async fn insert(
        &self,
        location: Option<&str>,
        lines: &'static [u8],
    ) -> Result<Result<Inserted, Fault>, Trouble> {
        let media = vec![Bytes::from_static(lines)];
        match self.jobs(location)?.insert(&self.job, media).await {
            Err(fault) if !is_answer(&fault) => Err(fault.into()),
            answer => Ok(answer),
        }
    }

    async fn get(&self, location: Option<&str>) -> Result<Option<JobView>, Trouble> {
        Ok(self.jobs(location)?.get(&self.job.table, &self.job.id).await?)
    }

    /// The job when it is done.
    async fn wait(&self, location: Option<&str>) -> Result<JobView, Trouble> {
        let wait = async {
            loop {
                match self.get(location).await? {
                    Some(JobView { state: JobState::Active { .. }, .. }) => {
                        tokio::time::sleep(JOB_PAUSE).await;
                    }
                    Some(done) => return Ok(done),
                    None => {
                        let remedy = "see what was answered, in the transcript";
                        return Err(Trouble::new("a job that was created is not found", remedy));
                    }
                }
            }
        };
        let late = |_| {
            let why = format!("a job is not done after {} s", JOB_WAIT.as_secs());
            Err(Trouble::new(why, "run it again when fewer jobs wait in the project"))
        };
        tokio::time::timeout(JOB_WAIT, wait).await.unwrap_or_else(late)
    }
}

/// Whether a fault says something about the id, and not about the way there.
fn is_answer(fault: &Fault) -> bool {
    match fault.kind {
        // The upload's answer to a job whose dataset is not where it says.
        FaultKind::Transient => fault.reason == "uploadGone",
        FaultKind::Unauthenticated
        | FaultKind::PermissionDenied
        | FaultKind::Throttled
        | FaultKind::QuotaExceeded => false,
        _ => true,
    }
}

fn is_loaded(job: &JobView) -> bool {
    matches!(job.state, JobState::Loaded { output_rows: Some(2) })
}

fn is_failed(job: &JobView) -> bool {
    matches!(job.state, JobState::Failed(_))
}

fn state(job: &JobView) -> String {
    match &job.state {
        JobState::Active { .. } => "is at work".to_owned(),
        JobState::Loaded { output_rows } => format!("has loaded {output_rows:?} rows"),
        JobState::Failed(fault) => format!("has failed: {fault}"),
    }
}

fn said(answer: &Result<Inserted, Fault>) -> String {
    match answer {
        Ok(Inserted::Created) => "a second job is created".to_owned(),
        Ok(Inserted::Exists) => "409".to_owned(),
        Err(fault) => format!("refused: {fault}"),
    }
}
