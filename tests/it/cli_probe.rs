//! `kcbq probe` against the simulator: every question over real sockets, and brokers that are not there.

use std::time::{Duration, Instant};

use http::Method;
use kcbq::rest::Rest as _;
use serde_json::json;

use crate::{
    cli_commands::{Simulator, file, kcbq, stdout},
    sim_contract::{HttpRest, json_request},
};

/// The brokers are given up after ten seconds; all else takes a moment.
const TIME_MAX: Duration = Duration::from_secs(60);

async fn create_dataset(simulator: &Simulator) {
    let body = json!({"datasetReference": {"datasetId": "raw"}, "location": "EU"});
    let request = json_request(Method::POST, "/bigquery/v2/projects/p/datasets", Some(&body));
    assert_eq!(HttpRest::new(&simulator.rest).call(request).await.unwrap().status, 200);
}

fn config(simulator: &Simulator) -> tempfile::NamedTempFile {
    file(&format!(
        "kafka:\n  bootstrap_servers: '127.0.0.1:1'\n  group_id: g\n  \
           security: {{allow_insecure: true, sasl: {{mechanism: plain, username: u, password: canary}}}}\n\
         bigquery: {{project: p, dataset: none, endpoint: '{}', storage_endpoint: '{}'}}\n\
         topics: [{{match: a, value_format: json}}]\n",
        simulator.rest, simulator.grpc
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_is_as_assumed_and_brokers_that_are_away_stop_nothing() {
    let simulator = Simulator::start();
    create_dataset(&simulator).await;
    let config = config(&simulator);
    let folder = tempfile::tempdir().unwrap();
    let transcript = folder.path().join("seen.md");
    let (config, output) = (config.path().to_str().unwrap(), transcript.to_str().unwrap());
    let began = Instant::now();
    let run = kcbq(&["probe", "--config", config, "--dataset", "raw", "--output", output]);
    assert!(began.elapsed() < TIME_MAX, "{:?}", began.elapsed());
    let (summary, text) = (stdout(&run), std::fs::read_to_string(&transcript).unwrap());
    assert_eq!(run.status.code(), Some(2), "{summary}");
    assert!(
        summary
            .contains("\n10 as assumed, 0 different, 1 not seen, 1 could not be run\ntranscript: "),
        "{summary}"
    );
    for wanted in [
        "| dataset | raw |",
        "| finalize-twice | as assumed |",
        "| offset-metadata | could not be run: Kafka does not answer which topics there are",
        "→ OK, row_count 5 (",
        " in EU`<br>→ 200 (",
    ] {
        assert!(text.contains(wanted), "{wanted}\nnot in\n{text}");
    }
    assert!(!(text + &summary).contains("canary"), "a secret is told");
}

#[test]
fn a_transcript_that_cannot_be_written_is_told_before_anything_is_asked() {
    let simulator = Simulator::start();
    let config = config(&simulator);
    let output = "/does-not-exist/seen.md";
    let run = kcbq(&["probe", "--config", config.path().to_str().unwrap(), "--output", output]);
    assert_eq!(run.status.code(), Some(1));
    let error = String::from_utf8(run.stderr).unwrap();
    assert!(error.starts_with("error: cannot write /does-not-exist/seen.md"), "{error}");
}
