//! `kcbq check`: every mistake at once, and every remote.

use crate::cli_commands::{Simulator, file, kcbq, stdout};

#[test]
fn every_mistake_in_the_file_is_one_line_with_its_remedy() {
    let config = file(
        "kafka: {bootstrap_servers: 'localhost:1', group_id: g, propertys: {}}\n\
         bigquery: {project: p, dataset: d}\n\
         admin: {listen: '0.0.0.0:1', tokn: canary-canary-canary}\n\
         topics: [{match: a, value_format: jsn}]\n",
    );
    let output = kcbq(&["check", "--config", config.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    for wanted in [
        "line 1: kafka.propertys: is not a key – did you mean `properties`?",
        "line 3: admin.tokn: is not a key – did you mean `token`?",
        "line 4: topics[0].value_format: `jsn` is not one of the choices – did you mean `json`?",
        "3 problems found",
    ] {
        assert!(text.contains(wanted), "{wanted}\nnot in\n{text}");
    }
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn one_remote_that_is_down_does_not_hide_the_others() {
    let simulator = Simulator::start();
    let config = file(&format!(
        "kafka: {{bootstrap_servers: '127.0.0.1:1', group_id: g}}\n\
         schema_registry: {{url: '{}'}}\n\
         bigquery: {{project: p, dataset: raw, endpoint: '{}'}}\n\
         gcs: {{bucket: staging, endpoint: '{}'}}\n\
         topics: [{{match: a, value_format: avro}}]\n",
        simulator.registry, simulator.rest, simulator.gcs
    ));
    let output = kcbq(&["check", "--config", config.path().to_str().unwrap()]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for wanted in [
        "PROBLEM  kafka     ",
        "ok       registry  the schema registry answers",
        "ok       bucket    `staging` is there; objects may be listed",
        "ok       bucket    objects may be written and deleted below `kcbq/`",
        "ok       dataset   `raw` is missing and will be created",
        "1 problem found",
    ] {
        assert!(text.contains(wanted), "{wanted}\nnot in\n{text}");
    }
}
