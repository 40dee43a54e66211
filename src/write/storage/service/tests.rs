//! Over the simulator, in memory and in paused time.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

use super::*;
use crate::{
    rpc::{RpcError, RpcRequest, RpcStream},
    sim::{FaultScript, SimSettings, Simulator, memory::SimRpc, message::Request},
    table::{Column, ColumnKind, Mode, TableRef, TableSchema},
    write::storage::{descriptor::writer_schema, framing},
};

struct Bench {
    simulator: Simulator,
    path: Arc<StorageWrite>,
    retries: Arc<AtomicUsize>,
}

fn bench(settings: SimSettings) -> Bench {
    bench_of(settings, &StorageSettings::default())
}

fn bench_of(settings: SimSettings, storage: &StorageSettings) -> Bench {
    let start = Instant::now();
    let clock = move || Duration::from_secs(1_767_225_600) + start.elapsed();
    let simulator = Simulator::new(settings, Arc::new(clock));
    let retries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&retries);
    let on_retry: OnRetry = Arc::new(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let rpc = Arc::new(SimRpc(simulator.clone()));
    let path = StorageWrite::new(storage, rpc, on_retry, Jitter::seeded(1));
    Bench { simulator, path: Arc::new(path), retries }
}

fn table(name: &str) -> TableRef {
    TableRef { project: "p".into(), dataset: "d".into(), table: name.into() }
}

fn columns() -> TableSchema {
    TableSchema { columns: vec![Column::new("n", ColumnKind::Int64).with_mode(Mode::Required)] }
}

impl Bench {
    async fn send(&self, method: Method, path: &str, body: serde_json::Value) {
        let path = format!("/projects/p{path}");
        let request = Request::new(method, &path, HeaderMap::new(), body.to_string().into());
        let answer = self.simulator.call(request).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    async fn create(&self, tables: &[&str]) {
        let dataset = json!({"datasetReference": {"datasetId": "d"}});
        self.send(Method::POST, "/datasets", dataset).await;
        for table in tables {
            let fields = json!([{"name": "n", "type": "INT64", "mode": "REQUIRED"}]);
            let body = json!({"tableReference": {"tableId": table}, "schema": {"fields": fields}});
            self.send(Method::POST, "/datasets/d/tables", body).await;
        }
    }

    fn faults(&self, rules: serde_json::Value) {
        let script: FaultScript =
            serde_json::from_value(json!({"seed": 1, "rules": rules})).unwrap();
        self.simulator.with_core(|core, _| core.set_faults(script));
    }

    fn stored(&self, table: &str) -> Vec<i64> {
        self.simulator.with_core(|core, _| {
            let mut tables = core.bigquery().tables();
            let (_, found) = tables.find(|(path, _)| path.table == table).unwrap();
            let number = |row: &serde_json::Map<String, serde_json::Value>| {
                row["n"].as_str().unwrap().parse().unwrap()
            };
            found.store.rows().iter().map(number).collect()
        })
    }

    async fn write(&self, name: &str, numbers: &[i64]) -> WriteOutcome {
        self.path.write(request(name, numbers)).await
    }
}

fn request(name: &str, numbers: &[i64]) -> WriteRequest {
    let mut body = Vec::new();
    for number in numbers {
        let start = framing::begin_row(&mut body);
        // −1 stands for a row without its required value.
        if *number != -1 {
            prost::encoding::int64::encode(1, number, &mut body);
        }
        framing::end_row(&mut body, start);
    }
    WriteRequest {
        table: table(name),
        body: body.into(),
        rows: numbers.len() as u32,
        form: RowForm::Proto(writer_schema(&columns())),
    }
}

#[tokio::test(start_paused = true)]
async fn tables_share_a_connection_and_rows_of_each_arrive() {
    let bench = bench(SimSettings::default());
    bench.create(&["a", "b"]).await;
    for (table, number) in [("a", 1), ("b", 2), ("b", 3), ("a", 4)] {
        assert!(matches!(bench.write(table, &[number]).await, WriteOutcome::Acked));
    }
    assert_eq!((bench.stored("a"), bench.stored("b")), (vec![1, 4], vec![2, 3]));
    assert_eq!(bench.path.connections(), 1);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(bench.path.connections(), 0, "nobody uses it");
    assert!(matches!(bench.write("a", &[5]).await, WriteOutcome::Acked));
    assert_eq!(bench.retries.load(Ordering::Relaxed), 0, "that is no fault");
}

#[tokio::test(start_paused = true)]
async fn a_bad_row_is_named_and_its_neighbours_are_to_be_sent_again() {
    let bench = bench(SimSettings::default());
    bench.create(&["a"]).await;
    let outcome = bench.write("a", &[1, -1, 3]).await;
    let WriteOutcome::Partial { rejected, unsent, is_doubtful: false } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((rejected[0].row, unsent), (1, vec![0, 2]));
    assert_eq!(rejected[0].fault.kind, FaultKind::SchemaMismatch);
    assert_eq!(bench.stored("a"), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_repeated_and_a_refusal_behind_it_leaves_the_doubt() {
    let bench = bench(SimSettings::default());
    bench.create(&["a"]).await;
    bench.faults(json!([{"operation": "AppendRows", "nth": 1, "fault": {"kind": "lose"}}]));
    assert!(matches!(bench.write("a", &[1]).await, WriteOutcome::Acked));
    assert_eq!(bench.stored("a"), [1, 1], "at least once");
    assert_eq!(bench.retries.load(Ordering::Relaxed), 1);
    let denied = json!({"kind": "refuse", "status": 403, "message": "no"});
    bench.faults(json!([
        {"operation": "AppendRows", "nth": 1, "fault": {"kind": "lose"}},
        {"operation": "AppendRows", "nth": 1, "fault": denied},
    ]));
    let outcome = bench.write("a", &[2]).await;
    let WriteOutcome::Unknown(fault) = outcome else { panic!("{outcome:?}") };
    assert_eq!(fault.kind, FaultKind::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn what_waiting_does_not_cure_is_the_callers() {
    let bench = bench(SimSettings::default());
    bench.create(&["a"]).await;
    for (status, reason, kind) in [
        (429, "Exceeds 'AppendRows throughput' quota", FaultKind::QuotaExceeded),
        (403, "quotaExceeded", FaultKind::QuotaExceeded),
        (403, "no", FaultKind::PermissionDenied),
        (400, "no", FaultKind::InvalidRequest),
        // Refused twice: with the token that was, and with a new one.
        (401, "no", FaultKind::Unauthenticated),
    ] {
        let fault = json!({"kind": "refuse", "status": status, "reason": reason});
        bench.faults(json!([
            {"operation": "AppendRows", "nth": 1, "fault": fault},
            {"operation": "AppendRows", "nth": 1, "fault": fault},
        ]));
        let outcome = bench.write("a", &[1]).await;
        let WriteOutcome::Refused(fault) = outcome else { panic!("{status}: {outcome:?}") };
        assert_eq!(fault.kind, kind, "{fault}");
    }
    let outcome = bench.write("never", &[1]).await;
    let WriteOutcome::Refused(fault) = outcome else { panic!("{outcome:?}") };
    assert_eq!(fault.kind, FaultKind::TableNotFound);
    assert_eq!(bench.retries.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_run_out_is_nobodys_fault() {
    let bench = bench(SimSettings::default());
    bench.create(&["a"]).await;
    let fault = json!({"kind": "refuse", "status": 401, "message": "no"});
    bench.faults(json!([{"operation": "AppendRows", "nth": 2, "fault": fault}]));
    for number in 1..=3 {
        assert!(matches!(bench.write("a", &[number]).await, WriteOutcome::Acked), "{number}");
    }
    assert_eq!((bench.stored("a"), bench.retries.load(Ordering::Relaxed)), (vec![1, 2, 3], 0));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_ends_connections_has_one_of_its_own() {
    let bench = bench(SimSettings::default());
    bench.create(&["good"]).await;
    bench.write("bad", &[1]).await;
    bench.write("good", &[1]).await;
    // Whatever becomes of the bad one's, the good one's is not touched.
    let mut tasks = JoinSet::new();
    for number in 2..50 {
        let path = Arc::clone(&bench.path);
        tasks.spawn(async move { path.write(request("good", &[number])).await });
        let path = Arc::clone(&bench.path);
        tasks.spawn(async move { path.write(request("bad", &[number])).await });
    }
    while let Some(outcome) = tasks.join_next().await {
        assert!(!matches!(outcome.unwrap(), WriteOutcome::Unknown(_)));
    }
    let mut stored = bench.stored("good");
    stored.sort_unstable();
    assert_eq!(stored, (1..50).collect::<Vec<_>>(), "each once");
    bench.create_again("bad").await;
    assert!(matches!(bench.write("bad", &[1]).await, WriteOutcome::Acked));
}

impl Bench {
    async fn create_again(&self, table: &str) {
        let fields = json!([{"name": "n", "type": "INT64", "mode": "REQUIRED"}]);
        let body = json!({"tableReference": {"tableId": table}, "schema": {"fields": fields}});
        self.send(Method::POST, "/datasets/d/tables", body).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_hangs_leaves_the_others_their_connections() {
    let bench = bench(SimSettings::default());
    bench.create(&["hangs", "good"]).await;
    let hold = json!({"kind": "hold", "ms": 30_000});
    bench.faults(json!([{"operation": "AppendRows", "table": "hangs", "fault": hold}]));
    let mut tasks = JoinSet::new();
    for number in 0..10 {
        let path = Arc::clone(&bench.path);
        tasks.spawn(async move { path.write(request("hangs", &[number])).await });
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let start = Instant::now();
    for number in 0..10 {
        assert!(matches!(bench.write("good", &[number]).await, WriteOutcome::Acked));
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_an_answer_that_never_comes_is_stored_once() {
    let settings =
        StorageSettings { connections_max: 1, timeout_ms: 10_000, ..StorageSettings::default() };
    let bench = bench_of(SimSettings::default(), &settings);
    bench.create(&["a"]).await;
    let hold = json!({"kind": "hold", "ms": 300_000});
    bench.faults(json!([{"operation": "AppendRows", "nth": 1, "fault": hold}]));
    let mut tasks = JoinSet::new();
    for number in 1..9 {
        let path = Arc::clone(&bench.path);
        tasks.spawn(async move { path.write(request("a", &[number])).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let start = Instant::now();
    while let Some(outcome) = tasks.join_next().await {
        assert!(matches!(outcome.unwrap(), WriteOutcome::Acked));
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let mut stored = bench.stored("a");
    stored.sort_unstable();
    assert_eq!(stored, (1..9).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_schema_is_said_again_after_a_refusal() {
    let bench = bench(SimSettings::default());
    bench.create(&["a"]).await;
    let wider = TableSchema {
        columns: [columns().columns, vec![Column::new("more", ColumnKind::Int64)]].concat(),
    };
    let form = RowForm::Proto(writer_schema(&wider));
    let wide = || WriteRequest { form: form.clone(), ..request("a", &[1]) };
    for _ in 0..2 {
        let WriteOutcome::Refused(fault) = bench.path.write(wide()).await else { panic!() };
        assert_eq!(fault.kind, FaultKind::SchemaMismatch, "{fault}");
    }
    assert!(matches!(bench.write("a", &[2]).await, WriteOutcome::Acked));
}

#[tokio::test(start_paused = true)]
async fn a_request_beyond_bigquerys_limit_is_not_sent() {
    let bench = bench(SimSettings::default());
    let body = Bytes::from(vec![0; REQUEST_BYTES_HARD_MAX]);
    let outcome = bench.path.write(WriteRequest { body, ..request("a", &[1]) }).await;
    let WriteOutcome::Refused(fault) = outcome else { panic!("{outcome:?}") };
    assert_eq!(fault.kind, FaultKind::TooLarge);
    assert_eq!(bench.path.connections(), 0);
}

/// An endpoint to which no connection can be made, which takes a moment to show.
#[derive(Debug)]
struct Away;

impl Away {
    fn error() -> RpcError {
        RpcError::NotSent { endpoint: "http://away".to_owned(), source: "refused".into() }
    }
}

impl Rpc for Away {
    fn call(&self, _request: RpcRequest) -> BoxFuture<'_, Result<Bytes, RpcError>> {
        Box::pin(async { Err(Self::error()) })
    }

    fn open(&self, _path: &str, _routing: &str) -> BoxFuture<'_, Result<RpcStream, RpcError>> {
        let (requests, taken) = tokio::sync::mpsc::channel(8);
        let answers = futures_util::stream::once(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(taken);
            Err(Self::error())
        });
        Box::pin(async { Ok(RpcStream { requests, answers: Box::pin(answers) }) })
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_in_no_doubt() {
    let on_retry: OnRetry = Arc::new(|_, _| {});
    let path =
        StorageWrite::new(&StorageSettings::default(), Arc::new(Away), on_retry, Jitter::seeded(1));
    let path = Arc::new(path);
    let mut tasks = JoinSet::new();
    for number in 0..6 {
        let path = Arc::clone(&path);
        tasks.spawn(async move { path.write(request("a", &[number])).await });
    }
    while let Some(outcome) = tasks.join_next().await {
        let outcome = outcome.unwrap();
        let WriteOutcome::Refused(fault) = outcome else { panic!("{outcome:?}") };
        assert_eq!((fault.kind, &*fault.reason), (FaultKind::Transient, "notSent"));
    }
    assert_eq!(path.connections(), 1, "no table is to blame");
}
