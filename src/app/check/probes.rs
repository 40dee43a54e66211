//! The probes: Kafka, the registry, BigQuery, and the arithmetic over what they found.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use http::Method;
use serde_json::Value;

use crate::{
    app::check::Finding,
    app::{check::freshness, kafka_tokens::kafka_tokens},
    catalog::Catalog as _,
    config::Settings,
    fault::{Fault, FaultKind},
    gcp::{
        classify::succeed,
        tables::{Tables, names},
    },
    kafka::{
        admin::{AskError, Cluster},
        registry_client::RegistryClient,
        topics::Topics,
    },
    path::Stream,
    pipeline::settings::WriteMode,
    record::TopicPartition,
    registry::{Registry as _, RegistryError},
    rest::{Rest, RestRequest},
    schema::policy::Permission,
    table::TableRef,
};

/// Tables that are looked at one by one; more would only repeat what the first ones say.
const TABLES_MAX: usize = 50;
/// What streaming into existing tables and changing them takes
/// (<https://docs.cloud.google.com/bigquery/docs/access-control>).
const TABLE_PERMISSIONS: [&str; 3] =
    ["bigquery.tables.get", "bigquery.tables.update", "bigquery.tables.updateData"];

/// Brokers, topics, group, and what their numbers mean. Blocks.
pub(crate) fn kafka(settings: &Settings) -> Vec<Finding> {
    let tokens = match kafka_tokens(settings) {
        Ok(tokens) => tokens,
        Err(error) => return vec![Finding::problem("kafka.security.sasl", chain(&error))],
    };
    let cluster = match Cluster::new(&settings.kafka, tokens) {
        Ok(cluster) => cluster,
        Err(error) => return vec![Finding::problem("kafka", chain(&error))],
    };
    let found = match all_topics(&cluster) {
        Ok(found) => found,
        Err(error) => return vec![unanswered("kafka", &error)],
    };
    let mut findings = vec![Finding::ok("kafka", "the brokers answer")];
    let fed = fed(settings, &found);
    findings.extend(topics(settings, &found, &fed));
    findings.extend(collisions(settings, &fed));
    findings.extend(freshness::freshness(settings, &fed));
    let (members, group) = group(settings, &cluster, &fed);
    findings.extend(group);
    findings.extend(arithmetic(settings, fed.values().sum(), members));
    findings
}

/// Topics and their numbers of partitions.
pub(crate) type Found = BTreeMap<String, usize>;

pub(crate) fn all_topics(cluster: &Cluster) -> Result<Found, AskError> {
    match Topics::new(Vec::<&str>::new(), vec![".*"], Vec::<&str>::new()) {
        Ok(all) => cluster.topics(&all),
        Err(_) => Ok(Found::new()),
    }
}

/// The topics that are read.
pub(crate) fn fed(settings: &Settings, found: &Found) -> Found {
    let wanted = found.iter().filter(|(topic, _)| settings.topic(topic).is_some());
    wanted.map(|(topic, partitions)| (topic.clone(), *partitions)).collect()
}

fn topics(settings: &Settings, found: &Found, fed: &Found) -> Vec<Finding> {
    let mut findings = Vec::new();
    for entry in &settings.topics {
        let text = entry.matcher.as_str();
        let matched: Vec<usize> = fed
            .iter()
            .filter(|(topic, _)| settings.topic(topic).is_some_and(|own| Arc::ptr_eq(own, entry)))
            .map(|(_, partitions)| *partitions)
            .collect();
        findings.push(match (matched.is_empty(), entry.matcher.name()) {
            (false, _) => {
                let partitions: usize = matched.iter().sum();
                let topics = matched.len();
                let message = format!("`{text}`: {topics} topics, {partitions} partitions");
                Finding::ok("topics", message)
            }
            (true, Some(name)) => Finding::problem("topics", format!("`{name}` does not exist"))
                .remedy("create it, correct `match`, or allow this identity to describe it"),
            (true, None) => Finding::warning("topics", format!("`{text}` matches no topic yet")),
        });
    }
    let letters: BTreeSet<&str> =
        settings.topics.iter().filter_map(|entry| entry.dead_letter.as_deref()).collect();
    for letter in letters.into_iter().filter(|letter| !found.contains_key(*letter)) {
        let message = format!("the dead-letter topic `{letter}` does not exist");
        findings.push(
            Finding::problem("topics", message)
                .remedy("create it: the first refused record would halt its partition"),
        );
    }
    findings
}

/// Different topics that end in one table only because their names were cleaned.
fn collisions(settings: &Settings, fed: &Found) -> Vec<Finding> {
    let mut tables: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for topic in fed.keys() {
        let Some(entry) = settings.topic(topic).filter(|entry| entry.table.uses_topic()) else {
            continue;
        };
        let name = entry.table.resolve(topic, |_| Some("x"), Some("x"));
        if let Ok(name) = name {
            tables.entry(format!("{}.{name}", entry.dataset)).or_default().push(topic);
        }
    }
    let collided = tables.into_iter().filter(|(_, topics)| topics.len() > 1);
    collided
        .map(|(table, topics)| {
            let message = format!("{} share the table {table}", topics.join(", "));
            Finding::problem("topics", message)
                .remedy("their names differ only in characters that a table's name cannot have: give each its own `table`")
        })
        .collect()
}

/// Every partition of these topics.
pub(crate) fn lanes(fed: &Found) -> Vec<TopicPartition> {
    fed.iter()
        .flat_map(|(topic, partitions)| {
            let topic: Arc<str> = topic.as_str().into();
            let numbers = 0..i32::try_from(*partitions).unwrap_or(i32::MAX);
            numbers.map(move |number| TopicPartition::new(Arc::clone(&topic), number))
        })
        .collect()
}

/// The number of members that the group has, at least one, and what there is to say.
fn group(settings: &Settings, cluster: &Cluster, fed: &Found) -> (usize, Vec<Finding>) {
    let name = &settings.kafka.group_id;
    let members = match cluster.group() {
        Ok(group) => group.map_or(0, |group| group.members.len()),
        Err(error) => return (1, vec![unanswered("group", &error)]),
    };
    let positions = match cluster.positions(&lanes(fed)) {
        Ok(positions) => positions,
        Err(error) => return (members.max(1), vec![unanswered("group", &error)]),
    };
    let lag: i64 = positions.values().filter_map(|position| position.lag()).sum();
    let fresh = positions.values().filter(|position| position.committed.is_none()).count();
    let mut findings = vec![Finding::ok(
        "group",
        format!("`{name}`: {members} members, {lag} records to read, {fresh} partitions new to it"),
    )];
    let lost = positions.iter().filter(|(_, at)| at.committed < at.low && at.committed.is_some());
    for (lane, _) in lost.take(TABLES_MAX) {
        let message = format!("{lane}: records after the committed offset were deleted");
        findings.push(
            Finding::problem("group", message)
                .remedy("raise the topic's retention; `kafka.on_data_loss` decides what happens"),
        );
    }
    (members.max(1), findings)
}

/// Shares of quotas and of memory, from real numbers.
fn arithmetic(settings: &Settings, partitions: usize, replicas: usize) -> Vec<Finding> {
    let paths = [Stream::Appends, Stream::Inserts];
    let streamed = settings.topics.iter().filter(|topic| topic.write != WriteMode::Load);
    let is_used = |path: &Stream| streamed.clone().any(|topic| topic.stream == *path);
    let shares = paths.into_iter().filter(is_used).map(|path| share(settings, path, replicas));
    let mut findings: Vec<Finding> = shares.collect();
    let lanes = partitions.div_ceil(replicas);
    let bytes = (60 << 20) + lanes * 4096 + settings.limits.bytes_in_flight;
    let kafka = &settings.kafka;
    let fetched = kafka.prefetch_bytes.saturating_add(kafka.decompressed_bytes_max);
    let total = (bytes as u64).saturating_add(fetched) >> 20;
    let message =
        format!("about {total} MiB for a replica at {lanes} partitions, plus 32 KiB per table");
    findings.push(Finding::ok("memory", message));
    findings
}

/// What all replicas may send by a path, of what Google lets a project send
/// (<https://docs.cloud.google.com/bigquery/quotas>, throughput of the Storage Write API and of streaming inserts).
fn share(settings: &Settings, path: Stream, replicas: usize) -> Finding {
    let bigquery = &settings.bigquery;
    let location = bigquery.location.as_deref().unwrap_or("US").to_ascii_uppercase();
    let is_large = ["US", "EU"].contains(&&*location);
    let (key, own, large) = match path {
        Stream::Appends => ("storage", bigquery.storage.bytes_per_second, 3_000_000_000),
        Stream::Inserts => ("streaming", bigquery.streaming.bytes_per_second, 1_000_000_000),
    };
    let quota: u64 = if is_large { large } else { 300_000_000 };
    let all = own.saturating_mul(replicas as u64);
    let [own, sum, most] = [own, all, quota].map(|bytes| bytes / 1_000_000);
    let text =
        format!("{key}: {replicas} replicas × {own} MB/s = {sum} MB/s of {most} MB/s ({location})");
    match all > quota {
        false => Finding::ok("quota", text),
        true => Finding::problem("quota", text).remedy(format!(
            "lower `bigquery.{key}.bytes_per_second`, run fewer replicas, or ask Google for more"
        )),
    }
}

fn unanswered(area: &'static str, error: &AskError) -> Finding {
    Finding::problem(area, chain(error)).remedy(error.remedy())
}

/// The registry answers, and takes the credentials.
pub(crate) async fn registry(settings: Settings) -> Vec<Finding> {
    let Some(registry) = &settings.schema_registry else { return Vec::new() };
    let client = match RegistryClient::new(registry) {
        Ok(client) => client,
        Err(error) => return vec![Finding::problem("registry", chain(&error))],
    };
    vec![match client.schema(1).await {
        // That there is no schema 1 is an answer too.
        Ok(_) | Err(RegistryError::UnknownId { .. } | RegistryError::Unusable { .. }) => {
            Finding::ok("registry", "the schema registry answers")
        }
        Err(RegistryError::Fault(fault)) => Finding::problem("registry", fault.to_string())
            .remedy("check `schema_registry.url` and its credentials"),
    }]
}

/// Credentials, datasets, tables and permissions.
pub(crate) async fn bigquery(settings: Settings) -> Vec<Finding> {
    let rest: Arc<dyn Rest> = match settings.bigquery.connect(4) {
        Ok(rest) => Arc::new(rest),
        Err(error) => return vec![Finding::problem("bigquery", chain(&error))],
    };
    let mut findings = Vec::new();
    let datasets: BTreeSet<&str> = settings.topics.iter().map(|topic| &*topic.dataset).collect();
    for dataset in datasets {
        let finding = self::dataset(&settings, &*rest, dataset).await;
        findings.push(finding);
    }
    for table in tables(&settings) {
        findings.extend(existing(&rest, &table).await);
    }
    findings
}

pub(super) fn table_ref(settings: &Settings, dataset: &str, table: &str) -> TableRef {
    TableRef {
        project: settings.bigquery.project.as_str().into(),
        dataset: dataset.into(),
        table: table.into(),
    }
}

/// The tables whose names are known without a record.
fn tables(settings: &Settings) -> BTreeSet<TableRef> {
    let named = settings.topics.iter().filter_map(|topic| {
        let name = match (topic.table.uses_topic(), topic.matcher.name()) {
            (true, None) => return None,
            (_, name) => name.unwrap_or_default(),
        };
        let table = topic.table.resolve(name, |_| None, None).ok()?;
        Some(table_ref(settings, &topic.dataset, &table))
    });
    named.take(TABLES_MAX).collect()
}

async fn dataset(settings: &Settings, rest: &dyn Rest, dataset: &str) -> Finding {
    let path = names::dataset_path(&table_ref(settings, dataset, ""));
    let may_create = settings
        .topics
        .iter()
        .filter(|topic| &*topic.dataset == dataset)
        .all(|topic| topic.policy.create == Permission::Allow);
    match ask(rest, RestRequest::json(Method::GET, path, None)).await {
        Ok(document) => {
            let there = document.get("location").and_then(Value::as_str).unwrap_or("?");
            let wanted = settings.bigquery.location.as_deref().unwrap_or(there);
            match there.eq_ignore_ascii_case(wanted) {
                true => Finding::ok("dataset", format!("`{dataset}` is there, in {there}")),
                false => {
                    let message = format!("`{dataset}` is in {there}, not in {wanted}");
                    let remedy = "correct `bigquery.location`: a dataset cannot move";
                    Finding::warning("dataset", message).remedy(remedy)
                }
            }
        }
        Err(fault) if fault.kind == FaultKind::TableNotFound => match may_create {
            true => Finding::ok("dataset", format!("`{dataset}` is missing and will be created")),
            false => Finding::problem("dataset", format!("`{dataset}` does not exist"))
                .remedy("create it, or allow `policy.create`"),
        },
        Err(fault) => refused("dataset", &format!("`{dataset}`: {}", fault.what()), &fault),
    }
}

/// What there is to say about a table that exists.
async fn existing(rest: &Arc<dyn Rest>, table: &TableRef) -> Vec<Finding> {
    match Tables::new(Arc::clone(rest)).describe(table).await {
        Ok(None) => Vec::new(),
        Ok(Some(description)) => {
            let columns = description.schema.columns.len();
            let message = format!("{table} exists with {columns} columns");
            let mut findings = vec![Finding::ok("table", message)];
            findings.extend(permissions(&**rest, table).await);
            findings
        }
        Err(fault) => vec![refused("table", &format!("{table}: {}", fault.what()), &fault)],
    }
}

/// The permissions that this identity lacks on a table. Emulators do not know the question: no
/// answer is no finding.
async fn permissions(rest: &dyn Rest, table: &TableRef) -> Option<Finding> {
    let path = format!("{}:testIamPermissions", names::table_path(table));
    let body = serde_json::json!({ "permissions": TABLE_PERMISSIONS });
    let answer = ask(rest, RestRequest::json(Method::POST, path, Some(&body))).await.ok()?;
    let granted: Vec<&str> =
        answer.get("permissions")?.as_array()?.iter().filter_map(Value::as_str).collect();
    let missing: Vec<&str> =
        TABLE_PERMISSIONS.into_iter().filter(|wanted| !granted.contains(wanted)).collect();
    (!missing.is_empty()).then(|| {
        let message = format!("{table}: this identity lacks {}", missing.join(", "));
        Finding::problem("table", message).remedy("grant roles/bigquery.dataEditor on the dataset")
    })
}

fn refused(area: &'static str, message: &str, fault: &Fault) -> Finding {
    let remedy = match fault.kind {
        FaultKind::Unauthenticated => "check `bigquery.credentials`",
        FaultKind::PermissionDenied => "grant roles/bigquery.dataEditor on the dataset",
        _ => "check `bigquery.project`, `bigquery.endpoint` and the network",
    };
    Finding::problem(area, message).remedy(remedy)
}

async fn ask(rest: &dyn Rest, request: RestRequest) -> Result<Value, Fault> {
    let answer = succeed(rest, request).await?;
    Ok(serde_json::from_slice(&answer.body).unwrap_or_default())
}

/// An error and what lies underneath, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        app::check::Verdict,
        config::{self, Process},
    };

    pub(in crate::app::check) fn settings(topics: &str) -> Settings {
        let text = format!(
            "kafka: {{bootstrap_servers: 'localhost:1', group_id: g}}\n\
             bigquery: {{project: p, dataset: d, location: europe-west6}}\ntopics:\n{topics}"
        );
        config::parse(&text, &Process).unwrap()
    }

    pub(in crate::app::check) fn found(topics: &[(&str, usize)]) -> Found {
        topics.iter().map(|(topic, partitions)| ((*topic).to_owned(), *partitions)).collect()
    }

    #[test]
    fn missing_topics_and_dead_letter_topics_are_problems() {
        let settings = settings(
            "  - {match: a, value_format: json, dead_letter: dead}\n  - {match: 'b.+', value_format: json}\n",
        );
        let found = found(&[("b1", 4), ("b2", 2)]);
        let lines: Vec<String> = topics(&settings, &found, &fed(&settings, &found))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(lines[0].starts_with("PROBLEM  topics    `a` does not exist – "), "{lines:?}");
        assert_eq!(lines[1], "ok       topics    `b.+`: 2 topics, 6 partitions");
        assert!(lines[2].contains("dead-letter topic `dead` does not exist"), "{lines:?}");
    }

    #[test]
    fn topics_that_collide_after_cleaning_are_a_problem() {
        let settings = settings("  - {match: 'shop.+', value_format: json}\n");
        let fed = found(&[("shop.a", 1), ("shop_a", 1), ("shop.b", 1)]);
        let findings = collisions(&settings, &fed);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].message, "shop.a, shop_a share the table d.shop_a");
        let settings = self::settings("  - {match: 'shop.+', value_format: json, table: all}\n");
        assert!(collisions(&settings, &fed).is_empty(), "wanted, not an accident");
    }

    #[test]
    fn the_share_of_each_quota_in_use_counts_every_replica() {
        let first = |write: &str, replicas| {
            let settings =
                settings(&format!("  - {{match: a, value_format: json, write: {write}}}\n"));
            let finding = arithmetic(&settings, 64, replicas).remove(0);
            (finding.verdict, finding.message.split(':').next().unwrap().to_owned())
        };
        for (write, name) in
            [("streaming", "streaming"), ("storage", "storage"), ("auto", "storage")]
        {
            assert_eq!(first(write, 3), (Verdict::Ok, name.to_owned()));
            assert_eq!(first(write, 4), (Verdict::Problem, name.to_owned()));
        }
    }

    #[test]
    fn only_tables_known_without_a_record_are_looked_at() {
        let settings = settings(
            "  - {match: a.b, value_format: json}\n  - {match: 'c.+', value_format: json}\n  - {match: 'd.+', value_format: json, table: 'x.all'}\n",
        );
        let names: Vec<String> = tables(&settings).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["p.d.a_b", "p.x.all"]);
    }
}
