//! Load jobs over BigQuery's REST API
//! (<https://docs.cloud.google.com/bigquery/docs/reference/rest/v2/jobs>).

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    fault::{Fault, FaultKind},
    gcp::{
        classify::{Item, job_call_fault, succeed, succeed_or},
        tables::names,
    },
    rest::{Rest, RestRequest, RestResponse},
    table::TableRef,
    write::load::{
        Inserted, LoadJobs,
        job::{JobState, JobView, LoadJob, labels},
    },
};

mod failed;
mod location;
mod upload;

use failed::failed;
use location::{Learned, Locations};

/// [`LoadJobs`] over a REST endpoint.
pub struct Jobs {
    rest: Arc<dyn Rest>,
    locations: Locations,
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("locations", &self.locations).finish_non_exhaustive()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    state: String,
    error_result: Option<Item>,
}

impl Jobs {
    /// Jobs over `rest`, each where its dataset is; in `location` where BigQuery does not tell.
    pub fn new(rest: Arc<dyn Rest>, location: Option<String>) -> Self {
        Self { rest, locations: Locations::Learned(Learned::new(location)) }
    }

    /// Jobs over `rest` that are made and looked for in `location` and nowhere else; without one, where
    /// BigQuery looks by itself.
    pub fn at(rest: Arc<dyn Rest>, location: Option<String>) -> Self {
        Self { rest, locations: Locations::Fixed(location.map(Arc::from)) }
    }

    async fn create(&self, job: &LoadJob, media: Vec<Bytes>) -> Result<Inserted, Fault> {
        let path = format!("{}/jobs", names::project_path(&job.table));
        let location = self.locations.of(&*self.rest, &job.table).await?;
        let document = job.document(location.as_deref());
        let created = match job.rows_here.is_empty() {
            true => {
                let request = RestRequest::json(Method::POST, path, Some(&document));
                succeed_or(&*self.rest, request, job_call_fault).await.map(|_| ())
            }
            false => upload::upload(&*self.rest, &path, document.to_string().into(), media).await,
        };
        match created {
            Ok(()) => Ok(Inserted::Created),
            Err(fault) if fault.kind == FaultKind::AlreadyExists => Ok(Inserted::Exists),
            Err(fault) => {
                if fault.kind == FaultKind::TableNotFound {
                    self.locations.forget(&job.table);
                }
                Err(fault)
            }
        }
    }

    async fn read(&self, table: &TableRef, id: &str) -> Result<Option<JobView>, Fault> {
        let mut path = format!("{}/jobs/{id}", names::project_path(table));
        if let Some(location) = self.locations.of(&*self.rest, table).await? {
            path.push_str("?location=");
            path.push_str(&location);
        }
        match succeed(&*self.rest, RestRequest::json(Method::GET, path, None)).await {
            Ok(answer) => view(&answer, id).map(Some),
            // BigQuery's `notFound`, whatever it is that is not found.
            Err(fault) if fault.kind == FaultKind::TableNotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}

impl LoadJobs for Jobs {
    fn insert<'a>(
        &'a self,
        job: &'a LoadJob,
        media: Vec<Bytes>,
    ) -> BoxFuture<'a, Result<Inserted, Fault>> {
        Box::pin(self.create(job, media))
    }

    fn get<'a>(
        &'a self,
        table: &'a TableRef,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<JobView>, Fault>> {
        Box::pin(self.read(table, id))
    }
}

fn view(answer: &RestResponse, id: &str) -> Result<JobView, Fault> {
    let document: Value = serde_json::from_slice(&answer.body).map_err(|_| unreadable(id))?;
    let (end, rows) = labels(&document).ok_or_else(|| foreign(id))?;
    let status = document.get("status").cloned().unwrap_or_default();
    let status: Status = serde_json::from_value(status).map_err(|_| unreadable(id))?;
    let state = match (status.state.as_str(), status.error_result) {
        ("DONE", Some(error)) => JobState::Failed(failed(&error, id)),
        ("DONE", None) => JobState::Loaded { output_rows: output_rows(&document) },
        ("RUNNING", _) => JobState::Active { running: true },
        ("PENDING", _) => JobState::Active { running: false },
        _ => return Err(unreadable(id)),
    };
    Ok(JobView { state, end, rows })
}

/// An INT64 is text in BigQuery's JSON.
fn output_rows(document: &Value) -> Option<u64> {
    document.pointer("/statistics/load/outputRows")?.as_str()?.parse().ok()
}

fn unreadable(id: &str) -> Fault {
    let message = format!("the answer about job {id} is not one of BigQuery");
    Fault::unknown(FaultKind::Transient, "unreadableAnswer", message)
}

fn foreign(id: &str) -> Fault {
    let message = format!(
        "job {id} has none of kcbq's labels: another program has used its id; set a higher \
         `load_epoch`"
    );
    Fault::refused(FaultKind::InvalidRequest, "labels", message)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::json;

    use super::*;
    use crate::{
        catalog::Catalog as _,
        fault::Certainty,
        gcp::tables::Tables,
        sim::{SimRest, SimSettings, Simulator},
    };

    fn state(status: &Value) -> JobState {
        let document = json!({
            "configuration": {"labels": {"kcbq_end": "9", "kcbq_rows": "3"}},
            "status": status,
            "statistics": {"load": {"outputRows": "3"}},
        });
        let body = document.to_string().into();
        let answer = RestResponse { status: 200, headers: HeaderMap::new(), body };
        view(&answer, "id").unwrap().state
    }

    #[tokio::test]
    async fn a_job_is_found_where_its_dataset_is_whatever_is_configured() {
        let sim = Simulator::with_system_clock(SimSettings::default());
        let rest: Arc<dyn Rest> = Arc::new(SimRest(sim));
        let table = TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() };
        let tables = Tables::new(Arc::clone(&rest));
        tables.create_dataset(&table, Some("europe-west6")).await.unwrap();
        let absent = TableRef { dataset: "none".into(), ..table.clone() };
        for configured in [None, Some("EU")] {
            let jobs = Jobs::new(Arc::clone(&rest), configured.map(str::to_owned));
            for (table, expected) in [
                (&table, Some("europe-west6")),
                (&absent, configured),
                (&table, Some("europe-west6")),
            ] {
                let location = jobs.locations.of(&*rest, table).await.unwrap();
                assert_eq!(location.as_deref(), expected);
                jobs.locations.forget(table);
            }
        }
    }

    #[test]
    fn a_job_that_is_done_with_an_error_result_has_failed_although_the_answer_is_a_200() {
        let error = json!({"reason": "jobBackendError", "message": "try again"});
        let status = json!({"state": "DONE", "errorResult": error, "errors": [error]});
        let JobState::Failed(fault) = state(&status) else { panic!("{status}") };
        assert_eq!((fault.kind, fault.certainty), (FaultKind::Transient, Certainty::Refused));
    }

    #[test]
    fn a_job_that_is_not_done_has_neither_failed_nor_loaded_whatever_errors_it_lists() {
        let errors = json!([{"reason": "invalid", "message": "a warning"}]);
        for (name, running) in [("PENDING", false), ("RUNNING", true)] {
            let state = state(&json!({"state": name, "errors": errors}));
            assert!(matches!(state, JobState::Active { running: r } if r == running), "{state:?}");
        }
        let done = state(&json!({"state": "DONE", "errors": errors}));
        assert!(matches!(done, JobState::Loaded { output_rows: Some(3) }), "{done:?}");
    }
}
