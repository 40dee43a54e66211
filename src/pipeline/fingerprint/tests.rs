use std::{collections::BTreeSet, sync::Arc};

use super::Fingerprints;
use crate::config::{self, Process};

/// A topic entry with one key changed, and whether that counts.
const CHANGES: &[(&str, &str, bool)] = &[
    ("match", "match: 'ord.*'", false),
    ("value_format", "value_format: json", true),
    ("key_format", "key_format: string", true),
    ("value_schema", "value_schema: one.avsc", true),
    ("key_schema", "key_format: avro\n    key_schema: one.avsc", true),
    ("table", "table: 'all_{topic}'", true),
    // What it refuses becomes a dead letter.
    ("header_tables", "header_tables: {max: 7}", false),
    ("freshness", "freshness: 5m", false),
    ("load_epoch", "load_epoch: 3", false),
    ("write", "write: streaming", true),
    // It is a promise that is checked, and changes nothing.
    ("delivery", "delivery: at_least_once", false),
    ("dead_letter", "dead_letter: other.dead", false),
    ("dead_letter_budget", "dead_letter_budget: {run: 5}", false),
    ("null_value", "null_value: row", true),
    ("row", "row: {metadata: {offset: at}}", true),
    ("columns", "columns: {all_nullable: true}", true),
    ("policy", "policy: {widen: refuse}", true),
    ("layout", "layout: {clustering: [a]}", false),
    ("batch", "batch: {linger_ms: 7}", false),
];

fn of(kafka: &str, bigquery: &str, topic: &str) -> Arc<str> {
    let has_match = topic.contains("match:");
    let matches = if has_match { "" } else { "match: orders\n    " };
    let text = format!(
        "kafka: {{bootstrap_servers: 'localhost:1', group_id: g{kafka}}}\n\
         schema_registry: {{url: 'http://localhost:2'}}\n\
         bigquery: {{{bigquery}}}\ntopics:\n  - {matches}{topic}\n"
    );
    let settings = config::parse(&text, &Process).unwrap();
    let fingerprints = Fingerprints::new(&settings.bigquery.project, &settings.topics, |path| {
        (path.to_str() == Some("there.avsc")).then(|| "the schema".to_owned())
    });
    Arc::clone(fingerprints.of("orders").unwrap())
}

const BIGQUERY: &str = "project: p, dataset: raw";

#[test]
fn it_changes_exactly_with_what_decides_where_a_record_goes_and_what_its_row_is() {
    let plain = of("", BIGQUERY, "value_format: avro");
    assert_eq!(plain.len(), 8);
    for (key, yaml, counts) in CHANGES {
        assert_eq!(of("", BIGQUERY, yaml) != plain, *counts, "{key}");
    }
    let schema = config::schema();
    let keys = schema["$defs"]["TopicConfig"]["properties"].as_object().unwrap();
    let keys: BTreeSet<&str> = keys.keys().map(String::as_str).collect();
    let decided: BTreeSet<&str> = CHANGES.iter().map(|(key, ..)| *key).collect();
    assert_eq!(keys, decided, "decide whether the new key counts");
}

#[test]
fn brokers_and_batches_do_not_count_and_the_table_does() {
    let plain = of("", BIGQUERY, "value_format: avro");
    assert_eq!(of(", discovery_interval_seconds: 7", BIGQUERY, "value_format: avro"), plain);
    assert_ne!(of("", "project: other, dataset: raw", "value_format: avro"), plain);
    assert_ne!(of("", "project: p, dataset: other", "value_format: avro"), plain);
    assert_eq!(of("", "project: p, dataset: other", "table: 'raw.{topic}'"), plain);
}

#[test]
fn a_default_that_is_written_out_changes_nothing() {
    let plain = of("", BIGQUERY, "value_format: avro");
    let spelt = "row: {value_column: value, metadata: {enabled: true, offset: _kafka_offset}}\n    \
                 policy: {create: allow}\n    columns: {all_nullable: false}";
    assert_eq!(of("", BIGQUERY, spelt), plain);
}

#[test]
fn a_local_schema_counts_by_its_text() {
    let there = of("", BIGQUERY, "value_schema: there.avsc");
    assert_ne!(there, of("", BIGQUERY, "value_schema: gone.avsc"));
    assert_ne!(there, of("", BIGQUERY, "value_format: avro"));
}
