//! Over the simulator, in memory and in paused time.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

use super::*;
use crate::{
    rpc::{RpcError, RpcRequest, RpcStream},
    sim::{SimSettings, memory::SimRpc},
    table::{Column, ColumnKind, TableSchema},
    write::storage::{
        bench::{Simulated, columns, rows, table},
        descriptor::writer_schema,
        settings::REQUEST_BYTES_HARD_MAX,
    },
};

struct Bench {
    sim: Simulated,
    path: Arc<StorageWrite>,
    retries: Arc<AtomicUsize>,
    news: Arc<SchemaNews>,
}

impl std::ops::Deref for Bench {
    type Target = Simulated;

    fn deref(&self) -> &Simulated {
        &self.sim
    }
}

fn bench(settings: SimSettings) -> Bench {
    bench_of(settings, &StorageSettings::default())
}

fn bench_of(settings: SimSettings, storage: &StorageSettings) -> Bench {
    let sim = Simulated::new(settings);
    let retries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&retries);
    let on_retry: OnRetry = Arc::new(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let news = Arc::<SchemaNews>::default();
    let rpc = Arc::new(SimRpc(sim.simulator.clone()));
    let path = StorageWrite::new(storage, rpc, on_retry, Jitter::seeded(1), Arc::clone(&news));
    Bench { sim, path: Arc::new(path), retries, news }
}

impl Bench {
    async fn write(&self, name: &str, numbers: &[i64]) -> WriteOutcome {
        self.path.write(request(name, numbers)).await
    }
}

fn request(name: &str, numbers: &[i64]) -> WriteRequest {
    WriteRequest {
        table: table(name),
        body: rows(numbers),
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
    bench.create_table("bad").await;
    assert!(matches!(bench.write("bad", &[1]).await, WriteOutcome::Acked));
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
async fn a_table_that_has_changed_is_news_once() {
    let bench = bench(SimSettings::default());
    bench.create(&["a", "b"]).await;
    let mut seen = 0;
    bench.write("a", &[1]).await;
    bench.write("b", &[1]).await;
    assert!(bench.news.since(&mut seen).is_empty());
    bench.add_column("a").await;
    bench.write("b", &[2]).await;
    bench.write("a", &[2]).await;
    assert_eq!(bench.news.since(&mut seen), [table("a")]);
    bench.write("a", &[3]).await;
    assert!(bench.news.since(&mut seen).is_empty());
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
    let path = StorageWrite::new(
        &StorageSettings::default(),
        Arc::new(Away),
        on_retry,
        Jitter::seeded(1),
        Arc::default(),
    );
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
