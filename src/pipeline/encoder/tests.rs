//! The production encoder in the production core, over a catalog in memory.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;

use super::*;
use crate::{
    batch::LaneSlot,
    catalog::{Catalog, TableDescription},
    config::{self, Process},
    delivery::{
        action::{Action, BatchId},
        backoff::Backoff,
        core::{Core, CoreSettings},
    },
    fault::{Fault, FaultKind},
    jitter::Jitter,
    pipeline::{
        prepare::Preparer,
        report::Report,
        schema_gate::{GateSettings, SchemaGate, Shared},
        writer_schemas::WriterSchemas,
    },
    record::{Headers, push_header},
    schema::diff::{self, Change},
    source::OwnedLane,
    table::{ColumnKind, TableLayout},
    telemetry::{LaneState, LaneStatus, TableState, Telemetry},
    write::WriteOutcome,
};

/// One table, or none.
#[derive(Default)]
struct OneTable(Mutex<(u32, Option<TableSchema>)>);

impl OneTable {
    fn put(&self, schema: TableSchema) -> TableDescription {
        let mut table = self.0.lock().unwrap();
        *table = (table.0 + 1, Some(schema.clone()));
        described(table.0, schema)
    }

    /// As an operator adds one.
    fn add(&self, column: Column) {
        let mut schema = self.0.lock().unwrap().1.clone().unwrap();
        schema.columns.push(column);
        self.put(schema);
    }
}

fn described(version: u32, schema: TableSchema) -> TableDescription {
    TableDescription {
        schema: Arc::new(schema),
        etag: version.to_string().into(),
        created_ms: 1,
        document: Arc::default(),
    }
}

impl Catalog for OneTable {
    fn describe<'a>(
        &'a self,
        _: &'a TableRef,
    ) -> BoxFuture<'a, Result<Option<TableDescription>, Fault>> {
        let (version, schema) = self.0.lock().unwrap().clone();
        Box::pin(async move { Ok(schema.map(|schema| described(version, schema))) })
    }

    fn create_dataset<'a>(
        &'a self,
        _: &'a TableRef,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async { Err(Fault::refused(FaultKind::AlreadyExists, "", "")) })
    }

    fn create_table<'a>(
        &'a self,
        _: &'a TableRef,
        schema: &'a TableSchema,
        _: &'a TableLayout,
    ) -> BoxFuture<'a, Result<TableDescription, Fault>> {
        let made = self.put(schema.clone());
        Box::pin(async { Ok(made) })
    }

    fn alter<'a>(
        &'a self,
        _: &'a TableRef,
        base: &'a TableDescription,
        changes: &'a [Change],
    ) -> BoxFuture<'a, Result<TableDescription, Fault>> {
        let made = self.put(diff::apply(&base.schema, changes));
        Box::pin(async { Ok(made) })
    }
}

const LANE: LaneSlot = LaneSlot(1);
const RETRY: Duration = Duration::from_secs(60);

struct Rig {
    table: Arc<OneTable>,
    telemetry: Arc<Telemetry>,
    report: Report,
    preparer: Preparer,
    core: Core<TopicEncoder>,
    now: Instant,
    next: i64,
}

impl Rig {
    /// `topic` are more settings of the one topic.
    fn new(topic: &str) -> Self {
        Self::of("json", topic)
    }

    fn of(format: &str, topic: &str) -> Self {
        let text = format!(
            "kafka: {{bootstrap_servers: 'localhost:1', group_id: g}}\n\
             bigquery: {{project: p, dataset: raw}}\n\
             topics: [{{match: orders, value_format: {format}, write: streaming, {topic}}}]\n"
        );
        let settings = config::parse(&text, &Process).unwrap();
        let table = Arc::new(OneTable::default());
        let telemetry = Arc::new(Telemetry::new(1, Instant::now(), 0).unwrap());
        let catalog: Arc<dyn Catalog> = Arc::clone(&table) as _;
        let gate = Arc::new(SchemaGate::new(Shared {
            catalog: Arc::clone(&catalog),
            settings: GateSettings::default(),
            location: None,
            jitter: Jitter::seeded(1),
            on_event: Arc::new(|_, _| {}),
        }));
        let schemas = WriterSchemas::new(None, Duration::ZERO, Arc::clone(&telemetry));
        let preparer = Preparer::new(schemas, catalog, gate, Arc::clone(&telemetry));
        let report = Report::new(0, Arc::default(), Arc::default(), Arc::clone(&telemetry));
        let wait = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(1) };
        let core = CoreSettings {
            body_bytes_max: 1 << 20,
            memory_bytes_max: 1 << 24,
            retry: wait,
            retry_slowly: wait,
            halt_retry: RETRY,
        };
        let encoder = TopicEncoder::new("p".into(), settings.topics, Arc::default()).unwrap();
        let mut core = Core::new(encoder, core);
        core.assign(LANE, TopicPartition::new("orders", 0), 1, 0);
        telemetry.status.put_lane(LaneStatus::new("orders".into(), 0, 1, 0));
        Self { table, telemetry, report, preparer, core, now: Instant::now(), next: 0 }
    }

    /// Hands a record over and does what follows at once; the rows that are sent.
    async fn take(&mut self, value: &str) -> Vec<String> {
        let value = Some(value.as_bytes());
        let (offset, headers) = (self.next, Headers::default());
        self.next += 1;
        let record = Record { offset, timestamp_ms: None, key: None, value, headers };
        self.core.record(LANE, &record, self.now);
        self.wait(Duration::from_secs(1)).await
    }

    async fn wait(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        let mut bodies = Vec::new();
        // What is prepared goes into a batch, which lingers.
        for _ in 0..2 {
            self.core.tick(self.now);
            while let Some(action) = self.core.next_action() {
                match action {
                    Action::Prepare(need) => self.prepare(need).await,
                    Action::Write(write) => {
                        bodies.push(String::from_utf8(write.body.to_vec()).unwrap());
                        self.stored(write.id);
                    }
                    Action::Pause(_) | Action::Resume(..) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        bodies
    }

    fn stored(&mut self, id: BatchId) {
        self.core.written(id, WriteOutcome::Acked, self.now);
    }

    async fn prepare(&mut self, need: NeedId) {
        let request = self.core.encoder_mut().request(need).unwrap();
        match self.preparer.prepare(request).await {
            Ok(prepared) => {
                self.core.encoder_mut().install(need, prepared);
                self.core.prepared(need, Ok(()), self.now);
            }
            Err(reason) => {
                self.core.encoder_mut().dismiss(need);
                self.core.prepared(need, Err(reason), self.now);
            }
        }
    }

    /// The lane on the status page.
    fn shown(&mut self) -> LaneStatus {
        let lane = TopicPartition::new("orders", 0);
        let lanes = HashMap::from([(LANE, OwnedLane { lane, epoch: 1 })]);
        self.report.turn(&mut self.core, &lanes, self.now);
        self.telemetry.status.snapshot().lanes.remove(0)
    }

    fn halt(&self) -> Option<&str> {
        let (_, lane) = self.core.lanes().next().unwrap();
        lane.halt.as_ref().map(|halt| halt.reason.message.as_str())
    }
}

#[tokio::test(start_paused = true)]
async fn a_halted_lane_goes_on_by_itself_once_an_operator_has_altered_the_table() {
    let mut rig = Rig::new("policy: {add_columns: refuse}");
    assert_eq!(rig.take(r#"{"a": 1}"#).await.len(), 1);
    assert!(rig.take(r#"{"a": 2, "b": 7}"#).await.is_empty());
    assert!(rig.halt().unwrap().contains('b'), "{:?}", rig.halt());
    let slots = rig.core.encoder().slots.len();
    for _ in 0..3 {
        assert!(rig.wait(RETRY).await.is_empty());
        assert!(rig.halt().is_some());
    }
    assert_eq!(rig.core.encoder().slots.len(), slots, "each try leaves a plan behind");
    rig.table.add(Column::new("b", ColumnKind::Int64));
    let bodies = rig.wait(RETRY).await;
    assert!(bodies[0].contains(r#""b":7"#) || bodies[0].contains(r#""b":"7""#), "{bodies:?}");
    assert_eq!((rig.halt(), rig.core.progress_of(LANE).unwrap().offset), (None, 2));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_was_made_anew_by_hand_is_looked_at_when_a_refused_value_is_tried_again() {
    let mut rig = Rig::new("policy: {widen: refuse}");
    assert_eq!(rig.take(r#"{"a": 1}"#).await.len(), 1);
    assert!(rig.take(r#"{"a": "text"}"#).await.is_empty());
    assert!(rig.halt().is_some());
    let mut schema = rig.table.0.lock().unwrap().1.clone().unwrap();
    schema.columns.retain(|column| column.name != "a");
    schema.columns.push(Column::new("a", ColumnKind::String));
    rig.table.put(schema);
    let bodies = rig.wait(RETRY).await;
    assert!(bodies[0].contains(r#""a":"text""#), "{bodies:?}");
    assert_eq!((rig.halt(), rig.core.progress_of(LANE).unwrap().offset), (None, 2));
}

#[tokio::test(start_paused = true)]
async fn a_release_looks_at_the_table_again() {
    let mut rig = Rig::new("policy: {add_columns: refuse}");
    rig.take(r#"{"a": 1}"#).await;
    rig.take(r#"{"b": 7}"#).await;
    rig.table.add(Column::new("b", ColumnKind::Int64));
    assert!(rig.core.release(LANE, rig.now));
    assert_eq!(rig.wait(Duration::from_secs(1)).await.len(), 1);
    assert_eq!((rig.halt(), rig.core.progress_of(LANE).unwrap().offset), (None, 2));
}

/// What is logged while it lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn count(&self, text: &str) -> usize {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().matches(text).count()
    }
}

#[tokio::test(start_paused = true)]
async fn status_says_when_a_halted_lane_tries_again_and_the_log_says_once_that_it_is_halted() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false);
    let subscriber = subscriber.with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut rig = Rig::new("policy: {add_columns: refuse}");
    rig.take(r#"{"a": 1}"#).await;
    rig.take(r#"{"b": 7}"#).await;
    for _ in 0..3 {
        let before = crate::pipeline::now_ms();
        let shown = rig.shown();
        assert_eq!(shown.state, LaneState::Halted);
        assert!(shown.next_try_ms.unwrap() > before, "{shown:?}");
        assert!(shown.last_error.unwrap().message.contains('b'));
        rig.wait(RETRY).await;
    }
    assert_eq!(log.count("the partition is halted topic="), 1);
    rig.table.add(Column::new("b", ColumnKind::Int64));
    rig.wait(RETRY).await;
    let shown = rig.shown();
    assert_eq!((shown.state, shown.next_try_ms), (LaneState::Running, None));
    assert_eq!(log.count("the partition is halted no more"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_array_of_arrays_gets_its_column_and_its_row() {
    let mut rig = Rig::new("policy: {}");
    rig.take(r#"{"a": 1}"#).await;
    let bodies = rig.take(r#"{"a": 2, "m": [["x"], []]}"#).await;
    assert!(bodies[0].contains(r#""m":[{"element":["x"]},{"element":[]}]"#), "{bodies:?}");
    assert_eq!((rig.halt(), rig.core.progress_of(LANE).unwrap().offset), (None, 2));
}

#[tokio::test(start_paused = true)]
async fn rows_that_wait_for_their_table_are_counted_until_it_is_there() {
    let mut rig = Rig::new("policy: {}");
    let (offset, headers) = (0, Headers::default());
    let value = Some(&br#"{"a": 1}"#[..]);
    let record = Record { offset, timestamp_ms: None, key: None, value, headers };
    rig.core.record(LANE, &record, rig.now);
    rig.now += Duration::from_secs(1);
    let waiting = |rig: &mut Rig| {
        rig.shown();
        let shown = rig.telemetry.status.snapshot().tables[0].waiting_rows;
        let gauge = rig.telemetry.table("p.raw.orders").waiting_rows.get();
        assert_eq!(gauge, shown as i64);
        gauge
    };
    assert_eq!(waiting(&mut rig), 1);
    rig.wait(Duration::from_secs(1)).await;
    assert_eq!(waiting(&mut rig), 0);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_took_no_rows_is_ready_when_it_has_taken_some() {
    let mut rig = Rig::new("policy: {}");
    rig.take(r#"{"a": 1}"#).await;
    let (offset, headers) = (1, Headers::default());
    let value = Some(&br#"{"a": 2}"#[..]);
    let record = Record { offset, timestamp_ms: None, key: None, value, headers };
    rig.core.record(LANE, &record, rig.now);
    let fault = Fault::refused(FaultKind::QuotaExceeded, "quotaExceeded", "");
    for (outcome, state) in [
        (WriteOutcome::Refused(fault), TableState::Throttled),
        (WriteOutcome::Acked, TableState::Ready),
    ] {
        rig.now += Duration::from_secs(2);
        rig.core.tick(rig.now);
        let Some(Action::Write(write)) = rig.core.next_action() else { panic!() };
        rig.report.writing(&write, rig.now);
        rig.report.written(write.id, &outcome, rig.now);
        rig.core.written(write.id, outcome, rig.now);
        rig.shown();
        assert_eq!(rig.telemetry.status.snapshot().tables[0].state, state);
    }
}

#[test]
fn headers_are_looked_at_where_something_uses_them() {
    for (topic, used) in [
        ("table: t", false),
        ("key_format: string", false),
        ("row: {headers_column: h}", true),
        ("dead_letter: dlq", true),
        ("table: 'to_{header:to}'", true),
    ] {
        assert_eq!(Rig::new(topic).core.wants_headers(LANE), used, "{topic}");
    }
}

/// Records that choose their tables: what becomes of each.
fn routes(topic: &str, headers: &[&str]) -> Vec<bool> {
    let mut rig = Rig::new(topic);
    let lane = TopicPartition::new("orders", 0);
    let origin = rig.core.encoder_mut().origin(&lane);
    let mut route = |to: &&str| {
        let mut flat = Vec::new();
        push_header(&mut flat, "to", Some(to.as_bytes()));
        let headers = Headers::from_encoded(&flat);
        let value = Some(&br#"{"a": 1}"#[..]);
        let record = Record { offset: 0, timestamp_ms: None, key: None, value, headers };
        !matches!(rig.core.encoder_mut().route(&origin, &record), Route::Bad(_))
    };
    headers.iter().map(&mut route).collect()
}

#[test]
fn a_header_chooses_only_tables_that_are_allowed_and_only_so_many() {
    let topic = "table: '{header:to}', header_tables: {names: [orders, 'evt_.+']}";
    let chosen = routes(topic, &["orders", "victim", "evt_a", "INFORMATION_SCHEMA"]);
    assert_eq!(chosen, [true, false, true, false]);
    let topic = "table: 'evt_{header:to}', header_tables: {max: 2}";
    assert_eq!(routes(topic, &["a", "b", "a", "c", "b"]), [true, true, true, false, true]);
}

/// A record with a Connect schema of 300 fields, whose text is another one for each version.
fn connect(version: usize) -> String {
    let field = |n: usize| format!(r#"{{"type":"int64","optional":true,"field":"field_{n}"}}"#);
    let fields: Vec<String> = (0..300).map(field).collect();
    let fields = fields.join(",");
    let payload = format!(r#"{{"field_0":{version}}}"#);
    format!(
        r#"{{"schema":{{"type":"struct","version":{version},"fields":[{fields}]}},"payload":{payload}}}"#
    )
}

#[tokio::test(start_paused = true)]
async fn a_schema_for_each_record_takes_so_many_bytes_and_no_more() {
    let mut rig = Rig::of("connect_json", "policy: {}");
    for version in 0..300 {
        let bodies = rig.take(&connect(version)).await;
        assert!(bodies.concat().contains(&format!(r#""field_0":{version},"#)), "{bodies:?}");
        if rig.core.encoder().wants_to_reclaim() {
            let in_use = rig.core.slots_in_use().collect();
            rig.core.encoder_mut().reclaim(&in_use);
        }
    }
    let encoder = rig.core.encoder();
    let [plans, schemas] = encoder.bytes_kept();
    assert!((1..=48 << 20).contains(&plans) && (1..=16 << 20).contains(&schemas));
    assert!(encoder.plans.len() < 200, "{} plans", encoder.plans.len());
    assert!(encoder.slots.len() < 200 + 256, "{} slots", encoder.slots.len());
    // The first one was dropped, and is prepared again.
    let bodies = rig.take(&connect(0)).await;
    assert!(bodies.concat().contains(r#""field_0":0,"#), "{bodies:?}");
    assert_eq!((rig.halt(), rig.core.progress_of(LANE).unwrap().offset), (None, 301));
}
