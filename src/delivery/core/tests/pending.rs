//! Rows in PENDING streams, and the commits that bring them.

use super::*;
use crate::{
    delivery::action::LoadId,
    write::load::{
        job::{LoadJob, SeriesIx},
        run::JobEnd,
    },
};

#[derive(Debug, Default)]
struct Asked {
    appended: Vec<(BatchId, String)>,
    commits: Vec<(ChainKey, LoadId, LoadJob)>,
    letters: Vec<i64>,
    needs: Vec<NeedId>,
    restarts: usize,
}

fn pending() -> Bench {
    let bench = bench(1 << 20, 9);
    bench.loads.set(Some(true));
    bench.format.set(LoadFormat::Pending(SeriesIx::default()));
    bench
}

impl Bench {
    fn asks(&mut self) -> Asked {
        let mut asked = Asked::default();
        for action in self.actions() {
            match action {
                Action::Append { id, append, .. } => {
                    let rows = String::from_utf8(append.body.to_vec()).unwrap();
                    asked.appended.push((id, rows));
                }
                Action::Load { id, key, job } => asked.commits.push((key, id, job)),
                Action::DeadLetter { letter, .. } => asked.letters.push(letter.origin.offset),
                Action::Prepare(need) => asked.needs.push(need),
                Action::Restart(_) => asked.restarts += 1,
                other => panic!("{other:?}"),
            }
        }
        asked
    }

    fn append(&mut self, id: BatchId, stream: &str) {
        self.core.appended(id, Ok(stream.to_owned()), self.now);
    }

    /// Takes rows in and has their commit asked for, all of them in the stream `s`.
    fn committing(&mut self, values: &str) -> (ChainKey, LoadId, LoadJob) {
        self.take(0, values);
        self.wait(10);
        for (id, _) in self.asks().appended {
            self.append(id, "s");
        }
        let [commit] = self.asks().commits.try_into().unwrap();
        commit
    }
}

fn partial(rejected: Vec<RowFault>, unsent: Vec<u32>) -> Result<String, WriteOutcome> {
    Err(WriteOutcome::Partial { rejected, unsent, is_doubtful: false })
}

#[test]
fn rows_are_appended_without_looking_for_jobs_and_settled_by_their_commit() {
    let mut bench = pending();
    let (key, id, job) = bench.committing("x y z");
    assert_eq!((&job.sources[..], job.rows), (&["s".to_owned()][..], 3));
    assert_eq!(bench.mark(), 0, "appended is not stored");
    let end = JobEnd::Loaded { end: job.end };
    bench.core.loaded((key, id), Ok(end), bench.now);
    assert_eq!((bench.mark(), bench.core.memory_bytes()), (3, 0));
    assert!(bench.core.is_idle());
    assert!(bench.core.progress_of(LANE).unwrap().nodes.is_empty(), "it is no chain of jobs");
    // What comes below the end of a commit was not in it.
    bench.take(3, "x");
    bench.wait(60);
    assert_eq!(bench.asks().appended.len(), 1);
}

#[test]
fn a_commit_takes_its_own_series_and_waits_for_no_other_row() {
    let mut bench = pending();
    bench.take(0, "w x");
    bench.wait(10);
    let asked = bench.asks();
    assert_eq!(asked.needs, [NeedId(7)]);
    let [(first, _)] = asked.appended.try_into().unwrap();
    bench.take(2, "y");
    assert_eq!(bench.asks().commits.len(), 0, "an append of it is without an answer");
    bench.append(first, "s");
    let [(key, id, job)] = bench.asks().commits.try_into().unwrap();
    assert_eq!((job.rows, &job.sources[..]), (1, &["s".to_owned()][..]));
    // The record that waited lies below, and is none of those.
    bench.ready.set(true);
    bench.core.prepared(NeedId(7), Ok(()), bench.now);
    let end = JobEnd::Loaded { end: job.end };
    bench.core.loaded((key, id), Ok(end), bench.now);
    assert_eq!(bench.mark(), 0);
    bench.wait(60);
    let [(second, rows)] = bench.asks().appended.try_into().unwrap();
    assert_eq!(rows, "y;w;");
    bench.append(second, "t");
    let [(key, id, job)] = bench.asks().commits.try_into().unwrap();
    assert_eq!((job.rows, &job.sources[..]), (2, &["t".to_owned()][..]));
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: job.end }), bench.now);
    assert_eq!(bench.mark(), 3);
}

#[test]
fn rows_that_a_stream_refuses_leave_and_their_neighbours_are_appended_without_them() {
    let mut bench = pending();
    bench.take(0, "x y z");
    bench.wait(10);
    let [(id, _)] = bench.asks().appended.try_into().unwrap();
    let rejected =
        vec![row_fault(0, FaultKind::PartitionOutOfRange), row_fault(2, FaultKind::SchemaMismatch)];
    bench.core.appended(id, partial(rejected, vec![1]), bench.now);
    let asked = bench.asks();
    assert_eq!((asked.letters, asked.needs), (vec![0], vec![NeedId(9)]));
    let [(id, rows)] = asked.appended.try_into().unwrap();
    assert_eq!(rows, "y;");
    bench.append(id, "s");
    let [(_, _, job)] = bench.asks().commits.try_into().unwrap();
    assert_eq!(job.rows, 1);
    assert_eq!(bench.core.unloaded(LANE), 0, "the others are none of the next commit");
}

#[test]
fn an_append_that_failed_is_asked_for_again_by_the_same_number() {
    let mut bench = pending();
    bench.take(0, "x y");
    bench.wait(10);
    let [(id, rows)] = bench.asks().appended.try_into().unwrap();
    bench.core.appended(id, Err(refused(FaultKind::Transient)), bench.now);
    bench.wait(2);
    let [again] = bench.asks().appended.try_into().unwrap();
    assert_eq!(again, (id, rows));
    // A request that is refused as a whole is halved.
    bench.core.appended(id, Err(refused(FaultKind::InvalidRequest)), bench.now);
    let halves: Vec<String> = bench.asks().appended.into_iter().map(|(_, rows)| rows).collect();
    assert_eq!(halves, ["x;", "y;"]);
}

#[test]
fn a_commit_that_failed_has_its_rows_read_again_and_one_in_doubt_is_asked_for_again() {
    let mut bench = pending();
    let (key, id, job) = bench.committing("x y");
    let fault = Fault::unknown(FaultKind::Transient, "noAnswer", "");
    bench.core.loaded((key, id), Err(fault.clone()), bench.now);
    bench.wait(2);
    let [(key, id, again)] = bench.asks().commits.try_into().unwrap();
    assert_eq!(again, job);
    bench.core.loaded((key, id), Ok(JobEnd::Failed(fault)), bench.now);
    let asked = bench.asks();
    assert_eq!((asked.restarts, asked.commits.len(), bench.mark()), (1, 0, 0));
}

#[test]
fn a_lane_is_given_up_with_its_rows_committed() {
    let mut bench = pending();
    bench.take(0, "x y");
    bench.core.drain(&[LANE]);
    let [(id, _)] = bench.asks().appended.try_into().unwrap();
    bench.append(id, "s");
    let [(key, id, job)] = bench.asks().commits.try_into().unwrap();
    assert!(!bench.core.is_drained(LANE));
    bench.core.loaded((key, id), Ok(JobEnd::Loaded { end: job.end }), bench.now);
    assert_eq!((bench.core.is_drained(LANE), bench.mark()), (true, 2));
}

#[test]
fn a_lane_that_is_lost_leaves_its_rows_uncommitted() {
    let mut bench = pending();
    bench.take(0, "x y");
    bench.wait(10);
    let [(id, _)] = bench.asks().appended.try_into().unwrap();
    bench.core.drop_lanes(&[LANE]);
    bench.append(id, "s");
    assert_eq!((bench.asks().commits.len(), bench.core.memory_bytes()), (0, 0));
    assert!(bench.core.is_idle());
}
