//! Load jobs over time, with faults and with quotas: what only the simulator in memory can show.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Method;
use kcbq::{
    rest::{Rest, RestError},
    sim::{
        SimRest, SimSettings, Simulator, StoreMode, bigquery::load::reading::Reading,
        settings::LoadSettings,
    },
};
use serde_json::{Value, json};

use crate::{
    sim_contract::{json_request, parsed, reason},
    sim_contract_load::{Lab, error, gzip, succeeded},
};

/// A simulator in memory whose time only moves by hand, with a table of one integer and an object.
struct Fixture {
    rest: SimRest,
    clock: Arc<AtomicU64>,
}

impl Fixture {
    fn new(settings: SimSettings) -> Self {
        let clock = Arc::new(AtomicU64::new(1_767_225_600_000));
        let read = Arc::clone(&clock);
        let now = move || Duration::from_millis(read.load(Ordering::Relaxed));
        Self { rest: SimRest(Simulator::new(settings, Arc::new(now))), clock }
    }

    async fn lab(&self) -> Lab<'_> {
        let lab = Lab::new(&self.rest, "d").await;
        lab.subject.create("t", json!([{"name": "a", "type": "INTEGER"}])).await;
        lab.put("x", "{\"a\":1}\n{\"a\":2}").await;
        lab
    }

    fn advance(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    async fn control(&self, path: &str, body: Value) {
        let request = json_request(Method::POST, format!("/sim/v1/{path}"), Some(&body));
        assert_eq!(self.rest.call(request).await.unwrap().status, 200);
    }

    async fn faults(&self, rules: Value) {
        self.control("faults", json!({"rules": rules})).await;
    }
}

fn state(job: &Value) -> &str {
    job["status"]["state"].as_str().unwrap()
}

#[tokio::test]
async fn jobs_move_by_the_clock_and_read_their_objects_when_they_begin() {
    let load = LoadSettings { pending_ms: 1_000, running_ms: 2_000, ..LoadSettings::default() };
    let fixture = Fixture::new(SimSettings { load, ..SimSettings::default() });
    let lab = fixture.lab().await;
    assert_eq!(state(&lab.begin("j", "x", json!({})).await), "PENDING");
    fixture.advance(999);
    assert_eq!(state(&lab.get("j").await), "PENDING");
    fixture.advance(1);
    assert_eq!(state(&lab.get("j").await), "RUNNING");
    lab.bucket.delete("x", "").await;
    fixture.advance(1_999);
    assert!(lab.rows().await.is_empty(), "no row before the end");
    fixture.advance(1);
    assert_eq!(lab.rows().await.len(), 2);
    let job = lab.get("j").await;
    succeeded(&job, 2);
    let times = ["creationTime", "startTime", "endTime"]
        .map(|time| job["statistics"][time].as_str().unwrap().parse::<u64>().unwrap());
    assert_eq!((times[1] - times[0], times[2] - times[1]), (1_000, 2_000));

    lab.put("y", "{\"a\":3}").await;
    lab.begin("late", "y", json!({})).await;
    fixture.advance(500);
    lab.bucket.delete("y", "").await;
    fixture.advance(500);
    assert_eq!(error(&lab.get("late").await).0, "notFound", "gone before it began");
}

#[tokio::test]
async fn a_job_can_be_cancelled_until_it_is_done() {
    let load = LoadSettings { running_ms: 1_000, ..LoadSettings::default() };
    let fixture = Fixture::new(SimSettings { load, ..SimSettings::default() });
    let lab = fixture.lab().await;
    lab.begin("c", "x", json!({})).await;
    let cancel = async |id: &str| {
        let path = format!("/jobs/{id}/cancel?location=US");
        lab.subject.send(Method::POST, &path, None).await.1["job"].clone()
    };
    assert_eq!(error(&cancel("c").await).0, "stopped");
    fixture.advance(1_000);
    assert!(lab.rows().await.is_empty());
    lab.begin("d", "x", json!({})).await;
    fixture.advance(1_000);
    succeeded(&cancel("d").await, 2);
}

/// Takes the next files to be read, as the front on sockets does.
fn next_reading(fixture: &Fixture) -> Option<(u64, Reading)> {
    fixture.rest.0.with_core(|core, now| core.next_reading(now))
}

fn end_reading(fixture: &Fixture, (number, reading): (u64, Reading)) {
    let read = reading.read();
    fixture.rest.0.with_core(|core, now| core.end_reading(number, read, now));
}

#[tokio::test]
async fn requests_are_answered_while_the_files_of_a_job_are_read_elsewhere() {
    let fixture = Fixture::new(SimSettings::default());
    fixture.rest.0.with_core(|core, _| core.read_elsewhere());
    let lab = fixture.lab().await;
    assert!(next_reading(&fixture).is_none());
    assert_eq!(state(&lab.begin("j", "x", json!({})).await), "RUNNING");
    let reading = next_reading(&fixture).unwrap();
    assert!(next_reading(&fixture).is_none(), "handed out once");
    lab.subject.insert("t", &[json!({"a": 7})]).await;
    assert_eq!(lab.rows().await.len(), 1);
    end_reading(&fixture, reading);
    succeeded(&lab.get("j").await, 2);
    assert_eq!(lab.rows().await.len(), 3);
}

#[tokio::test]
async fn files_are_read_again_where_the_table_changed_meanwhile_and_for_nothing_where_the_job_ended()
 {
    let fixture = Fixture::new(SimSettings::default());
    fixture.rest.0.with_core(|core, _| core.read_elsewhere());
    let lab = fixture.lab().await;
    lab.put("y", "{\"a\":1,\"b\":2}").await;
    lab.begin("j", "y", json!({"ignoreUnknownValues": true})).await;
    let reading = next_reading(&fixture).unwrap();
    let columns = json!([{"name": "a", "type": "INTEGER"}, {"name": "b", "type": "INTEGER"}]);
    assert_eq!(lab.subject.patch("t", json!({"schema": {"fields": columns}})).await.0, 200);
    end_reading(&fixture, reading);
    assert_eq!(state(&lab.get("j").await), "RUNNING");
    end_reading(&fixture, next_reading(&fixture).unwrap());
    succeeded(&lab.get("j").await, 1);
    assert_eq!(lab.rows().await, [json!({"f": [{"v": "1"}, {"v": "2"}]})]);

    lab.begin("c", "x", json!({})).await;
    let reading = next_reading(&fixture).unwrap();
    lab.subject.send(Method::POST, "/jobs/c/cancel?location=US", None).await;
    end_reading(&fixture, reading);
    assert_eq!(error(&lab.get("c").await).0, "stopped");
    assert_eq!(lab.rows().await.len(), 1);
}

#[tokio::test]
async fn a_lost_answer_leaves_the_job() {
    let fixture = Fixture::new(SimSettings::default());
    let lab = fixture.lab().await;
    fixture.faults(json!([{"operation": "jobs.insert", "table": "t", "nth": 1, "fault": {"kind": "lose"}}])).await;
    let job = lab.job("lost", "x", json!({}));
    let request = json_request(Method::POST, "/bigquery/v2/projects/p/jobs", Some(&job));
    let lost = fixture.rest.call(request).await;
    assert!(matches!(lost, Err(RestError::NoAnswer { .. })), "{lost:?}");
    succeeded(&lab.get("lost").await, 2);
    assert_eq!(lab.insert(job).await.0, 409);
    assert_eq!(lab.rows().await.len(), 2);
}

#[tokio::test]
async fn a_script_decides_what_becomes_of_a_job() {
    let fixture = Fixture::new(SimSettings::default());
    let lab = fixture.lab().await;
    let rule = |fault: Value| json!({"operation": "jobs.run", "nth": 1, "fault": fault});
    fixture
        .faults(json!([
            rule(json!({"kind": "refuse", "status": 200, "reason": "backendError"})),
            rule(json!({"kind": "fail_after", "reason": "internalError"})),
            rule(json!({"kind": "short", "rows": 1})),
            rule(json!({"kind": "hold", "ms": 60_000})),
            rule(json!({"kind": "hold"})),
            rule(json!({"kind": "slow", "ms": 60_000})),
            rule(json!({"kind": "lose"})),
        ]))
        .await;
    let job = lab.begin("refused", "x", json!({})).await;
    assert_eq!((error(&job).0, lab.rows().await.len()), ("backendError", 0));
    let job = lab.begin("warned", "x", json!({})).await;
    assert_eq!(job["status"]["errorResult"], Value::Null);
    assert_eq!(job["status"]["errors"][0]["reason"], "internalError");
    assert_eq!(lab.rows().await.len(), 2);
    let job = lab.begin("short", "x", json!({})).await;
    succeeded(&job, 1);
    assert_eq!(lab.rows().await.len(), 3);
    assert_eq!(state(&lab.begin("pending", "x", json!({})).await), "PENDING");
    assert_eq!(state(&lab.begin("held", "x", json!({})).await), "PENDING");
    assert_eq!(state(&lab.begin("slow", "x", json!({})).await), "RUNNING");
    assert_eq!(state(&lab.begin("hangs", "x", json!({})).await), "RUNNING");
    fixture.advance(60_000);
    succeeded(&lab.get("pending").await, 2);
    succeeded(&lab.get("slow").await, 2);
    assert_eq!(state(&lab.get("held").await), "PENDING");
    assert_eq!(state(&lab.get("hangs").await), "RUNNING");
    fixture.control("release", json!({})).await;
    succeeded(&lab.get("held").await, 2);
    succeeded(&lab.get("hangs").await, 2);
    assert_eq!(lab.rows().await.len(), 11);
}

#[tokio::test]
async fn quotas_of_jobs_and_of_table_updates() {
    let load = LoadSettings { per_table_max: 7, ..LoadSettings::default() };
    let fixture = Fixture::new(SimSettings { load, ..SimSettings::default() });
    let lab = fixture.lab().await;
    for n in 0..5 {
        succeeded(&lab.begin(&format!("q{n}"), "x", json!({})).await, 2);
    }
    let job = lab.begin("q5", "x", json!({})).await;
    assert_eq!(error(&job).0, "rateLimitExceeded", "five updates in ten seconds");
    fixture.advance(10_000);
    succeeded(&lab.begin("q6", "x", json!({})).await, 2);
    let job = lab.begin("q7", "x", json!({})).await;
    assert_eq!(error(&job).0, "quotaExceeded", "failed jobs count");
    assert_eq!(job["status"]["errorResult"]["location"], "load_job_per_table.long");
    assert_eq!(lab.insert(lab.job("q7", "x", json!({}))).await.0, 409, "the id is used up");
    fixture.advance(86_400_000);
    succeeded(&lab.begin("q8", "x", json!({})).await, 2);
    assert_eq!(lab.rows().await.len(), 14);
}

#[tokio::test]
async fn a_quota_may_refuse_the_request_instead() {
    let load = LoadSettings { per_table_max: 0, quota_fails_job: false, ..LoadSettings::default() };
    let fixture = Fixture::new(SimSettings { load, ..SimSettings::default() });
    let lab = fixture.lab().await;
    let (status, body) = lab.insert(lab.job("q", "x", json!({}))).await;
    assert_eq!((status, reason(&body)), (403, "quotaExceeded"));
    assert_eq!(lab.subject.send(Method::GET, "/jobs/q?location=US", None).await.0, 404);
}

#[tokio::test]
async fn loads_see_a_changed_schema_at_once() {
    let fixture = Fixture::new(SimSettings { alter_delay_ms: 60_000, ..SimSettings::default() });
    let lab = fixture.lab().await;
    let fields = json!([{"name": "a", "type": "INTEGER"}, {"name": "b", "type": "STRING"}]);
    lab.subject.patch("t", json!({"schema": {"fields": fields}})).await;
    assert_eq!(lab.subject.refusal("t", json!({"b": "1"})).await.1, "no such field: b.");
    lab.put("b", "{\"b\":\"1\"}").await;
    succeeded(&lab.begin("b", "b", json!({})).await, 1);
}

#[tokio::test]
async fn ledgers_and_counts_take_loaded_rows_too() {
    let row = r#"{"_kafka_topic":"o","_kafka_partition":3,"_kafka_offset":42,"a":1}"#;
    for (store, expected) in [(StoreMode::Ledger, 1), (StoreMode::Count, 2)] {
        let fixture = Fixture::new(SimSettings { store, ..SimSettings::default() });
        let lab = fixture.lab().await;
        let fields = json!([{"name": "a", "type": "INTEGER"}, {"name": "_kafka_topic", "type": "STRING"},
            {"name": "_kafka_partition", "type": "INTEGER"}, {"name": "_kafka_offset", "type": "INTEGER"}]);
        lab.subject.patch("t", json!({"schema": {"fields": fields}})).await;
        lab.put("y", gzip(row)).await;
        succeeded(&lab.begin("l", "y", json!({})).await, 1);
        let streamed: Value = serde_json::from_str(row).unwrap();
        lab.subject.insert("t", &[streamed]).await;
        assert_eq!(lab.subject.get("t").await["numRows"], "2");
        let request = json_request(Method::GET, "/sim/v1/ledger", None);
        let dump = fixture.rest.call(request).await.unwrap().body;
        let lines: Vec<&str> = std::str::from_utf8(&dump).unwrap().lines().collect();
        if expected == 1 {
            assert_eq!(lines.len(), 2);
            assert_eq!(lines[0], lines[1], "loaded and streamed");
        }
        let counters = json_request(Method::GET, "/sim/v1/counters", None);
        let counters = parsed(&fixture.rest.call(counters).await.unwrap());
        let counted = ["rows", "loaded_rows", "jobs_succeeded"].map(|key| counters[key].as_u64());
        assert_eq!(counted, [Some(2), Some(1), Some(1)]);
    }
}

#[tokio::test]
async fn a_part_of_the_ledger_is_read_without_the_rest() {
    let fixture = Fixture::new(SimSettings { store: StoreMode::Ledger, ..SimSettings::default() });
    let lab = fixture.lab().await;
    let fields = json!([{"name": "a", "type": "INTEGER"}, {"name": "_kafka_topic", "type": "STRING"},
        {"name": "_kafka_partition", "type": "INTEGER"}, {"name": "_kafka_offset", "type": "INTEGER"}]);
    lab.subject.patch("t", json!({"schema": {"fields": fields}})).await;
    for (topic, partition, offset) in [("o", 3, 41), ("o", 3, 42), ("o", 4, 42), ("p", 3, 42)] {
        let row =
            json!({"_kafka_topic": topic, "_kafka_partition": partition, "_kafka_offset": offset});
        lab.subject.insert("t", &[row]).await;
    }
    for (query, rows) in [
        ("", 4),
        ("?topic=o", 3),
        ("?topic=o&partition=3", 2),
        ("?topic=o&partition=3&from=42", 1),
        ("?from=43", 0),
    ] {
        let request = json_request(Method::GET, format!("/sim/v1/ledger{query}"), None);
        let dump = fixture.rest.call(request).await.unwrap().body;
        assert_eq!(dump.split(|byte| *byte == b'\n').count() - 1, rows, "{query}");
    }
    let request = json_request(Method::GET, "/sim/v1/ledger?from=x", None);
    assert_eq!(fixture.rest.call(request).await.unwrap().status, 400);
}
