//! Sixteen replicas add different columns at once, and the streaming backend learns of each change three
//! minutes late.

use std::collections::BTreeSet;

use tokio::task::JoinSet;

use super::*;
use crate::write::{
    RowForm, Write, WriteOutcome, WriteRequest,
    insert_all::{InsertAll, framing, settings::InsertAllSettings},
};

const WRITERS: u64 = 16;
const DELAY: Duration = Duration::from_secs(180);

#[derive(Debug)]
struct Seen {
    /// When each accepted change was answered, since the start.
    updates: Vec<Duration>,
    /// Refused changes of the writer with the most.
    refused_max: u64,
    /// When the last table was ready.
    ready: Duration,
    /// When the last row was stored.
    stored: Duration,
    columns: BTreeSet<String>,
    rows: u64,
}

async fn write_until_stored(rest: Arc<dyn Rest>, writer: u64) {
    let path = InsertAll::new(
        InsertAllSettings::default(),
        rest,
        Arc::new(|_, _| {}),
        Jitter::seeded(writer),
    );
    let mut body = Vec::new();
    framing::begin_body(&mut body);
    framing::LanePrefix::new("topic", writer as i32).begin_row(7, &mut body);
    body.extend_from_slice(json!({ format!("c{writer}"): "x" }).to_string().as_bytes());
    framing::end_row(&mut body);
    framing::end_body(&mut body);
    let body = Bytes::from(body);
    loop {
        let (body, form) = (body.clone(), RowForm::Json);
        match path.write(WriteRequest { table: table(), body, rows: 1, form }).await {
            WriteOutcome::Acked => return,
            WriteOutcome::Partial { rejected, .. } => {
                assert!(rejected.iter().all(|row| row.fault.kind == FaultKind::SchemaMismatch));
            }
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

async fn race(seed: u64, existing: bool) -> Seen {
    let settings = SimSettings { alter_delay_ms: DELAY.as_millis() as u64, ..Default::default() };
    let sim = simulator(settings);
    if existing {
        make_table(&sim, json!([{"name": "c", "type": "STRING"}])).await;
    }
    let (start, updates) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let mut gates = Vec::new();
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let noted = Arc::clone(&updates);
        let on_event: OnGateEvent = Arc::new(move |_, event| {
            if let GateEvent::Altered { .. } = event {
                noted.lock().unwrap().push(start.elapsed());
            }
        });
        let rest = wire(&sim, seed * 1_000 + writer);
        let gate = gate_over(Arc::clone(&rest), seed * 100 + writer, on_event);
        gates.push(Arc::clone(&gate));
        tasks.spawn(async move {
            let wanted = vec![column(&format!("c{writer}"))];
            gate.ensure(&table(), wanted, &allow(), &TableLayout::default()).await.unwrap();
            let ready = start.elapsed();
            write_until_stored(rest, writer).await;
            (ready, start.elapsed())
        });
    }
    let ends = tasks.join_all().await;
    let last = Tables::new(Arc::new(SimRest(sim.clone())));
    let last = last.describe(&table()).await.unwrap().unwrap();
    let refused = gates.iter().map(|gate| gate.states()[0].1.refused);
    let mut updates = updates.lock().unwrap().clone();
    updates.sort();
    Seen {
        updates,
        refused_max: refused.max().unwrap(),
        ready: ends.iter().map(|(ready, _)| *ready).max().unwrap(),
        stored: ends.iter().map(|(_, stored)| *stored).max().unwrap(),
        columns: last.schema.columns.iter().map(|column| column.name.clone()).collect(),
        rows: sim.with_core(|core, _| core.counters().rows),
    }
}

fn judge(seed: u64, seen: &Seen) {
    for writer in 0..WRITERS {
        assert!(seen.columns.contains(&format!("c{writer}")), "seed {seed}: {seen:?}");
    }
    assert_eq!(seen.rows, WRITERS, "seed {seed}");
    assert!(seen.refused_max <= 3, "seed {seed}: {seen:?}");
    let crowded = seen.updates.windows(6).any(|six| six[5] - six[0] < Duration::from_secs(9));
    assert!(!crowded, "seed {seed}: {seen:?}");
    assert!(seen.ready <= Duration::from_secs(60), "seed {seed}: {seen:?}");
    let visible = *seen.updates.last().unwrap() + DELAY;
    assert!(seen.stored <= visible + Duration::from_secs(60), "seed {seed}: {seen:?}");
}

fn races(existing: bool) {
    for seed in 0..40 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let seen = runtime.block_on(race(seed, existing));
        judge(seed, &seen);
    }
}

#[test]
fn sixteen_replicas_add_their_columns_to_a_table_at_once() {
    races(true);
}

#[test]
fn sixteen_replicas_create_a_table_and_add_their_columns_at_once() {
    races(false);
}
