//! Uploads to the simulator, over connections that break.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::{
    gcp::jobs::Jobs,
    rest::RestError,
    sim::{memory::SimRest, settings::SimSettings, simulator::Simulator},
    table::TableRef,
    write::load::{
        Inserted, LoadJobs,
        content::Content,
        job::{JobState, LoadFormat, LoadJob},
    },
};

/// What becomes of a request with rows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Break {
    /// Nothing.
    No,
    /// It never arrives.
    Before,
    /// Half of it arrives.
    Midway,
    /// It arrives, and its answer does not.
    After,
}

/// A way to the simulator on which uploads break in this order, and then no more.
struct Flaky {
    sim: SimRest,
    breaks: Mutex<Vec<Break>>,
    bytes: AtomicUsize,
}

fn lost() -> RestError {
    let source = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    RestError::NoAnswer { endpoint: "the simulator".to_owned(), source: Box::new(source) }
}

impl Rest for Flaky {
    fn call(&self, request: RestRequest) -> BoxFuture<'_, Result<RestResponse, RestError>> {
        let is_media = request.method == Method::PUT && !request.body.is_empty();
        let next =
            |breaks: &mut Vec<Break>| if breaks.is_empty() { Break::No } else { breaks.remove(0) };
        let fate = if is_media { next(&mut self.breaks.lock().unwrap()) } else { Break::No };
        if is_media {
            self.bytes.fetch_add(request.body.len(), Ordering::SeqCst);
        }
        Box::pin(async move {
            match fate {
                Break::No => self.sim.call(request).await,
                Break::Before => Err(lost()),
                Break::Midway => {
                    let body = request.body.clone().into_bytes();
                    let body = body.slice(..body.len() / 2).into();
                    self.sim.call(RestRequest { body, ..request }).await?;
                    Err(lost())
                }
                Break::After => {
                    self.sim.call(request).await?;
                    Err(lost())
                }
            }
        })
    }
}

const ROWS: usize = 60_000;

async fn flaky(breaks: &[Break]) -> (Arc<Flaky>, LoadJob) {
    let sim = SimRest(Simulator::with_system_clock(SimSettings::default()));
    let post = |path: &str, body: serde_json::Value| {
        let path = format!("/bigquery/v2/projects/p{path}");
        let body = Bytes::from(body.to_string()).into();
        RestRequest { method: Method::POST, path, headers: HeaderMap::new(), body }
    };
    let dataset = json!({"datasetReference": {"projectId": "p", "datasetId": "d"}});
    let table = json!({
        "tableReference": {"projectId": "p", "datasetId": "d", "tableId": "t"},
        "schema": {"fields": [{"name": "a", "type": "INT64"}]},
    });
    for request in [post("/datasets", dataset), post("/datasets/d/tables", table)] {
        assert_eq!(sim.call(request).await.unwrap().status, 200);
    }
    let lines: String = (0..ROWS).map(|number| format!("{{\"a\": {number:>12}}}\n")).collect();
    let job = LoadJob {
        id: "kcbq-x-0-0-a0".to_owned(),
        table: TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() },
        sources: Vec::new(),
        rows_here: vec![Content::Lines(lines.into())],
        format: LoadFormat::NdjsonGz,
        end: 9,
        rows: ROWS as u64,
    };
    let breaks = Mutex::new(breaks.to_vec());
    (Arc::new(Flaky { sim, breaks, bytes: AtomicUsize::new(0) }), job)
}

fn media(job: &LoadJob) -> Vec<Bytes> {
    let [Content::Lines(lines)] = &job.rows_here[..] else { panic!("lines") };
    // In parts that no chunk ends with.
    let (first, second) = (lines.slice(..100_001), lines.slice(100_001..));
    vec![first, second]
}

async fn loaded(jobs: &Jobs, job: &LoadJob) -> bool {
    loop {
        match jobs.get(&job.table, &job.id).await.unwrap().unwrap().state {
            JobState::Active { .. } => {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await
            }
            JobState::Loaded { output_rows } => return output_rows == Some(job.rows),
            JobState::Failed(fault) => panic!("{fault}"),
        }
    }
}

#[tokio::test]
async fn an_upload_goes_on_where_it_broke_off_and_makes_one_job() {
    use Break::{After, Before, Midway};
    for breaks in [&[][..], &[Before], &[Midway, Before, Midway], &[After], &[Midway, After]] {
        let (rest, job) = flaky(breaks).await;
        let jobs = Jobs::new(Arc::<Flaky>::clone(&rest), None);
        assert_eq!(jobs.insert(&job, media(&job)).await.unwrap(), Inserted::Created, "{breaks:?}");
        assert!(loaded(&jobs, &job).await, "{breaks:?}");
        let size: usize = media(&job).iter().map(Bytes::len).sum();
        if breaks == [Midway, After] {
            assert!(rest.bytes.load(Ordering::SeqCst) < 2 * size, "half of it was sent again");
        }
    }
}

#[tokio::test]
async fn an_upload_that_always_breaks_is_given_up_and_may_be_begun_anew() {
    let (rest, job) = flaky(&[Break::Before; 5]).await;
    let jobs = Jobs::new(rest, None);
    let fault = jobs.insert(&job, media(&job)).await.unwrap_err();
    assert_eq!((fault.kind, &*fault.reason), (FaultKind::Transient, "uploadIncomplete"));
    assert!(jobs.get(&job.table, &job.id).await.unwrap().is_none());
    assert_eq!(jobs.insert(&job, media(&job)).await.unwrap(), Inserted::Created);
    assert_eq!(jobs.insert(&job, media(&job)).await.unwrap(), Inserted::Exists);
    assert!(loaded(&jobs, &job).await);
}
