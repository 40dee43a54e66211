//! The port to the dead-letter topic, and what is sent there.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{fault::Fault, record::Coordinates};

/// At which stage a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The bytes could not be read in the configured format.
    Decode,
    /// No table could be named for the record.
    Destination,
    /// A value has no place in its column.
    Transcode,
    /// The schema change that the record needs is refused by policy or by BigQuery.
    Schema,
    /// BigQuery refused the row.
    Write,
    /// A null value, where the topic says `null_value: dead_letter`.
    NullValue,
}

impl Stage {
    /// The name used in headers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Destination => "destination",
            Self::Transcode => "transcode",
            Self::Schema => "schema",
            Self::Write => "write",
            Self::NullValue => "null_value",
        }
    }
}

/// Why a record was refused: safe to log, holds no value of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Where in the service.
    pub stage: Stage,
    /// One sentence for a person, with the remedy.
    pub message: String,
    /// The field's path in the record or row, such as `order.lines.price`.
    pub field: Option<String>,
    /// The writer schema's id in the registry.
    pub schema_id: Option<u32>,
}

/// One record for the dead-letter topic, with its original bytes.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The dead-letter topic.
    pub topic: Arc<str>,
    /// Where the record came from.
    pub origin: Coordinates,
    /// The original timestamp.
    pub timestamp_ms: Option<i64>,
    /// The original key.
    pub key: Option<Vec<u8>>,
    /// The original value.
    pub value: Option<Vec<u8>>,
    /// The original headers, in the encoding of [`crate::record::Headers`].
    pub headers: Vec<u8>,
    /// Why.
    pub reason: Reason,
}

/// The dead-letter topic.
///
/// `send` resolves when all in-sync replicas have the record (`acks=all`): only then may the
/// record's offset be committed. It does not retry beyond what the Kafka client does by itself; a
/// fault of unknown certainty may have stored the record (the dead-letter topic is at-least-once).
pub trait DeadLetters: Send + Sync + 'static {
    /// Sends one record.
    fn send(&self, letter: DeadLetter) -> BoxFuture<'_, Result<(), Fault>>;
}
