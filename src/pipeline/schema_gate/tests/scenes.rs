//! One replica, one scene each.

use serde_json::Value;
use tokio::task::JoinSet;

use super::*;
use crate::sim::faults::{FaultAction, FaultRule, FaultScript};

fn faults(sim: &Simulator, rules: &[(&str, u64, FaultAction)]) {
    let rules = rules.iter().map(|(operation, times, fault)| FaultRule {
        operation: (*operation).to_owned(),
        table: None,
        nth: None,
        every: None,
        probability: None,
        times: Some(*times),
        fault: fault.clone(),
    });
    let script = FaultScript { seed: 1, rules: rules.collect() };
    sim.with_core(|core, _| core.set_faults(script));
}

fn refuse(status: u16, reason: &str) -> FaultAction {
    FaultAction::Refuse { status, reason: reason.into(), message: String::new() }
}

async fn ensure(gate: &SchemaGate, names: &[&str]) -> Result<ReadyTable, GateError> {
    let wanted = names.iter().map(|name| column(name)).collect();
    gate.ensure(&table(), wanted, &allow(), &TableLayout::default()).await
}

fn requests(sim: &Simulator, operation: &str) -> u64 {
    sim.with_core(|core, _| core.counters().operations.get(operation).map_or(0, |o| o.requests))
}

#[tokio::test(start_paused = true)]
async fn dataset_and_table_are_created_and_then_known() {
    let sim = simulator(SimSettings::default());
    let gate = gate(&sim, 1);
    let ready = ensure(&gate, &["a", "b"]).await.unwrap();
    assert_eq!((ready.version, ready.schema.columns.len()), (1, 2));
    let before = requests(&sim, "tables.get");
    let again = ensure(&gate, &["A"]).await.unwrap();
    assert_eq!((again.version, requests(&sim, "tables.get")), (1, before));
}

#[tokio::test(start_paused = true)]
async fn the_wishes_of_many_callers_are_one_change() {
    let sim = simulator(SimSettings::default());
    make_table(&sim, json!([{"name": "a", "type": "STRING"}])).await;
    let gate = gate(&sim, 1);
    let mut tasks = JoinSet::new();
    for caller in 0..50 {
        let gate = Arc::clone(&gate);
        tasks.spawn(async move { ensure(&gate, &[&format!("c{caller}")]).await.unwrap() });
    }
    let versions: Vec<_> = tasks.join_all().await.into_iter().map(|ready| ready.version).collect();
    assert_eq!(requests(&sim, "tables.patch"), 1);
    assert!(versions.iter().all(|version| *version == 2));
    assert_eq!(gate.states()[0].1.phase, GatePhase::Idle);
}

#[tokio::test(start_paused = true)]
async fn what_policy_refuses_is_refused_with_the_difference_and_changes_nothing() {
    let sim = simulator(SimSettings::default());
    let gate = gate(&sim, 1);
    let refuse_all = {
        use crate::schema::policy::Permission::Refuse;
        Policy { create: Refuse, add_columns: Refuse, ..allow() }
    };
    let layout = TableLayout::default();
    let wanted = || vec![column("b")];
    let refused = gate.ensure(&table(), wanted(), &refuse_all, &layout).await.unwrap_err();
    assert!(matches!(&refused, GateError::Refused { difference } if difference.contains("p.d.t")));
    make_table(&sim, json!([{"name": "a", "type": "STRING"}])).await;
    let refused = gate.ensure(&table(), wanted(), &refuse_all, &layout).await.unwrap_err();
    assert!(matches!(refused, GateError::Refused { .. }), "{refused:?}");
    assert_eq!((requests(&sim, "tables.insert"), requests(&sim, "tables.patch")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_and_passing_faults_are_overcome() {
    let sim = simulator(SimSettings::default());
    make_table(&sim, json!([{"name": "a", "type": "STRING"}])).await;
    faults(
        &sim,
        &[
            ("tables.get", 2, refuse(503, "backendError")),
            ("tables.patch", 2, refuse(403, "rateLimitExceeded")),
            ("tables.patch", 1, FaultAction::Lose),
        ],
    );
    let gate = gate(&sim, 1);
    let ready = ensure(&gate, &["b"]).await.unwrap();
    assert!(ready.schema.column("b").is_some());
    // The lost change had happened: it was found by looking, not made again.
    assert_eq!(requests(&sim, "tables.patch"), 3);
    assert_eq!(gate.states()[0].1.last_error, None);
}

#[tokio::test(start_paused = true)]
async fn a_missing_permission_is_shown_at_once() {
    let sim = simulator(SimSettings::default());
    make_table(&sim, json!([{"name": "a", "type": "STRING"}])).await;
    faults(&sim, &[("tables.patch", 9, refuse(403, "accessDenied"))]);
    let gate = gate(&sim, 1);
    let start = Instant::now();
    let GateError::Fault(fault) = ensure(&gate, &["b"]).await.unwrap_err() else { panic!() };
    assert_eq!(fault.kind, FaultKind::PermissionDenied);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(gate.states()[0].1.last_error.as_ref().unwrap().contains("roles/bigquery.dataEditor"));
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_in_the_last_fault_and_not_in_silence() {
    let sim = simulator(SimSettings::default());
    faults(&sim, &[("tables.get", u64::MAX, refuse(503, "backendError"))]);
    let gate = gate(&sim, 1);
    let start = Instant::now();
    let GateError::Fault(fault) = ensure(&gate, &["b"]).await.unwrap_err() else { panic!() };
    assert_eq!((fault.kind, fault.reason.as_str()), (FaultKind::Transient, "backendError"));
    assert_eq!(start.elapsed().as_secs(), 300);
    assert!(requests(&sim, "tables.get") < 40);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_was_dropped_is_looked_for_and_created_again() {
    let sim = simulator(SimSettings::default());
    let gate = gate(&sim, 1);
    let first = ensure(&gate, &["a"]).await.unwrap();
    let delete = RestRequest {
        method: http::Method::DELETE,
        ..post("/bigquery/v2/projects/p/datasets/d/tables/t", &Value::Null)
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    SimRest(sim.clone()).call(RestRequest { body: Vec::new().into(), ..delete }).await.unwrap();
    assert_eq!(ensure(&gate, &["a"]).await.unwrap().version, first.version);
    gate.invalidate(&table());
    let second = ensure(&gate, &["a"]).await.unwrap();
    assert!(second.version > first.version && second.created_ms > first.created_ms);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_does_not_hold_the_others_up() {
    let sim = simulator(SimSettings::default());
    make_table(&sim, json!([{"name": "a", "type": "STRING"}])).await;
    let gate = gate(&sim, 1);
    let leaver = tokio::time::timeout(Duration::from_millis(300), ensure(&gate, &["b"]));
    let (left, stayed) = tokio::join!(leaver, ensure(&gate, &["c"]));
    assert!(left.is_err());
    assert!(stayed.unwrap().schema.column("c").is_some());
    assert_eq!(gate.states()[0].1.waiting, 0);
}
