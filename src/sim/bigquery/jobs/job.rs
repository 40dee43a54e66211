//! One job and its resource.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::sim::bigquery::{
    error::ApiError,
    jobs::JobKey,
    load::{Failure, Input, config::LoadConfig},
};

/// One load job.
#[derive(Debug)]
pub struct Job {
    /// Who it is.
    pub key: JobKey,
    /// Its configuration, as received.
    pub configuration: Value,
    /// What the configuration asks for.
    pub load: Arc<LoadConfig>,
    /// What was uploaded with it; `None` if it reads objects.
    pub media: Option<Bytes>,
    /// Its state.
    pub state: State,
    /// What goes wrong with it, by the fault script or a quota.
    pub fate: Fate,
    /// When it was created, since the Unix epoch, as the times below.
    pub created: Duration,
    /// When it began to run.
    pub started: Option<Duration>,
    /// When it was done.
    pub ended: Option<Duration>,
}

/// Where a job stands.
#[derive(Debug)]
pub enum State {
    /// It waits.
    Pending,
    /// It has read its input.
    Running(Arc<[Input]>),
    /// It is over.
    Done(Outcome),
}

impl State {
    /// The name in REST documents.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running(_) => "RUNNING",
            Self::Done(_) => "DONE",
        }
    }
}

/// What goes wrong with a job.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    /// Whether the fault script has been asked.
    pub decided: bool,
    /// It fails so when it begins to run.
    pub failure: Option<JobError>,
    /// It has this among its errors although it succeeds.
    pub warning: Option<JobError>,
    /// It runs for longer.
    pub slow: Duration,
    /// It does not end by itself.
    pub hangs: bool,
    /// It leaves out so many of its last rows.
    pub short: u64,
}

/// How a job ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// `status.errorResult`: why it failed.
    pub error: Option<JobError>,
    /// `status.errors`; those of a job that succeeded are warnings.
    pub errors: Vec<JobError>,
    /// What it loaded; `None` if it failed.
    pub loaded: Option<Loaded>,
}

impl Outcome {
    /// A failure with one error.
    pub fn failed(error: JobError) -> Self {
        Self { errors: vec![error.clone()], error: Some(error), loaded: None }
    }
}

impl From<Failure> for Outcome {
    fn from(Failure { error, details }: Failure) -> Self {
        let errors = [error.clone()].into_iter().chain(details).collect();
        Self { error: Some(error), errors, loaded: None }
    }
}

/// `statistics.load` of a job that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Objects, or one upload.
    pub input_files: u64,
    /// Their bytes, as stored.
    pub input_bytes: u64,
    /// Rows that are in the table now.
    pub output_rows: u64,
    /// Their bytes; here those of the encoded rows, decompressed.
    pub output_bytes: u64,
    /// Rows that were left out because `maxBadRecords` allows it.
    pub bad_records: u64,
}

/// One error of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    /// The reason, as in <https://docs.cloud.google.com/bigquery/docs/error-messages>.
    pub reason: String,
    /// The object, or whatever BigQuery names as the place.
    pub location: Option<String>,
    /// The message.
    pub message: String,
}

impl JobError {
    /// An error with these parts.
    pub fn new(reason: &str, location: Option<&str>, message: impl Into<String>) -> Self {
        let location = location.map(str::to_owned);
        Self { reason: reason.to_owned(), location, message: message.into() }
    }

    fn to_json(&self) -> Value {
        let mut error = Map::from_iter([("reason".to_owned(), json!(self.reason))]);
        error.extend(self.location.iter().map(|place| ("location".to_owned(), json!(place))));
        error.insert("message".into(), json!(self.message));
        Value::Object(error)
    }
}

impl From<ApiError> for JobError {
    fn from(error: ApiError) -> Self {
        Self { reason: error.reason, location: None, message: error.message }
    }
}

impl Job {
    /// The resource. `full` has the configuration, which lists leave out by default.
    pub fn resource(&self, full: bool) -> Value {
        let JobKey { project, location, id } = &self.key;
        let path = format!("/bigquery/v2/projects/{project}/jobs/{id}?location={location}");
        let mut resource = json!({
            "kind": "bigquery#job",
            "etag": format!("sim{:x}{}", self.created.as_micros(), self.state.name().to_lowercase()),
            "id": self.key.name(),
            "selfLink": format!("https://bigquery.googleapis.com{path}"),
            "user_email": "simulator@example.com",
            "jobReference": {"projectId": project, "jobId": id, "location": location},
            "statistics": self.statistics(),
            "status": self.status(),
        });
        if let (true, Some(resource)) = (full, resource.as_object_mut()) {
            resource.insert("configuration".into(), self.configuration.clone());
        }
        resource
    }

    /// `status`.
    fn status(&self) -> Value {
        let mut status = Map::from_iter([("state".to_owned(), json!(self.state.name()))]);
        if let State::Done(outcome) = &self.state {
            let error = outcome.error.as_ref().map(JobError::to_json);
            status.extend(error.map(|error| ("errorResult".to_owned(), error)));
            if !outcome.errors.is_empty() {
                let errors: Vec<Value> = outcome.errors.iter().map(JobError::to_json).collect();
                status.insert("errors".into(), json!(errors));
            }
        }
        Value::Object(status)
    }

    fn statistics(&self) -> Value {
        let millis = |at: Duration| json!(at.as_millis().to_string());
        let mut statistics = Map::from_iter([("creationTime".to_owned(), millis(self.created))]);
        let times = [("startTime", self.started), ("endTime", self.ended)];
        let times = times.into_iter().filter_map(|(key, at)| Some((key.to_owned(), millis(at?))));
        statistics.extend(times);
        if let State::Done(outcome) = &self.state {
            let text = |number: u64| json!(number.to_string());
            let load = outcome.loaded.map_or(json!({}), |loaded| {
                json!({
                    "inputFiles": text(loaded.input_files),
                    "inputFileBytes": text(loaded.input_bytes),
                    "outputRows": text(loaded.output_rows),
                    "outputBytes": text(loaded.output_bytes),
                    "badRecords": text(loaded.bad_records),
                })
            });
            statistics.insert("load".into(), load);
        }
        Value::Object(statistics)
    }
}
