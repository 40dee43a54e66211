//! Over the simulator, in memory and in paused time.

use serde_json::json;

use super::*;
use crate::{
    sim::{SimSettings, memory::SimRpc},
    write::{
        load::job::{LoadFormat, SeriesIx},
        storage::{
            bench::{Simulated, columns, rows, table},
            descriptor::writer_schema,
            settings::REQUEST_BYTES_HARD_MAX,
        },
    },
};

struct Bench {
    sim: Simulated,
    streams: PendingStreams,
    series: Series,
}

async fn bench() -> Bench {
    let sim = Simulated::new(SimSettings::default());
    sim.create(&["a"]).await;
    let rpc = Arc::new(SimRpc(sim.simulator.clone()));
    let settings = StorageSettings { timeout_ms: 10_000, ..StorageSettings::default() };
    Bench { sim, streams: PendingStreams::new(rpc, &settings), series: Series::default() }
}

impl Bench {
    async fn append(&self, number: u64, numbers: &[i64]) -> Result<String, WriteOutcome> {
        let append = Append {
            number,
            table: table("a"),
            schema: writer_schema(&columns()),
            body: rows(numbers),
            rows: numbers.len() as u32,
        };
        self.streams.append(&self.series, append).await
    }

    async fn commit(&self, rows: u64, streams: &[&String]) -> Result<JobEnd, Fault> {
        let job = LoadJob {
            id: "c".to_owned(),
            table: table("a"),
            sources: streams.iter().map(|name| (*name).clone()).collect(),
            rows_here: Vec::new(),
            format: LoadFormat::Pending(SeriesIx(0)),
            end: 7,
            rows,
        };
        self.streams.commit(&job).await
    }

    fn fail(&self, operation: &str, nth: u64, fault: serde_json::Value) {
        self.sim.faults(json!([{"operation": operation, "nth": nth, "fault": fault}]));
    }

    fn stored(&self) -> Vec<i64> {
        self.sim.stored("a")
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, WriteOutcome>) -> Fault {
    let Err(WriteOutcome::Refused(fault)) = result else { panic!("{result:?}") };
    fault
}

#[tokio::test(start_paused = true)]
async fn rows_are_visible_once_their_stream_is_committed_and_all_at_once() {
    let bench = bench().await;
    let name = bench.append(1, &[1, 2]).await.unwrap();
    assert_eq!(bench.append(2, &[3]).await.unwrap(), name, "one stream");
    assert_eq!(bench.stored(), [0; 0]);
    let end = bench.commit(3, &[&name]).await.unwrap();
    assert!(matches!(end, JobEnd::Loaded { end: 7 }), "{end:?}");
    assert_eq!(bench.stored(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_was_not_answered_is_stored_once_all_the_same() {
    let bench = bench().await;
    let first = bench.append(1, &[1]).await.unwrap();
    bench.fail("AppendRows", 1, json!({"kind": "lose"}));
    let fault = refusal(bench.append(2, &[2]).await);
    assert_eq!((fault.kind, &*fault.reason), (FaultKind::Transient, "noAnswer"));
    // Another one comes first, and finds the stream ended.
    let other = bench.append(3, &[3]).await.unwrap();
    assert_eq!(bench.append(2, &[2]).await.unwrap(), first, "it was there");
    assert_ne!(other, first);
    bench.commit(3, &[&first, &other]).await.unwrap();
    assert_eq!(bench.stored(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_arrives_after_its_time_is_not_stored() {
    let bench = bench().await;
    let first = bench.append(1, &[1]).await.unwrap();
    bench.fail("AppendRows", 1, json!({"kind": "hold", "ms": 60_000}));
    refusal(bench.append(2, &[2]).await);
    let other = bench.append(2, &[2]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    bench.commit(2, &[&first, &other]).await.unwrap();
    assert_eq!(bench.stored(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_doubt_lasts_until_the_stream_has_said_what_it_has() {
    let bench = bench().await;
    let lose = json!({"kind": "lose"});
    let denied = json!({"kind": "refuse", "status": 403, "message": "no"});
    bench.sim.faults(json!([
        {"operation": "AppendRows", "nth": 1, "fault": lose},
        {"operation": "FinalizeWriteStream", "nth": 1, "fault": lose},
        {"operation": "FinalizeWriteStream", "nth": 1, "fault": denied},
    ]));
    refusal(bench.append(1, &[1]).await);
    refusal(bench.append(1, &[1]).await);
    assert_eq!(refusal(bench.append(1, &[1]).await).kind, FaultKind::PermissionDenied);
    let name = bench.append(1, &[1]).await.unwrap();
    bench.commit(1, &[&name]).await.unwrap();
    assert_eq!(bench.stored(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_was_lost_is_made_once() {
    let bench = bench().await;
    let name = bench.append(1, &[1]).await.unwrap();
    bench.fail("BatchCommitWriteStreams", 1, json!({"kind": "lose"}));
    let fault = bench.commit(1, &[&name]).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Transient);
    let end = bench.commit(1, &[&name]).await.unwrap();
    assert!(matches!(end, JobEnd::Loaded { .. }), "{end:?}");
    assert_eq!(bench.stored(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_cannot_be_ended_again_because_it_is_committed_is_done() {
    let bench = bench().await;
    let name = bench.append(1, &[1]).await.unwrap();
    let refused = json!({"kind": "refuse", "status": 400, "message": "it is committed"});
    bench.fail("FinalizeWriteStream", 1, refused.clone());
    let fault = bench.commit(1, &[&name]).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Transient, "it is not committed");
    bench.commit(1, &[&name]).await.unwrap();
    bench.fail("FinalizeWriteStream", 1, refused);
    let end = bench.commit(1, &[&name]).await.unwrap();
    assert!(matches!(end, JobEnd::Loaded { .. }), "{end:?}");
    assert_eq!(bench.stored(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_bad_row_is_named_and_the_stream_goes_on_without_its_request() {
    let bench = bench().await;
    let name = bench.append(1, &[1]).await.unwrap();
    let outcome = bench.append(2, &[2, -1]).await.unwrap_err();
    let WriteOutcome::Partial { rejected, unsent, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((rejected[0].row, unsent), (1, vec![0]));
    assert_eq!(bench.append(3, &[2]).await.unwrap(), name);
    bench.commit(2, &[&name]).await.unwrap();
    assert_eq!(bench.stored(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn streams_that_have_other_rows_or_are_gone_are_not_committed() {
    let bench = bench().await;
    let name = bench.append(1, &[1, 2]).await.unwrap();
    let end = bench.commit(1, &[&name]).await.unwrap();
    let JobEnd::Failed(fault) = end else { panic!("{end:?}") };
    assert_eq!(fault.reason, "rowCount");
    let gone = format!("{name}gone");
    let end = bench.commit(2, &[&name, &gone]).await.unwrap();
    let JobEnd::Failed(fault) = end else { panic!("{end:?}") };
    assert_eq!(fault.reason, "STREAM_NOT_FOUND");
    assert_eq!(bench.stored(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_request_beyond_bigquerys_limit_makes_no_stream() {
    let bench = bench().await;
    let append = Append {
        number: 1,
        table: table("a"),
        schema: Bytes::new(),
        body: vec![0; REQUEST_BYTES_HARD_MAX].into(),
        rows: 1,
    };
    let fault = refusal(bench.streams.append(&bench.series, append).await);
    assert_eq!(fault.kind, FaultKind::TooLarge);
}
