//! `jobs.get`, `jobs.list` and `jobs.cancel`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::sim::{
    bigquery::{
        BigQuery, Route,
        error::ApiError,
        jobs::job::{Job, JobError, Outcome, State},
    },
    counters::Counters,
    message::{Request, Response},
};

impl BigQuery {
    pub(crate) fn get_job(&self, route: &Route, request: &Request) -> Result<Response, ApiError> {
        let number = self.find_job(route, request)?;
        Ok(Response::json(200, &self.job(number)?.resource(true)))
    }

    fn find_job(&self, route: &Route, request: &Request) -> Result<u64, ApiError> {
        let location = request.parameter("location").filter(|location| !location.is_empty());
        self.jobs.find(&route.project, &route.job, location.as_deref())
    }

    fn job(&self, number: u64) -> Result<&Job, ApiError> {
        self.jobs.known.get(&number).ok_or_else(|| ApiError::not_found("Job"))
    }

    /// Newest first. Filters: `stateFilter` (may be repeated), `minCreationTime`, `maxCreationTime`;
    /// `projection=full` has the configurations.
    pub(crate) fn list_jobs(&self, project: &str, request: &Request) -> Result<Response, ApiError> {
        let states: Vec<String> = url::form_urlencoded::parse(request.query.as_bytes())
            .filter(|(key, _)| key == "stateFilter")
            .map(|(_, value)| value.to_ascii_uppercase())
            .collect();
        let full = request.parameter("projection").is_some_and(|p| p.eq_ignore_ascii_case("full"));
        let millis = |name: &str| request.parameter(name)?.parse::<u128>().ok();
        let (since, until) = (millis("minCreationTime"), millis("maxCreationTime"));
        let before: u64 = match request.parameter("pageToken") {
            None => u64::MAX,
            Some(token) => token.parse().map_err(|_| ApiError::invalid("Invalid page token"))?,
        };
        let fits = |job: &Job| {
            let created = job.created.as_millis();
            job.key.project == project
                && (states.is_empty() || states.iter().any(|state| state == job.state.name()))
                && since.is_none_or(|since| created >= since)
                && until.is_none_or(|until| created <= until)
        };
        let newest = self.jobs.all().rev();
        let mut rest = newest.filter(|(number, job)| *number < before && fits(job)).peekable();
        let max = request.number("maxResults").unwrap_or(1_000).clamp(1, 1_000);
        let page: Vec<_> = rest.by_ref().take(max).collect();
        let next = rest.peek().and_then(|_| page.last()).map(|(number, _)| number.to_string());
        let listed: Vec<Value> = page.iter().map(|(_, job)| entry(job, full)).collect();
        let mut body = json!({"kind": "bigquery#jobList", "etag": "sim", "jobs": listed});
        if let (Some(next), Some(body)) = (next, body.as_object_mut()) {
            body.insert("nextPageToken".into(), json!(next));
        }
        Ok(Response::json(200, &body))
    }

    /// A job that is over stays as it is.
    pub(crate) fn cancel_job(
        &mut self,
        route: &Route,
        request: &Request,
        now: Duration,
        counters: &mut Counters,
    ) -> Result<Response, ApiError> {
        let number = self.find_job(route, request)?;
        if !matches!(self.job(number)?.state, State::Done(_)) {
            let message = "Job execution was cancelled: User requested cancellation";
            let outcome = Outcome::failed(JobError::new("stopped", None, message));
            self.jobs.forget(number);
            self.jobs.end(number, outcome, now, counters);
        }
        let job = self.job(number)?.resource(true);
        Ok(Response::json(200, &json!({"kind": "bigquery#jobCancelResponse", "job": job})))
    }
}

fn entry(job: &Job, full: bool) -> Value {
    let mut entry = job.resource(full);
    let error = entry.pointer("/status/errorResult").cloned();
    if let Some(entry) = entry.as_object_mut() {
        entry.insert("state".into(), json!(job.state.name()));
        entry.extend(error.map(|error| ("errorResult".to_owned(), error)));
    }
    entry
}
