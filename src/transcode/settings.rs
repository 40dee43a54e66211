//! Settings of one topic that decide what its rows are made of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a record's value or key is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Avro: in Confluent's wire format with a schema registry, or bare with a local schema.
    Avro,
    /// JSON objects without a schema; columns are inferred.
    Json,
    /// Kafka Connect's JSON envelope, `{"schema": …, "payload": …}`.
    ConnectJson,
    /// UTF-8 text into one STRING column.
    String,
    /// Bytes as they are into one BYTES column.
    Bytes,
}

/// Where the record's key goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyPlacement {
    /// Into one column of this name; a record key becomes a RECORD column.
    Column(String),
    /// The fields of a record key become top-level columns.
    Fields,
}

impl Default for KeyPlacement {
    fn default() -> Self {
        Self::Column("_kafka_key".to_owned())
    }
}

/// The metadata columns: where each record came from.
///
/// Topic, partition and offset together identify a row; they make duplicates after a crash findable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metadata {
    /// Whether rows carry metadata at all.
    pub enabled: bool,
    /// Put the four columns into one RECORD column of this name instead of the top level.
    pub record: Option<String>,
    /// Name of the STRING column with the topic.
    pub topic: String,
    /// Name of the INT64 column with the partition.
    pub partition: String,
    /// Name of the INT64 column with the offset.
    pub offset: String,
    /// Name of the TIMESTAMP column with the record's timestamp.
    pub timestamp: String,
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            enabled: true,
            record: None,
            topic: "_kafka_topic".to_owned(),
            partition: "_kafka_partition".to_owned(),
            offset: "_kafka_offset".to_owned(),
            timestamp: "_kafka_timestamp".to_owned(),
        }
    }
}

/// What a topic's rows are made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RowSettings {
    /// Name of the column for a value that is not a record (`string`, `bytes`, an Avro primitive).
    pub value_column: String,
    /// Where the key goes, if it has a format.
    pub key: KeyPlacement,
    /// The metadata columns.
    pub metadata: Metadata,
    /// Name of a REPEATED RECORD column `{key STRING, value BYTES}` for the headers; none by
    /// default.
    pub headers_column: Option<String>,
    /// The largest encoded row in bytes; BigQuery takes 10 MB.
    pub row_bytes_max: usize,
}

impl Default for RowSettings {
    fn default() -> Self {
        Self {
            value_column: "value".to_owned(),
            key: KeyPlacement::default(),
            metadata: Metadata::default(),
            headers_column: None,
            row_bytes_max: super::Limits::default().row_bytes_max,
        }
    }
}
