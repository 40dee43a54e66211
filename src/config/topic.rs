//! One entry of `topics`, as the user writes it.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    delivery::budget::BudgetSettings,
    duration,
    pipeline::settings::{BatchSettings, HeaderTables, NullValue, WriteMode},
    schema::{columns::ColumnRules, policy::Policy},
    table::Granularity,
    transcode::settings::{Format, RowSettings},
};

/// One entry of `topics`: which topics, how they are read, and where they go.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopicConfig {
    /// A topic's name, or a regular expression that must match a topic's whole name. Text made only
    /// of letters, digits, `.`, `_` and `-` is a name. Topics that appear later are picked up; the
    /// dead-letter topics and Kafka's internal ones never match.
    #[serde(rename = "match")]
    pub matches: String,
    /// How values are encoded. Default: `avro`.
    #[serde(default = "avro")]
    pub value_format: Format,
    /// How keys are encoded; without it, keys are not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_format: Option<Format>,
    /// An Avro schema file (`.avsc`) that describes the values; they are then bare Avro, without the
    /// registry's prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_schema: Option<PathBuf>,
    /// The same for the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_schema: Option<PathBuf>,
    /// The table, as `table` or `dataset.table`. In the table's name, `{topic}` stands for the topic,
    /// `{header:NAME}` for a header's text, `{record}` for the short name of the value's record
    /// schema; each is reduced to letters, digits and `_`. Default: `{topic}`.
    #[serde(default = "topic_template")]
    pub table: String,
    /// Which tables the headers of records may choose, where `table` has `{header:NAME}`.
    #[serde(default)]
    pub header_tables: HeaderTables,
    /// How rows reach BigQuery.
    #[serde(default)]
    pub write: WriteMode,
    /// What must hold of every row, whatever dies. Default: `at_least_once`.
    #[serde(default)]
    pub delivery: Delivery,
    /// How old a row may be when it is visible in the table, such as `10s`, `15m` or `1h`. Load jobs are
    /// not made more often, and less often where the table's daily quota of jobs asks for it.
    /// Default: `1m`.
    #[serde(default = "freshness", with = "duration")]
    #[schemars(with = "duration::SpanText")]
    pub freshness: Duration,
    /// Part of every load job's id. After a deliberate rewind of the group's offsets count it up:
    /// records that were loaded under the same number are not loaded again.
    #[serde(default)]
    pub load_epoch: u32,
    /// The topic for records that cannot be written, with the reason in its headers. Without one,
    /// the first such record halts its partition, which tries again every `limits.halt_retry_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<String>,
    /// When to halt a partition instead of diverting its records.
    #[serde(default)]
    pub dead_letter_budget: BudgetSettings,
    /// What becomes of a record whose value is null.
    #[serde(default)]
    pub null_value: NullValue,
    /// What a row is made of beside the value: key, headers, metadata.
    #[serde(default)]
    pub row: RowSettings,
    /// How columns are derived from a schema.
    #[serde(default)]
    pub columns: ColumnRules,
    /// Which changes the service may make to tables.
    #[serde(default)]
    pub policy: Policy,
    /// What a new table is created with. Tables that exist are left as they are.
    #[serde(default)]
    pub layout: LayoutConfig,
    /// When a batch is sent.
    #[serde(default)]
    pub batch: BatchSettings,
}

/// What must hold of every row, whatever dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// It is there. After a crash, a lost answer or a rebalance a streamed row may be there more than once, told by
    /// its topic, partition and offset; rows of load jobs are there once all the same.
    #[default]
    AtLeastOnce,
    /// It is there once. Only with `write: load` so far; everything else is refused.
    ExactlyOnce,
}

/// What a new table is created with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LayoutConfig {
    /// Time partitioning. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitioning: Option<PartitioningConfig>,
    /// Up to four columns to cluster by, in order.
    #[schemars(length(max = 4))]
    pub clustering: Vec<String>,
    /// Labels: keys and values of lower-case letters, digits, `_` and `-`, at most 63 characters.
    pub labels: BTreeMap<String, String>,
    /// The table's description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Time partitioning of a new table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartitioningConfig {
    /// How wide a partition is.
    #[serde(default = "day")]
    pub granularity: Granularity,
    /// The `DATE`, `DATETIME` or `TIMESTAMP` column to partition by, such as `_kafka_timestamp`.
    /// Default: the time of ingestion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Days after which BigQuery drops a partition. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36_500))]
    pub expiration_days: Option<u32>,
}

fn freshness() -> Duration {
    Duration::from_secs(60)
}

fn avro() -> Format {
    Format::Avro
}

fn topic_template() -> String {
    "{topic}".to_owned()
}

fn day() -> Granularity {
    Granularity::Day
}
