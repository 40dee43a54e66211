//! `jobs.*`: load jobs, their ids and their states.
//!
//! An id is used once, for ever, per project and location, whatever becomes of its job. A job moves
//! from `PENDING` to `RUNNING` to `DONE` by the time handed to the core ([`advance`]); what it does to
//! its table happens all at once when it is `DONE`, or not at all. Facts:
//! <https://docs.cloud.google.com/bigquery/docs/reference/rest/v2/jobs>.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use crate::sim::{
    bigquery::{error::ApiError, jobs::job::Job},
    settings::SimSettings,
    upload::session::{Limits, Sessions},
};

pub mod advance;
pub mod insert;
pub mod job;
pub mod quota;
pub mod read;

/// Who a job is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JobKey {
    /// The project.
    pub project: String,
    /// The location, in upper case.
    pub location: String,
    /// The id.
    pub id: String,
}

impl JobKey {
    /// A key; locations are the same in any case.
    pub fn new(project: &str, location: &str, id: &str) -> Self {
        let location = location.to_ascii_uppercase();
        Self { project: project.to_owned(), location, id: id.to_owned() }
    }

    /// `project:location.id`, as BigQuery's messages spell it.
    pub fn name(&self) -> String {
        format!("{}:{}.{}", self.project, self.location, self.id)
    }
}

/// All jobs there ever were.
#[derive(Debug)]
pub struct Jobs {
    /// By their number, which counts them.
    known: BTreeMap<u64, Job>,
    numbers: HashMap<JobKey, u64>,
    /// When which job moves on.
    due: BTreeSet<(Duration, u64)>,
    /// Jobs that a fault holds back until they are released.
    held: BTreeSet<u64>,
    /// Whether somebody else reads the files of jobs; otherwise they are read when the job is due.
    pub(crate) is_read_elsewhere: bool,
    /// Jobs whose files wait to be read.
    unread: VecDeque<u64>,
    sessions: Sessions<insert::Start>,
    quotas: quota::Quotas,
    ids: u64,
}

impl Jobs {
    /// No job yet.
    pub fn new(settings: &SimSettings) -> Self {
        let limits = Limits {
            lifetime: Duration::from_millis(settings.upload_session_ms),
            bytes_max: settings.upload_bytes_max,
        };
        Self {
            known: BTreeMap::new(),
            numbers: HashMap::new(),
            due: BTreeSet::new(),
            held: BTreeSet::new(),
            is_read_elsewhere: false,
            unread: VecDeque::new(),
            sessions: Sessions::new(limits),
            quotas: quota::Quotas::default(),
            ids: 0,
        }
    }

    /// An id for a job whose client gave none.
    pub(crate) fn next_id(&mut self) -> String {
        self.ids += 1;
        format!("job_sim_{}", self.ids)
    }

    /// Every job, in the order of creation.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = (u64, &Job)> {
        self.known.iter().map(|(number, job)| (*number, job))
    }

    fn add(&mut self, job: Job, due: Duration) -> Result<&Job, ApiError> {
        if self.numbers.contains_key(&job.key) {
            return Err(ApiError::duplicate(&format!("Job {}", job.key.name())));
        }
        let number = self.known.len() as u64;
        self.numbers.insert(job.key.clone(), number);
        self.due.insert((due, number));
        Ok(self.known.entry(number).or_insert(job))
    }

    /// The number of a job. Without a location the multi-regions are looked in.
    fn find(&self, project: &str, id: &str, location: Option<&str>) -> Result<u64, ApiError> {
        let places = match location {
            Some(location) => vec![location],
            None => vec!["US", "EU"],
        };
        let found =
            places.iter().find_map(|place| self.numbers.get(&JobKey::new(project, place, id)));
        found.copied().ok_or_else(|| {
            ApiError::not_found(&match location {
                Some(location) => format!("Job {}", JobKey::new(project, location, id).name()),
                None => format!("Job {project}:{id}"),
            })
        })
    }

    /// Lets jobs go on that were held back for no given time.
    pub(crate) fn release(&mut self, now: Duration) {
        let held = std::mem::take(&mut self.held);
        self.due.extend(held.into_iter().map(|number| (now, number)));
    }
}
