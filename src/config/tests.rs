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
fn no_address_may_hold_a_password_and_none_is_shown() {
    for url in ["https://ann:canary@host", "ann:canary@host", "https://ann:ca/nary,@host"] {
        let text = format!(
            "kafka: {{bootstrap_servers: 'localhost:9092', group_id: g}}
bigquery: {{project: acme, dataset: raw, endpoint: '{url}', storage_endpoint: '{url}'}}
gcs: {{bucket: staging, endpoint: '{url}'}}
schema_registry: {{url: '{url}'}}
topics: [{{match: a, value_format: json}}]
"
        );
        let found = mistakes(&text);
        for path in [
            "bigquery.endpoint",
            "bigquery.storage_endpoint",
            "gcs.endpoint",
            "schema_registry.url",
        ] {
            assert!(found.contains(&format!("{path}: holds a user name or a password")), "{found}");
        }
        assert!(!found.contains("canary") && !found.contains("nary"), "{found}");
    }
}

#[test]
fn credentials_travel_in_the_clear_only_where_that_is_said() {
    let text = |registry: &str, endpoint: &str| {
        format!(
            "kafka: {{bootstrap_servers: 'localhost:9092', group_id: g}}
bigquery: {{project: acme, dataset: raw, endpoint: '{endpoint}', credentials: {{file: /key.json}}}}
schema_registry: {{url: {registry}}}
topics: [{{match: a, write: streaming}}]
"
        )
    };
    let here = "http://127.0.0.1:9050";
    let found = mistakes(&text("'http://registry:8081', username: ann, password: canary", here));
    assert!(found.contains("schema_registry.allow_insecure: true") && !found.contains("canary"));
    settings(&text("'http://registry:8081', bearer_token: t, allow_insecure: true", here));
    settings(&text("'https://registry:8081', username: ann, password: p", here));
    settings(&text("'http://registry:8081'", here));
    let found = mistakes(&text("'http://registry:8081'", "http://bigquery.example"));
    assert!(
        found.contains("line 2: bigquery.endpoint: would get Google's access tokens"),
        "{found}"
    );
    settings(&text("'http://registry:8081'", "https://bigquery.example"));
}

#[test]
fn every_property_that_is_refused_is_told_at_its_line() {
    let text = "
kafka:
  bootstrap_servers: localhost:9092
  group_id: g
  properties:
    enable.auto.commit: 'true'
    isolation.level: canary
    sasl.pasword: canary
    socket.timeout.ms: canary
bigquery: {project: acme, dataset: raw}
topics: [{match: a, value_format: json}]
";
    let found = mistakes(text);
    for wanted in [
        "line 6: kafka.properties.enable.auto.commit: ",
        "line 7: kafka.properties.isolation.level: ",
        "line 8: kafka.properties.sasl.pasword: ",
        "line 9: kafka.properties.socket.timeout.ms: ",
    ] {
        assert!(found.contains(wanted), "{wanted}\nnot in\n{found}");
    }
    assert!(!found.contains("canary"), "{found}");
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

/// The first thing between backquotes in the remedy of the only mistake in `text`.
fn remedy(text: &str) -> String {
    let found = mistakes(text);
    assert_eq!(found.lines().count(), 2, "a headline and one mistake: {found}");
    let (_, remedy) = found.split_once(" – ").unwrap_or_else(|| panic!("no remedy: {found}"));
    let written = remedy.split('`').nth(1).unwrap_or_else(|| panic!("nothing to write: {found}"));
    written.to_owned()
}

#[test]
fn a_remedy_that_is_followed_to_the_letter_leads_to_success() {
    for (key, wrong, right) in [
        ("freshness", "10", "10s"),
        ("freshness", "'10'", "10s"),
        ("freshness", "ten", "10s"),
        ("freshness", "true", "10s"),
        ("row.key", "order_key", "{column: order_key}"),
        ("row.metadata.enabled", "yes", "true"),
        ("row.metadata.enabled", "'off'", "false"),
        ("row.metadata.enabled", "maybe", "true"),
        ("admin.listen", "41480", "127.0.0.1:41480"),
        ("admin.listen", "localhost:8080", "127.0.0.1:8080"),
        ("admin.listen", "':8080'", "127.0.0.1:8080"),
        ("admin.listen", "0.0.0.0", "127.0.0.1:8080"),
        ("admin.listen", "'${PORT}'", "127.0.0.1:8080"),
        ("kafka.start", "1767225600000", "{timestamp_ms: 1767225600000}"),
        ("schema_registry.url", "registry:8081", "https://registry:8081"),
        ("bigquery.endpoint", "localhost:9050", "http://localhost:9050"),
        ("log.filter", "bogus=xx", "info"),
    ] {
        let text = |value: &str| {
            let (mut kafka, mut bigquery) = (String::new(), String::new());
            let (mut topic, mut section) = (String::new(), String::new());
            match key.split('.').collect::<Vec<_>>()[..] {
                ["kafka", key] => kafka = format!(", {key}: {value}"),
                ["bigquery", key] => bigquery = format!(", {key}: '{value}'"),
                [topic_key] => topic = format!(", {topic_key}: {value}"),
                ["row", "metadata", key] => {
                    topic = format!(", row: {{metadata: {{{key}: {value}}}}}")
                }
                ["row", key] => topic = format!(", row: {{{key}: {value}}}"),
                [name, key] => section = format!("{name}: {{{key}: {value}}}\n"),
                _ => unreachable!("{key}"),
            }
            format!(
                "kafka: {{bootstrap_servers: 'localhost:9092', group_id: g{kafka}}}
bigquery: {{project: acme, dataset: raw{bigquery}}}
{section}topics: [{{match: a, value_format: json, write: streaming{topic}}}]
"
            )
        };
        let written = remedy(&text(wrong));
        assert_eq!(written, right, "{key}: {wrong}");
        settings(&text(&written));
    }
}

#[test]
fn a_setting_that_nothing_reads_is_no_key() {
    for (key, instead) in [("body_bytes_target", "batch.bytes_max"), ("rows_max", "batch.rows_max")]
    {
        let text = format!(
            "kafka: {{bootstrap_servers: 'localhost:9092', group_id: g}}
bigquery: {{project: acme, dataset: raw, streaming: {{{key}: 5000}}}}
topics: [{{match: a, value_format: json, batch: {{bytes_max: 500000, rows_max: 500}}}}]
"
        );
        let found = mistakes(&text);
        let wanted = format!("line 2: bigquery.streaming.{key}: is no longer a key – remove it");
        assert!(found.contains(&wanted) && found.contains(instead), "{found}");
    }
}

#[test]
fn what_is_no_yaml_is_told_with_what_to_write() {
    let with_match =
        |text: &str| format!("{HEAD}topics:\n- {{match: {text}, value_format: json}}\n");
    let found = mistakes(&with_match(r#""shop\.x""#));
    assert!(
        found.contains("line 4") && found.contains("write the text in single quotes"),
        "{found}"
    );
    settings(&with_match(r"'shop\.x'"));

    let found = mistakes(&format!(
        "{HEAD}log: {{}}\nlog: {{}}\ntopics: [{{match: a, value_format: json}}]\n"
    ));
    assert!(found.contains("line 4 column") && found.contains("remove one of the two"), "{found}");
    settings(&format!("{HEAD}log: {{}}\ntopics: [{{match: a, value_format: json}}]\n"));

    let one = format!("{HEAD}topics: [{{match: a, value_format: json}}]\n");
    let found = mistakes(&format!("{one}---\nkafka: {{}}\n"));
    assert!(found.contains("a second document begins – remove it with the `---`"), "{found}");
    settings(&one);
}

#[test]
fn all_mistakes_of_a_file_are_told_in_one_pass_and_each_once() {
    let text = "
kafka:
  bootstrap_server: localhost:9092
  group_id: g
  properties: {enable.auto.commit: 'true', group.id: x, sasl.pasword: x}
bigquery: {project: acme, dataset: 'a-b'}
admin: {listen: ':8080'}
limits: {bytes_in_flight: 1048576}
topics:
  - {match: orders, value_format: avr, tabel: x, freshness: ten}
  - {match: 'pay[', value_format: json, null_value: dead_letter}
  - {value_format: avro, dead_letter: 'a b', batch: {bytes_max: 5}}
log: {filter: 'a=b=c'}
gcs: {bucket: 'gs://staging', orphan_age: soon}
";
    let found = mistakes(text);
    let wanted = [
        "line 3: kafka.bootstrap_server: is not a key – did you mean `bootstrap_servers`?",
        "line 5: kafka.properties.enable.auto.commit: ",
        "line 5: kafka.properties.group.id: ",
        "line 5: kafka.properties.sasl.pasword: ",
        "line 6: bigquery.dataset: is not a possible dataset name",
        "line 7: admin.listen: `:8080` is not an IP address with a port",
        "line 8: limits.bytes_in_flight: is less than",
        "line 10: topics[0].value_format: `avr` is not one of the choices",
        "line 10: topics[0].tabel: is not a key",
        "line 10: topics[0].freshness: `ten` is not a span of time",
        "line 11: topics[1].match: ",
        "line 11: topics[1].null_value: is dead_letter, and there is no",
        "line 12: topics[2].match: is missing",
        "line 12: topics[2].value_format: is avro, and there is neither",
        "line 12: topics[2].dead_letter: is not a possible topic name",
        "line 13: log.filter: ",
        "line 14: gcs.bucket: is not a possible bucket name",
        "line 14: gcs.orphan_age: `soon` is not a span of time",
    ];
    for wanted in wanted {
        assert!(found.contains(wanted), "{wanted}\nnot in\n{found}");
    }
    let others: Vec<&str> = found
        .lines()
        .skip(1)
        .filter(|line| !wanted.iter().any(|wanted| line.contains(wanted)))
        // The default batch is more than half of so small a limit.
        .filter(|line| !line.contains("batch.bytes_max: "))
        .collect();
    assert!(others.is_empty(), "{others:#?}");
}
