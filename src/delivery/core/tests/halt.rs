//! Halts: what ends them, and what they hold.

use super::*;
use crate::delivery::lane::Until;

/// After this a halted lane tries again.
const RETRY: u64 = 600;

/// A bench whose topic has no dead-letter topic.
fn no_letters() -> Bench {
    let mut bench = bench(1 << 20, 9);
    bench.core.encoder_mut().policy.dead_letter = None;
    bench
}

impl Bench {
    fn until(&self) -> Option<Until> {
        let (_, lane) = self.core.lanes().next().unwrap();
        lane.halt.as_ref().map(|halt| halt.until.clone())
    }

    fn refuse_row(&mut self, row: u32) {
        let [(id, _)] = self.writes().try_into().unwrap();
        let rejected = vec![row_fault(row, FaultKind::InvalidRow)];
        let outcome = WriteOutcome::Partial { rejected, unsent: vec![], is_doubtful: false };
        self.core.written(id, outcome, self.now);
    }

    fn store(&mut self, expected: &str) {
        let [(id, body)] = self.writes().try_into().unwrap();
        assert_eq!(body, expected);
        self.core.written(id, WriteOutcome::Acked, self.now);
    }
}

#[test]
fn a_cause_that_can_pass_is_tried_again_until_it_has() {
    let mut bench = no_letters();
    bench.take(0, "w0 x1");
    bench.actions();
    bench.core.prepared(NeedId(7), Err(Box::new(reason())), bench.now);
    assert!(matches!(bench.actions()[..], [Action::Pause(LANE)]));
    assert_eq!(bench.until(), Some(Until::Retry(bench.now + Duration::from_secs(RETRY))));
    bench.wait(1);
    bench.store("[x1]");
    bench.wait(RETRY - 2);
    assert!(bench.actions().is_empty(), "tried too early");
    bench.wait(1);
    assert!(matches!(bench.actions()[..], [Action::Prepare(NeedId(7))]));
    assert!(matches!(bench.until(), Some(Until::Tried(_))), "running before it is known");
    bench.core.prepared(NeedId(7), Err(Box::new(reason())), bench.now);
    assert!(bench.actions().is_empty(), "read on although nothing has changed");
    assert_eq!(bench.until(), Some(Until::Retry(bench.now + Duration::from_secs(RETRY))));
    bench.wait(RETRY);
    assert!(matches!(bench.actions()[..], [Action::Prepare(NeedId(7))]));
    bench.ready.set(true);
    bench.core.prepared(NeedId(7), Ok(()), bench.now);
    let actions = bench.actions();
    let [Action::Write(write)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(bench.mark(), 0);
    bench.core.written(write.id, WriteOutcome::Acked, bench.now);
    assert!(matches!(bench.actions()[..], [Action::Resume(LANE, 2)]));
    assert_eq!((bench.until(), bench.mark(), bench.core.memory_bytes()), (None, 2, 0));
    bench.wait(10 * RETRY);
    assert!(bench.actions().is_empty() && bench.core.is_idle());
}

#[test]
fn a_halt_lasts_while_one_of_its_records_is_refused() {
    let mut bench = no_letters();
    bench.take(0, "x y");
    bench.wait(1);
    let [(id, _)] = bench.writes().try_into().unwrap();
    let rejected = (0..2).map(|row| row_fault(row, FaultKind::InvalidRow)).collect();
    bench.core.written(
        id,
        WriteOutcome::Partial { rejected, unsent: vec![], is_doubtful: false },
        bench.now,
    );
    bench.wait(RETRY);
    bench.wait(1);
    bench.refuse_row(1);
    let offset = bench.core.lanes().next().unwrap().1.halt.as_ref().unwrap().offset;
    assert_eq!((offset, bench.mark()), (1, 0), "the reason is that of the record that is left");
    bench.wait(RETRY);
    assert_eq!(bench.mark(), 0);
    bench.wait(1);
    bench.store("[y]");
    assert_eq!((bench.until(), bench.mark(), bench.core.memory_bytes()), (None, 2, 0));
}

#[test]
fn a_budget_that_is_used_up_waits_for_a_person() {
    let mut bench = bench(1 << 20, 1);
    bench.take(0, "b0 s1 b2");
    let [(id, 0)] = bench.letters()[..] else { panic!() };
    bench.core.lettered(id, Ok(()), bench.now);
    bench.wait(100 * RETRY);
    assert!(bench.actions().is_empty());
    assert_eq!((bench.until(), bench.mark()), (Some(Until::Released), 2));
}

#[test]
fn a_release_while_records_are_tried_lets_the_lane_run_and_the_old_timer_is_void() {
    let mut bench = no_letters();
    bench.take(0, "x");
    bench.wait(1);
    bench.refuse_row(0);
    bench.wait(RETRY - 1);
    assert!(bench.core.release(LANE, bench.now));
    bench.wait(1);
    // The record halts the lane anew just as the first halt's timer is due.
    bench.refuse_row(0);
    assert_eq!(bench.until(), Some(Until::Retry(bench.now + Duration::from_secs(RETRY))));
    bench.wait(1);
    assert!(matches!(bench.until(), Some(Until::Retry(_))));
    bench.wait(RETRY);
    assert!(matches!(bench.until(), Some(Until::Tried(_))));
    assert!(bench.core.release(LANE, bench.now));
    assert!(!bench.core.release(LANE, bench.now));
    bench.wait(1);
    bench.store("[x]");
    assert_eq!((bench.until(), bench.mark()), (None, 1));
}

#[test]
fn a_drain_waits_for_what_can_finish_and_not_for_what_a_halt_holds() {
    let mut bench = no_letters();
    bench.take(0, "x0 b1 x2");
    assert!(!bench.core.is_drained(LANE));
    bench.core.drain(&[LANE]);
    let writes = bench.writes();
    assert!(!writes.is_empty() && !bench.core.is_drained(LANE), "{writes:?}");
    for (id, _) in writes {
        bench.core.written(id, WriteOutcome::Acked, bench.now);
    }
    assert!(bench.core.is_drained(LANE));
    assert_eq!(bench.mark(), 1, "the held record is the next owner's");
    // Nor is it tried again: the drain would have to wait for it.
    bench.wait(2 * RETRY);
    assert!(bench.core.is_drained(LANE) && bench.actions().is_empty());
    bench.core.drop_lanes(&[LANE]);
    assert_eq!(bench.core.memory_bytes(), 0);
}

#[test]
fn a_lane_that_halts_while_it_is_drained_is_drained() {
    let mut bench = no_letters();
    bench.take(0, "x y");
    bench.core.drain(&[LANE]);
    bench.refuse_row(0);
    assert!(bench.core.is_drained(LANE));
    assert_eq!(bench.mark(), 0);
}

#[test]
fn a_drain_does_not_wait_for_what_is_tried_again_and_still_waits() {
    let mut bench = no_letters();
    bench.take(0, "w");
    bench.core.prepared(NeedId(7), Err(Box::new(reason())), bench.now);
    bench.wait(RETRY);
    assert!(matches!(bench.until(), Some(Until::Tried(_))));
    bench.core.drain(&[LANE]);
    assert!(bench.core.is_drained(LANE) && bench.mark() == 0);
    bench.core.drop_lanes(&[LANE]);
    bench.core.prepared(NeedId(7), Ok(()), bench.now);
    assert_eq!(bench.core.memory_bytes(), 0);
}

#[test]
fn what_a_halt_holds_counts_no_more_and_the_others_have_half_of_what_is_left() {
    const OTHER: LaneSlot = LaneSlot(2);
    let mut bench = no_letters();
    bench.core.assign(OTHER, TopicPartition::new("t", 1), 2, 0);
    let part =
        |first: char, percent: usize| format!("{first}{}", "p".repeat((percent << 20) / 100));
    bench.take(0, &part('b', 30));
    assert!(matches!(bench.actions()[..], [Action::Pause(LANE)]));
    bench.take_of(OTHER, 0, &part('x', 10));
    assert!(!bench.is_holding(), "half of all is used, but not half of the rest");
    bench.take_of(OTHER, 1, &part('x', 9));
    assert!(bench.is_holding() && !bench.is_stopped());
    bench.wait(1);
    for (id, _) in bench.writes() {
        bench.core.written(id, WriteOutcome::Acked, bench.now);
    }
    assert!(!bench.is_holding());
}
