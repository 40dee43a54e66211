use super::{load::first_job, *};
use crate::write::load::{
    chain::{BASE, Slot},
    run::JobEnd,
};

const A: LoadFormat = LoadFormat::Avro(SchemaIx(0));
const B: LoadFormat = LoadFormat::Avro(SchemaIx(1));

/// A lane whose rows might stand in containers of `A`, and whose chain ends where it begins.
fn containing(values: &str) -> Bench {
    let mut bench = bench(1 << 20, 9);
    bench.loads.set(Some(true));
    bench.format.set(A);
    bench.take(0, values);
    let [(key, from)] = bench.asked().located.try_into().unwrap();
    bench.core.located(key, Ok(from), bench.now);
    bench
}

#[test]
fn datums_are_staged_with_their_schema_and_another_schema_is_a_job_of_its_own() {
    let mut bench = containing("a x");
    bench.format.set(B);
    bench.take(2, "c");
    bench.wait(10);
    let staged = bench.store_objects().staged;
    let mut staged: Vec<&str> = staged.iter().map(|(_, rows)| rows.as_str()).collect();
    staged.sort_unstable();
    assert_eq!(staged, ["c;", "schema 0<a;x;>"]);
    let [(key, id, job)] = bench.asked().jobs.try_into().unwrap();
    assert_eq!((job.format, job.end, job.rows), (A, 2, 2));
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: 2 }), bench.now);
    bench.wait(60);
    let [(_, _, job)] = bench.asked().jobs.try_into().unwrap();
    assert_eq!((job.format, job.end, job.rows), (LoadFormat::NdjsonGz, 3, 1));
}

#[test]
fn rows_of_two_formats_among_each_other_are_read_again_as_lines() {
    let mut bench = containing("a w");
    bench.take(2, "c");
    // What waited before the first row is of another schema.
    bench.format.set(B);
    bench.ready.set(true);
    bench.core.prepared(NeedId(7), Ok(()), bench.now);
    bench.wait(10);
    bench.store_objects();
    let asked = bench.asked();
    assert_eq!((asked.jobs.len(), asked.restarts), (0, 1), "{asked:?}");
    let again = LaneSlot(2);
    bench.core.drop_lanes(&[LANE]);
    bench.core.assign(again, TopicPartition::new("t", 0), 2, 0);
    bench.format.set(A);
    bench.take_of(again, 0, "a w c");
    let [(key, from)] = bench.asked().located.try_into().unwrap();
    bench.core.located(key, Ok(from), bench.now);
    let (_, _, job) = first_job(&mut bench);
    assert_eq!((job.format, job.rows), (LoadFormat::NdjsonGz, 3));
}

#[test]
fn a_container_that_bigquery_does_not_take_comes_as_lines_before_any_row_is_to_blame() {
    let mut bench = containing("a x");
    let (key, id, job) = first_job(&mut bench);
    assert_eq!(job.format, A);
    let refused = Fault::refused(FaultKind::InvalidRequest, "invalid", "no such schema");
    bench.core.loaded((key, id), Ok(JobEnd::Failed(refused)), bench.now);
    let asked = bench.asked();
    assert_eq!((asked.restarts, asked.letters.len()), (1, 0));
    let again = LaneSlot(2);
    bench.core.drop_lanes(&[LANE]);
    bench.core.assign(again, TopicPartition::new("t", 0), 2, 0);
    bench.take_of(again, 0, "a x");
    let [(key, _)] = bench.asked().located.try_into().unwrap();
    bench.core.located(key, Ok(Slot { node: BASE, attempt: 1 }), bench.now);
    let (_, _, job) = first_job(&mut bench);
    assert_eq!((job.format, job.rows), (LoadFormat::NdjsonGz, 2));
}

#[test]
fn what_lies_behind_rows_that_were_let_go_is_no_job_of_this_owner() {
    let mut bench = containing("a");
    bench.format.set(B);
    bench.take(1, "x y");
    let (key, id, job) = first_job(&mut bench);
    assert_eq!((job.end, job.rows), (1, 1));
    // The next job is wanted already when this one is refused.
    bench.wait(60);
    bench.store_objects();
    let refused = Fault::refused(FaultKind::InvalidRequest, "invalid", "no such schema");
    bench.core.loaded((key, id), Ok(JobEnd::Failed(refused)), bench.now);
    bench.core.drain(&[LANE]);
    bench.wait(600);
    let asked = bench.asked();
    assert_eq!((asked.restarts, asked.jobs.len()), (1, 0), "{asked:?}");
    assert!(bench.core.is_drained(LANE));
}

#[test]
fn a_row_that_streaming_refuses_is_staged_as_the_plan_of_that_moment_has_it() {
    let mut bench = bench(1 << 20, 9);
    bench.loads.set(Some(false));
    bench.format.set(A);
    bench.take(0, "n");
    let [(key, from)] = bench.asked().located.try_into().unwrap();
    bench.core.located(key, Ok(from), bench.now);
    bench.wait(1);
    let [(id, _)] = bench.writes().try_into().unwrap();
    bench.ready.set(true);
    let rejected = vec![row_fault(0, FaultKind::PartitionOutOfRange)];
    let outcome = WriteOutcome::Partial { rejected, unsent: Vec::new(), is_doubtful: false };
    bench.core.written(id, outcome, bench.now);
    bench.wait(10);
    let [(_, rows)] = &bench.store_objects().staged[..] else { panic!() };
    assert_eq!(rows, "schema 2<n;>");
}
