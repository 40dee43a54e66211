//! What the service would do with each topic now, and why: `kcbq explain`.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Instant};

use anyhow::Context as _;

use crate::{
    app::{
        check::probes::{self, Found},
        kafka_tokens::kafka_tokens,
        pace::Pace,
    },
    config::Settings,
    kafka::admin::Cluster,
    path::{
        Chooser, Path, Signals, Stream,
        price::{Costs, Prices, RECORD_BYTES, Volume},
    },
    pipeline::{
        paths::Feed,
        settings::{TopicSettings, WriteMode},
    },
};

/// A topic as Kafka has it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    partitions: u32,
    /// Records that the group has not committed.
    backlog: u64,
    /// Members of the group, at least one.
    replicas: u64,
}

/// Which paths there are, and what they cost.
#[derive(Clone, Copy, Debug)]
struct Ways {
    has_bucket: bool,
    prices: Prices,
}

/// Asks Kafka for partitions and backlogs, and explains every topic. Blocks.
///
/// # Errors
///
/// Kafka does not answer.
pub fn explain(settings: &Settings) -> anyhow::Result<String> {
    let tokens = kafka_tokens(settings).context("kafka.security.sasl")?;
    let cluster = Cluster::new(&settings.kafka, tokens).context("kafka")?;
    let fed = probes::fed(settings, &probes::all_topics(&cluster)?);
    let members = cluster.group()?.map_or(0, |group| group.members.len());
    let backlogs = backlogs(&cluster, &fed)?;
    let ways = Ways { has_bucket: settings.gcs.is_some(), prices: settings.prices };
    let mut text = String::new();
    for (topic, partitions) in &fed {
        let Some(entry) = settings.topic(topic) else { continue };
        let backlog = backlogs.get(topic.as_str()).copied().unwrap_or_default();
        let partitions = u32::try_from(*partitions).unwrap_or(u32::MAX);
        let seen = Seen { partitions, backlog, replicas: members.max(1) as u64 };
        text.push_str(&describe(topic, entry, seen, ways));
    }
    if text.is_empty() {
        text.push_str("no topic matches\n");
    }
    Ok(text)
}

/// Records to read per topic.
fn backlogs(cluster: &Cluster, fed: &Found) -> anyhow::Result<BTreeMap<Arc<str>, u64>> {
    let mut backlogs = BTreeMap::new();
    for (lane, position) in cluster.positions(&probes::lanes(fed))? {
        *backlogs.entry(lane.topic).or_default() += position.lag().unwrap_or(0).unsigned_abs();
    }
    Ok(backlogs)
}

/// One topic's paragraph.
fn describe(topic: &str, settings: &TopicSettings, seen: Seen, ways: Ways) -> String {
    let mut text = format!(
        "{topic}: {} partitions, {} records to read by {} replicas, freshness {} s, write: {}\n",
        seen.partitions,
        seen.backlog,
        seen.replicas,
        settings.freshness.as_secs(),
        mode(settings.write)
    );
    if let Some(pace) = Pace::of(settings, seen.partitions, ways.has_bucket) {
        // Writing to a String cannot fail.
        let label = if pace.is_of_commits() { "commit" } else { "jobs" };
        _ = writeln!(text, "  {label:<6} {pace}");
        for line in [pace.note(), pace.remedy()].into_iter().flatten() {
            _ = writeln!(text, "  note   {line}");
        }
    }
    push_price(&mut text, seen.backlog, settings.stream, ways);
    let (path, reason) = decision(settings, seen, ways);
    _ = writeln!(text, "  now    {path}: {reason}");
    text
}

fn decision(settings: &TopicSettings, seen: Seen, ways: Ways) -> (Path, String) {
    let told = "as the configuration says".to_owned();
    match settings.write {
        WriteMode::Storage | WriteMode::Streaming | WriteMode::Pending => {
            (settings.stream.path(), told)
        }
        WriteMode::Load => (Path::Load, told),
        WriteMode::Auto => {
            let feed = Feed::new(settings, seen.partitions);
            let unread = Volume::default().scaled(seen.backlog / seen.replicas);
            let stream = settings.stream;
            let signals = Signals {
                stream,
                has_bucket: ways.has_bucket,
                backlog_bytes: unread.bytes,
                backlog_costs: ways.prices.costs(unread, stream),
                million_costs: ways.prices.costs(Volume::default().scaled(1_000_000), stream),
                freshness: feed.freshness,
                interval: feed.interval,
                streaming_refused: false,
                jobs_refused: false,
            };
            let mut chooser = Chooser::default();
            chooser.decide(&signals, Instant::now());
            let (path, cause) = chooser.chosen();
            (path, cause.to_string())
        }
    }
}

/// What the records to read cost by each path that there is.
fn push_price(text: &mut String, backlog: u64, stream: Stream, ways: Ways) {
    let unread = Volume::default().scaled(backlog);
    let Costs { streaming, load } = ways.prices.costs(unread, stream);
    let load = if ways.has_bucket { format!(", {load} by load jobs") } else { String::new() };
    _ = writeln!(
        text,
        "  price  to write what is to be read: {streaming} by {}{load} ({RECORD_BYTES} bytes taken for \
         each record)",
        stream.path()
    );
}

fn mode(mode: WriteMode) -> &'static str {
    match mode {
        WriteMode::Auto => "auto",
        WriteMode::Storage => "storage",
        WriteMode::Streaming => "streaming",
        WriteMode::Load => "load",
        WriteMode::Pending => "pending",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn topic(lines: &str) -> Arc<TopicSettings> {
        let text = format!(
            "kafka: {{bootstrap_servers: a, group_id: g}}\n\
             bigquery: {{project: p, dataset: d}}\n\
             gcs: {{bucket: staging}}\n\
             topics: [{{match: orders, value_format: json, {lines}}}]\n"
        );
        config::parse(&text, &config::Process).unwrap().topics.remove(0)
    }

    fn ways(has_bucket: bool) -> Ways {
        Ways { has_bucket, prices: Prices::default() }
    }

    fn seen(partitions: u32, backlog: u64) -> Seen {
        Seen { partitions, backlog, replicas: 3 }
    }

    #[test]
    fn a_freshness_that_the_quota_does_not_allow_is_said() {
        let text =
            describe("orders", &topic("write: load, freshness: 15m"), seen(64, 0), ways(true));
        assert!(text.contains("64 × 86,400 / 4096 = 1350 a day of 1500"), "{text}");
        assert!(text.contains("4156 s old") && text.contains("the quota of the table"), "{text}");
        assert!(text.contains("  note   set `freshness: 69m`, or `write: auto`"), "{text}");
        assert!(text.contains("now    load jobs: as the configuration says"), "{text}");
    }

    #[test]
    fn the_choice_follows_the_backlog_of_a_replica() {
        let settings = topic("freshness: 1m");
        let small = describe("orders", &settings, seen(4, 1_800_000), ways(true));
        assert!(small.contains("now    the Storage Write API: the backlog is small"), "{small}");
        let large = describe("orders", &settings, seen(4, 2_000_000), ways(true));
        assert!(large.contains("now    load jobs: 666 MB are to be read"), "{large}");
        let without = describe("orders", &settings, seen(4, 2_000_000), ways(false));
        assert!(without.contains("no bucket") && !without.contains("jobs   "), "{without}");
        assert!(small.contains("once the backlog is small, rows are streamed"), "{small}");
        assert!(large.contains("price  to write what is to be read: 0.05 USD by"), "{large}");
        assert!(
            large.contains("the Storage Write API, nothing by load jobs (1000 bytes taken"),
            "{large}"
        );
        assert!(
            without.contains("0.05 USD by the Storage Write API (1000 bytes taken"),
            "{without}"
        );
        assert!(large.contains("and costs 0.02 USD; by load jobs it costs nothing"), "{large}");
    }

    #[test]
    fn a_lax_freshness_is_met_for_nothing() {
        let text = describe("orders", &topic("freshness: 1h"), seen(4, 0), ways(true));
        assert!(
            text.contains("now    load jobs: load jobs are fresh enough, and a million"),
            "{text}"
        );
        let text = describe("orders", &topic("write: streaming"), seen(4, 0), ways(true));
        assert!(text.contains("now    streaming inserts: as the configuration says"), "{text}");
    }
}
