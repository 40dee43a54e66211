use super::*;
use crate::delivery::core::flow::STALL;

const MEMORY: usize = 1 << 20;
const OTHER: LaneSlot = LaneSlot(2);

/// Two lanes that feed two tables; the first has filled half of the memory.
fn half_full() -> (Bench, Vec<BatchId>) {
    let mut bench = bench(MEMORY, 9);
    bench.core.assign(OTHER, TopicPartition::new("t", 1), 2, 0);
    let large = "p".repeat(MEMORY / 20);
    bench.take(0, &format!("{large} {large} {large}"));
    assert!(!bench.is_holding());
    bench.take(3, &"p".repeat(MEMORY / 10));
    assert!(bench.is_holding(), "{} of {MEMORY}", bench.core.memory_bytes());
    let writes = bench.writes().into_iter().map(|(id, _)| id);
    let writes = writes.collect();
    (bench, writes)
}

impl Bench {
    /// Lets a hold last; what that pauses and resumes.
    fn stall(&mut self) -> Vec<Action> {
        self.now += STALL;
        self.core.tick(self.now);
        let mut actions = self.actions();
        actions.retain(|action| matches!(action, Action::Pause(_) | Action::Resume(..)));
        actions
    }

    fn ack(&mut self, id: BatchId) {
        self.core.written(id, WriteOutcome::Acked, self.now);
    }
}

#[test]
fn half_of_the_memory_holds_the_source_and_an_answer_lets_it_go() {
    let (mut bench, writes) = half_full();
    // What is open is sent: nothing more comes to fill it.
    assert_eq!(writes.len(), 2);
    bench.ack(writes[0]);
    assert!(!bench.is_holding() && bench.actions().is_empty());
    assert!(bench.stall().is_empty(), "the hold was over long ago");
}

#[test]
fn what_was_on_its_way_when_the_hold_began_is_taken_in() {
    let (mut bench, _) = half_full();
    bench.take(4, "x");
    assert_eq!(bench.core.progress_of(LANE).unwrap().offset, 0);
    assert!(bench.core.lanes().any(|(slot, lane)| slot == LANE && lane.tracker.next() == 5));
}

#[test]
fn a_hold_that_lasts_pauses_the_lanes_that_do_not_move_and_the_others_go_on() {
    let (mut bench, writes) = half_full();
    bench.take_of(OTHER, 0, "o1 o2 o3");
    let [(other, _)] = bench.writes().try_into().unwrap();
    bench.ack(other);
    assert!(bench.is_holding());
    assert!(matches!(bench.stall()[..], [Action::Pause(LANE)]));
    assert!(!bench.is_holding());
    // The other table has half of what is left, and what is stuck stays stuck.
    let large = format!("o{}", "p".repeat(MEMORY / 40));
    bench.take_of(OTHER, 3, &format!("{large} {large} {large}"));
    assert!(bench.is_holding());
    let [(other, _)] = bench.writes().try_into().unwrap();
    bench.ack(other);
    assert!(!bench.is_holding() && bench.actions().is_empty());
    // Its answers come after all.
    writes.into_iter().for_each(|id| bench.ack(id));
    assert!(matches!(bench.actions()[..], [Action::Resume(LANE, 4)]));
}

#[test]
fn a_stuck_lane_goes_on_although_one_record_of_it_waits() {
    let mut bench = bench(MEMORY, 9);
    let large = "p".repeat(MEMORY / 20);
    bench.take(0, &format!("w {large} {large} {large}"));
    bench.take(4, &"p".repeat(MEMORY / 10));
    assert!(bench.is_holding());
    let writes = bench.writes();
    assert!(matches!(bench.stall()[..], [Action::Pause(LANE)]));
    // The last answers that it gets. Their memory is given back after their rows are resolved.
    writes.into_iter().for_each(|(id, _)| bench.ack(id));
    assert!(matches!(bench.actions()[..], [Action::Resume(LANE, 5)]));
}

#[test]
fn a_slow_remote_alone_pauses_nobody() {
    let mut bench = bench(MEMORY, 9);
    bench.take(0, "x y z");
    let [(first, _)] = bench.writes().try_into().unwrap();
    let large = "p".repeat(MEMORY / 20);
    bench.take(3, &format!("{large} {large} {large} {large} {large}"));
    assert!(bench.is_holding());
    bench.actions();
    bench.ack(first);
    // The lane moved, however slowly, and the hold goes on.
    assert!(bench.stall().is_empty());
    assert!(bench.is_holding() && !bench.is_stopped());
    // Then it does not.
    assert!(matches!(bench.stall()[..], [Action::Pause(LANE)]));
}

#[test]
fn however_many_lanes_are_stuck_there_is_room_for_the_next() {
    let mut bench = bench(MEMORY, 9);
    let lanes: Vec<_> = (2..10).map(LaneSlot).collect();
    for (number, lane) in lanes.iter().enumerate() {
        bench.core.assign(*lane, TopicPartition::new("t", 1 + number as i32), 2, 0);
    }
    let value = "p".repeat(500);
    let mut taken = Vec::new();
    for lane in &lanes {
        let mut offset = 0;
        while !bench.is_holding() {
            bench.take_of(*lane, offset, &value);
            offset += 1;
        }
        taken.push(offset);
        let paused = bench.stall();
        assert!(paused.iter().any(|action| matches!(action, Action::Pause(slot) if slot == lane)));
    }
    assert!(taken.iter().all(|records| *records > 1), "{taken:?}");
    assert!(!bench.is_stopped());
}

#[test]
fn what_was_on_its_way_stops_every_lane_when_it_is_too_much() {
    let (mut bench, mut writes) = half_full();
    let large = "p".repeat(MEMORY / 12);
    bench.take(4, &large);
    let actions = bench.actions();
    let pauses = actions.iter().filter(|action| matches!(action, Action::Pause(_))).count();
    assert_eq!((pauses, bench.is_stopped()), (2, true));
    writes.extend(actions.iter().filter_map(|action| match action {
        Action::Write(write) => Some(write.id),
        _ => None,
    }));
    let held = bench.core.memory_bytes();
    bench.take(5, &large);
    assert_eq!(bench.core.memory_bytes(), held, "it is read again");
    writes.into_iter().for_each(|id| bench.ack(id));
    assert!(!bench.is_stopped());
    let resumed = bench.actions();
    assert!(resumed.iter().any(|action| matches!(action, Action::Resume(OTHER, 0))));
    assert!(resumed.iter().any(|action| matches!(action, Action::Resume(LANE, 5))));
}

#[test]
fn a_stop_because_of_one_lane_ends_for_the_others() {
    let (mut bench, _) = half_full();
    let large = "p".repeat(MEMORY / 12);
    bench.take(4, &large);
    assert!(bench.is_stopped());
    bench.actions();
    // Nothing is answered: most of the memory is stuck.
    let resumed = bench.stall();
    assert!(resumed.iter().any(|action| matches!(action, Action::Resume(OTHER, 0))));
    assert!(!resumed.iter().any(|action| matches!(action, Action::Resume(LANE, _))));
    assert!(!bench.is_stopped() && !bench.is_holding());
    bench.core.resumed(OTHER);
    bench.take_of(OTHER, 0, "o1 o2 o3");
    let [(other, _)] = bench.writes().try_into().unwrap();
    bench.ack(other);
    assert_eq!(bench.core.progress_of(OTHER).unwrap().offset, 3);
}

#[test]
fn what_was_on_its_way_to_a_paused_lane_is_read_again() {
    let (mut bench, writes) = half_full();
    assert!(matches!(bench.stall()[..], [Action::Pause(LANE)]));
    let held = bench.core.memory_bytes();
    bench.take(4, "x4 x5");
    assert_eq!(bench.core.memory_bytes(), held);
    writes.into_iter().for_each(|id| bench.ack(id));
    assert!(matches!(bench.actions()[..], [Action::Resume(LANE, 4)]));
    // It was sent before the source went back.
    bench.take(6, "x6");
    bench.core.resumed(LANE);
    bench.take(4, "x4 x5");
    bench.wait(1);
    let [(id, body)] = bench.writes().try_into().unwrap();
    assert_eq!(body, "[x4,x5]");
    bench.ack(id);
    assert_eq!(bench.mark(), 6);
}

#[test]
fn records_that_wait_count_as_the_rows_that_they_will_be() {
    let mut bench = bench(MEMORY, 9);
    let large = format!("w{}", "p".repeat(MEMORY / 32));
    bench.take(0, &format!("{large} {large}"));
    assert!(!bench.is_holding());
    bench.take(2, &format!("{large} {large}"));
    assert!(bench.is_holding() && bench.core.memory_bytes() < MEMORY / 4);
}

#[test]
fn what_is_on_its_way_for_lanes_that_are_gone_holds_nobody() {
    let (mut bench, _) = half_full();
    bench.core.drop_lanes(&[LANE]);
    assert!(!bench.is_holding());
    bench.take_of(OTHER, 0, "o1");
    assert!(!bench.is_holding());
}
