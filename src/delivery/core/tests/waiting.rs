use super::*;

const OTHER: LaneSlot = LaneSlot(2);

/// Records that each wait for something else.
fn many(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|number| format!("q{number} ")).collect()
}

impl Bench {
    fn needs(&mut self) -> Vec<NeedId> {
        let needs = self.actions().into_iter().filter_map(|action| match action {
            Action::Prepare(need) => Some(need),
            _ => None,
        });
        needs.collect()
    }
}

#[test]
fn records_that_wait_for_any_number_of_things_pause_their_lane_and_no_other() {
    let mut bench = bench(1 << 24, 9);
    bench.core.assign(OTHER, TopicPartition::new("t", 1), 2, 0);
    bench.take(0, &many(0..20_000));
    let actions = bench.actions();
    let asked = actions.iter().filter(|action| matches!(action, Action::Prepare(_))).count();
    assert_eq!(asked, 128);
    assert!(matches!(actions.last(), Some(Action::Pause(LANE))), "{:?}", actions.last());
    // One who waits for something that is waited for already costs nothing more, nor does another lane.
    bench.take_of(OTHER, 0, "q5 q6 x y z");
    let [(id, body)] = bench.writes().try_into().unwrap();
    assert_eq!(body, "[x,y,z]");
    bench.core.written(id, WriteOutcome::Acked, bench.now);
    bench.take_of(OTHER, 5, &many(200..300));
    assert_eq!(bench.needs().len(), 100);
    // What is refused goes to the dead letter; once half of it is done with, the lane goes on where it
    // was not taken in.
    bench.ready.set(true);
    for number in 0..64 {
        assert!(!bench.actions().iter().any(|action| matches!(action, Action::Resume(..))));
        bench.core.prepared(NeedId(100 + number), Ok(()), bench.now);
    }
    let resumed = bench.actions().into_iter().find_map(|action| match action {
        Action::Resume(slot, offset) => Some((slot, offset)),
        _ => None,
    });
    assert_eq!(resumed, Some((LANE, 128)));
    bench.core.resumed(LANE);
    bench.take(128, "x");
    bench.wait(1);
    assert!(!bench.writes().is_empty());
}

#[test]
fn a_drain_does_not_wait_for_what_may_last() {
    let mut bench = bench(1 << 20, 9);
    bench.take(0, "x w b");
    let [(letter, 2)] = bench.letters()[..] else { panic!() };
    bench.core.drain(&[LANE]);
    for (id, _) in bench.writes() {
        bench.core.written(id, WriteOutcome::Acked, bench.now);
    }
    assert!(!bench.core.is_drained(LANE), "the schema may be there in a moment");
    bench.blocked.set(true);
    assert!(!bench.core.is_drained(LANE), "the letter is on its way");
    let fault = Fault::refused(FaultKind::TableNotFound, "r", "m");
    bench.core.lettered(letter, Err(fault), bench.now);
    assert!(bench.core.is_drained(LANE) && bench.mark() == 1);
    bench.core.drop_lanes(&[LANE]);
    bench.core.prepared(NeedId(7), Ok(()), bench.now);
    bench.wait(60);
    assert!(bench.core.is_idle());
    assert_eq!(bench.core.memory_bytes(), 0);
}

#[test]
fn why_a_letter_was_not_taken_is_known_while_it_is_sent_again() {
    let mut bench = bench(1 << 20, 9);
    bench.take(0, "b");
    let [(letter, 0)] = bench.letters()[..] else { panic!() };
    let fault = |core: &Core<Fake>| core.open_letters().next().unwrap().fault.map(|f| f.kind);
    assert_eq!(fault(&bench.core), None);
    let refused = Fault::refused(FaultKind::TableNotFound, "r", "m");
    bench.core.lettered(letter, Err(refused), bench.now);
    bench.wait(2);
    assert_eq!(bench.letters().len(), 1);
    assert_eq!(fault(&bench.core), Some(FaultKind::TableNotFound));
    bench.core.lettered(letter, Ok(()), bench.now);
    assert!(bench.core.open_letters().next().is_none() && bench.mark() == 1);
}
