//! The contract on both fronts of the simulator, and what only the simulator has: delays, faults,
//! store modes, the control API.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Method, header};
use kcbq::{
    rest::{Rest, RestError},
    sim::{
        SimOptions, SimRest, SimSettings, Simulator, StoreMode, WireSettings,
        bigquery::hash::fnv1a, serve,
    },
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::sim_contract::{CHECKS, HttpRest, Subject, json_request, message, parsed, reason};

/// 2026-01-01, in milliseconds.
const START_MS: u64 = 1_767_225_600_000;

/// A simulator in memory whose time only moves by hand.
struct Fixture {
    rest: SimRest,
    clock: Arc<AtomicU64>,
}

impl Fixture {
    async fn new(settings: SimSettings) -> Self {
        let clock = Arc::new(AtomicU64::new(START_MS));
        let read = Arc::clone(&clock);
        let now = move || Duration::from_millis(read.load(Ordering::Relaxed));
        let fixture = Self { rest: SimRest(Simulator::new(settings, Arc::new(now))), clock };
        let body = json!({"datasetReference": {"datasetId": "d"}});
        fixture.subject().send(Method::POST, "/datasets", Some(body)).await;
        fixture
    }

    fn subject(&self) -> Subject<'_> {
        Subject { rest: &self.rest, project: "p", dataset: "d".into() }
    }

    fn advance(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    async fn control(&self, method: Method, path: &str, body: Value) -> Value {
        let request = json_request(method, format!("/sim/v1/{path}"), Some(&body));
        let response = self.rest.call(request).await.unwrap();
        assert_eq!(response.status, 200, "{response:?}");
        parsed(&response)
    }

    async fn faults(&self, rules: Value) {
        self.control(Method::POST, "faults", json!({"seed": 1, "rules": rules})).await;
    }

    async fn dump(&self) -> Vec<Value> {
        let request = json_request(Method::GET, "/sim/v1/rows?table=p.d.t", None);
        let body = self.rest.call(request).await.unwrap().body;
        let text = std::str::from_utf8(&body).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn one_column() -> Value {
    json!([{"name": "a", "type": "STRING"}])
}

fn one_row(a: &str) -> Value {
    json!({"rows": [{"insertId": a, "json": {"a": a}}]})
}

async fn check_all(rest: &dyn Rest) {
    for check in CHECKS {
        let elsewhere = check.difference.unwrap_or("the same");
        eprintln!("contract: {} (local-bigquery: {elsewhere})", check.name);
        check.run(rest, "test-project").await;
    }
}

#[tokio::test]
async fn the_contract_holds_in_memory() {
    let rest = SimRest(Simulator::with_system_clock(SimSettings::default()));
    check_all(&rest).await;
}

#[tokio::test]
async fn the_contract_holds_over_http() {
    let stop = CancellationToken::new();
    let running = serve(SimOptions::default(), stop.clone()).await.unwrap();
    let rest = HttpRest::new(format!("http://{}", running.rest_addr));
    check_all(&rest).await;
    stop.cancel();
    running.stopped().await;
}

#[tokio::test]
async fn a_created_table_takes_rows_only_when_visible() {
    let fixture =
        Fixture::new(SimSettings { create_delay_ms: 1_000, ..SimSettings::default() }).await;
    let s = fixture.subject();
    s.create("t", one_column()).await;
    s.get("t").await;
    let (status, body) = s.insert_body("t", one_row("1")).await;
    assert_eq!((status, reason(&body)), (404, "notFound"));
    fixture.advance(999);
    assert_eq!(s.insert_body("t", one_row("1")).await.0, 404);
    fixture.advance(1);
    assert_eq!(s.insert_body("t", one_row("1")).await.0, 200);
}

#[tokio::test]
async fn an_altered_table_takes_new_columns_only_when_visible() {
    let fixture =
        Fixture::new(SimSettings { alter_delay_ms: 1_000, ..SimSettings::default() }).await;
    let s = fixture.subject();
    s.create("t", json!([{"name": "a", "type": "STRING", "mode": "REQUIRED"}])).await;
    let fields = json!([{"name": "a", "type": "STRING"}, {"name": "b", "type": "STRING"}]);
    s.patch("t", json!({"schema": {"fields": fields}})).await;
    assert_eq!(s.get("t").await["schema"]["fields"][1]["name"], "b", "tables.get sees it at once");
    assert_eq!(s.refusal("t", json!({"a": "1", "b": "1"})).await.1, "no such field: b.");
    assert_eq!(s.refusal("t", json!({})).await.1, "Missing required field: a.");
    let answer = s.insert("t", &[json!({"a": "old"})]).await;
    assert!(answer.get("insertErrors").is_none(), "rows of the old schema flow");
    fixture.advance(1_000);
    let answer = s.insert("t", &[json!({"b": "1"})]).await;
    assert!(answer.get("insertErrors").is_none(), "{answer}");
}

#[tokio::test]
async fn quotas_and_insert_ids_expire() {
    let fixture = Fixture::new(SimSettings::default()).await;
    let s = fixture.subject();
    s.create("t", one_column()).await;
    for n in 0..5 {
        s.patch("t", json!({"description": n.to_string()})).await;
        fixture.advance(1_000);
    }
    assert_eq!(s.patch("t", json!({"description": "x"})).await.0, 403);
    fixture.advance(5_000);
    assert_eq!(s.patch("t", json!({"description": "x"})).await.0, 200, "the first left the window");
    assert_eq!(s.patch("t", json!({"description": "x"})).await.0, 403);
    s.insert_body("t", one_row("1")).await;
    fixture.advance(59_999);
    s.insert_body("t", one_row("1")).await;
    assert_eq!(s.rows("t").await.len(), 1);
    fixture.advance(1);
    s.insert_body("t", one_row("1")).await;
    assert_eq!(s.rows("t").await.len(), 2, "after a minute it is a new row");
    let counters = fixture.control(Method::GET, "counters", Value::Null).await;
    assert_eq!((&counters["rows"], &counters["duplicates"]), (&json!(2), &json!(1)));
    let updates = (&counters["updates_accepted"], &counters["updates_refused"]);
    assert_eq!(updates, (&json!(6), &json!(2)));
}

#[tokio::test]
async fn rows_outside_the_streaming_window_are_refused() {
    let fixture = Fixture::new(SimSettings::default()).await;
    let s = fixture.subject();
    for (table, ty) in [("t", "TIMESTAMP"), ("u", "DATE")] {
        let fields = json!([{"name": "at", "type": ty}]);
        let partitioning = json!({"type": "DAY", "field": "at"});
        let document = json!({"schema": {"fields": fields}, "timePartitioning": partitioning});
        s.try_create(table, document).await;
        for day in ["2016-01-05", "2027-01-01"] {
            let answer = s.insert(table, &[json!({"at": day})]).await;
            assert!(answer.get("insertErrors").is_none(), "{day}: {answer}");
        }
        for day in ["2015-12-31", "2027-01-03"] {
            let (_, message) = s.refusal(table, json!({"at": day})).await;
            assert!(message.contains("is outside the allowed bounds"), "{message}");
        }
    }
    s.try_create(
        "i",
        json!({"schema": {"fields": one_column()}, "timePartitioning": {"type": "DAY"}}),
    )
    .await;
    for (decorator, expected) in
        [("20251201", 200), ("20251130", 400), ("20260117", 200), ("20260118", 400), ("2026", 400)]
    {
        let (status, body) = s.insert_body(&format!("i${decorator}"), one_row("1")).await;
        assert_eq!(status, expected, "{decorator}: {body}");
    }
}

#[tokio::test]
async fn a_row_has_a_limit_of_its_own() {
    let fixture = Fixture::new(SimSettings { row_bytes_max: 100, ..SimSettings::default() }).await;
    let s = fixture.subject();
    s.create("t", one_column()).await;
    let (_, message) = s.refusal("t", json!({"a": "x".repeat(100)})).await;
    assert!(message.contains("Maximum allowed row size exceeded"), "{message}");
}

#[tokio::test]
async fn the_ledger_keeps_coordinates_and_a_hash_anyone_can_compute() {
    let settings = SimSettings { store: StoreMode::Ledger, ..SimSettings::default() };
    let fixture = Fixture::new(settings).await;
    let s = fixture.subject();
    s.create(
        "t",
        json!([
            {"name": "_kafka_topic", "type": "STRING"}, {"name": "_kafka_partition", "type": "INTEGER"},
            {"name": "_kafka_offset", "type": "INTEGER"}, {"name": "b", "type": "FLOAT"},
            {"name": "a", "type": "TIMESTAMP"}, {"name": "n", "type": "STRING"},
            {"name": "r", "type": "RECORD", "fields": [
                {"name": "z", "type": "INTEGER"}, {"name": "y", "type": "STRING"}]}
        ]),
    )
    .await;
    let row = json!({"_kafka_topic": "orders", "_kafka_partition": 3, "_kafka_offset": "42",
        "b": 1, "a": "1970-01-01T00:00:01Z", "n": null, "r": {"z": 1, "y": "é"}});
    s.insert("t", &[row]).await;
    let canonical = r#"{"a":"1000000","b":"1.0","r":{"y":"é","z":"1"}}"#;
    let hash = format!("{:016x}", fnv1a(canonical.as_bytes()));
    let expected =
        json!({"table": "p.d.t", "topic": "orders", "partition": 3, "offset": 42, "hash": hash});
    let mut dump = fixture.dump().await;
    let stored_ms = dump[0].as_object_mut().unwrap().shift_remove("stored_ms").unwrap();
    assert!(stored_ms.as_u64() > Some(1_700_000_000_000), "{stored_ms}");
    assert_eq!(dump, [expected]);
    assert_eq!(s.get("t").await["numRows"], "1");
}

#[tokio::test]
async fn counting_looks_at_nothing_but_the_number() {
    let settings = SimSettings { store: StoreMode::Count, ..SimSettings::default() };
    let fixture = Fixture::new(settings).await;
    let s = fixture.subject();
    s.create("t", one_column()).await;
    let (status, _) = s
        .insert_body(
            "t",
            json!({"rows": [
        {"insertId": "1", "json": {"a": 1}}, {"insertId": "1", "json": {"none": 1}}]}),
        )
        .await;
    assert_eq!((status, s.get("t").await["numRows"].clone()), (200, json!("2")));
    assert_eq!(fixture.control(Method::GET, "counters", Value::Null).await["rows"], 2);
}

#[tokio::test]
async fn a_refused_request_does_nothing_and_a_failed_one_did() {
    let fixture = Fixture::new(SimSettings::default()).await;
    let s = fixture.subject();
    s.create("t", one_column()).await;
    fixture
        .faults(json!([
            {"operation": "tabledata.insertAll", "nth": 1, "fault":
                {"kind": "refuse", "status": 403, "reason": "quotaExceeded", "message": "m"}},
            {"operation": "tabledata.insertAll", "nth": 1, "fault": {"kind": "fail_after"}},
        ]))
        .await;
    let (status, body) = s.insert_body("t", one_row("1")).await;
    assert_eq!((status, reason(&body), message(&body)), (403, "quotaExceeded", "m"));
    assert!(s.rows("t").await.is_empty());
    let (status, body) = s.insert_body("t", one_row("1")).await;
    assert_eq!((status, reason(&body)), (503, "backendError"));
    assert_eq!(s.rows("t").await.len(), 1);
    let (status, _) = s.insert_body("t", one_row("1")).await;
    assert_eq!((status, s.rows("t").await.len()), (200, 1), "the repetition is deduplicated");
    let counters = fixture.control(Method::GET, "counters", Value::Null).await;
    assert_eq!(counters["faults"], json!({"refuse": 1, "fail_after": 1}));
}

#[tokio::test]
async fn a_lost_answer_leaves_the_row() {
    let fixture = Fixture::new(SimSettings::default()).await;
    let s = fixture.subject();
    s.create("t", one_column()).await;
    let rules =
        json!([{"operation": "tabledata.*", "table": "t", "times": 1, "fault": {"kind": "lose"}}]);
    fixture.faults(rules.clone()).await;
    let path = "/bigquery/v2/projects/p/datasets/d/tables/t/insertAll";
    let request = json_request(Method::POST, path, Some(&one_row("1")));
    let lost = fixture.rest.call(request).await;
    assert!(matches!(lost, Err(RestError::NoAnswer { .. })), "{lost:?}");
    assert_eq!(s.rows("t").await.len(), 1);
}

#[tokio::test]
async fn a_lost_answer_closes_the_connection_over_http() {
    let stop = CancellationToken::new();
    let running = serve(SimOptions::default(), stop.clone()).await.unwrap();
    let rest = HttpRest::new(format!("http://{}", running.rest_addr));
    let script =
        json!({"rules": [{"operation": "datasets.insert", "times": 1, "fault": {"kind": "lose"}}]});
    let answer = rest.call(json_request(Method::POST, "/sim/v1/faults", Some(&script))).await;
    assert_eq!(answer.unwrap().status, 200);
    let s = Subject { rest: &rest, project: "p", dataset: "d".into() };
    let body = json!({"datasetReference": {"datasetId": "d"}});
    let path = "/bigquery/v2/projects/p/datasets";
    let lost = rest.call(json_request(Method::POST, path, Some(&body))).await;
    assert!(matches!(lost, Err(RestError::NoAnswer { .. })), "{lost:?}");
    assert_eq!(s.send(Method::GET, "/datasets/d", None).await.0, 200, "it was applied");
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_comes_after_the_write() {
    let fixture = Fixture::new(SimSettings::default()).await;
    let s = fixture.subject();
    s.create("t", one_column()).await;
    fixture
        .faults(
            json!([{"operation": "tabledata.insertAll", "fault": {"kind": "slow", "ms": 5_000}}]),
        )
        .await;
    let started = tokio::time::Instant::now();
    let early =
        tokio::time::timeout(Duration::from_secs(4), s.insert_body("t", one_row("1"))).await;
    assert!(early.is_err());
    assert_eq!(s.rows("t").await.len(), 1, "applied although the client gave up");
    assert_eq!(s.insert_body("t", one_row("2")).await.0, 200);
    assert_eq!(started.elapsed(), Duration::from_secs(9));
}

#[tokio::test(start_paused = true)]
async fn a_held_request_is_applied_later_even_if_the_client_leaves() {
    let fixture = Fixture::new(SimSettings::default()).await;
    let s = fixture.subject();
    s.create("t", one_column()).await;
    fixture.faults(json!([{"operation": "tabledata.insertAll", "times": 1, "fault": {"kind": "hold", "ms": 5_000}}])).await;
    let early =
        tokio::time::timeout(Duration::from_secs(1), s.insert_body("t", one_row("1"))).await;
    assert!(early.is_err());
    assert!(s.rows("t").await.is_empty(), "not applied yet");
    fixture.advance(5_000);
    assert_eq!(s.rows("t").await.len(), 1, "applied behind the client's back");
}

#[tokio::test(start_paused = true)]
async fn a_held_request_waits_for_its_release() {
    let fixture = Fixture::new(SimSettings::default()).await;
    let s = fixture.subject();
    s.create("t", one_column()).await;
    fixture.faults(json!([{"operation": "tabledata.insertAll", "fault": {"kind": "hold"}}])).await;
    let release = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(s.rows("t").await.is_empty());
        fixture.control(Method::POST, "release", Value::Null).await;
    };
    let ((status, _), ()) = tokio::join!(s.insert_body("t", one_row("1")), release);
    assert_eq!((status, s.rows("t").await.len()), (200, 1));
}

#[tokio::test]
async fn gzip_bodies_are_understood_and_limited() {
    let fixture = Fixture::new(SimSettings::default()).await;
    let s = fixture.subject();
    s.create("t", one_column()).await;
    let send = async |body: &Value| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body.to_string().as_bytes()).unwrap();
        let path = "/bigquery/v2/projects/p/datasets/d/tables/t/insertAll";
        let mut request = json_request(Method::POST, path, None);
        request.body = encoder.finish().unwrap().into();
        request.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        fixture.rest.call(request).await.unwrap().status
    };
    assert_eq!(send(&one_row("1")).await, 200);
    assert_eq!(send(&one_row(&"x".repeat(11 << 20))).await, 413, "counted after decompression");
    assert_eq!(s.rows("t").await.len(), 1);
}

#[tokio::test]
async fn the_wire_can_be_slow() {
    let wire = WireSettings {
        answer_delay: Duration::from_millis(30),
        connection_bytes_per_s: Some(1 << 20),
    };
    let stop = CancellationToken::new();
    let options = SimOptions { wire, ..SimOptions::default() };
    let running = serve(options, stop.clone()).await.unwrap();
    let rest = HttpRest::new(format!("http://{}", running.rest_addr));
    let started = std::time::Instant::now();
    let mut request = json_request(Method::POST, "/subjects/s", None);
    request.body = vec![b' '; 128 << 10].into();
    rest.call(request).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(155), "{:?}", started.elapsed());
    stop.cancel();
}

#[tokio::test]
async fn reset_forgets_everything() {
    let fixture = Fixture::new(SimSettings::default()).await;
    let s = fixture.subject();
    s.create("t", one_column()).await;
    s.insert_body("t", one_row("1")).await;
    assert_eq!(fixture.dump().await, [json!({"table": "p.d.t", "row": {"a": "1"}})]);
    let tables = fixture.control(Method::GET, "tables", Value::Null).await;
    assert_eq!(tables, json!([{"table": "p.d.t", "rows": 1}]));
    fixture.control(Method::POST, "reset", Value::Null).await;
    assert_eq!(s.send(Method::GET, "/datasets/d", None).await.0, 404);
}
