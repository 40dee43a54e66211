use super::{
    load::{first_job, loading, transient},
    *,
};
use crate::write::load::run::JobEnd;

#[test]
fn a_failed_job_commits_nothing_and_none_of_its_objects_is_deleted() {
    for kind in [FaultKind::Transient, FaultKind::QuotaExceeded, FaultKind::PermissionDenied] {
        let mut bench = loading("x y");
        let (key, id, job) = first_job(&mut bench);
        let failed = JobEnd::Failed(Fault::refused(kind, "r", "m"));
        bench.core.loaded((key, id), Ok(failed), bench.now);
        assert_eq!((bench.mark(), bench.core.progress()), (0, vec![]));
        let asked = bench.asked();
        assert_eq!((asked.discarded, asked.restarts, asked.letters), (vec![], 0, vec![]));
        bench.wait(120);
        let [(_, id, again)] = bench.asked().jobs.try_into().unwrap();
        assert_eq!((&again.sources, again.rows), (&job.sources, 2), "{kind:?}");
        bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: 2 }), bench.now);
        assert_eq!((bench.mark(), bench.asked().discarded), (2, vec![(job.sources, Some(2))]));
    }
}

#[test]
fn a_job_that_nobody_knows_the_end_of_commits_nothing_and_keeps_its_objects() {
    let mut bench = loading("x y");
    let (key, id, job) = first_job(&mut bench);
    // Its rows in the table are not those that were staged.
    let fault = Fault::refused(FaultKind::InvalidRequest, "outputRows", "m");
    bench.core.loaded((key, id), Err(fault), bench.now);
    for _ in 0..5 {
        bench.wait(60);
        let asked = bench.asked();
        assert_eq!((asked.discarded, asked.restarts, asked.letters), (vec![], 0, vec![]));
        let [(_, id, same)] = asked.jobs.try_into().unwrap();
        assert_eq!((bench.mark(), &same), (0, &job));
        bench.core.loaded((key, id), Err(transient()), bench.now);
    }
}

#[test]
fn rows_that_could_not_be_stored_as_an_object_are_stored_again_before_any_job() {
    let mut bench = loading("x y");
    bench.wait(10);
    let [(id, rows)] = bench.asked().staged.try_into().unwrap();
    let denied = Fault::refused(FaultKind::PermissionDenied, "forbidden", "m");
    for fault in [transient(), denied] {
        bench.core.staged(id, Err(fault), bench.now);
        assert_eq!((bench.mark(), bench.asked().jobs), (0, vec![]));
        bench.wait(60);
        let asked = bench.asked();
        assert_eq!((asked.jobs, asked.letters), (vec![], vec![]));
        assert_eq!(asked.staged, [(id, rows.clone())], "the same object");
    }
    bench.core.staged(id, Ok(rows.clone()), bench.now);
    let [(key, id, job)] = bench.asked().jobs.try_into().unwrap();
    assert_eq!((job.end, &job.sources[..]), (2, &[rows][..]));
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: 2 }), bench.now);
    assert_eq!((bench.mark(), bench.core.memory_bytes()), (2, 0));
}

#[test]
fn rows_whose_job_found_another_table_are_read_again_and_encoded_for_it() {
    for kind in [FaultKind::SchemaMismatch, FaultKind::TableNotFound] {
        let mut bench = loading("x y");
        let (key, id, job) = first_job(&mut bench);
        let failed = JobEnd::Failed(Fault::refused(kind, "r", "m"));
        bench.core.loaded((key, id), Ok(failed), bench.now);
        let (mut restarts, mut prepared) = (0, 0);
        for action in bench.actions() {
            match action {
                Action::Prepare(need) => {
                    assert_eq!(need, NeedId(9));
                    prepared += 1;
                }
                Action::Restart(lane) => {
                    assert_eq!(lane, LANE);
                    restarts += 1;
                }
                // No job that could still succeed reads them.
                Action::Discard(_, uris, None) => assert_eq!(uris, job.sources),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((restarts, prepared, bench.mark()), (1, 1, 0));
        bench.core.drop_lanes(&[LANE]);
        let again = LaneSlot(2);
        bench.core.assign(again, TopicPartition::new("t", 0), 2, 0);
        bench.take_of(again, 0, "x y");
        let [(key, from)] = bench.asked().located.try_into().unwrap();
        bench.core.located(key, Ok(from.again()), bench.now);
        let (_, id, job) = first_job(&mut bench);
        assert!(job.id.ends_with("-0-0-a1") && job.sources == ["x;y;"], "{job:?}");
        bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: 2 }), bench.now);
        assert_eq!(bench.core.progress_of(again).unwrap().offset, 2);
    }
}
