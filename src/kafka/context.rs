//! The client's callbacks: rebalances are queued for the poll loop, logs and errors go to tracing.

use std::{
    collections::VecDeque,
    error::Error,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use rdkafka::{
    TopicPartitionList,
    client::{ClientContext, OAuthToken},
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode as Code},
    types::RDKafkaRespErr,
};

use super::{
    brokers::{self, Brokers, Change},
    client_log::{Loudness, Shown},
    ffi,
    oauth::TokenSource,
};
use crate::{record::TopicPartition, source::LostBroker};

/// A rebalance that librdkafka has announced and now waits to see carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// These partitions are to be added.
    Assign(Vec<TopicPartition>),
    /// These partitions are to be given up; `true` if they are lost already.
    Revoke(Vec<TopicPartition>, bool),
}

/// The context of a client.
///
/// librdkafka only asks that an announced rebalance is answered with an (un)assign call some time;
/// it does not have to be from within the callback. So the callback queues it, and the poll loop,
/// which owns the lanes and the handler, carries it out next.
pub struct Context {
    /// What the log calls the client.
    client: &'static str,
    rebalances: Mutex<VecDeque<Rebalance>>,
    heard: Mutex<Heard>,
    closing: AtomicBool,
    tokens: Option<Arc<dyn TokenSource>>,
}

/// What the client has said.
#[derive(Default)]
struct Heard {
    brokers: Brokers,
    shown: Shown,
    /// Whether the brokers that do not answer are others than when the poll loop asked last.
    changed: bool,
    errors: VecDeque<String>,
}

/// Client-wide errors kept until the poll loop fetches them; nobody fetches those of other clients.
const ERRORS_MAX: usize = 32;

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Context {
    /// The context of `client`, as the log calls it, which takes OAuth tokens from `tokens`.
    pub fn new(client: &'static str, tokens: Option<Arc<dyn TokenSource>>) -> Self {
        Self {
            client,
            rebalances: Mutex::default(),
            heard: Mutex::default(),
            closing: AtomicBool::new(false),
            tokens,
        }
    }

    /// The next announced rebalance.
    pub fn next_rebalance(&self) -> Option<Rebalance> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// The next client-wide error.
    pub fn next_error(&self) -> Option<String> {
        self.heard().errors.pop_front()
    }

    /// The brokers that do not answer.
    pub fn lost(&self) -> Vec<LostBroker> {
        self.heard().brokers.lost()
    }

    /// The brokers that do not answer, if they are others than when this was asked last.
    pub fn next_lost(&self) -> Option<Vec<LostBroker>> {
        let mut heard = self.heard();
        std::mem::take(&mut heard.changed).then(|| heard.brokers.lost())
    }

    /// From now on rebalances are answered at once: nobody serves the queue any more.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, message: &str) {
        let change = {
            let mut heard = self.heard();
            let change = heard.brokers.failed(message, Instant::now());
            heard.changed |= change.is_some();
            change
        };
        if let Some(change) = change {
            self.tell(&change);
        }
    }

    fn tell(&self, change: &Change) {
        let client = self.client;
        match change {
            Change::Lost { broker, reason, remedy: Some(remedy) } => {
                tracing::warn!(client, broker, reason, remedy, "a Kafka broker cannot be used");
            }
            Change::Lost { broker, reason, remedy: None } => {
                tracing::warn!(client, broker, reason, "a Kafka broker cannot be reached");
            }
            Change::Back { broker, after } => {
                let seconds = after.as_secs();
                tracing::info!(client, broker, seconds, "the Kafka broker answers again");
            }
        }
    }
}

/// Whether an error is about one connection; the log has the same, unless it is turned off.
fn is_about_a_connection(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::BrokerTransportFailure
                | Code::Resolve
                | Code::Authentication
                | Code::SSL
                | Code::OperationTimedOut
        )
    )
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let client = self.client;
        let failed = matches!(
            level,
            RDKafkaLogLevel::Emerg
                | RDKafkaLogLevel::Alert
                | RDKafkaLogLevel::Critical
                | RDKafkaLogLevel::Error
        );
        if facility == "FAIL" && failed {
            self.failed(message);
        }
        let loudness = self.heard().shown.loudness(level, facility, message, Instant::now());
        let line = brokers::without_thread(message);
        match loudness {
            Loudness::Error => tracing::error!(client, facility, line, "librdkafka"),
            Loudness::Warn => tracing::warn!(client, facility, line, "librdkafka"),
            Loudness::Debug => tracing::debug!(client, facility, line, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if is_about_a_connection(&error) {
            self.failed(reason);
            return;
        }
        let mut heard = self.heard();
        // That all brokers are lost was told broker by broker; of topics that are not there the recovery
        // thread tells, with the remedy.
        let told = error.rdkafka_error_code() == Some(Code::AllBrokersDown)
            || reason.starts_with("Subscribed topic not available")
            || !heard.shown.is_news(reason, Instant::now());
        if told {
            tracing::debug!(client = self.client, %error, reason, "Kafka client error");
        } else if heard.errors.len() < ERRORS_MAX {
            heard.errors.push_back(format!("{error}: {reason}"));
        } else {
            tracing::warn!(client = self.client, %error, reason, "Kafka client error");
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let back = {
            let mut heard = self.heard();
            let before = heard.brokers.lost().len();
            let back = heard.brokers.observed(statistics, Instant::now());
            heard.changed |= heard.brokers.lost().len() != before;
            back
        };
        back.iter().for_each(|change| self.tell(change));
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        super::oauth::generate(self.tokens.as_deref())
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let assign = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            let answered = if assign {
                consumer.incremental_assign(&TopicPartitionList::new())
            } else {
                consumer.unassign()
            };
            if let Err(error) = answered {
                tracing::warn!(%error, "answering a rebalance while closing failed");
            }
            return;
        }
        let lanes = ffi::elements(list).into_iter().map(|element| element.lane).collect();
        let rebalance = if assign {
            Rebalance::Assign(lanes)
        } else {
            Rebalance::Revoke(lanes, consumer.assignment_lost())
        };
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push_back(rebalance);
    }
}
