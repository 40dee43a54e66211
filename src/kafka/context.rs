//! The client's callbacks: rebalances are queued for the poll loop, logs and errors go to tracing.

use std::{
    collections::VecDeque,
    error::Error,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rdkafka::{
    TopicPartitionList,
    client::{ClientContext, OAuthToken},
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::KafkaError,
    types::RDKafkaRespErr,
};

use super::{ffi, oauth::TokenSource};
use crate::record::TopicPartition;

/// A rebalance that librdkafka has announced and now waits to see carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// These partitions are to be added.
    Assign(Vec<TopicPartition>),
    /// These partitions are to be given up; `true` if they are lost already.
    Revoke(Vec<TopicPartition>, bool),
}

/// The context of the consumer.
///
/// librdkafka only asks that an announced rebalance is answered with an (un)assign call some time;
/// it does not have to be from within the callback. So the callback queues it, and the poll loop,
/// which owns the lanes and the handler, carries it out next.
#[derive(Default)]
pub struct Context {
    rebalances: Mutex<VecDeque<Rebalance>>,
    errors: Mutex<VecDeque<String>>,
    closing: AtomicBool,
    tokens: Option<Arc<dyn TokenSource>>,
}

/// Client-wide errors kept until the poll loop fetches them; more are only logged.
const ERRORS_MAX: usize = 32;

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("closing", &self.closing).finish_non_exhaustive()
    }
}

impl Context {
    /// A context that takes OAuth tokens from `tokens`.
    pub fn new(tokens: Option<Arc<dyn TokenSource>>) -> Self {
        Self { tokens, ..Self::default() }
    }

    /// The next announced rebalance.
    pub fn next_rebalance(&self) -> Option<Rebalance> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// The next client-wide error.
    pub fn next_error(&self) -> Option<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// From now on rebalances are answered at once: nobody serves the queue any more.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() < ERRORS_MAX {
            errors.push_back(format!("{error}: {reason}"));
        } else {
            tracing::warn!(%error, reason, "Kafka client error");
        }
    }

    fn stats_raw(&self, _: &[u8]) {}

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

/// Sends one of librdkafka's log lines to tracing.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::error!(facility, message, "librdkafka"),
        RDKafkaLogLevel::Warning => tracing::warn!(facility, message, "librdkafka"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(facility, message, "librdkafka");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(facility, message, "librdkafka"),
    }
}
