use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
};

use futures_util::future::BoxFuture;

use super::*;
use crate::write::load::job::LoadFormat;
use crate::{fault::Certainty, record::TopicPartition, write::load::chain::ChainOf};

/// What a look at a job shows.
#[derive(Clone, Copy, Debug)]
enum Look {
    Pending,
    Running,
    Failed,
    Loaded(u64),
}

/// BigQuery's jobs: each shows these states one after the other, and stays at the last.
#[derive(Default)]
struct Service {
    jobs: Mutex<BTreeMap<String, (LoadJob, VecDeque<Look>)>>,
    /// What jobs that are created will show.
    script: Vec<Look>,
    /// How many creations are carried out and not answered.
    unanswered: Mutex<u32>,
}

impl Service {
    fn of(script: &[Look]) -> Self {
        Self { script: script.to_vec(), ..Self::default() }
    }

    /// There is a job of the slot.
    fn with(self, slot: Slot, end: i64, looks: &[Look]) -> Self {
        let job = job(slot, end);
        let looks = looks.iter().copied().collect();
        self.jobs.lock().unwrap().insert(job.id.clone(), (job, looks));
        self
    }

    fn ids(&self) -> Vec<String> {
        self.jobs.lock().unwrap().keys().cloned().collect()
    }

    fn create(&self, job: &LoadJob) -> Result<Inserted, Fault> {
        let mut jobs = self.jobs.lock().unwrap();
        if jobs.contains_key(&job.id) {
            return Ok(Inserted::Exists);
        }
        jobs.insert(job.id.clone(), (job.clone(), self.script.iter().copied().collect()));
        let mut unanswered = self.unanswered.lock().unwrap();
        if *unanswered > 0 {
            *unanswered -= 1;
            return Err(Fault::unknown(FaultKind::Transient, "noAnswer", ""));
        }
        Ok(Inserted::Created)
    }

    fn look(&self, id: &str) -> Option<JobView> {
        let mut jobs = self.jobs.lock().unwrap();
        let (job, looks) = jobs.get_mut(id)?;
        let look = if looks.len() > 1 { looks.pop_front() } else { looks.front().copied() };
        let state = match look? {
            Look::Pending => JobState::Active { running: false },
            Look::Running => JobState::Active { running: true },
            Look::Failed => {
                JobState::Failed(Fault::refused(FaultKind::InvalidRequest, "invalid", ""))
            }
            Look::Loaded(rows) => JobState::Loaded { output_rows: Some(rows) },
        };
        Some(JobView { state, end: job.end, rows: job.rows })
    }
}

impl LoadJobs for Service {
    fn insert<'a>(
        &'a self,
        job: &'a LoadJob,
        _: Vec<Bytes>,
    ) -> BoxFuture<'a, Result<Inserted, Fault>> {
        Box::pin(async move { self.create(job) })
    }

    fn get<'a>(
        &'a self,
        _: &'a TableRef,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<JobView>, Fault>> {
        Box::pin(async move { Ok(self.look(id)) })
    }
}

fn table() -> TableRef {
    TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() }
}

fn chain() -> ChainId {
    let (lane, table) = (TopicPartition::new("t", 0), table());
    let of = ChainOf { group: "g", lane: &lane, topic_id: None, table: &table, load_epoch: 0 };
    ChainId::new(&of)
}

/// A job of three rows.
fn job(slot: Slot, end: i64) -> LoadJob {
    LoadJob {
        id: chain().job(slot),
        table: table(),
        sources: vec!["gs://b/o".to_owned()],
        rows_here: Vec::new(),
        format: LoadFormat::NdjsonGz,
        end,
        rows: 3,
    }
}

async fn end_of(service: &Service) -> Result<Slot, Fault> {
    locate(service, &table(), &chain(), Slot::FIRST).await
}

#[tokio::test(start_paused = true)]
async fn a_job_is_looked_at_until_it_is_done_and_one_that_fails_late_has_failed() {
    let looks = [Look::Pending, Look::Running, Look::Running, Look::Failed];
    let end = run(&Service::of(&looks), &job(Slot::FIRST, 9), Vec::new()).await.unwrap();
    assert!(matches!(end, JobEnd::Failed(_)), "{end:?}");
    let looks = [Look::Pending, Look::Running, Look::Running, Look::Loaded(3)];
    let end = run(&Service::of(&looks), &job(Slot::FIRST, 9), Vec::new()).await.unwrap();
    assert!(matches!(end, JobEnd::Loaded { end: 9 }), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_creation_was_not_answered_is_found_and_not_made_again() {
    let service = Service { unanswered: Mutex::new(1), ..Service::of(&[Look::Loaded(3)]) };
    let wanted = job(Slot::FIRST, 9);
    let fault = run(&service, &wanted, Vec::new()).await.unwrap_err();
    assert_eq!(fault.certainty, Certainty::Unknown);
    let end = run(&service, &wanted, Vec::new()).await.unwrap();
    assert!(matches!(end, JobEnd::Loaded { end: 9 }), "{end:?}");
    assert_eq!(service.ids(), [wanted.id]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_slot_is_that_of_the_job_that_exists() {
    let service = Service::default().with(Slot::FIRST, 5, &[Look::Running, Look::Loaded(3)]);
    let end = run(&service, &job(Slot::FIRST, 9), Vec::new()).await.unwrap();
    assert!(matches!(end, JobEnd::Loaded { end: 5 }), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_done_with_other_rows_than_were_staged_is_neither_loaded_nor_failed() {
    for rows in [0, 2, 4] {
        let service = Service::of(&[Look::Loaded(rows)]);
        let fault = run(&service, &job(Slot::FIRST, 9), Vec::new()).await.unwrap_err();
        assert_eq!((fault.kind, &*fault.reason), (FaultKind::InvalidRequest, "outputRows"));
        // Nor does the next owner pass over it.
        assert_eq!(end_of(&service).await.unwrap_err().reason, "outputRows");
    }
}

#[tokio::test(start_paused = true)]
async fn the_id_of_a_failed_job_is_passed_over_for_the_next_attempt() {
    let failed = Service::default().with(Slot::FIRST, 9, &[Look::Running, Look::Failed]);
    assert_eq!(end_of(&failed).await.unwrap(), Slot::FIRST.again());
    let loaded = failed.with(Slot::FIRST.again(), 9, &[Look::Running, Look::Loaded(3)]);
    assert_eq!(end_of(&loaded).await.unwrap(), Slot::at(9));
}
