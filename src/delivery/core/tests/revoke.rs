use super::*;

const OTHER: LaneSlot = LaneSlot(2);

/// Two lanes whose rows wait in one batch that is not full.
fn shared() -> Bench {
    let mut bench = bench(1 << 20, 9);
    bench.core.assign(OTHER, TopicPartition::new("t", 1), 2, 0);
    bench.take(0, "x");
    bench.take_of(OTHER, 0, "y");
    assert!(bench.writes().is_empty());
    bench
}

fn mark_of(bench: &Bench, lane: LaneSlot) -> i64 {
    bench.core.progress_of(lane).unwrap().offset
}

#[test]
fn a_part_full_batch_is_stored_for_the_lane_that_goes_and_for_the_one_that_stays() {
    let mut bench = shared();
    bench.core.drain(&[LANE]);
    assert!(!bench.core.is_drained(LANE));
    let [(id, body)] = bench.writes().try_into().unwrap();
    assert_eq!(body, "[x,y]");
    bench.core.written(id, WriteOutcome::Acked, bench.now);
    assert!(bench.core.is_drained(LANE));
    assert_eq!((mark_of(&bench, LANE), mark_of(&bench, OTHER)), (1, 1));
    bench.core.drop_lanes(&[LANE]);
    // The one that stays takes records in as before.
    bench.take_of(OTHER, 1, "z u v");
    let [(id, body)] = bench.writes().try_into().unwrap();
    assert_eq!(body, "[z,u,v]");
    bench.core.written(id, WriteOutcome::Acked, bench.now);
    assert_eq!(mark_of(&bench, OTHER), 4);
}

#[test]
fn rows_of_a_lane_that_stays_outlive_the_one_that_is_lost_from_the_same_batch() {
    let mut bench = shared();
    bench.core.drop_lanes(&[LANE]);
    bench.wait(1);
    let [(id, body)] = bench.writes().try_into().unwrap();
    assert!(body.contains('y'), "{body}");
    bench.core.written(id, refused(FaultKind::Transient), bench.now);
    bench.wait(2);
    let [(id, body)] = bench.writes().try_into().unwrap();
    assert!(body.contains('y'), "{body}");
    assert_eq!(mark_of(&bench, OTHER), 0);
    bench.core.written(id, WriteOutcome::Acked, bench.now);
    assert_eq!((mark_of(&bench, OTHER), bench.core.memory_bytes()), (1, 0));
}

#[test]
fn an_answer_to_an_earlier_assignment_settles_nothing_of_the_lane_that_came_back() {
    let mut bench = bench(1 << 20, 9);
    bench.take(0, "x y z b");
    let actions = bench.actions();
    bench.core.drop_lanes(&[LANE]);
    let again = LaneSlot(3);
    bench.core.assign(again, TopicPartition::new("t", 0), 2, 0);
    bench.take_of(again, 0, "x y z b");
    for action in actions {
        match action {
            Action::Write(write) => bench.core.written(write.id, WriteOutcome::Acked, bench.now),
            Action::DeadLetter { id, .. } => bench.core.lettered(id, Ok(()), bench.now),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((mark_of(&bench, again), bench.core.progress()), (0, vec![]));
    for action in bench.actions() {
        match action {
            Action::Write(write) => bench.core.written(write.id, WriteOutcome::Acked, bench.now),
            Action::DeadLetter { id, .. } => bench.core.lettered(id, Ok(()), bench.now),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((mark_of(&bench, again), bench.core.memory_bytes()), (4, 0));
}
