//! Rows that wait for their job in memory, because there is no bucket.

use super::load::{lines, loading};
use crate::{delivery::core::flow::STALL, write::load::run::JobEnd};

/// The rows that go with a job.
fn with_job(job: &crate::write::load::job::LoadJob) -> String {
    job.rows_here.iter().map(lines).collect()
}

#[test]
fn rows_go_with_their_job_and_are_kept_until_it_is_done() {
    let mut bench = loading("");
    bench.keeps.set(true);
    bench.take(0, "x");
    let [(key, from)] = bench.asked().located.try_into().unwrap();
    bench.core.located(key, Ok(from), bench.now);
    bench.take(1, "y z");
    bench.wait(10);
    let asked = bench.asked();
    assert_eq!(asked.staged, [], "there is nowhere to stage them");
    let [(key, id, job)] = asked.jobs.try_into().unwrap();
    assert_eq!((with_job(&job).as_str(), job.rows, job.end), ("x;y;z;", 3, 3));
    assert_eq!(job.sources, [""; 0]);
    assert!(job.document(None)["configuration"]["load"].get("sourceUris").is_none());
    let held = bench.core.memory_bytes();
    assert!(held >= "x;y;z;".len(), "{held}");
    // The same rows, if the answer was lost.
    bench.core.loaded((key, id), Err(super::load::transient()), bench.now);
    bench.wait(60);
    let [(key, id, again)] = bench.asked().jobs.try_into().unwrap();
    assert_eq!((&again.id, &again.rows_here), (&job.id, &job.rows_here));
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: 3 }), bench.now);
    assert_eq!((bench.mark(), bench.asked().discarded.len()), (3, 0));
    drop((job, again));
    assert_eq!((bench.core.memory_bytes(), bench.core.is_idle()), (0, true));
}

#[test]
fn a_job_comes_as_soon_as_the_quotas_allow_where_its_rows_take_the_memory() {
    const MEMORY: usize = 1 << 20;
    let mut bench = loading("");
    bench.keeps.set(true);
    bench.take(0, "x");
    let [(key, from)] = bench.asked().located.try_into().unwrap();
    bench.core.located(key, Ok(from), bench.now);
    let large = "p".repeat(MEMORY / 5);
    bench.take(1, &format!("{large} {large} {large}"));
    assert!(bench.is_holding() || bench.is_stopped(), "{}", bench.core.memory_bytes());
    assert_eq!(bench.asked().jobs.len(), 0, "it is not due for ten seconds");
    bench.now += STALL;
    bench.core.tick(bench.now);
    bench.wait(0);
    let [(_, _, job)] = bench.asked().jobs.try_into().unwrap();
    assert_eq!(job.rows, 4);
}
