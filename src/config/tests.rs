//! Whole configurations.

use std::{io, path::Path};

use super::*;

struct Fixed;

impl Sources for Fixed {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "PORT" => Some("9000".to_owned()),
            "PASSWORD" => Some("canary: [x".to_owned()),
            _ => None,
        }
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        match path.to_str() {
            Some("/run/token") => Ok("canary-0123456789\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

const HEAD: &str = "kafka: {bootstrap_servers: 'localhost:9092', group_id: g}\n\
                    bigquery: {project: acme, dataset: raw}\n";

fn settings(text: &str) -> Settings {
    parse(text, &Fixed).unwrap_or_else(|error| panic!("{error}"))
}

fn mistakes(text: &str) -> String {
    parse(text, &Fixed).unwrap_err().to_string()
}

#[test]
fn the_example_is_valid() {
    let settings = settings(EXAMPLE);
    assert_eq!(settings.kafka.bootstrap_servers, ["localhost:9092"]);
    let orders = settings.topic("shop.orders").unwrap();
    assert_eq!(&*orders.dataset, "raw");
    assert_eq!(&*settings.topic("clicks").unwrap().dataset, "web");
    assert!(settings.topic("kcbq.dead").is_none());
}

#[test]
fn the_configuration_of_the_issue_is_valid() {
    let text = r#"
kafka:
  bootstrap_servers: localhost:9092
  group_id: kcbq-shop
  properties: {}
schema_registry: {url: "http://localhost:8081"}
bigquery: {project: acme, dataset: raw, location: EU, endpoint: "http://localhost:9050"}
admin: {listen: "127.0.0.1:8080"}
topics:
  - match: "shop\\.(orders|payments)"
    value_format: avro
    key_format: string
    table: "{topic}"
    write: streaming
    dead_letter: kcbq.dead
"#;
    let settings = settings(text);
    assert!(settings.topic("shop.payments").is_some());
    assert!(settings.topic("shop.paymentsX").is_none());
}

#[test]
fn mistakes_of_every_section_are_told_at_once() {
    let text = "
kafka: {bootstrap_server: 'localhost:9092', group_id: g}
bigquery: {project: acme, dataset: 7}
admin: {listn: x}
topics:
  - {match: orders, value_format: avr, tabel: x}
  - {value_format: json}
";
    let found = mistakes(text);
    for wanted in [
        "line 2: kafka.bootstrap_server: is not a key – did you mean `bootstrap_servers`?",
        "line 3: bigquery.dataset: expected text, found a number – put it in quotes",
        "line 4: admin.listn: is not a key – did you mean `listen`?",
        "line 6: topics[0].value_format: `avr` is not one of the choices – did you mean `avro`?",
        "line 6: topics[0].tabel: is not a key – did you mean `table`?",
        "line 7: topics[1].match: is missing",
    ] {
        assert!(found.contains(wanted), "{wanted}\nnot in\n{found}");
    }
}

#[test]
fn what_one_key_cannot_tell_is_checked_too() {
    let text = format!(
        "{HEAD}admin: {{listen: '0.0.0.0:8080'}}
limits: {{bytes_in_flight: 1048576}}
topics:
  - {{match: a, value_format: avro}}
  - {{match: b, value_format: json, table: '{{record}}', null_value: dead_letter}}
  - {{match: a, value_format: json, table: '{{x}}', dead_letter: b}}
  - {{match: '(', value_format: json, layout: {{clustering: [a, b, c, d, e]}}}}
"
    );
    let found = mistakes(&text);
    for wanted in [
        "line 3: admin.listen: can be reached from outside",
        "limits.bytes_in_flight: is less than `kafka.record_bytes_max`",
        "line 6: topics[0].value_format: is avro, and there is neither",
        "topics[0].batch.bytes_max: is more than half",
        "topics[1].table: uses {record}",
        "topics[1].null_value: is dead_letter, and there is no `dead_letter` topic",
        "topics[2].match: is the same as topics[0].match",
        "topics[2].table: `{x}` is not a placeholder",
        "topics[2].dead_letter: is also a `match`",
        "topics[3].match: ",
        "topics[3].layout.clustering: has more than the four",
    ] {
        assert!(found.contains(wanted), "{wanted}\nnot in\n{found}");
    }
}

#[test]
fn a_record_of_the_largest_size_fits_into_what_may_be_decompressed() {
    let kafka =
        "kafka: {bootstrap_servers: 'k:9092', group_id: g, decompressed_bytes_max: 4194303}";
    let rest = "bigquery: {project: p, dataset: raw}\ntopics: [{match: a, value_format: json}]";
    let found = mistakes(&format!("{kafka}\n{rest}\n"));
    assert!(found.contains("kafka.decompressed_bytes_max: is less than"), "{found}");
}

#[test]
fn exactly_once_is_promised_only_where_it_is_kept() {
    let text = |topic: &str| {
        let head = format!("{HEAD}gcs: {{bucket: staging}}\n");
        format!("{head}topics: [{{match: a, value_format: json, delivery: {topic}}}]\n")
    };
    assert!(settings(&text("exactly_once, write: load")).topic("a").is_some());
    assert!(settings(&text("at_least_once, write: auto")).topic("a").is_some());
    for write in ["auto", "storage", "streaming", "pending"] {
        let found = mistakes(&text(&format!("exactly_once, write: {write}")));
        let wanted =
            "topics[0].delivery: is exactly_once, and only rows of load jobs are never there twice";
        assert!(found.contains(wanted) && found.contains("write `write: load`"), "{found}");
    }
}

#[test]
fn staged_objects_are_no_orphans_while_a_job_may_need_them() {
    let text = |age: &str, topic: &str| {
        let topic = format!("{{match: a, value_format: json, freshness: 2d, {topic}}}");
        format!("{HEAD}gcs: {{bucket: staging{age}}}\ntopics: [{topic}]\n")
    };
    let gcs = |text: &str| settings(text).gcs.unwrap().orphan_age.as_secs() / 3_600;
    assert_eq!(gcs(&text("", "write: load")), 168);
    assert_eq!(gcs(&text(", orphan_age: 72h", "write: auto")), 72);
    assert_eq!(gcs(&text(", orphan_age: 1d", "write: streaming")), 24);
    let found = mistakes(&text(", orphan_age: 71h", "write: auto"));
    assert!(found.contains("line 3: gcs.orphan_age: is less than 3days"), "{found}");
    let found = mistakes(&text(", orphan_age: 23h", "write: streaming"));
    assert!(found.contains("gcs.orphan_age: is less than 1day"), "{found}");
}

#[test]
fn secrets_arrive_and_are_never_shown() {
    let text = format!(
        "{HEAD}admin: {{listen: '0.0.0.0:${{PORT}}', token: '${{file:/run/token}}'}}
topics: [{{match: a, value_format: json}}]
"
    );
    let valid = settings(&text);
    assert_eq!(valid.admin.listen.port(), 9000);
    assert_eq!(valid.admin.token.as_ref().unwrap().expose(), "canary-0123456789");
    assert!(!format!("{valid:?}").contains("canary"));
    let text = format!(
        "{HEAD}admin: {{listen: '${{PASSWORD}}', token: '${{file:/run/token}}'}}
topics: [{{match: '${{PASSWORD}}(', value_format: '${{PASSWORD}}', table: '${{PASSWORD}}'}}]
log: {{filter: '${{PASSWORD}}'}}
"
    );
    let found = mistakes(&text);
    assert!(!found.contains("canary"), "{found}");
    let text = text.replace("value_format: '${PASSWORD}'", "value_format: json");
    let found = mistakes(&text);
    assert!(!found.contains("canary"), "{found}");
}
