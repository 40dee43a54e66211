//! What a worker tells the operator: counters at once, states a few times a second.

mod lanes;
pub mod letters;
mod loads;
mod wait;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    batch::LaneSlot,
    dead_letter::DeadLetter,
    delivery::{
        action::{BatchId, LetterId, LoadId, Write},
        core::{Core, Intake},
        lane::Lane,
    },
    fault::{Fault, FaultKind},
    pipeline::{
        encoder::{TopicEncoder, origin::Origin, request::NAME_ONLY},
        lag::{Age, Ages, TopicAges},
        now_ms,
        paths::Paths,
    },
    source::OwnedLane,
    table::TableRef,
    telemetry::{
        Cause, LaneState, LastError, TableState, TableTelemetry, Telemetry, Teller, TopicTelemetry,
        Trouble,
    },
    write::{RowForm, WriteOutcome},
};

/// How often the states are written to the board.
const INTERVAL: Duration = Duration::from_millis(250);

struct OnTheWire {
    name: Arc<str>,
    table: Arc<TableTelemetry>,
    rows: u32,
    bytes: usize,
    billed_bytes: u64,
    /// Whether it goes by streaming inserts.
    is_json: bool,
    since: Instant,
    oldest_timestamp_ms: Option<i64>,
}

impl OnTheWire {
    /// Rows on their way to a load job.
    fn new(
        (name, table): (Arc<str>, Arc<TableTelemetry>),
        rows: u32,
        bytes: usize,
        since: Instant,
    ) -> Self {
        let (billed_bytes, is_json, oldest_timestamp_ms) = (0, false, None);
        Self { name, table, rows, bytes, billed_bytes, is_json, since, oldest_timestamp_ms }
    }
}

/// What was taken in of a lane.
#[derive(Clone, Copy, Debug, Default)]
pub struct Read {
    records: u64,
    bytes: u64,
    skipped: u64,
}

impl Read {
    /// One more record.
    pub fn note(&mut self, intake: Intake, bytes: usize) {
        match intake {
            Intake::Ignored => return,
            Intake::Skipped => self.skipped += 1,
            Intake::Taken => {}
        }
        self.records += 1;
        self.bytes += bytes as u64;
    }
}

/// What a worker has taken in and not finished.
#[derive(Clone, Copy, Debug, Default)]
struct InFlight {
    bytes: i64,
    records: i64,
    /// Lanes that hold the others back.
    stuck: i64,
}

/// How far a lane's oldest unacknowledged record is behind.
struct Behind {
    watermark: i64,
    since: Instant,
}

use lanes::Halts;
use letters::{LetterLog, Sent};
pub use wait::cause_of;
use wait::{Wait, Waits};

/// One worker's report.
pub struct Report {
    telemetry: Arc<Telemetry>,
    topics: HashMap<Arc<str>, Arc<TopicTelemetry>>,
    tables: HashMap<TableRef, (Arc<str>, Arc<TableTelemetry>)>,
    writes: HashMap<BatchId, OnTheWire>,
    loads: HashMap<LoadId, loads::Loading>,
    letters: HashMap<LetterId, Sent>,
    letter_log: Arc<LetterLog>,
    shown: Instant,
    in_flight: InFlight,
    /// Tables that are shown as not taking rows.
    faulty: HashSet<Arc<str>>,
    /// Rows that this worker has wait, as last shown.
    waiting: HashMap<TableRef, i64>,
    behind: HashMap<LaneSlot, Behind>,
    halts: Halts,
    ages: Arc<Ages>,
    paths: Arc<Paths>,
    worker: usize,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report").finish_non_exhaustive()
    }
}

impl Report {
    /// Nothing reported yet.
    pub fn new(
        worker: usize,
        ages: Arc<Ages>,
        paths: Arc<Paths>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self {
            behind: HashMap::new(),
            halts: Halts::default(),
            ages,
            paths,
            worker,
            telemetry,
            topics: HashMap::new(),
            tables: HashMap::new(),
            writes: HashMap::new(),
            loads: HashMap::new(),
            letters: HashMap::new(),
            letter_log: Arc::default(),
            shown: Instant::now(),
            in_flight: InFlight::default(),
            faulty: HashSet::new(),
            waiting: HashMap::new(),
        }
    }

    /// The same, with a log of dead letters that others write, too.
    pub fn with_letter_log(self, letter_log: Arc<LetterLog>) -> Self {
        Self { letter_log, ..self }
    }

    fn topic(&mut self, topic: &Arc<str>) -> Arc<TopicTelemetry> {
        if let Some(known) = self.topics.get(topic) {
            return Arc::clone(known);
        }
        let made = self.telemetry.topic(topic);
        self.topics.insert(Arc::clone(topic), Arc::clone(&made));
        made
    }

    fn table(&mut self, table: &TableRef) -> (Arc<str>, Arc<TableTelemetry>) {
        if let Some(known) = self.tables.get(table) {
            return known.clone();
        }
        let name: Arc<str> = table.to_string().into();
        let made = (Arc::clone(&name), self.telemetry.table(&name));
        self.tables.insert(table.clone(), made.clone());
        made
    }

    /// Records were taken in.
    pub fn read(&mut self, lane: &OwnedLane, read: Read) {
        let topic = self.topic(&lane.lane.topic);
        topic.records_read.inc_by(read.records);
        topic.read_bytes.inc_by(read.bytes);
        topic.null_values_skipped.inc_by(read.skipped);
    }

    /// A request goes out.
    pub fn writing(&mut self, write: &Write, now: Instant) {
        let (name, table) = self.table(&write.table);
        let entry = OnTheWire {
            name,
            table,
            rows: write.rows,
            bytes: write.body.len(),
            billed_bytes: write.billed_bytes,
            is_json: write.form == RowForm::Json,
            since: now,
            oldest_timestamp_ms: write.oldest_timestamp_ms,
        };
        self.writes.insert(write.id, entry);
    }

    /// Its answer came.
    pub fn written(&mut self, id: BatchId, outcome: &WriteOutcome, now: Instant) {
        let Some(sent) = self.writes.remove(&id) else { return };
        let OnTheWire { name, table, rows, bytes, since, oldest_timestamp_ms, .. } = sent;
        table.write_seconds.observe(now.duration_since(since).as_secs_f64());
        let stored = match outcome {
            WriteOutcome::Acked => rows,
            WriteOutcome::Partial { rejected, unsent, .. } => {
                let left = rejected.len() + unsent.len();
                rows.saturating_sub(u32::try_from(left).unwrap_or(rows))
            }
            WriteOutcome::Refused(fault) | WriteOutcome::Unknown(fault) => {
                table.retried(fault.kind.name());
                self.paths.not_streamed(&name, fault);
                0
            }
        };
        if stored > 0 {
            self.telemetry.liveness.progressed(now);
            self.show_written(&name);
            if let Some(oldest) = oldest_timestamp_ms {
                // Negative where the producer's clock is ahead of ours.
                let age_ms = (now_ms() - oldest).max(0);
                table.end_to_end_seconds.observe(age_ms as f64 / 1_000.0);
            }
            table.batches.inc();
            table.rows_written.inc_by(u64::from(stored));
            table.written_bytes.inc_by(bytes as u64);
            // Rows that were refused cost nothing.
            let share = f64::from(stored) / f64::from(rows.max(1));
            let prices = self.paths.prices();
            match sent.is_json {
                true => table.streaming_cost.inc_by(prices.streamed(sent.billed_bytes).0 * share),
                false => table.storage_cost.inc_by(prices.appended(sent.billed_bytes).0 * share),
            }
        }
    }

    /// What kept rows from the table has passed.
    fn show_written(&mut self, table: &Arc<str>) {
        if self.faulty.remove(table) {
            let at = now_ms();
            self.telemetry.status.update_table(table, at, |status| {
                status.troubles.tell(Teller::Worker, None);
                if matches!(status.state, TableState::Throttled | TableState::Denied) {
                    status.enter(TableState::Ready, at);
                }
            });
        }
    }

    /// A dead letter goes out.
    pub fn lettering(&mut self, id: LetterId, letter: &DeadLetter) {
        self.letters.insert(id, Sent::new(letter));
    }

    /// Its answer came.
    pub fn lettered(&mut self, id: LetterId, stored: bool, now: Instant) {
        let Some(sent) = self.letters.remove(&id).filter(|_| stored) else { return };
        self.topic(sent.source_topic()).dead_lettered(sent.stage().name(), 1);
        if let Some(first) = self.letter_log.note(sent, now) {
            letters::tell(&first);
        }
    }

    /// Writes the states to the board, if it is time.
    pub fn turn(
        &mut self,
        core: &mut Core<TopicEncoder>,
        lanes: &HashMap<LaneSlot, OwnedLane>,
        now: Instant,
    ) {
        if now.duration_since(self.shown) < INTERVAL {
            return;
        }
        self.shown = now;
        for (records, last) in self.letter_log.due(now) {
            letters::tell_count(records, &last);
        }
        let mut waits = self.waits(core, now);
        loads::waits(core, &mut waits, now);
        self.end_table_faults(core);
        self.show_waiting(waiting_rows(core));
        let (mut records, mut stuck) = (0, 0);
        let mut ages = TopicAges::new();
        self.behind.retain(|slot, _| lanes.contains_key(slot));
        self.halts.retain(lanes);
        for (slot, lane) in core.lanes() {
            records += lane.tracker.unresolved() as i64;
            stuck += i64::from(lane.stuck.is_some());
            if lanes.contains_key(&slot) {
                self.halts.note(&self.telemetry, slot, lane);
                lanes::show(&self.telemetry, lane, waits.get(&slot), now);
                let age = self.age(slot, lane, now);
                let topic = ages.entry(Arc::clone(&lane.lane.topic)).or_default();
                *topic = topic.max(age);
            }
        }
        self.ages.put(self.worker, ages);
        self.show_in_flight(InFlight { bytes: core.memory_bytes() as i64, records, stuck });
    }

    /// Other workers have their own, so only differences are shown.
    fn show_in_flight(&mut self, now: InFlight) {
        let before = std::mem::replace(&mut self.in_flight, now);
        let metrics = &self.telemetry.metrics;
        metrics.in_flight_bytes.add(now.bytes - before.bytes);
        metrics.in_flight_records.add(now.records - before.records);
        metrics.stuck_lanes.add(now.stuck - before.stuck);
    }

    fn age(&mut self, slot: LaneSlot, lane: &Lane<Origin>, now: Instant) -> Age {
        if lane.tracker.unresolved() == 0 {
            self.behind.remove(&slot);
            return Age::default();
        }
        let watermark = lane.tracker.watermark();
        let behind = self.behind.entry(slot).or_insert(Behind { watermark, since: now });
        if behind.watermark != watermark {
            *behind = Behind { watermark, since: now };
        }
        let record_ms = lane.tracker.oldest_timestamp_ms().map_or(0, |at| (now_ms() - at).max(0));
        Age {
            record_seconds: record_ms as f64 / 1_000.0,
            waiting_seconds: now.duration_since(behind.since).as_secs_f64(),
        }
    }

    /// What keeps which lane waiting; shows the tables' faults on the way.
    fn waits(&mut self, core: &mut Core<TopicEncoder>, now: Instant) -> Waits {
        let mut waits = Waits::new();
        let faults: Vec<_> = core
            .faults()
            .map(|(slot, fault, _, rows)| {
                let mut lanes: Vec<_> = rows.iter().map(|row| row.lane).collect();
                lanes.dedup();
                (core.encoder().table_of(slot), fault.clone(), lanes)
            })
            .collect();
        for (table, fault, lanes) in faults {
            let wait = Wait::fault(&table.to_string(), &fault, cause_of(&fault), now_ms());
            waits.extend(lanes.into_iter().map(|lane| (lane, wait.clone())));
            self.show_table_fault(&table, &fault);
        }
        self.add_needs(core, &mut waits);
        wait::add_letters(core, &mut waits, now);
        waits
    }

    /// What the first record of each lane that is not encoded yet waits for.
    fn add_needs(&self, core: &Core<TopicEncoder>, waits: &mut Waits) {
        let mut first: HashMap<LaneSlot, (i64, Wait)> = HashMap::new();
        for (need, rows) in core.needs() {
            let obstacle = core.encoder().obstacle(need);
            let table = core.encoder().table_of_need(need);
            for row in rows {
                if first.get(&row.lane).is_some_and(|(offset, _)| *offset <= row.offset) {
                    continue;
                }
                let wait = match &obstacle {
                    Some(obstacle) => Wait::obstacle(row.offset, obstacle),
                    None => self.unprepared(table.as_ref()),
                };
                first.insert(row.lane, (row.offset, wait));
            }
        }
        for (lane, (_, wait)) in first {
            waits.entry(lane).or_insert(wait);
        }
    }

    /// What rows wait for whose schema or table is being prepared: for what keeps the table, if anything does.
    fn unprepared(&self, table: Option<&TableRef>) -> Wait {
        let name = table.map(ToString::to_string).unwrap_or_default();
        let known = self.telemetry.status.table_trouble(&name, Teller::Gate);
        let message = format!("{name}: the schema or the table is being prepared");
        let trouble = known.map_or_else(
            || Trouble::new(Cause::Schema, message.clone(), now_ms()),
            |known| Trouble { since_ms: now_ms(), ..known },
        );
        Wait { state: LaneState::Waiting, reason: trouble.message.clone(), trouble: Some(trouble) }
    }

    /// Takes down the faults of tables to which nothing is to be sent again any more.
    fn end_table_faults(&mut self, core: &Core<TopicEncoder>) {
        let encoder = core.encoder();
        let lasting: HashSet<Arc<str>> =
            core.faults().map(|(slot, ..)| encoder.table_of(slot).to_string().into()).collect();
        let over: Vec<_> = self.faulty.difference(&lasting).cloned().collect();
        over.iter().for_each(|table| self.show_written(table));
    }

    /// Other workers have rows wait for the same tables, so only differences are shown.
    fn show_waiting(&mut self, waiting: HashMap<TableRef, i64>) {
        let mut before = std::mem::replace(&mut self.waiting, waiting.clone());
        for (table, rows) in waiting {
            *before.entry(table).or_default() -= rows;
        }
        for (table, less) in before.into_iter().filter(|(_, less)| *less != 0) {
            let (name, telemetry) = self.table(&table);
            telemetry.waiting_rows.add(-less);
            self.telemetry.status.update_table(&name, now_ms(), |status| {
                status.waiting_rows = status.waiting_rows.saturating_add_signed(-less);
                if status.waiting_rows == 0 {
                    // Perhaps because the rows' partitions were given away.
                    status.troubles.tell(Teller::Gate, None);
                }
            });
        }
    }

    fn show_table_fault(&mut self, table: &TableRef, fault: &Fault) {
        let (name, _) = self.table(table);
        self.faulty.insert(Arc::clone(&name));
        let at = now_ms();
        self.telemetry.status.update_table(&name, at, |status| {
            let state = match fault.kind {
                FaultKind::Throttled | FaultKind::QuotaExceeded => TableState::Throttled,
                FaultKind::PermissionDenied | FaultKind::Unauthenticated => TableState::Denied,
                _ => status.state,
            };
            status.enter(state, at);
            let trouble = Trouble::new(cause_of(fault), fault.what(), at);
            let trouble = trouble.with_remedy(fault.remedy.as_deref());
            status.troubles.tell(Teller::Worker, Some(trouble));
            status.last_error = Some(LastError {
                stage: "write".to_owned(),
                field: None,
                message: fault.what(),
                remedy: fault.remedy.as_deref().map(str::to_owned),
                at_ms: at,
            });
        });
    }
}

/// Rows that wait for a column, their table or a permission.
fn waiting_rows(core: &Core<TopicEncoder>) -> HashMap<TableRef, i64> {
    let encoder = core.encoder();
    let is_missing = |fault: &Fault| {
        matches!(fault.kind, FaultKind::PermissionDenied | FaultKind::Unauthenticated)
    };
    let denied = core.faults().filter(|(_, fault, ..)| is_missing(fault));
    let denied = denied.map(|(slot, _, _, rows)| (encoder.table_of(slot), rows));
    let needs = core.needs();
    let unready = needs.filter_map(|(need, rows)| Some((encoder.table_of_need(need)?, rows)));
    let mut waiting = HashMap::new();
    for (table, rows) in denied.chain(unready).filter(|(table, _)| &*table.table != NAME_ONLY) {
        *waiting.entry(table).or_default() += rows.len() as i64;
    }
    waiting
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{path::price::Prices, record::TopicPartition};

    #[test]
    fn skipped_records_are_counted_and_ignored_ones_are_not() {
        let telemetry = Arc::new(Telemetry::new(1, Instant::now(), 0).unwrap());
        let mut report = Report::new(0, Arc::default(), Arc::default(), Arc::clone(&telemetry));
        let mut read = Read::default();
        for intake in [Intake::Taken, Intake::Skipped, Intake::Skipped, Intake::Ignored] {
            read.note(intake, 10);
        }
        let lane = TopicPartition::new("orders", 0);
        report.read(&OwnedLane { lane, epoch: 1 }, read);
        let topic = telemetry.topic("orders");
        let counted = (topic.records_read.get(), topic.read_bytes.get());
        assert_eq!((counted, topic.null_values_skipped.get()), ((3, 30), 2));
    }

    #[test]
    fn only_rows_that_are_stored_cost_something_and_small_ones_cost_as_much_as_a_kibibyte() {
        let telemetry = Arc::new(Telemetry::new(1, Instant::now(), 0).unwrap());
        let prices = Prices {
            streaming_usd_per_gib: 1_024.0,
            storage_usd_per_gib: 256.0,
            load_usd_per_gib: 512.0,
        };
        let paths = Arc::new(Paths::default().with_prices(prices));
        let mut report = Report::new(0, Arc::default(), paths, Arc::clone(&telemetry));
        let table = TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() };
        let now = Instant::now();
        let mut send = |id, form, outcome: &WriteOutcome| {
            let (id, table, body) = (BatchId(id), table.clone(), bytes::Bytes::from_static(b"{}"));
            let billed_bytes = 4 << 20;
            let oldest_timestamp_ms = None;
            let write = Write { id, table, body, rows: 4, form, billed_bytes, oldest_timestamp_ms };
            report.writing(&write, now);
            report.written(id, outcome, now);
            let table = telemetry.table("p.d.t");
            (table.streaming_cost.get(), table.storage_cost.get())
        };
        assert_eq!(send(1, RowForm::Json, &WriteOutcome::Acked), (4.0, 0.0));
        let unknown = WriteOutcome::Unknown(Fault::unknown(FaultKind::Transient, "", ""));
        assert_eq!(
            send(2, RowForm::Json, &unknown),
            (4.0, 0.0),
            "nobody knows, and it is sent again"
        );
        let half =
            WriteOutcome::Partial { rejected: vec![], unsent: vec![1, 3], is_doubtful: false };
        assert_eq!(send(3, RowForm::Json, &half), (6.0, 0.0));
        let rows = RowForm::Proto(bytes::Bytes::new());
        assert_eq!(send(4, rows, &WriteOutcome::Acked), (6.0, 1.0));
        let text = telemetry.encode(now).unwrap();
        let sample = "kcbq_estimated_cost_usd_total{path=\"streaming\",table=\"p.d.t\"} 6";
        assert!(text.contains(sample), "{text}");
    }
}
