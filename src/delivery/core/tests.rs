use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use super::*;
use crate::{
    dead_letter::{Reason, Stage},
    delivery::{
        budget::BudgetSettings,
        encoder::{BadRecordPolicy, BatchLimits, ChainFacts, NotEncoded, Route, Staging},
    },
    fault::FaultKind,
    record::{Headers, Record},
    table::{ColumnKind, TableRef},
    write::{
        RowFault, WriteOutcome,
        load::{
            chain::{ChainId, ChainOf},
            job::SchemaIx,
        },
    },
};

mod containers;
mod flow;
mod halt;
mod job_failures;
mod kept;
mod load;
mod pending;
mod revoke;
mod waiting;

/// A record's first byte says what becomes of it: `s`kip, `b`ad, `w`ait, `o` a row of another table,
/// `n` one of a new plan for the table as soon as that is ready, `q` and a number one of so many that each wait
/// for something else, anything else a row.
#[derive(Debug)]
struct Fake {
    policy: BadRecordPolicy,
    ready: Rc<Cell<bool>>,
    /// Whether rows are staged for load jobs; `None` where they never are.
    loads: Rc<Cell<Option<bool>>>,
    /// How staged rows might stand in objects.
    format: Rc<Cell<LoadFormat>>,
    /// Whether there is no bucket.
    keeps: Rc<Cell<bool>>,
    /// Whether something is in the way of every need.
    blocked: Rc<Cell<bool>>,
}

/// How rows of the new plan might stand in objects.
const NEW_FORMAT: LoadFormat = LoadFormat::Avro(SchemaIx(2));

impl Encoder for Fake {
    type Origin = ();

    fn origin(&mut self, _: &TopicPartition) {}

    fn bad_record_policy<'a>(&'a self, (): &'a ()) -> &'a BadRecordPolicy {
        &self.policy
    }

    fn route(&mut self, (): &(), record: &Record<'_>) -> Route {
        match record.value.and_then(|value| value.first()) {
            Some(b's') => Route::Skip,
            Some(b'b') => Route::Bad(Box::new(reason())),
            Some(b'w') if !self.ready.get() => Route::Wait(NeedId(7)),
            Some(b'q') if !self.ready.get() => {
                let number = std::str::from_utf8(&record.value.unwrap()[1..]).unwrap();
                Route::Wait(NeedId(100 + number.parse::<u32>().unwrap()))
            }
            Some(b'o') => Route::Row(SlotId(1)),
            Some(b'n') if self.ready.get() => Route::Row(SlotId(2)),
            _ => Route::Row(SlotId(0)),
        }
    }

    fn encode(
        &mut self,
        _: SlotId,
        (): &(),
        record: &Record<'_>,
        body: &mut Vec<u8>,
    ) -> Result<(), NotEncoded> {
        if body.len() > 1 {
            body.push(b',');
        }
        body.extend_from_slice(record.value.unwrap());
        Ok(())
    }

    fn staging(&self, slot: SlotId) -> Option<Staging> {
        let is_new_plan = slot == SlotId(2);
        let table = if is_new_plan { TableIx(0) } else { TableIx(slot.0) };
        let format = if is_new_plan { NEW_FORMAT } else { self.format.get() };
        let staging =
            Staging { table, format, object_bytes: 1 << 20, is_kept_here: self.keeps.get() };
        self.loads.get().map(|_| staging)
    }

    fn is_staged(&self, _: SlotId) -> bool {
        self.loads.get() == Some(true)
    }

    fn encode_staged(
        &mut self,
        _: (SlotId, LoadFormat),
        (): &(),
        record: &Record<'_>,
        body: &mut Vec<u8>,
    ) -> Result<(), NotEncoded> {
        body.extend_from_slice(record.value.unwrap());
        body.push(b';');
        Ok(())
    }

    fn container_schema(&self, schema: SchemaIx) -> Option<Arc<str>> {
        Some(format!("schema {}", schema.0).into())
    }

    fn chain(&self, (): &(), table: TableIx) -> Option<ChainFacts> {
        let lane = TopicPartition::new("t", 0);
        let number: Arc<str> = table.0.to_string().into();
        let table = TableRef { project: Arc::clone(&number), dataset: "d".into(), table: number };
        let of = ChainOf { group: "g", lane: &lane, topic_id: None, table: &table, load_epoch: 0 };
        let (first, interval) = (Duration::from_secs(10), Duration::from_secs(60));
        Some(ChainFacts {
            id: ChainId::new(&of),
            table,
            is_pending: self.format.get().is_pending(),
            first,
            interval,
            soonest: interval,
            turn: None,
        })
    }

    fn open_body(&self, _: SlotId, body: &mut Vec<u8>) {
        body.push(b'[');
    }

    fn separator(&self, _: SlotId) -> &'static [u8] {
        b","
    }

    fn close_body(&self, _: SlotId, body: &mut Vec<u8>) {
        body.push(b']');
    }

    fn table(&self, _: SlotId) -> TableRef {
        let name: Arc<str> = "t".into();
        TableRef { project: Arc::clone(&name), dataset: Arc::clone(&name), table: name }
    }

    fn limits(&self, _: SlotId) -> BatchLimits {
        BatchLimits { body_bytes: 1 << 20, rows: 3, linger: Duration::from_secs(1) }
    }

    fn is_widened(&self, _: SlotId, field: &str, from: &ColumnKind) -> bool {
        (field, from) == ("wide", &ColumnKind::Int64)
    }

    fn outdated(&mut self, _: SlotId) -> NeedId {
        NeedId(9)
    }

    fn is_blocked(&self, _: NeedId) -> bool {
        self.blocked.get()
    }
}

fn reason() -> Reason {
    Reason { stage: Stage::Decode, message: "bad".into(), field: None, schema_id: None }
}

struct Bench {
    core: Core<Fake>,
    ready: Rc<Cell<bool>>,
    loads: Rc<Cell<Option<bool>>>,
    format: Rc<Cell<LoadFormat>>,
    keeps: Rc<Cell<bool>>,
    blocked: Rc<Cell<bool>>,
    now: Instant,
}

const LANE: LaneSlot = LaneSlot(1);

fn bench(memory_bytes_max: usize, run: u32) -> Bench {
    let ready = Rc::new(Cell::new(false));
    let budget = BudgetSettings { ratio: 1.0, window: 100, run };
    let policy = BadRecordPolicy { dead_letter: Some("dead".into()), budget };
    let waits = |first| Backoff { first, max: Duration::from_secs(60) };
    let settings = CoreSettings {
        body_bytes_max: 1 << 20,
        memory_bytes_max,
        retry: waits(Duration::from_secs(1)),
        retry_slowly: waits(Duration::from_secs(30)),
        halt_retry: Duration::from_secs(600),
    };
    let loads = Rc::new(Cell::new(None));
    let format = Rc::new(Cell::new(LoadFormat::NdjsonGz));
    let keeps = Rc::new(Cell::new(false));
    let blocked = Rc::new(Cell::new(false));
    let fake = Fake {
        policy,
        ready: Rc::clone(&ready),
        loads: Rc::clone(&loads),
        format: Rc::clone(&format),
        keeps: Rc::clone(&keeps),
        blocked: Rc::clone(&blocked),
    };
    let core = Core::new(fake, settings);
    let mut bench = Bench { core, ready, loads, format, keeps, blocked, now: Instant::now() };
    bench.core.assign(LANE, TopicPartition::new("t", 0), 1, 0);
    bench
}

impl Bench {
    fn is_holding(&self) -> bool {
        self.core.pressure() == Pressure::Hold
    }

    fn is_stopped(&self) -> bool {
        self.core.pressure() == Pressure::Stop
    }

    /// Hands records over, from `offset` on; each word is a value.
    fn take(&mut self, offset: i64, values: &str) {
        self.take_of(LANE, offset, values);
    }

    fn take_of(&mut self, lane: LaneSlot, offset: i64, values: &str) {
        for (at, value) in values.split_whitespace().enumerate() {
            let value = Some(value.as_bytes());
            let (offset, headers) = (offset + at as i64, Headers::default());
            let record = Record { offset, timestamp_ms: None, key: None, value, headers };
            self.core.record(lane, &record, self.now);
        }
        self.core.intake_done(self.now);
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.core.next_action()).collect()
    }

    fn writes(&mut self) -> Vec<(BatchId, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let writes = self.actions().into_iter().filter_map(|action| match action {
            Action::Write(write) => Some((write.id, text(&write.body))),
            _ => None,
        });
        writes.collect()
    }

    fn letters(&mut self) -> Vec<(LetterId, i64)> {
        let letters = self.actions().into_iter().filter_map(|action| match action {
            Action::DeadLetter { id, letter } => Some((id, letter.origin.offset)),
            _ => None,
        });
        letters.collect()
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.core.tick(self.now);
    }

    fn mark(&self) -> i64 {
        self.core.progress_of(LANE).unwrap().offset
    }
}

fn refused(kind: FaultKind) -> WriteOutcome {
    WriteOutcome::Refused(Fault::refused(kind, "r", "m"))
}

fn row_fault(row: u32, kind: FaultKind) -> RowFault {
    RowFault { row, fault: Fault::refused(kind, "r", "m"), field: None, taken_for: None }
}

#[test]
fn a_refusal_and_an_unknown_outcome_block_and_repeat_the_same_bytes() {
    let unknown = WriteOutcome::Unknown(Fault::unknown(FaultKind::Transient, "r", "m"));
    for outcome in [refused(FaultKind::Transient), refused(FaultKind::QuotaExceeded), unknown] {
        let mut bench = bench(1 << 20, 9);
        bench.take(0, "x y z");
        let [(id, first)] = bench.writes().try_into().unwrap();
        bench.core.written(id, outcome, bench.now);
        assert_eq!((bench.mark(), bench.core.progress()), (0, vec![]));
        bench.wait(30);
        let [(again, second)] = bench.writes().try_into().unwrap();
        assert_eq!((again, &second), (id, &first));
        bench.core.written(again, WriteOutcome::Acked, bench.now);
        assert_eq!(bench.core.progress()[0].offset, 3);
        assert_eq!((bench.core.memory_bytes(), bench.core.is_idle()), (0, true));
    }
}

#[test]
fn later_batches_and_skips_do_not_move_the_watermark_past_an_open_one() {
    let mut bench = bench(1 << 20, 9);
    bench.take(0, "x y z u v w1 s");
    bench.ready.set(true);
    let writes = bench.writes();
    bench.take(7, "w2");
    bench.core.prepared(NeedId(7), Ok(()), bench.now);
    bench.wait(1);
    let late = bench.writes();
    for (id, _) in late {
        bench.core.written(id, WriteOutcome::Acked, bench.now);
    }
    assert_eq!(bench.mark(), 0);
    bench.core.written(writes[0].0, WriteOutcome::Acked, bench.now);
    assert_eq!(bench.mark(), 8);
}

#[test]
fn a_partial_answer_stores_sends_again_plans_again_and_diverts() {
    let mut bench = bench(1 << 20, 9);
    bench.take(0, "x y z");
    let [(id, _)] = bench.writes().try_into().unwrap();
    let rejected =
        vec![row_fault(0, FaultKind::InvalidRow), row_fault(2, FaultKind::SchemaMismatch)];
    bench.core.written(
        id,
        WriteOutcome::Partial { rejected, unsent: vec![1], is_doubtful: false },
        bench.now,
    );
    let (mut writes, mut letters, mut needs) = (vec![], vec![], vec![]);
    for action in bench.actions() {
        match action {
            Action::Write(write) => writes.push((write.id, write.body)),
            Action::DeadLetter { id, letter } => letters.push((id, letter.origin.offset)),
            Action::Prepare(need) => needs.push(need),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((&writes[0].1[..], letters[0].1, &needs[..]), (&b"[y]"[..], 0, &[NeedId(9)][..]));
    bench.core.written(writes[0].0, WriteOutcome::Acked, bench.now);
    assert_eq!(bench.mark(), 0);
    bench.core.prepared(NeedId(9), Ok(()), bench.now);
    let [(id, body)] = bench.writes().try_into().unwrap();
    assert_eq!(body, "[z]");
    bench.core.written(id, WriteOutcome::Acked, bench.now);
    // The dead letter gates the offset.
    assert_eq!(bench.mark(), 0);
    bench.core.lettered(letters[0].0, Err(Fault::refused(FaultKind::Transient, "", "")), bench.now);
    assert_eq!(bench.mark(), 0);
    bench.wait(2);
    let [(id, 0)] = bench.letters()[..] else { panic!() };
    bench.core.lettered(id, Ok(()), bench.now);
    assert_eq!((bench.mark(), bench.core.memory_bytes()), (3, 0));
}

#[test]
fn a_value_for_a_column_that_was_widened_waits_and_one_that_fits_nowhere_is_bad() {
    let mut bench = bench(1 << 20, 9);
    bench.take(0, "x y z");
    let [(id, _)] = bench.writes().try_into().unwrap();
    let refused = |row, field: &str| RowFault {
        field: Some(field.to_owned()),
        taken_for: Some(ColumnKind::Int64),
        ..row_fault(row, FaultKind::InvalidRow)
    };
    let rejected = vec![refused(0, "wide"), refused(1, "long")];
    bench.core.written(
        id,
        WriteOutcome::Partial { rejected, unsent: Vec::new(), is_doubtful: false },
        bench.now,
    );
    let actions = bench.actions();
    let [Action::Prepare(NeedId(9)), Action::DeadLetter { letter, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(letter.origin.offset, 1);
    bench.core.prepared(NeedId(9), Ok(()), bench.now);
    let [(_, body)] = bench.writes().try_into().unwrap();
    assert_eq!(body, "[x]");
}

#[test]
fn a_refused_request_is_halved_until_the_row_to_blame_is_found() {
    let mut bench = bench(1 << 20, 9);
    bench.take(0, "x POISON z");
    let mut stored = Vec::new();
    for _ in 0..4 {
        for (id, body) in bench.writes() {
            let bad = body.contains("POISON");
            if bad && !body.contains(',') {
                bench.core.written(id, refused(FaultKind::InvalidRequest), bench.now);
                let [(letter, 1)] = bench.letters()[..] else { panic!() };
                bench.core.lettered(letter, Ok(()), bench.now);
            } else if bad {
                bench.core.written(id, refused(FaultKind::InvalidRequest), bench.now);
            } else {
                bench.core.written(id, WriteOutcome::Acked, bench.now);
                stored.push(body);
            }
        }
    }
    stored.sort();
    assert_eq!((stored, bench.mark()), (vec!["[x]".to_owned(), "[z]".to_owned()], 3));
    assert_eq!(bench.core.memory_bytes(), 0);
}

#[test]
fn the_budget_halts_the_lane_and_a_release_tries_again() {
    let mut bench = bench(1 << 20, 1);
    bench.take(0, "b1 b2 b3");
    let actions = bench.actions();
    assert!(matches!(actions[0], Action::DeadLetter { .. }), "{actions:?}");
    assert!(matches!(actions[1], Action::Pause(LANE)) && actions.len() == 2, "{actions:?}");
    assert!(bench.core.release(LANE, bench.now));
    // The second passes afresh; the third, not taken in before, halts again.
    let actions = bench.actions();
    assert!(matches!(actions[0], Action::DeadLetter { .. }), "{actions:?}");
    assert!(matches!(actions[1], Action::Resume(LANE, 2)) && actions.len() == 2, "{actions:?}");
    bench.core.resumed(LANE);
    bench.take(2, "b3");
    assert!(matches!(bench.actions()[..], [Action::Pause(LANE)]));
    assert!(bench.core.release(LANE, bench.now));
    let actions = bench.actions();
    assert!(actions.iter().any(|action| matches!(action, Action::Resume(LANE, 3))), "{actions:?}");
    assert!(!bench.core.release(LANE, bench.now));
    assert_eq!(bench.mark(), 0);
}

#[test]
fn draining_sends_what_is_open_and_takes_nothing_more() {
    let mut bench = bench(1 << 20, 9);
    bench.take(0, "x");
    assert!(bench.writes().is_empty());
    bench.core.drain(&[LANE]);
    let [(id, body)] = bench.writes().try_into().unwrap();
    assert_eq!(body, "[x]");
    bench.take(1, "y z u");
    assert!(bench.writes().is_empty() && !bench.core.is_drained(LANE));
    bench.core.written(id, WriteOutcome::Acked, bench.now);
    assert!(bench.core.is_drained(LANE) && bench.mark() == 1);
}

#[test]
fn a_record_that_is_skipped_is_told_from_one_that_is_taken_and_one_that_comes_again() {
    let mut bench = bench(1 << 20, 9);
    let mut intake = |offset, value: &str| {
        let (value, headers) = (Some(value.as_bytes()), Headers::default());
        let record = Record { offset, timestamp_ms: None, key: None, value, headers };
        bench.core.record(LANE, &record, bench.now)
    };
    let seen = [intake(0, "x"), intake(1, "s"), intake(1, "s")];
    assert_eq!(seen, [Intake::Taken, Intake::Skipped, Intake::Ignored]);
}

#[test]
fn a_lane_that_is_gone_ignores_what_comes_back() {
    let mut bench = bench(1 << 20, 9);
    bench.take(0, "x y z b1");
    let actions = bench.actions();
    bench.core.drop_lanes(&[LANE]);
    for action in actions {
        match action {
            Action::Write(write) => bench.core.written(write.id, WriteOutcome::Acked, bench.now),
            Action::DeadLetter { id, .. } => bench.core.lettered(id, Ok(()), bench.now),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((bench.core.progress(), bench.core.progress_of(LANE)), (vec![], None));
    assert!(bench.core.is_drained(LANE) && bench.core.is_idle());
    assert_eq!(bench.core.memory_bytes(), 0);
}

#[test]
fn rows_that_come_back_again_wait_longer_each_time() {
    let mut bench = bench(1 << 20, 9);
    bench.take(0, "x y z");
    for round in 0..4 {
        let [(id, body)] = bench.writes().try_into().unwrap();
        assert_eq!(body, "[x,y,z]");
        bench.core.written(id, refused(FaultKind::TableNotFound), bench.now);
        if round > 0 {
            assert!(bench.actions().is_empty(), "looked again at once in round {round}");
            bench.wait(60);
        }
        assert!(matches!(bench.actions()[..], [Action::Prepare(NeedId(9))]), "round {round}");
        bench.core.prepared(NeedId(9), Ok(()), bench.now);
    }
    assert_eq!(bench.mark(), 0);
}

#[test]
fn nothing_is_repeated_for_lanes_that_are_gone() {
    let mut bench = bench(1 << 20, 9);
    bench.take(0, "x y z b1");
    let actions = bench.actions();
    bench.core.drop_lanes(&[LANE]);
    for action in actions {
        let fault = Fault::unknown(FaultKind::Transient, "r", "m");
        match action {
            Action::Write(write) => {
                bench.core.written(write.id, WriteOutcome::Unknown(fault), bench.now);
            }
            Action::DeadLetter { id, .. } => bench.core.lettered(id, Err(fault), bench.now),
            other => panic!("{other:?}"),
        }
    }
    bench.wait(600);
    assert!(bench.actions().is_empty() && bench.core.is_idle());
    assert_eq!(bench.core.memory_bytes(), 0);
}

#[test]
fn what_a_record_waits_for_may_be_looked_at_before_its_time() {
    let mut bench = bench(1 << 20, 9);
    bench.take(0, "x");
    bench.wait(1);
    let [(id, _)] = bench.writes().try_into().unwrap();
    // It comes back twice: the second look waits for its time.
    let stale = || WriteOutcome::Refused(Fault::refused(FaultKind::SchemaMismatch, "r", "m"));
    bench.core.written(id, stale(), bench.now);
    assert!(matches!(bench.actions()[..], [Action::Prepare(NeedId(9))]));
    bench.core.prepared(NeedId(9), Ok(()), bench.now);
    let [(id, _)] = bench.writes().try_into().unwrap();
    bench.core.written(id, stale(), bench.now);
    let asked = bench.actions();
    assert!(asked.is_empty(), "{asked:?}");
    bench.core.look_again(NeedId(9));
    bench.core.look_again(NeedId(9));
    assert!(matches!(bench.actions()[..], [Action::Prepare(NeedId(9))]), "once");
}
