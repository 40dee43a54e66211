use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use super::*;
use crate::{
    rest::{RestError, RestRequest, RestResponse},
    table::TableRef,
    write::{RowForm, stack::retry::RetrySettings},
};

/// What the scripted endpoint does with one request.
#[derive(Clone)]
enum Step {
    Ack,
    Status(u16, &'static str),
    /// The one row is left out.
    Stop,
    Lose,
    Hang,
}

/// Answers from a script; hangs for tables whose name starts with `hang`.
#[derive(Default)]
struct Scripted {
    steps: Mutex<VecDeque<Step>>,
    bodies: Mutex<Vec<Bytes>>,
    on_the_wire_max: AtomicUsize,
    on_the_wire: AtomicUsize,
}

impl Scripted {
    fn new(steps: &[Step]) -> Arc<Self> {
        Arc::new(Self { steps: Mutex::new(steps.iter().cloned().collect()), ..Self::default() })
    }
}

impl Rest for Scripted {
    fn call(&self, request: RestRequest) -> BoxFuture<'_, Result<RestResponse, RestError>> {
        Box::pin(async move {
            self.bodies.lock().unwrap().push(request.body.clone().into_bytes());
            let now = self.on_the_wire.fetch_add(1, Ordering::SeqCst) + 1;
            self.on_the_wire_max.fetch_max(now, Ordering::SeqCst);
            let hangs = request.path.contains("/tables/hang");
            let step = self.steps.lock().unwrap().pop_front();
            let step = if hangs { Step::Hang } else { step.unwrap_or(Step::Ack) };
            tokio::time::sleep(Duration::from_millis(50)).await;
            let (status, body) = match step {
                Step::Ack => (200, json!({"kind": "bigquery#tableDataInsertAllResponse"})),
                Step::Status(status, reason) => {
                    (status, json!({"error": {"errors": [{"reason": reason}]}}))
                }
                Step::Stop => (
                    200,
                    json!({"insertErrors": [{"index": 0, "errors": [{"reason": "stopped"}]}]}),
                ),
                Step::Lose => {
                    self.on_the_wire.fetch_sub(1, Ordering::SeqCst);
                    return Err(RestError::NoAnswer {
                        endpoint: "e".into(),
                        source: "reset".into(),
                    });
                }
                Step::Hang => {
                    tokio::time::sleep(Duration::from_secs(25)).await;
                    (200, json!({"kind": "bigquery#tableDataInsertAllResponse"}))
                }
            };
            self.on_the_wire.fetch_sub(1, Ordering::SeqCst);
            Ok(RestResponse { status, headers: HeaderMap::new(), body: body.to_string().into() })
        })
    }
}

fn request(table: &str) -> WriteRequest {
    let table = TableRef { project: "p".into(), dataset: "d".into(), table: table.into() };
    let body = Bytes::from_static(b"{\"rows\":[]}");
    WriteRequest { table, body, rows: 1, form: RowForm::Json }
}

fn path_over(rest: &Arc<Scripted>, settings: InsertAllSettings) -> (InsertAll, Arc<AtomicUsize>) {
    let retries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&retries);
    let on_retry: OnRetry = Arc::new(move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let rest: Arc<dyn Rest> = Arc::<Scripted>::clone(rest);
    (InsertAll::new(settings, rest, on_retry, Jitter::seeded(1)), retries)
}

async fn outcome_of(steps: &[Step]) -> (WriteOutcome, usize, usize) {
    let rest = Scripted::new(steps);
    let (path, retries) = path_over(&rest, InsertAllSettings::default());
    let outcome = path.write(request("t")).await;
    let sent = rest.bodies.lock().unwrap().len();
    (outcome, sent, retries.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn passing_faults_are_repeated_with_the_same_body() {
    let steps =
        [Step::Status(503, "backendError"), Step::Status(403, "rateLimitExceeded"), Step::Lose];
    let (outcome, sent, retries) = outcome_of(&steps).await;
    assert!(matches!(outcome, WriteOutcome::Acked));
    assert_eq!((sent, retries), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn what_waiting_does_not_cure_is_the_callers() {
    for (status, reason, kind) in [
        (403, "quotaExceeded", FaultKind::QuotaExceeded),
        (403, "accessDenied", FaultKind::PermissionDenied),
        (404, "notFound", FaultKind::TableNotFound),
        (400, "invalid", FaultKind::InvalidRequest),
    ] {
        let (outcome, sent, _) = outcome_of(&[Step::Status(status, reason)]).await;
        let WriteOutcome::Refused(fault) = outcome else { panic!("{outcome:?}") };
        assert_eq!((fault.kind, sent), (kind, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_lost_answer_leaves_the_doubt() {
    let (outcome, ..) = outcome_of(&[Step::Lose, Step::Status(403, "quotaExceeded")]).await;
    let WriteOutcome::Unknown(fault) = outcome else { panic!("{outcome:?}") };
    assert_eq!(fault.kind, FaultKind::QuotaExceeded);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_left_out_after_a_lost_answer_may_be_stored_all_the_same() {
    for (steps, expected) in [(&[Step::Stop][..], false), (&[Step::Lose, Step::Stop], true)] {
        let (outcome, ..) = outcome_of(steps).await;
        let WriteOutcome::Partial { unsent, is_doubtful, .. } = outcome else { panic!() };
        assert_eq!((unsent, is_doubtful), (vec![0], expected));
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_by_count_and_time() {
    let (outcome, sent, retries) = outcome_of(&vec![Step::Lose; 50]).await;
    assert!(matches!(outcome, WriteOutcome::Unknown(_)));
    assert_eq!((sent, retries), (6, 5));

    let rest = Scripted::new(&vec![Step::Lose; 500]);
    let retry = RetrySettings { attempts_max: 100, ..RetrySettings::default() };
    let (path, _) = path_over(&rest, InsertAllSettings { retry, ..Default::default() });
    let start = Instant::now();
    path.write(request("t")).await;
    assert!(start.elapsed() < Duration::from_secs(46));
    assert!(rest.bodies.lock().unwrap().len() < 20);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_in_doubt() {
    let rest = Scripted::new(&[]);
    let settings = InsertAllSettings { timeout_ms: 5_000, ..Default::default() };
    let (path, _) = path_over(&rest, settings);
    let start = Instant::now();
    let outcome = path.write(request("hang")).await;
    assert!(matches!(outcome, WriteOutcome::Unknown(_)));
    assert!(start.elapsed() < Duration::from_secs(50));
}

#[tokio::test(start_paused = true)]
async fn hanging_tables_leave_the_others_their_slots() {
    let rest = Scripted::new(&[]);
    let settings = InsertAllSettings {
        requests_in_flight: 8,
        requests_in_flight_per_table: 2,
        ..Default::default()
    };
    let (path, _) = path_over(&rest, settings);
    let path = Arc::new(path);
    let mut tasks = JoinSet::new();
    for table in ["hang1", "hang2", "hang3"] {
        for _ in 0..20 {
            let path = Arc::clone(&path);
            tasks.spawn(async move { path.write(request(table)).await });
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    for _ in 0..10 {
        assert!(matches!(path.write(request("good")).await, WriteOutcome::Acked));
    }
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(rest.on_the_wire_max.load(Ordering::SeqCst), 7);
}

#[tokio::test(start_paused = true)]
async fn throttled_tables_in_back_off_hold_no_slot_of_the_process() {
    let rest = Scripted::new(&vec![Step::Status(403, "rateLimitExceeded"); 8]);
    let retry = RetrySettings {
        backoff_initial_ms: 10_000,
        backoff_max_ms: 10_000,
        ..RetrySettings::default()
    };
    let settings = InsertAllSettings {
        requests_in_flight: 4,
        requests_in_flight_per_table: 4,
        retry,
        ..Default::default()
    };
    let (path, _) = path_over(&rest, settings);
    let path = Arc::new(path);
    let mut tasks = JoinSet::new();
    for index in 0..8 {
        let path = Arc::clone(&path);
        tasks.spawn(async move { path.write(request(&format!("bad{index}"))).await });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let start = Instant::now();
    assert!(matches!(path.write(request("good")).await, WriteOutcome::Acked));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_compressed_body_is_compressed_once_and_readable() {
    let rest = Scripted::new(&[Step::Lose]);
    let (path, _) = path_over(&rest, InsertAllSettings { gzip: true, ..Default::default() });
    assert!(matches!(path.write(request("t")).await, WriteOutcome::Acked));
    let bodies = rest.bodies.lock().unwrap();
    assert_eq!(bodies[0].as_ptr(), bodies[1].as_ptr());
    let body: Value =
        serde_json::from_reader(flate2::read::GzDecoder::new(bodies[0].as_ref())).unwrap();
    assert_eq!(body, json!({"rows": []}));
}

#[tokio::test(start_paused = true)]
async fn a_body_beyond_bigquerys_limit_is_not_sent() {
    let rest = Scripted::new(&[]);
    let (path, _) = path_over(&rest, InsertAllSettings::default());
    let body = Bytes::from(vec![b' '; BODY_BYTES_HARD_MAX + 1]);
    let outcome = path.write(WriteRequest { body, ..request("t") }).await;
    let WriteOutcome::Refused(fault) = outcome else { panic!("{outcome:?}") };
    assert_eq!(fault.kind, FaultKind::TooLarge);
    assert!(rest.bodies.lock().unwrap().is_empty());
}
