use super::*;
use crate::{
    delivery::action::LoadId,
    write::load::{
        chain::{BASE, Slot},
        content::Content,
        job::LoadJob,
        run::JobEnd,
    },
};

/// What the core asked for, by kind.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) located: Vec<(ChainKey, Slot)>,
    pub(super) staged: Vec<(BatchId, String)>,
    pub(super) jobs: Vec<(ChainKey, LoadId, LoadJob)>,
    pub(super) discarded: Vec<(Vec<String>, Option<i64>)>,
    pub(super) letters: Vec<LetterId>,
    pub(super) restarts: usize,
}

/// Staged rows; those of a container in angle brackets, its blocks apart.
pub(super) fn lines(content: &Content) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    match content {
        Content::Lines(body) => text(body),
        Content::Datums { schema, blocks } => {
            let blocks = blocks.iter().map(|block| text(&block.data)).collect::<Vec<_>>();
            format!("{schema}<{}>", blocks.join("|"))
        }
    }
}

impl Bench {
    pub(super) fn asked(&mut self) -> Asked {
        let mut asked = Asked::default();
        for action in self.actions() {
            match action {
                Action::Locate { key, from, .. } => asked.located.push((key, from)),
                Action::Stage(stage) => {
                    let body = lines(&stage.content);
                    asked.staged.push((stage.id, body));
                }
                Action::Load { id, key, job } => asked.jobs.push((key, id, job)),
                Action::Discard(_, uris, committed) => asked.discarded.push((uris, committed)),
                Action::Restart(_) => asked.restarts += 1,
                Action::DeadLetter { id, .. } => asked.letters.push(id),
                Action::Pause(_) | Action::Resume(..) | Action::Prepare(_) => {}
                other => panic!("{other:?}"),
            }
        }
        asked
    }

    /// Stores what is to be staged, each object under its rows as its address.
    pub(super) fn store_objects(&mut self) -> Asked {
        let asked = self.asked();
        for (id, rows) in &asked.staged {
            self.core.staged(*id, Ok(rows.clone()), self.now);
        }
        asked
    }
}

/// A lane whose rows are staged, and whose chains end where they begin.
pub(super) fn loading(values: &str) -> Bench {
    chained(values, true)
}

/// A lane whose rows are streamed, although they could be staged.
fn streaming(values: &str) -> Bench {
    chained(values, false)
}

fn chained(values: &str, is_staged: bool) -> Bench {
    let mut bench = bench(1 << 20, 9);
    bench.loads.set(Some(is_staged));
    bench.take(0, values);
    let located = bench.asked().located;
    for (key, from) in located {
        assert_eq!(from, Slot::at(BASE));
        bench.core.located(key, Ok(from), bench.now);
    }
    bench
}

/// Waits until the first job is due, stores the objects, and gives the job.
pub(super) fn first_job(bench: &mut Bench) -> (ChainKey, LoadId, LoadJob) {
    bench.wait(10);
    assert_eq!(bench.store_objects().jobs, []);
    let [job] = bench.asked().jobs.try_into().unwrap();
    job
}

pub(super) fn transient() -> Fault {
    Fault::unknown(FaultKind::Transient, "r", "m")
}

#[test]
fn rows_are_staged_loaded_acknowledged_and_only_then_committed() {
    let mut bench = loading("x y z");
    let (key, id, job) = first_job(&mut bench);
    assert_eq!((job.end, job.rows, &job.sources[..]), (3, 3, &["x;y;z;".to_owned()][..]));
    assert!(job.id.ends_with("-0-0-a0"), "{}", job.id);
    assert_eq!((bench.mark(), bench.core.progress()), (0, vec![]));
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: 3 }), bench.now);
    let [progress] = bench.core.progress().try_into().unwrap();
    assert_eq!((progress.offset, progress.nodes.into_values().collect()), (3, vec![3]));
    assert_eq!(bench.asked().discarded, [(job.sources, Some(3))]);
    assert_eq!((bench.core.memory_bytes(), bench.core.is_idle()), (0, true));
}

#[test]
fn the_next_job_begins_where_the_last_one_ended_and_not_before_its_time() {
    let mut bench = loading("x");
    let (key, id, _) = first_job(&mut bench);
    bench.take(1, "y");
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: 1 }), bench.now);
    bench.wait(59);
    assert_eq!(bench.store_objects().jobs, []);
    bench.wait(1);
    bench.store_objects();
    let [(_, _, job)] = bench.asked().jobs.try_into().unwrap();
    assert!(job.id.ends_with("-0-1-a0") && job.end == 2, "{job:?}");
}

#[test]
fn a_job_does_not_wait_for_what_came_after_it_was_wanted() {
    let mut bench = loading("x");
    bench.wait(10);
    bench.take(1, "y z");
    bench.store_objects();
    let [(_, _, job)] = bench.asked().jobs.try_into().unwrap();
    assert_eq!((job.end, job.rows), (1, 1));
}

#[test]
fn what_an_earlier_owner_has_loaded_is_done_with() {
    let mut bench = bench(1 << 20, 9);
    bench.loads.set(Some(true));
    let node = bench.core.encoder().chain(&(), TableIx(0)).unwrap().id.short().to_owned();
    bench.core.recall(LANE, [(node, 1)].into());
    bench.take(1, "x y z");
    let [(key, from)] = bench.asked().located.try_into().unwrap();
    assert_eq!(from, Slot::at(1));
    // Nobody answers at first.
    bench.core.located(key, Err(transient()), bench.now);
    bench.wait(5);
    assert_eq!(bench.asked().located, [(key, Slot::at(1))]);
    bench.core.located(key, Ok(Slot { node: 3, attempt: 2 }), bench.now);
    let (_, _, job) = first_job(&mut bench);
    assert!(job.id.ends_with("-0-3-a2") && job.sources == ["z;"], "{job:?}");
}

#[test]
fn a_job_waits_for_dead_letters_and_for_rows_that_wait_below_its_end() {
    let mut bench = bench(1 << 20, 9);
    bench.loads.set(Some(true));
    bench.take(0, "x b w y");
    let mut letter = None;
    for action in bench.actions() {
        match action {
            Action::Locate { key, from, .. } => bench.core.located(key, Ok(from), bench.now),
            Action::DeadLetter { id, .. } => letter = Some(id),
            Action::Prepare(NeedId(7)) => {}
            other => panic!("{other:?}"),
        }
    }
    bench.wait(10);
    bench.store_objects();
    assert_eq!(bench.asked().jobs, []);
    bench.core.lettered(letter.unwrap(), Ok(()), bench.now);
    assert_eq!(bench.asked().jobs, []);
    bench.ready.set(true);
    bench.core.prepared(NeedId(7), Ok(()), bench.now);
    // The row that waited belongs to the job, too.
    let [(_, rows)] = &bench.store_objects().staged[..] else { panic!() };
    assert_eq!(rows, "w;");
    let [(_, _, job)] = bench.asked().jobs.try_into().unwrap();
    assert_eq!((job.end, job.rows), (4, 3));
}

#[test]
fn a_call_that_fails_repeats_the_same_job_and_a_failed_job_has_another_attempt() {
    let mut bench = loading("x");
    let (key, id, job) = first_job(&mut bench);
    bench.core.loaded((key, id), Err(transient()), bench.now);
    bench.wait(5);
    let [(_, again, same)] = bench.asked().jobs.try_into().unwrap();
    assert_eq!(same, job);
    // The first call's late answer means nothing any more.
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: 1 }), bench.now);
    assert_eq!(bench.mark(), 0);
    bench.core.loaded((key, again), Ok(JobEnd::Failed(transient())), bench.now);
    bench.wait(60);
    let [(_, last, next)] = bench.asked().jobs.try_into().unwrap();
    assert!(next.id.ends_with("-0-0-a1"), "{next:?}");
    assert_eq!((next.end, &next.sources), (1, &job.sources));
    bench.core.loaded((key, last), Ok(JobEnd::Loaded { end: 1 }), bench.now);
    assert_eq!((bench.mark(), bench.core.memory_bytes()), (1, 0));
}

#[test]
fn a_job_whose_object_was_swept_fails_and_its_rows_are_read_and_staged_again() {
    let mut bench = loading("x y z");
    let (key, id, _) = first_job(&mut bench);
    let swept = Fault::refused(FaultKind::TableNotFound, "notFound", "Not found: URI gs://b/o");
    bench.core.loaded((key, id), Ok(JobEnd::Failed(swept)), bench.now);
    let asked = bench.asked();
    assert_eq!((asked.restarts, asked.jobs.len(), bench.mark()), (1, 0, 0));
    assert_eq!(bench.core.progress(), [], "nothing is committed that no job has brought");
}

#[test]
fn another_owners_job_decides_and_the_lane_is_taken_over_again() {
    let mut bench = loading("x y z");
    let (key, id, job) = first_job(&mut bench);
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: 2 }), bench.now);
    let asked = bench.asked();
    assert_eq!((asked.restarts, asked.discarded), (1, vec![(job.sources, None)]));
    assert_eq!(bench.mark(), 0);
    bench.take(3, "u");
    bench.core.drop_lanes(&[LANE]);
    assert_eq!((bench.core.memory_bytes(), bench.core.is_idle()), (0, true));
}

#[test]
fn a_bad_row_is_alone_in_the_end_and_goes_to_the_dead_letter() {
    let mut bench = bench(1 << 20, 9);
    bench.loads.set(Some(true));
    let rows = ["x", "y", "POISON", "z"];
    let (mut loaded, mut letters, mut slot) = (Vec::new(), Vec::new(), Slot::at(BASE));
    let mut lane = LANE;
    for _ in 0..40 {
        bench.wait(10);
        let asked = bench.store_objects();
        for (key, _) in asked.located {
            bench.core.located(key, Ok(slot), bench.now);
        }
        letters.extend(asked.letters.iter().copied());
        for id in asked.letters {
            bench.core.lettered(id, Ok(()), bench.now);
        }
        for (key, id, job) in asked.jobs {
            let is_bad = job.sources.iter().any(|rows| rows.contains("POISON"));
            let refused = Fault::refused(FaultKind::InvalidRequest, "invalid", "m");
            slot = if is_bad { slot.again() } else { Slot::at(job.end) };
            loaded.extend(job.sources.iter().filter(|_| !is_bad).cloned());
            let end = JobEnd::Loaded { end: job.end };
            let end = if is_bad { JobEnd::Failed(refused) } else { end };
            bench.core.loaded((key, id), Ok(end), bench.now);
        }
        let mark = bench.core.progress_of(lane).map_or(0, |progress| progress.offset);
        if asked.restarts > 0 || lane == LANE {
            bench.core.drop_lanes(&[lane]);
            lane = LaneSlot(lane.0 + 1);
            bench.core.assign(lane, TopicPartition::new("t", 0), 1, mark);
            bench.take_of(lane, mark, &rows[mark as usize..].join(" "));
        }
    }
    assert_eq!((loaded.concat(), letters.len()), ("x;y;z;".to_owned(), 1));
    assert_eq!(bench.core.progress_of(lane).unwrap().offset, 4);
    assert_eq!(bench.core.memory_bytes(), 0);
}

#[test]
fn suspects_that_go_together_again_leave_no_memory_behind() {
    let refused = || JobEnd::Failed(Fault::refused(FaultKind::InvalidRequest, "invalid", "m"));
    let mut bench = loading("x y");
    let (key, id, _) = first_job(&mut bench);
    bench.core.loaded((key, id), Ok(refused()), bench.now);
    bench.core.drop_lanes(&[LANE]);
    let next = LaneSlot(2);
    bench.core.assign(next, TopicPartition::new("t", 0), 2, 0);
    bench.take_of(next, 0, "x y z");
    let [(key, _)] = bench.asked().located.try_into().unwrap();
    bench.core.located(key, Ok(Slot { node: BASE, attempt: 1 }), bench.now);
    bench.wait(0);
    let asked = bench.store_objects();
    assert_eq!(asked.staged.len(), 3, "each row is alone");
    let [(_, id, job)] = bench.asked().jobs.try_into().unwrap();
    assert_eq!(job.rows, 1);
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: job.end }), bench.now);
    bench.wait(0);
    let [(_, id, job)] = bench.asked().jobs.try_into().unwrap();
    assert_eq!(job.rows, 2);
    bench.core.loaded((key, id), Ok(refused()), bench.now);
    bench.core.drop_lanes(&[next]);
    assert_eq!((bench.core.memory_bytes(), bench.core.is_idle()), (0, true));
}

#[test]
fn a_drain_waits_for_a_job_but_not_for_what_no_job_brings() {
    let mut bench = loading("x");
    let (key, id, _) = first_job(&mut bench);
    bench.take(1, "y");
    bench.core.drain(&[LANE]);
    bench.store_objects();
    assert!(!bench.core.is_drained(LANE));
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: 1 }), bench.now);
    assert!(bench.core.is_drained(LANE) && bench.mark() == 1);
    bench.core.drop_lanes(&[LANE]);
    let discarded = bench.asked().discarded;
    assert_eq!(discarded.last(), Some(&(vec!["y;".to_owned()], None)));
    assert_eq!((bench.core.memory_bytes(), bench.core.is_idle()), (0, true));
}

#[test]
fn a_lane_that_is_gone_leaves_its_job_and_its_objects_alone() {
    let mut bench = loading("x");
    let (key, id, _) = first_job(&mut bench);
    bench.take(1, "y");
    bench.core.drop_lanes(&[LANE]);
    assert_eq!(bench.store_objects().discarded, []);
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: 1 }), bench.now);
    assert_eq!(bench.asked().discarded, []);
    assert_eq!((bench.core.memory_bytes(), bench.core.is_idle()), (0, true));
}

#[test]
fn a_switch_to_streaming_neither_waits_for_the_job_nor_repeats_a_row() {
    let mut bench = loading("x");
    bench.loads.set(Some(false));
    bench.take(1, "u v y");
    bench.wait(10);
    let [Action::Write(write), Action::Stage(stage)] = &bench.actions()[..] else { panic!() };
    bench.core.staged(stage.id, Ok("x;".to_owned()), bench.now);
    // A row of the slot that is on its way another way must have arrived before the job exists.
    assert_eq!(bench.asked().jobs, []);
    bench.core.written(write.id, WriteOutcome::Acked, bench.now);
    let [(key, id, job)] = bench.asked().jobs.try_into().unwrap();
    assert_eq!((job.end, job.rows), (4, 1));
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: 4 }), bench.now);
    assert_eq!((bench.mark(), bench.core.memory_bytes()), (4, 0));
}

#[test]
fn rows_are_streamed_only_once_it_is_known_which_of_them_jobs_have_brought() {
    let mut bench = bench(1 << 20, 9);
    bench.loads.set(Some(false));
    bench.take(0, "x y z");
    let [(key, from)] = bench.asked().located.try_into().unwrap();
    bench.core.located(key, Ok(Slot { node: 2, ..from }), bench.now);
    bench.take(3, "u");
    bench.wait(1);
    let [Action::Write(write)] = &bench.actions()[..] else { panic!() };
    assert_eq!(&write.body[..], b"[z,u]");
    bench.core.written(write.id, WriteOutcome::Acked, bench.now);
    assert_eq!((bench.mark(), bench.core.memory_bytes(), bench.core.is_idle()), (4, 0, true));
}

#[test]
fn the_last_job_before_rows_are_streamed_does_not_wait_for_its_time() {
    let mut bench = loading("x");
    bench.loads.set(Some(false));
    bench.core.switched(TableIx(0), false, bench.now);
    bench.wait(0);
    bench.store_objects();
    let [(key, id, job)] = bench.asked().jobs.try_into().unwrap();
    assert_eq!((job.end, job.rows), (1, 1));
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: 1 }), bench.now);
    // Soon after a job it does: jobs are few.
    bench.loads.set(Some(true));
    bench.core.switched(TableIx(0), true, bench.now);
    bench.take(1, "y");
    bench.loads.set(Some(false));
    bench.core.switched(TableIx(0), false, bench.now);
    bench.wait(59);
    assert_eq!(bench.store_objects().jobs, []);
    bench.wait(1);
    bench.store_objects();
    assert_eq!(bench.asked().jobs.len(), 1);
}

#[test]
fn rows_that_streaming_has_refused_are_staged_and_those_of_which_nobody_knows_are_not() {
    let quota = || Fault::refused(FaultKind::QuotaExceeded, "quotaExceeded", "m");
    for (first, is_moved) in [(quota(), true), (transient(), false)] {
        let mut bench = streaming("x y");
        bench.wait(1);
        let [Action::Write(write)] = &bench.actions()[..] else { panic!() };
        let outcome = match is_moved {
            true => WriteOutcome::Refused(first),
            false => WriteOutcome::Unknown(first),
        };
        bench.core.written(write.id, outcome, bench.now);
        bench.loads.set(Some(true));
        bench.core.switched(TableIx(0), true, bench.now);
        bench.wait(10);
        if is_moved {
            assert_eq!(bench.store_objects().staged[0].1, "x;y;");
            let [(key, id, job)] = bench.asked().jobs.try_into().unwrap();
            assert_eq!((job.end, job.rows), (2, 2));
            bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: 2 }), bench.now);
        } else {
            let [Action::Write(again)] = &bench.actions()[..] else { panic!() };
            assert_eq!(&again.body[..], b"[x,y]");
            bench.core.written(again.id, WriteOutcome::Acked, bench.now);
        }
        assert_eq!((bench.mark(), bench.core.memory_bytes()), (2, 0));
    }
}

#[test]
fn rows_that_an_earlier_attempt_may_have_stored_are_only_streamed_again() {
    for is_doubtful in [false, true] {
        let mut bench = streaming("x y");
        bench.wait(1);
        let [Action::Write(write)] = &bench.actions()[..] else { panic!() };
        let outcome = WriteOutcome::Partial { rejected: vec![], unsent: vec![0, 1], is_doubtful };
        bench.core.written(write.id, outcome, bench.now);
        bench.loads.set(Some(true));
        bench.core.switched(TableIx(0), true, bench.now);
        bench.wait(10);
        match &bench.actions()[..] {
            [Action::Write(again)] => {
                assert!(is_doubtful);
                assert_eq!(&again.body[..], b"[x,y]");
            }
            [Action::Stage(stage)] => {
                assert!(!is_doubtful);
                assert_eq!(lines(&stage.content), "x;y;");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_row_that_came_back_from_streaming_is_loaded_before_its_lane_is_given_up() {
    let mut bench = streaming("x y");
    bench.wait(1);
    let [Action::Write(write)] = &bench.actions()[..] else { panic!() };
    let (rejected, unsent, is_doubtful) = (vec![], vec![1], false);
    let outcome = WriteOutcome::Partial { rejected, unsent, is_doubtful };
    bench.core.written(write.id, outcome, bench.now);
    bench.loads.set(Some(true));
    bench.core.switched(TableIx(0), true, bench.now);
    bench.wait(5);
    bench.core.drain(&[LANE]);
    bench.wait(0);
    assert_eq!(bench.store_objects().staged[0].1, "y;");
    // The one before it is stored, and is committed only with it.
    assert_eq!(bench.mark(), 0);
    let [(key, id, job)] = bench.asked().jobs.try_into().unwrap();
    assert!(!bench.core.is_drained(LANE));
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: job.end }), bench.now);
    assert!(bench.core.is_drained(LANE));
    assert_eq!((bench.mark(), bench.core.memory_bytes()), (2, 0));
}

#[test]
fn a_row_for_a_partition_that_streaming_does_not_reach_is_loaded() {
    let mut bench = streaming("past y");
    bench.wait(1);
    let [Action::Write(write)] = &bench.actions()[..] else { panic!() };
    let fault = Fault::refused(FaultKind::PartitionOutOfRange, "invalid", "m");
    let rejected = vec![RowFault { row: 0, fault, field: None, taken_for: None }];
    let outcome = WriteOutcome::Partial { rejected, unsent: Vec::new(), is_doubtful: false };
    bench.core.written(write.id, outcome, bench.now);
    assert_eq!(bench.asked().letters, []);
    // A row behind it is streamed already, so it is loaded before the lane is given up.
    bench.core.drain(&[LANE]);
    bench.wait(0);
    assert_eq!(bench.store_objects().staged[0].1, "past;");
    let [(key, id, job)] = bench.asked().jobs.try_into().unwrap();
    assert!(!bench.core.is_drained(LANE));
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: job.end }), bench.now);
    assert!(bench.core.is_drained(LANE));
    assert_eq!((bench.mark(), bench.core.memory_bytes()), (2, 0));
}

#[test]
fn a_row_that_waits_beside_a_doubtful_one_is_streamed_only_once_its_chain_is_known() {
    const OTHER: LaneSlot = LaneSlot(2);
    let mut bench = bench(1 << 20, 9);
    bench.loads.set(Some(false));
    bench.ready.set(true);
    bench.take(0, "w1");
    let [(key, from)] = bench.asked().located.try_into().unwrap();
    bench.core.located(key, Ok(from), bench.now);
    bench.wait(1);
    let [Action::Write(write)] = &bench.actions()[..] else { panic!() };
    let rejected = vec![row_fault(0, FaultKind::SchemaMismatch)];
    let (unsent, is_doubtful) = (vec![], true);
    let outcome = WriteOutcome::Partial { rejected, unsent, is_doubtful };
    bench.core.written(write.id, outcome, bench.now);
    // Both wait for the same thing now.
    bench.ready.set(false);
    bench.core.prepared(NeedId(9), Ok(()), bench.now);
    bench.core.assign(OTHER, TopicPartition::new("t", 1), 1, 0);
    bench.take_of(OTHER, 0, "w2");
    bench.actions();
    bench.ready.set(true);
    bench.core.prepared(NeedId(7), Ok(()), bench.now);
    let written = bench.actions().into_iter().filter_map(|action| match action {
        Action::Write(write) => Some(write.body),
        _ => None,
    });
    assert_eq!(written.collect::<Vec<_>>(), ["[w1]"]);
}
