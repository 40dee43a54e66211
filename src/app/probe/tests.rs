//! The probes over the simulator in memory: what is as assumed, and that verdicts can be others.

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::*;
use crate::{
    rest::RestRequest,
    sim::{
        FaultScript, SimRest, SimSettings, Simulator, memory::SimRpc, settings::StorageSettings,
    },
};

const LIMIT: Duration = Duration::from_secs(300);

struct Bench {
    simulator: Simulator,
    remotes: Arc<Remotes>,
}

impl Bench {
    fn new(settings: SimSettings, location: Option<&str>) -> Self {
        let began = tokio::time::Instant::now();
        let clock = move || Duration::from_secs(1_767_225_600) + began.elapsed();
        let simulator = Simulator::new(settings, Arc::new(clock));
        let remotes = Remotes {
            rest: Ok(Arc::new(SimRest(simulator.clone()))),
            rpc: Ok(Arc::new(SimRpc(simulator.clone()))),
            project: "p".into(),
            dataset: "d".into(),
            location: location.map(str::to_owned),
            began: Duration::from_secs(1),
        };
        Self { simulator, remotes: Arc::new(remotes) }
    }

    async fn with_dataset(settings: SimSettings, location: &str) -> Self {
        let bench = Self::new(settings, None);
        let body = json!({"datasetReference": {"datasetId": "d"}, "location": location});
        let request = RestRequest {
            method: Method::POST,
            path: "/bigquery/v2/projects/p/datasets".to_owned(),
            headers: HeaderMap::new(),
            body: body.to_string().into(),
        };
        let made = bench.remotes.rest.as_ref().unwrap().call(request).await.unwrap();
        assert_eq!(made.status, 200);
        bench
    }

    fn faults(&self, rules: Value) {
        let script: FaultScript = serde_json::from_value(json!({ "rules": rules })).unwrap();
        self.simulator.with_core(|core, _| core.set_faults(script));
    }

    async fn run(&self) -> Transcript {
        let (entries, left) = bigquery(&self.remotes, LIMIT, &CancellationToken::new()).await;
        Transcript { head: Vec::new(), entries, left }
    }

    fn tables(&self) -> usize {
        self.simulator.with_core(|core, _| core.bigquery().tables().count())
    }
}

/// The verdicts that are not as assumed, by their probes' names.
fn others(transcript: &Transcript) -> Vec<(&str, String)> {
    let others = transcript.entries.iter().filter(|entry| entry.verdict != Verdict::AsAssumed);
    others.map(|entry| (entry.question.name, entry.verdict.to_string())).collect()
}

fn verdict(transcript: &Transcript, name: &str) -> String {
    let mut entries = transcript.entries.iter();
    entries.find(|entry| entry.question.name == name).unwrap().verdict.to_string()
}

#[tokio::test(start_paused = true)]
async fn the_simulator_does_what_is_assumed_and_nothing_is_left_in_it() {
    for location in ["US", "EU"] {
        let bench = Bench::with_dataset(SimSettings::default(), location).await;
        let transcript = bench.run().await;
        let others = others(&transcript);
        assert!(
            matches!(&others[..], [("time-to-live", why)] if why.starts_with("not seen: ")),
            "{others:?}"
        );
        assert_eq!((transcript.exit_code(), bench.tables()), (0, 0), "{}", transcript.markdown());
        assert_eq!(transcript.left, [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_transcript_has_what_was_asked_and_answered() {
    let bench = Bench::with_dataset(SimSettings::default(), "US").await;
    let text = bench.run().await.markdown();
    for wanted in [
        "`POST /bigquery/v2/projects/p/datasets/d/tables kcbq_probe_1_finalize`<br>→ 200, location US (",
        " 3 rows at offset 0, with descriptor`<br>→ OK, offset 0 (",
        " 2 rows at offset 3`<br>→ OK, offset 3 (",
        "→ OK, row_count 5 (",
        "→ INVALID_ARGUMENT STREAM_FINALIZED: Stream is finalized.",
        ", and more without waiting`<br>→ ",
        " OK, then INVALID_ARGUMENT STREAM_FINALIZED: ",
        "→ OK, no commit_time, STREAM_ALREADY_COMMITTED: ",
        "to 1`<br>→ ALREADY_EXISTS OFFSET_ALREADY_EXISTS: The offset 1 has been flushed already.",
        "`POST /upload/bigquery/v2/projects/p/jobs kcbq_probe_1_twins in EU`<br>→ 200 (",
        "`PUT /upload/bigquery/v2/projects/p/jobs`<br>→ 409 duplicate: ",
        "→ 200, location US, state DONE, error invalid, message ",
        " (2)`<br>→ OK, updated_schema (",
        " (4, x), with descriptor`<br>→ OK (",
        " (7, DELETE, 0000000000000001/0000000000000003), with descriptor`<br>→ OK (",
        "→ 200, location US, rows 4 (",
    ] {
        assert!(text.contains(wanted), "{wanted}\nnot in\n{text}");
    }
    assert!(!text.contains("upload_id"));
}

#[tokio::test(start_paused = true)]
async fn a_bigquery_that_does_otherwise_is_told_from_one_that_is_away() {
    let storage = StorageSettings { deleted_kept_ms: 0, ..StorageSettings::default() };
    let bench = Bench::with_dataset(SimSettings { storage, ..SimSettings::default() }, "US").await;
    let refuse = |operation: &str, table: &str, nth: u64, status: u16| {
        json!({
            "operation": operation, "table": format!("kcbq_probe_1_{table}"), "nth": nth,
            "fault": {"kind": "refuse", "status": status, "reason": "scripted"},
        })
    };
    bench.faults(json!([
        refuse("FinalizeWriteStream", "finalize", 2, 400),
        refuse("FlushRows", "flush", 3, 400),
        refuse("CreateWriteStream", "commit", 1, 403),
        refuse("FlushRows", "late", 1, 503),
        {"operation": "jobs.run", "table": "kcbq_probe_1_twins", "fault": {"kind": "short", "rows": 1}},
    ]));
    let transcript = bench.run().await;
    for (name, wanted) in [
        ("finalize-twice", "DIFFERENT: the second call is refused: INVALID_ARGUMENT: scripted"),
        ("flush-again", "DIFFERENT: below the cursor: INVALID_ARGUMENT: scripted"),
        (
            "delete-is-remembered",
            "DIFFERENT: after UPSERT with sequence number 1 there are 1 rows, not 0",
        ),
        ("job-id-and-location", "DIFFERENT: the first job: has loaded Some(1) rows; "),
        ("commit-twice", "could not be run: PERMISSION_DENIED: scripted"),
        ("flush-after-finalize", "could not be run: UNAVAILABLE: scripted"),
    ] {
        let verdict = verdict(&transcript, name);
        assert!(verdict.starts_with(wanted), "{name}: {verdict}");
    }
    assert!(
        verdict(&transcript, "commit-twice")
            .ends_with("grant roles/bigquery.dataEditor on the dataset")
    );
    assert_eq!(others(&transcript).len(), 7, "the others go on");
    assert_eq!((transcript.exit_code(), bench.tables()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn every_other_verdict_can_be_different_too() {
    let bench = Bench::with_dataset(SimSettings::default(), "US").await;
    let rule = |operation: &str, table: &str, nth: u64, kind: &str, status: u16| {
        json!({
            "operation": operation, "table": format!("kcbq_probe_1_{table}"), "nth": nth,
            "fault": {"kind": kind, "status": status, "reason": "scripted"},
        })
    };
    bench.faults(json!([
        rule("AppendRows", "race", 1, "fail_after", 400),
        rule("BatchCommitWriteStreams", "commit", 2, "refuse", 400),
        rule("FlushRows", "late", 2, "refuse", 409),
        rule("jobs.insert", "burned", 2, "refuse", 400),
        rule("AppendRows", "column", 2, "refuse", 400),
    ]));
    let transcript = bench.run().await;
    for (name, wanted) in [
        ("finalize-race", "DIFFERENT: round 1: row_count is 10, with rows that were refused"),
        ("commit-twice", "DIFFERENT: the second call is refused: INVALID_ARGUMENT: scripted"),
        ("flush-after-finalize", "DIFFERENT: the flush behind the end: ABORTED: scripted"),
        ("job-id-after-failure", "DIFFERENT: the id again: refused: invalid_request (scripted)"),
        ("old-descriptor", "DIFFERENT: on the open connection: INVALID_ARGUMENT: scripted"),
    ] {
        let verdict = verdict(&transcript, name);
        assert!(verdict.starts_with(wanted), "{name}: {verdict}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_is_found_again_in_a_region_that_the_configuration_does_not_name() {
    let bench = Bench::with_dataset(SimSettings::default(), "europe-west6").await;
    assert_eq!(verdict(&bench.run().await, "job-id-and-location"), "as assumed");
}

#[tokio::test(start_paused = true)]
async fn without_a_dataset_every_probe_says_what_to_do() {
    let transcript = Bench::new(SimSettings::default(), None).run().await;
    let others = others(&transcript);
    assert_eq!(others.len(), PROBES.len());
    for (name, verdict) in others {
        assert!(verdict.starts_with("could not be run: table_not_found"), "{name}: {verdict}");
        assert!(verdict.ends_with("create the dataset, or name another by --dataset"), "{verdict}");
    }
    assert_eq!(transcript.exit_code(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_was_just_made_may_be_unknown_for_a_while() {
    let bench = Bench::with_dataset(SimSettings::default(), "US").await;
    let missing = |operation: &str| {
        let fault = json!({"kind": "refuse", "status": 404});
        json!({"operation": operation, "nth": 1, "times": 3, "fault": fault})
    };
    bench.faults(json!([missing("CreateWriteStream"), missing("AppendRows")]));
    let lab = Lab::new(Arc::clone(&bench.remotes));
    let found = streams::stream_life(&lab).await.unwrap();
    assert!(matches!(found, Verdict::NotSeen(_)), "{found}");
    assert_eq!(change::tombstone(&lab).await, Ok(Verdict::AsAssumed));
}

#[tokio::test(start_paused = true)]
async fn a_new_column_is_waited_for_and_not_for_ever() {
    for (minutes, wanted) in
        [(2, "as assumed"), (20, "not seen: the new column is not known after 240 s")]
    {
        let settings = SimSettings { alter_delay_ms: minutes * 60_000, ..SimSettings::default() };
        let bench = Bench::with_dataset(settings, "US").await;
        let transcript = bench.run().await;
        let verdict = verdict(&transcript, "old-descriptor");
        assert!(verdict.starts_with(wanted), "{verdict}");
        assert!(
            transcript.markdown().contains("→ INVALID_ARGUMENT SCHEMA_MISMATCH_EXTRA_FIELDS: ")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_is_given_up_and_its_table_goes() {
    let bench = Bench::with_dataset(SimSettings::default(), "US").await;
    let hold = |operation: &str, table: &str| json!({"operation": operation, "table": table, "fault": {"kind": "hold"}});
    bench.faults(json!([
        hold("FlushRows", "kcbq_probe_1_flush"),
        hold("AppendRows", "kcbq_probe_1_count")
    ]));
    let transcript = bench.run().await;
    let flush = verdict(&transcript, "flush-again");
    assert!(flush.starts_with("could not be run: it is not at its end after 300 s"), "{flush}");
    let count = verdict(&transcript, "row-count-at-once");
    assert!(count.starts_with("could not be run: no answer within 30 s"), "{count}");
    assert_eq!((others(&transcript).len(), bench.tables()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_signal_ends_the_asking_and_not_the_cleaning() {
    let bench = Bench::with_dataset(SimSettings::default(), "US").await;
    bench.faults(json!([{"operation": "FinalizeWriteStream", "fault": {"kind": "hold"}}]));
    let stop = CancellationToken::new();
    let signal = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.cancel();
    };
    let ((entries, left), ()) = tokio::join!(bigquery(&bench.remotes, LIMIT, &stop), signal);
    let finalize = entries[0].verdict.to_string();
    assert_eq!(finalize, "could not be run: it was stopped by a signal – run it again");
    assert_eq!((left.len(), bench.tables()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_somebody_else_has_made_is_left_alone() {
    let bench = Bench::with_dataset(SimSettings::default(), "US").await;
    Lab::new(Arc::clone(&bench.remotes)).table("flush", json!({})).await.unwrap();
    let transcript = bench.run().await;
    let verdict = verdict(&transcript, "flush-again");
    assert!(verdict.starts_with("could not be run: already_exists (duplicate)"), "{verdict}");
    assert_eq!((transcript.left.len(), bench.tables()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_table_whose_creation_was_not_answered_is_deleted() {
    let bench = Bench::with_dataset(SimSettings::default(), "US").await;
    bench.faults(
        json!([{"operation": "tables.insert", "nth": 1, "times": 20, "fault": {"kind": "lose"}}]),
    );
    let transcript = bench.run().await;
    assert!(
        verdict(&transcript, "flush-again").starts_with("could not be run: transient (noAnswer)")
    );
    assert_eq!((transcript.exit_code(), transcript.left.len(), bench.tables()), (2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_is_no_verdict() {
    let bench = Bench::with_dataset(SimSettings::default(), "US").await;
    bench.faults(json!([
        {"operation": "AppendRows", "table": "kcbq_probe_1_race", "nth": 1, "fault": {"kind": "lose"}},
    ]));
    let verdict = verdict(&bench.run().await, "finalize-race");
    assert!(
        verdict.starts_with("could not be run: the connection to the simulator broke"),
        "{verdict}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_table_that_cannot_be_deleted_is_named() {
    let bench = Bench::with_dataset(SimSettings::default(), "US").await;
    bench.faults(json!([
        {"operation": "tables.delete", "table": "kcbq_probe_1_life", "fault": {"kind": "refuse", "status": 403}},
    ]));
    let transcript = bench.run().await;
    assert!(
        transcript.left[0].starts_with("p.d.kcbq_probe_1_life, for a day: "),
        "{:?}",
        transcript.left
    );
    assert!(transcript.summary().contains("left behind: p.d.kcbq_probe_1_life"));
}
