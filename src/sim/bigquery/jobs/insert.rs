//! `jobs.insert`: from objects, or with the data in the request.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::header;
use serde_json::{Map, Value, json};

use crate::sim::{
    bigquery::{
        BigQuery,
        error::ApiError,
        jobs::{
            JobKey,
            job::{Fate, Job, State},
        },
        load::config::LoadConfig,
    },
    message::{Request, Response},
    upload::{
        self, multipart,
        session::{Put, SessionError},
    },
};

/// A job as its client describes it.
#[derive(Clone, Debug)]
pub struct Start {
    id: Option<String>,
    location: Option<String>,
    configuration: Value,
    load: Arc<LoadConfig>,
}

impl BigQuery {
    pub(crate) fn insert_job(
        &mut self,
        project: &str,
        request: &Request,
        now: Duration,
    ) -> Result<Response, ApiError> {
        if !upload::is_upload(&request.path) {
            let start = self.describe(project, &request.body, false)?;
            return self.create_job(project, start, None, now);
        }
        match request.parameter("uploadType").as_deref() {
            Some("multipart") => {
                let content_type = request.headers.get(header::CONTENT_TYPE);
                let content_type = content_type.and_then(|value| value.to_str().ok());
                let parts = multipart::split(content_type.unwrap_or_default(), &request.body);
                let parts = parts.map_err(|message| ApiError::new(400, "badRequest", message))?;
                let start = self.describe(project, &parts.metadata, true)?;
                self.create_job(project, start, Some(parts.media), now)
            }
            Some("resumable") => {
                let start = self.describe(project, &request.body, true)?;
                let id = self.jobs.sessions.start(start, now);
                let query = [("uploadType", "resumable"), ("upload_id", id.as_str())];
                let location = upload::location(request, &query);
                Ok(Response::empty(200).with_header(header::LOCATION, &location))
            }
            other => Err(ApiError::invalid(format!("Invalid upload type: {other:?}"))),
        }
    }

    /// A chunk of a job's data; the last one creates the job.
    pub(crate) fn upload_job(
        &mut self,
        project: &str,
        request: &Request,
        now: Duration,
    ) -> Result<Response, ApiError> {
        let id = request.parameter("upload_id").unwrap_or_default();
        match self.jobs.sessions.put(&id, request, now)? {
            Put::Answer(answer) => Ok(answer),
            Put::Complete { start, media } => {
                let answer = self.create_job(project, start, Some(media), now)?;
                self.jobs.sessions.finish(&id, answer.clone());
                Ok(answer)
            }
        }
    }

    fn describe(&self, project: &str, body: &[u8], media: bool) -> Result<Start, ApiError> {
        let body: Map<String, Value> = serde_json::from_slice(body)
            .map_err(|_| ApiError::new(400, "parseError", "Parse Error"))?;
        let reference = body.get("jobReference").cloned().unwrap_or_default();
        let text = |key: &str| reference.get(key).and_then(Value::as_str).map(str::to_owned);
        if text("projectId").is_some_and(|other| other != project) {
            return Err(ApiError::invalid("The job's project is not that of the request."));
        }
        let id = text("jobId").filter(|id| !id.is_empty());
        id.as_deref().map_or(Ok(()), check_id)?;
        let mut configuration = body.get("configuration").cloned().unwrap_or_default();
        let load = LoadConfig::parse(&body, media, &self.settings.load)?;
        if let Some(configuration) = configuration.as_object_mut() {
            configuration.insert("jobType".into(), json!("LOAD"));
        }
        Ok(Start { id, location: text("location"), configuration, load: Arc::new(load) })
    }

    fn create_job(
        &mut self,
        project: &str,
        start: Start,
        media: Option<Bytes>,
        now: Duration,
    ) -> Result<Response, ApiError> {
        let Start { id, location, configuration, load } = start;
        let table = load.table.path();
        let home = self.location(table.project, table.dataset)?;
        if let Some(asked) = location.filter(|asked| !asked.eq_ignore_ascii_case(&home)) {
            let what = format!("Dataset {}:{}", table.project, table.dataset);
            return Err(ApiError::not_found(&format!("{what} was not found in location {asked}")));
        }
        let id = id.unwrap_or_else(|| self.jobs.next_id());
        let key = JobKey::new(project, &home, &id);
        if self.jobs.numbers.contains_key(&key) {
            return Err(ApiError::duplicate(&format!("Job {}", key.name())));
        }
        let settings = &self.settings.load;
        let failure = self.jobs.quotas.spend(&table.name(), project, now, settings).err();
        if let Some(error) = failure.as_ref().filter(|_| !settings.quota_fails_job) {
            return Err(ApiError::new(403, error.reason.clone(), error.message.clone()));
        }
        let due = now + Duration::from_millis(settings.pending_ms);
        let job = Job {
            key,
            configuration,
            load,
            media,
            state: State::Pending,
            fate: Fate { failure, ..Fate::default() },
            created: now,
            started: None,
            ended: None,
        };
        Ok(Response::json(200, &self.jobs.add(job, due)?.resource(true)))
    }
}

/// Letters, digits, underscores and dashes, at most 1,024.
fn check_id(id: &str) -> Result<(), ApiError> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if id.len() <= 1_024 && id.chars().all(word) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "Invalid job ID \"{id}\". Job IDs must be alphanumeric (plus underscores and dashes) and \
         must be at most 1024 characters long."
    )))
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Unknown => Self::new(404, "notFound", "Not Found"),
            SessionError::Gone => Self::new(410, "gone", "The upload session is over."),
            SessionError::Invalid(message) => {
                Self::new(400, "badRequest", format!("Invalid request.  {message}"))
            }
        }
    }
}
