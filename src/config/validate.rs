//! From the parsed file to settings that can be run: what one key alone cannot tell.

use std::{collections::HashMap, sync::Arc};

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::{
    config::{
        Config,
        problem::Problems,
        topic::{Delivery, LayoutConfig, TopicConfig},
        yaml::Node,
    },
    gcp::settings::{BigQuerySettings, GcsSettings},
    kafka::{
        properties,
        settings::{KafkaSettings, RegistrySettings},
    },
    ops::{
        logging::{FILTER_VARIABLE, LogSettings},
        settings::AdminSettings,
    },
    path::price::Prices,
    pipeline::settings::{
        AllowanceError, AllowedTables, LimitSettings, NullValue, PayloadSettings, TableTemplate,
        TopicLoad, TopicMatch, TopicSettings, WriteMode,
    },
    table::{Partitioning, TableLayout},
    transcode::settings::Format,
    write::load::pace::JOB_TIME_MAX,
};

mod addresses;

const DAY_MS: i64 = 86_400_000;
const TOKEN_CHARS_MIN: usize = 16;

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Kafka cluster and the consumer group.
    pub kafka: KafkaSettings,
    /// The Schema Registry.
    pub schema_registry: Option<RegistrySettings>,
    /// BigQuery.
    pub bigquery: BigQuerySettings,
    /// The bucket for load jobs.
    pub gcs: Option<GcsSettings>,
    /// What writing costs.
    pub prices: Prices,
    /// The admin endpoint.
    pub admin: AdminSettings,
    /// Which topics go where; a topic belongs to the first entry that matches.
    pub topics: Vec<Arc<TopicSettings>>,
    /// What the process may use.
    pub limits: LimitSettings,
    /// Logging.
    pub log: LogSettings,
}

impl Settings {
    /// The entry that `topic` belongs to. Dead-letter topics belong to none.
    pub fn topic(&self, topic: &str) -> Option<&Arc<TopicSettings>> {
        let is_dead_letter =
            self.topics.iter().any(|entry| entry.dead_letter.as_deref() == Some(topic));
        self.topics.iter().find(|entry| !is_dead_letter && entry.matcher.matches(topic))
    }
}

/// Deserialises `value` and checks what one key alone cannot tell. `tree` gives the lines.
pub(crate) fn config(value: Json, tree: &Node, problems: &mut Problems) -> Option<Settings> {
    let mut check = Check { tree, problems };
    let config = check.deserialise(value)?;
    check.kafka(&config.kafka, &config.limits);
    check.bigquery(&config.bigquery);
    check.gcs(&config);
    config.schema_registry.iter().for_each(|registry| check.registry(registry));
    check.admin(&config.admin);
    check.log(&config.log);
    check.duplicates(&config.topics);
    let topics: Vec<_> = config
        .topics
        .iter()
        .enumerate()
        .filter_map(|(index, topic)| check.topic(&format!("topics[{index}]"), topic, &config))
        .map(Arc::new)
        .collect();
    if config.topics.is_empty() {
        check.problem("topics", "is empty", Some("add at least one entry with `match`"));
    }
    Some(Settings {
        kafka: config.kafka,
        schema_registry: config.schema_registry,
        bigquery: config.bigquery,
        gcs: config.gcs,
        prices: config.prices,
        admin: config.admin,
        topics,
        limits: config.limits,
        log: config.log,
    })
}

struct Check<'a> {
    tree: &'a Node,
    problems: &'a mut Problems,
}

impl Check<'_> {
    fn problem(&mut self, path: &str, message: impl Into<String>, remedy: Option<&str>) {
        let mut known = path;
        let line = loop {
            match (self.tree.at(known), known.rfind(['.', '['])) {
                (Some(node), _) => break Some(node.line),
                (None, Some(end)) => known = known.get(..end).unwrap_or_default(),
                (None, None) => break None,
            }
        };
        // What stands in for a value that is wrong may be wrong itself.
        if !self.problems.is_told(path) {
            self.problems.push(path, line, message, remedy);
        }
    }

    /// The sections one by one, so that a mistake in one does not hide those in another.
    fn deserialise(&mut self, mut value: Json) -> Option<Config> {
        let mut take = |key: &str| value.get_mut(key).map(Json::take);
        let (kafka, registry, bigquery) =
            (take("kafka"), take("schema_registry"), take("bigquery"));
        let (gcs, admin, limits, log) = (take("gcs"), take("admin"), take("limits"), take("log"));
        let prices = take("prices");
        let topics = take("topics").map(|topics| match topics {
            Json::Array(topics) => topics,
            _ => Vec::new(),
        });
        let kafka = self.section("kafka", kafka);
        let schema_registry = self.section("schema_registry", registry.or(Some(Json::Null)));
        let bigquery = self.section("bigquery", bigquery);
        let gcs = self.section("gcs", gcs.or(Some(Json::Null)));
        let prices = self.section_or_default("prices", prices);
        let admin = self.section_or_default("admin", admin);
        let limits = self.section_or_default("limits", limits);
        let log = self.section_or_default("log", log);
        let topics: Vec<Option<TopicConfig>> = topics?
            .into_iter()
            .enumerate()
            .map(|(index, topic)| self.section(&format!("topics[{index}]"), Some(topic)))
            .collect();
        Some(Config {
            kafka: kafka?,
            schema_registry: schema_registry?,
            bigquery: bigquery?,
            gcs: gcs?,
            prices: prices?,
            admin: admin?,
            topics: topics.into_iter().collect::<Option<_>>()?,
            limits: limits?,
            log: log?,
        })
    }

    fn section<T: DeserializeOwned>(&mut self, path: &str, value: Option<Json>) -> Option<T> {
        match serde_json::from_value(value?) {
            Ok(section) => Some(section),
            Err(error) => {
                if !self.problems.is_told_within(path) {
                    self.problem(path, error.to_string(), None);
                }
                None
            }
        }
    }

    fn section_or_default<T: DeserializeOwned>(
        &mut self,
        path: &str,
        value: Option<Json>,
    ) -> Option<T> {
        self.section(path, Some(value.unwrap_or_else(|| Json::Object(serde_json::Map::new()))))
    }

    fn kafka(&mut self, kafka: &KafkaSettings, limits: &LimitSettings) {
        if kafka.bootstrap_servers.is_empty() {
            let remedy = Some("write `host:port` of at least one broker");
            self.problem("kafka.bootstrap_servers", "is empty", remedy);
        }
        for error in properties::problems(kafka) {
            self.problem(&error.path(), error.to_string(), None);
        }
        if kafka.decompressed_bytes_max < u64::from(kafka.record_bytes_max) {
            self.problem(
                "kafka.decompressed_bytes_max",
                "is less than `kafka.record_bytes_max`: the largest record could not be read",
                Some("raise it"),
            );
        }
        if limits.bytes_in_flight < kafka.record_bytes_max as usize {
            self.problem(
                "limits.bytes_in_flight",
                "is less than `kafka.record_bytes_max`: one record could stop everything",
                Some("raise it"),
            );
        }
    }

    fn bigquery(&mut self, bigquery: &BigQuerySettings) {
        let legal = |char: char| char.is_ascii_alphanumeric() || char == '_';
        if bigquery.dataset.is_empty() || !bigquery.dataset.chars().all(legal) {
            let remedy = Some("use letters, digits and `_`");
            self.problem("bigquery.dataset", "is not a possible dataset name", remedy);
        }
        for problem in bigquery.streaming.problems() {
            self.below("bigquery.streaming", &problem);
        }
        for problem in bigquery.storage.problems() {
            self.below("bigquery.storage", &problem);
        }
        self.endpoint("bigquery.endpoint", bigquery.endpoint.as_deref(), bigquery);
        self.endpoint("bigquery.storage_endpoint", bigquery.storage_endpoint.as_deref(), bigquery);
    }

    /// A sentence that begins with the name of a key of `section`.
    fn below(&mut self, section: &str, sentence: &str) {
        let (key, problem) = sentence.split_once(' ').unwrap_or(("", sentence));
        self.problem(&format!("{section}.{key}"), problem, None);
    }

    fn gcs(&mut self, config: &Config) {
        let Some(gcs) = &config.gcs else { return };
        let legal = |char: char| {
            char.is_ascii_lowercase() || char.is_ascii_digit() || matches!(char, '-' | '_' | '.')
        };
        if !(3..=222).contains(&gcs.bucket.len()) || !gcs.bucket.chars().all(legal) {
            let remedy = Some("write its name, without `gs://`");
            self.problem("gcs.bucket", "is not a possible bucket name", remedy);
        }
        self.endpoint("gcs.endpoint", gcs.endpoint.as_deref(), &config.bigquery);
        let staged = config.topics.iter().filter(|topic| topic.write.may_load(true));
        let waits = staged.map(|topic| topic.freshness).max().unwrap_or_default();
        let needed = waits.saturating_add(JOB_TIME_MAX);
        if gcs.orphan_age < needed {
            let needed = humantime::format_duration(needed);
            self.problem(
                "gcs.orphan_age",
                format!(
                    "is less than {needed}: rows may be staged so long until their job is done"
                ),
                Some("raise it; a week is plenty"),
            );
        }
    }

    fn admin(&mut self, admin: &AdminSettings) {
        let short =
            |token: &crate::secret::Secret| token.expose().chars().count() < TOKEN_CHARS_MIN;
        match &admin.token {
            None if !admin.is_loopback() => self.problem(
                "admin.listen",
                "can be reached from outside and `admin.token` is not set",
                Some("set `admin.token: ${file:/path}`, or listen on 127.0.0.1"),
            ),
            Some(token) if short(token) => self.problem(
                "admin.token",
                format!("is shorter than {TOKEN_CHARS_MIN} characters"),
                Some("make one with `openssl rand -hex 32`"),
            ),
            _ => {}
        }
    }

    fn log(&mut self, log: &LogSettings) {
        let Err(error) = log.env_filter() else { return };
        let remedy = Some("write a level, such as `info`, or pairs, such as `warn,kcbq=debug`");
        match std::env::var_os(FILTER_VARIABLE) {
            Some(_) => {
                let message = format!("the environment variable {FILTER_VARIABLE}: {error}");
                self.problems.push("", None, message, remedy);
            }
            None => self.problem("log.filter", error.to_string(), remedy),
        }
    }

    fn duplicates(&mut self, topics: &[TopicConfig]) {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (index, topic) in topics.iter().enumerate() {
            if let Some(first) = seen.insert(&topic.matches, index) {
                self.problem(
                    &format!("topics[{index}].match"),
                    format!("is the same as topics[{first}].match, so this entry is never used"),
                    Some("remove one of them"),
                );
            }
        }
    }

    fn topic(&mut self, path: &str, topic: &TopicConfig, config: &Config) -> Option<TopicSettings> {
        self.schemas(path, topic, config);
        self.dead_letter(path, topic, config);
        self.layout(path, &topic.layout);
        self.batch(path, topic, config);
        self.write(path, topic, config);
        let matcher = TopicMatch::parse(&topic.matches).map_err(|error| {
            let remedy = Some("write a topic's name or a regular expression");
            // The lines before draw where it is.
            let words = error.to_string();
            let what = words.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let problem = format!("is no regular expression: {what}");
            self.problem(&format!("{path}.match"), problem, remedy);
        });
        let table = TableTemplate::parse(&topic.table).map_err(|error| {
            let remedy = Some("write `table` or `dataset.table`, such as `raw.{topic}`");
            self.problem(&format!("{path}.table"), error.to_string(), remedy);
        });
        let table = table.ok()?;
        self.template(path, topic, &table);
        let header_tables = self.header_tables(path, topic, &table);
        let dataset = table.dataset().unwrap_or(&config.bigquery.dataset).into();
        let payload =
            |format, schema: &Option<_>| PayloadSettings { format, schema: schema.clone() };
        Some(TopicSettings {
            matcher: matcher.ok()?,
            value: payload(topic.value_format, &topic.value_schema),
            key: topic.key_format.map(|format| payload(format, &topic.key_schema)),
            table,
            header_tables: header_tables?,
            dataset,
            write: topic.write,
            stream: topic.write.stream(config.bigquery.has_storage()),
            freshness: topic.freshness,
            load: TopicLoad {
                group: config.kafka.group_id.as_str().into(),
                epoch: topic.load_epoch,
                settings: config.bigquery.load,
                streams_per_hour: config.bigquery.storage.streams_per_hour,
            },
            dead_letter: topic.dead_letter.as_deref().map(Arc::from),
            dead_letter_budget: topic.dead_letter_budget,
            null_value: topic.null_value,
            row: topic.row.clone(),
            columns: topic.columns.clone(),
            policy: topic.policy,
            layout: layout(&topic.layout),
            batch: topic.batch,
        })
    }

    fn write(&mut self, path: &str, topic: &TopicConfig, config: &Config) {
        let needs_storage = matches!(topic.write, WriteMode::Storage | WriteMode::Pending);
        if needs_storage && !config.bigquery.has_storage() {
            let remedy = "name the emulator's gRPC address: `bigquery.storage_endpoint`";
            let problem =
                "goes by the Storage Write API, and `bigquery.endpoint` is an emulator without it";
            self.problem(&format!("{path}.write"), problem, Some(remedy));
        }
        let is_known = !self.problems.is_told(&format!("{path}.write"));
        if is_known && topic.delivery == Delivery::ExactlyOnce && topic.write != WriteMode::Load {
            let remedy = "write `write: load`, or `delivery: at_least_once`";
            let problem =
                "is exactly_once, and only rows of load jobs are never there twice after a crash";
            self.problem(&format!("{path}.delivery"), problem, Some(remedy));
        }
    }

    fn schemas(&mut self, path: &str, topic: &TopicConfig, config: &Config) {
        let value = ("value", Some(topic.value_format), &topic.value_schema);
        let key = ("key", topic.key_format, &topic.key_schema);
        for (what, format, schema) in [value, key] {
            let is_avro = format == Some(Format::Avro);
            if is_avro && schema.is_none() && config.schema_registry.is_none() {
                self.problem(
                    &format!("{path}.{what}_format"),
                    "is avro, and there is neither `schema_registry` nor a local schema",
                    Some("add `schema_registry: {url: …}`, or name an .avsc file"),
                );
            }
            if !is_avro && schema.is_some() {
                self.problem(
                    &format!("{path}.{what}_schema"),
                    format!("is used only with `{what}_format: avro`"),
                    Some("remove it, or set the format"),
                );
            }
        }
    }

    fn dead_letter(&mut self, path: &str, topic: &TopicConfig, config: &Config) {
        let Some(dead_letter) = &topic.dead_letter else {
            if topic.null_value == NullValue::DeadLetter {
                self.problem(
                    &format!("{path}.null_value"),
                    "is dead_letter, and there is no `dead_letter` topic",
                    Some("name one, or choose skip or row"),
                );
            }
            return;
        };
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=249).contains(&dead_letter.len()) || !dead_letter.bytes().all(legal) {
            self.problem(
                &format!("{path}.dead_letter"),
                "is not a possible topic name",
                Some("use at most 249 letters, digits, `.`, `_` and `-`"),
            );
        }
        if config.topics.iter().any(|other| other.matches == *dead_letter) {
            self.problem(
                &format!("{path}.dead_letter"),
                "is also a `match`: refused records would be read again for ever",
                Some("name another topic"),
            );
        }
    }

    fn layout(&mut self, path: &str, layout: &LayoutConfig) {
        if layout.clustering.len() > 4 {
            self.problem(
                &format!("{path}.layout.clustering"),
                "has more than the four columns that BigQuery takes",
                Some("name at most four"),
            );
        }
        let legal = |char: char| char.is_lowercase() || char.is_numeric() || "_-".contains(char);
        for (key, value) in &layout.labels {
            let fits = |text: &str| text.chars().count() <= 63 && text.chars().all(legal);
            if !key.starts_with(char::is_lowercase) || !fits(key) || !fits(value) {
                self.problem(
                    &format!("{path}.layout.labels.{key}"),
                    "is not a possible label",
                    Some(
                        "use lower-case letters, digits, `_` and `-`; the key starts with a letter",
                    ),
                );
            }
        }
    }

    fn batch(&mut self, path: &str, topic: &TopicConfig, config: &Config) {
        if topic.batch.bytes_max.saturating_mul(2) > config.limits.bytes_in_flight {
            self.problem(
                &format!("{path}.batch.bytes_max"),
                "is more than half of `limits.bytes_in_flight`: reading would stop for each batch",
                Some("lower it, or raise the limit"),
            );
        }
    }

    fn header_tables(
        &mut self,
        path: &str,
        topic: &TopicConfig,
        table: &TableTemplate,
    ) -> Option<AllowedTables> {
        let allowed = AllowedTables::new(table, &topic.header_tables);
        let mistake = |error: AllowanceError| {
            let (key, remedy) = match error {
                AllowanceError::Name(..) => {
                    ("header_tables.names", "write a name or an expression")
                }
                AllowanceError::Open => (
                    "table",
                    "begin it with text, such as `events_{header:type}`, or list the tables in \
                     `header_tables: {names: [orders, 'events_.+']}`",
                ),
            };
            self.problem(&format!("{path}.{key}"), error.to_string(), Some(remedy));
        };
        allowed.map_err(mistake).ok()
    }

    fn template(&mut self, path: &str, topic: &TopicConfig, table: &TableTemplate) {
        let named = matches!(topic.value_format, Format::Avro | Format::ConnectJson);
        if table.uses_record_name() && !named {
            self.problem(
                &format!("{path}.table"),
                "uses {record}, and values of this format have no record name",
                Some("use {topic} or {header:NAME}"),
            );
        }
    }
}

fn layout(layout: &LayoutConfig) -> TableLayout {
    TableLayout {
        partitioning: layout.partitioning.as_ref().map(|partitioning| Partitioning {
            granularity: partitioning.granularity,
            column: partitioning.column.clone(),
            expiration_ms: partitioning.expiration_days.map(|days| i64::from(days) * DAY_MS),
        }),
        clustering: layout.clustering.clone(),
        labels: layout.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        description: layout.description.clone(),
    }
}
