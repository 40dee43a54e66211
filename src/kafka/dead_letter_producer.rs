//! The dead-letter topic over librdkafka's producer.
//!
//! A letter carries the original key, value and headers, then the headers that Kafka Connect's
//! `DeadLetterQueueReporter` writes (tools know them), then ours:
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
//! | `kcbq.record.timestamp_ms` | the original timestamp |
//! | `kcbq.key.truncated_from_bytes`, `kcbq.value.…`, `kcbq.headers.…` | only where it had to be cut: its full length |
//!
//! A letter is always deliverable, or the lane would stop at its record:
//!
//! * Its own timestamp is that of its sending. A broker refuses one that is too far from its clock
//!   (`message.timestamp.before.max.ms`, `message.timestamp.after.max.ms`), and retention would delete
//!   the letter of an old record at once.
//! * What is too large for the topic is sent again with key, value and headers cut: the coordinates
//!   must not be lost, and the original can still be read at them.
//! * What the broker refuses for good is sent once more as a minimal letter: coordinates, stage, reason.
//! * It is alone in its batch. A broker refuses a batch as a whole (`ProduceResponse` has one error
//!   for each partition, <https://kafka.apache.org/protocol#The_Messages_Produce>), so one that is refused
//!   would take the letters of other lanes with it.

mod envelope;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use rdkafka::{
    ClientConfig,
    config::FromClientConfigAndContext as _,
    error::{KafkaError, RDKafkaErrorCode as Code},
    producer::{FutureProducer, FutureRecord, Producer as _},
};

use super::{
    consumer::ConsumeError, context::Context, oauth::TokenSource, properties,
    settings::KafkaSettings,
};
use crate::{
    dead_letter::{DeadLetter, DeadLetters},
    fault::{Fault, FaultKind},
};

use envelope::{Envelope, Extent};

/// How long a letter may wait for room in the producer's queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of letters in the producer's queue, KiB.
const QUEUE_KBYTES: &str = "32768";

/// How long the client tries to deliver a letter, milliseconds.
const MESSAGE_TIMEOUT_MS: &str = "120000";

/// How long a topic may be unknown to the brokers before a letter fails, milliseconds. It is sent again
/// all the same; until it has failed, nobody can say why it is not there.
const TOPIC_TIMEOUT_MS: &str = "5000";

/// Room for key, headers and framing beside the largest value.
const OVERHEAD_BYTES: u64 = 256 * 1024;

/// What is left of a letter that is too large: tried in this order.
const CUTS: [usize; 2] = [900_000, 16 * 1024];

type Producer = FutureProducer<Context>;

/// Sends letters with `acks=all` and idempotence.
pub struct DeadLetterProducer {
    producer: Mutex<Arc<Producer>>,
    config: ClientConfig,
    tokens: Option<Arc<dyn TokenSource>>,
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
            .set("batch.num.messages", "1")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.kbytes", QUEUE_KBYTES)
            .set("message.timeout.ms", MESSAGE_TIMEOUT_MS)
            .set("topic.metadata.propagation.max.ms", TOPIC_TIMEOUT_MS)
            .set("message.max.bytes", bytes_max.to_string())
            .set("statistics.interval.ms", properties::STATISTICS_INTERVAL_MS);
        let producer = producer(&config, tokens.clone())?;
        let producer = Mutex::new(Arc::new(producer));
        Ok(Self { producer, config, tokens, group: settings.group_id.clone() })
    }

    async fn deliver(&self, letter: DeadLetter) -> Result<(), Fault> {
        let mut refused = self.attempt(&letter, Extent::Whole).await;
        let bytes = letter.key.as_ref().map_or(0, Vec::len)
            + letter.value.as_ref().map_or(0, Vec::len)
            + letter.headers.len();
        for cut in CUTS.into_iter().filter(|cut| *cut < bytes) {
            if !refused.as_ref().is_err_and(is_too_large) {
                break;
            }
            refused = self.attempt(&letter, Extent::Cut(cut)).await;
        }
        if refused.as_ref().is_err_and(is_definite) {
            refused = self.attempt(&letter, Extent::Minimal).await;
        }
        refused.map_err(|error| fault(&letter.topic, &error))
    }

    /// Sends so much of the letter.
    async fn attempt(&self, letter: &DeadLetter, extent: Extent) -> Result<(), KafkaError> {
        let envelope = Envelope::of(letter, extent, &self.group);
        let record = FutureRecord::<[u8], [u8]> {
            topic: &letter.topic,
            partition: None,
            payload: envelope.value.as_deref(),
            key: envelope.key.as_deref(),
            timestamp: None,
            headers: Some(envelope.headers),
        };
        let producer = self.producer();
        match producer.send(record, QUEUE_TIMEOUT).await {
            Ok(_) => Ok(()),
            Err((error, _)) => {
                self.replace_if_failed(producer).await;
                Err(error)
            }
        }
    }

    fn producer(&self) -> Arc<Producer> {
        Arc::clone(&self.producer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A client that has failed for good, which for an idempotent one a missing permission is enough
    /// for, sends nothing any more even when the cause has passed: another takes its place.
    async fn replace_if_failed(&self, failed: Arc<Producer>) {
        if failed.client().fatal_error().is_none() {
            return;
        }
        if let Ok(fresh) = producer(&self.config, self.tokens.clone()) {
            let mut current = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
            if Arc::ptr_eq(&current, &failed) {
                *current = Arc::new(fresh);
            }
        }
        // Closing a client waits for its threads.
        tokio::task::spawn_blocking(move || drop(failed)).await.ok();
    }
}

impl DeadLetters for DeadLetterProducer {
    fn send(&self, letter: DeadLetter) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.deliver(letter))
    }
}

fn producer(
    config: &ClientConfig,
    tokens: Option<Arc<dyn TokenSource>>,
) -> Result<Producer, ConsumeError> {
    let context = Context::new("dead letters", tokens);
    FutureProducer::from_config_and_context(config, context).map_err(ConsumeError::create)
}

fn is_too_large(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize)
    )
}

/// Whether the broker refuses this very letter, however often it is sent: errors that
/// <https://kafka.apache.org/protocol#protocol_error_codes> calls not retriable, of the record and not of
/// topic, cluster or client.
fn is_definite(error: &KafkaError) -> bool {
    is_too_large(error)
        || matches!(
            error.rdkafka_error_code(),
            Some(
                Code::InvalidTimestamp
                    | Code::InvalidRecord
                    | Code::PolicyViolation
                    | Code::UnsupportedForMessageFormat
            )
        )
}

/// What a failed delivery means.
fn fault(topic: &str, error: &KafkaError) -> Fault {
    let code = error.rdkafka_error_code();
    let reason = code.map_or_else(|| "producer".to_owned(), |code| format!("{code:?}"));
    let message = format!("the dead-letter topic {topic} did not take a record: {error}");
    let refused = |kind| Fault::refused(kind, reason.clone(), message.clone());
    match code {
        Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => {
            refused(FaultKind::PermissionDenied)
                .with_remedy(format!("let this service's identity write to the topic {topic}"))
        }
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
            refused(FaultKind::TableNotFound).with_remedy(format!("create the topic {topic}"))
        }
        Some(Code::SaslAuthenticationFailed | Code::Authentication) => {
            refused(FaultKind::Unauthenticated).with_remedy("check kafka.security")
        }
        Some(Code::QueueFull) => refused(FaultKind::Throttled),
        Some(Code::InvalidTimestamp) => refused(FaultKind::InvalidRequest).with_remedy(format!(
            "check the clocks of this host and of the brokers, and message.timestamp of the topic \
             {topic}"
        )),
        _ if is_too_large(error) => refused(FaultKind::TooLarge)
            .with_remedy(format!("raise max.message.bytes of the topic {topic}")),
        // Not even coordinates and reason were taken.
        _ if is_definite(error) => refused(FaultKind::InvalidRequest)
            .with_remedy(format!("check the settings of the topic {topic}")),
        _ => Fault::unknown(FaultKind::Transient, reason, message),
    }
}
