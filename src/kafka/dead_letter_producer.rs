//! The dead-letter topic over librdkafka's producer.
//!
//! A letter carries the original key, value, headers and timestamp, then the headers that Kafka
//! Connect's `DeadLetterQueueReporter` writes (tools know them), then ours:
//!
//! | header | content |
//! |---|---|
//! | `__connect.errors.topic`, `.partition`, `.offset` | the record's coordinates |
//! | `__connect.errors.connector.name` | the consumer group |
//! | `__connect.errors.task.id` | `0` |
//! | `__connect.errors.stage` | `VALUE_CONVERTER` for a record that cannot be read, else `TASK_PUT` |
//! | `__connect.errors.class.name` | `kcbq` |
//! | `__connect.errors.exception.class.name` | `kcbq.` and the stage |
//! | `__connect.errors.exception.message` | the reason |
//! | `kcbq.error.stage`, `.reason`, `.field`, `.schema_id` | the same, and where |
//! | `kcbq.value.truncated_from_bytes` | only where the value had to be cut: its full length |
//!
//! A record that is too large for the dead-letter topic is sent again with its value cut: the
//! coordinates must not be lost, and the original can still be read at them.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use rdkafka::{
    config::FromClientConfigAndContext as _,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};

use super::{
    consumer::ConsumeError, context::Context, oauth::TokenSource, properties,
    settings::KafkaSettings,
};
use crate::{
    dead_letter::{DeadLetter, DeadLetters, Stage},
    fault::{Fault, FaultKind},
    record::Headers,
};

/// How long a letter may wait for room in the producer's queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of letters in the producer's queue, KiB.
const QUEUE_KBYTES: &str = "32768";

/// How long the client tries to deliver a letter, milliseconds.
const MESSAGE_TIMEOUT_MS: &str = "120000";

/// Room for key, headers and framing beside the largest value.
const OVERHEAD_BYTES: u64 = 256 * 1024;

/// What is left of a value that is too large: tried in this order.
const CUTS: [usize; 3] = [900_000, 16 * 1024, 0];

/// Sends letters with `acks=all` and idempotence.
pub struct DeadLetterProducer {
    producer: FutureProducer<Context>,
    group: String,
}

impl std::fmt::Debug for DeadLetterProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetterProducer").field("group", &self.group).finish_non_exhaustive()
    }
}

impl DeadLetterProducer {
    /// A producer for the cluster of `settings`. Makes no connection yet.
    ///
    /// # Errors
    ///
    /// [`ConsumeError`] if the settings are refused, by the service or by librdkafka.
    pub fn new(
        settings: &KafkaSettings,
        tokens: Option<Arc<dyn TokenSource>>,
    ) -> Result<Self, ConsumeError> {
        let mut config = properties::common(settings)?;
        let bytes_max = (u64::from(settings.record_bytes_max) + OVERHEAD_BYTES).min(1_000_000_000);
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.kbytes", QUEUE_KBYTES)
            .set("message.timeout.ms", MESSAGE_TIMEOUT_MS)
            .set("message.max.bytes", bytes_max.to_string())
            .set("statistics.interval.ms", properties::STATISTICS_INTERVAL_MS);
        let context = Context::new("dead letters", tokens);
        let producer = FutureProducer::from_config_and_context(&config, context)
            .map_err(ConsumeError::Create)?;
        Ok(Self { producer, group: settings.group_id.clone() })
    }

    async fn deliver(&self, letter: DeadLetter) -> Result<(), Fault> {
        let full = letter.value.as_ref().map_or(0, Vec::len);
        let cuts = CUTS.into_iter().filter(|cut| *cut < full);
        let mut refused = self.attempt(&letter, full).await;
        for cut in cuts {
            if !refused.as_ref().is_err_and(too_large) {
                break;
            }
            refused = self.attempt(&letter, cut).await;
        }
        refused.map_err(|error| fault(&letter.topic, &error))
    }

    /// Sends the letter with the first `bytes` of its value.
    async fn attempt(&self, letter: &DeadLetter, bytes: usize) -> Result<(), KafkaError> {
        let value = letter.value.as_deref().map(|value| value.get(..bytes).unwrap_or(value));
        let truncated = letter.value.as_ref().map(Vec::len).filter(|full| *full > bytes);
        let headers = headers(letter, &self.group, truncated);
        let record = FutureRecord::<[u8], [u8]> {
            topic: &letter.topic,
            partition: None,
            payload: value,
            key: letter.key.as_deref(),
            timestamp: letter.timestamp_ms,
            headers: Some(headers),
        };
        match self.producer.send(record, QUEUE_TIMEOUT).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error),
        }
    }
}

impl DeadLetters for DeadLetterProducer {
    fn send(&self, letter: DeadLetter) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.deliver(letter))
    }
}

fn too_large(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize))
}

/// What a failed delivery means.
fn fault(topic: &str, error: &KafkaError) -> Fault {
    let code = error.rdkafka_error_code();
    let reason = code.map_or_else(|| "producer".to_owned(), |code| format!("{code:?}"));
    let message = format!("the dead-letter topic {topic} did not take a record: {error}");
    match code {
        Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => {
            Fault::refused(FaultKind::PermissionDenied, reason, message)
        }
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
            Fault::refused(FaultKind::TableNotFound, reason, message)
                .with_remedy(format!("create the topic {topic}"))
        }
        Some(Code::SaslAuthenticationFailed | Code::Authentication) => {
            Fault::refused(FaultKind::Unauthenticated, reason, message)
        }
        Some(Code::QueueFull) => Fault::refused(FaultKind::Throttled, reason, message),
        _ if too_large(error) => Fault::refused(FaultKind::TooLarge, reason, message),
        _ => Fault::unknown(FaultKind::Transient, reason, message),
    }
}

fn headers(letter: &DeadLetter, group: &str, truncated_from: Option<usize>) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    for (key, value) in Headers::from_encoded(&letter.headers).iter() {
        headers = headers.insert(Header { key, value });
    }
    let origin = &letter.origin;
    let reason = &letter.reason;
    let stage = reason.stage.name();
    let connect = if reason.stage == Stage::Decode { "VALUE_CONVERTER" } else { "TASK_PUT" };
    let mut added = vec![
        ("__connect.errors.topic", origin.lane.topic.to_string()),
        ("__connect.errors.partition", origin.lane.partition.to_string()),
        ("__connect.errors.offset", origin.offset.to_string()),
        ("__connect.errors.connector.name", group.to_owned()),
        ("__connect.errors.task.id", "0".to_owned()),
        ("__connect.errors.stage", connect.to_owned()),
        ("__connect.errors.class.name", "kcbq".to_owned()),
        ("__connect.errors.exception.class.name", format!("kcbq.{stage}")),
        ("__connect.errors.exception.message", reason.message.clone()),
        ("kcbq.error.stage", stage.to_owned()),
        ("kcbq.error.reason", reason.message.clone()),
    ];
    added.extend(reason.field.clone().map(|field| ("kcbq.error.field", field)));
    added.extend(reason.schema_id.map(|id| ("kcbq.error.schema_id", id.to_string())));
    added.extend(truncated_from.map(|len| ("kcbq.value.truncated_from_bytes", len.to_string())));
    for (key, value) in &added {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    headers
}
