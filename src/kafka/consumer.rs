//! The consumer: one client, one poll thread, records in batches, rebalances in between.

use std::{
    sync::{Arc, mpsc::sync_channel},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    config::FromClientConfigAndContext as _,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
};
use tokio_util::sync::CancellationToken;

use super::{
    commit::SyncCommitter,
    context::Context,
    ffi::{self, BatchQueue, Client, RawMessages},
    oauth::TokenSource,
    poll::{Channels, PollLoop},
    properties::{self, PropertyError},
    recovery::Recovery,
    settings::KafkaSettings,
    topic_ids::TopicIds,
    topics::Topics,
};
use crate::{
    committer::ownership::Ownership,
    record::TopicPartition,
    source::{Ends, SourceHandler},
};

/// Messages per batch: about what measured best.
const BATCH_MAX: usize = 1024;

/// How long closing the client may take before it is abandoned.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

/// Why consuming could not begin, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The settings contain something refused.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// The client could not be made: usually a property that librdkafka refuses.
    #[error("the Kafka consumer cannot be created")]
    Create(#[source] KafkaError),
    /// The subscription was refused.
    #[error("the topics cannot be subscribed to")]
    Subscribe(#[source] KafkaError),
    /// librdkafka made no queue.
    #[error("librdkafka made no queue")]
    Queue,
    /// A thread could not be started.
    #[error("the thread for Kafka's metadata cannot be started")]
    Thread(#[source] std::io::Error),
    /// The client failed for good.
    #[error("the Kafka client failed for good: {0}")]
    Fatal(String),
}

impl ConsumeError {
    /// Why a client could not be made. rdkafka's error over a property shows the value, which may be a secret.
    pub fn create(error: KafkaError) -> Self {
        match properties::refused(&error) {
            Some(refused) => Self::Property(refused),
            None => Self::Create(error),
        }
    }
}

/// A consumer that is connected but not yet polled.
pub struct KafkaSource {
    client: Arc<Client>,
    ownership: Arc<Ownership>,
    settings: KafkaSettings,
    topics: Topics,
    needs_topic_ids: bool,
}

impl std::fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSource").field("topics", &self.topics).finish_non_exhaustive()
    }
}

impl KafkaSource {
    /// Makes the client; brokers that cannot be reached are no error.
    ///
    /// # Errors
    ///
    /// [`ConsumeError`] if the settings are refused, by the service or by librdkafka.
    pub fn new(
        settings: &KafkaSettings,
        topics: Topics,
        tokens: Option<Arc<dyn TokenSource>>,
    ) -> Result<Self, ConsumeError> {
        let config = properties::consumer(settings)?;
        ffi::inflate::BUDGET.set_limit(settings.decompressed_bytes_max);
        let client =
            BaseConsumer::from_config_and_context(&config, Context::new("consumer", tokens))
                .map_err(ConsumeError::create)?;
        Ok(Self {
            client: Arc::new(client),
            ownership: Arc::default(),
            settings: settings.clone(),
            topics,
            needs_topic_ids: false,
        })
    }

    /// Whether no partition may begin before the brokers told its topic's id, or that it has none.
    pub fn needing_topic_ids(self, needs_topic_ids: bool) -> Self {
        Self { needs_topic_ids, ..self }
    }

    /// The committer of this consumer's group.
    pub fn committer(&self) -> SyncCommitter {
        SyncCommitter::new(Arc::clone(&self.client), Arc::clone(&self.ownership))
    }

    /// What can be asked without a request to the brokers.
    pub fn watermarks(&self) -> Watermarks {
        Watermarks(Arc::clone(&self.client))
    }

    /// Polls until `stop`, then gives all lanes up in good order (see [`SourceHandler::revoke`]) and
    /// closes the client. To be called on a thread of its own, named `kcbq-poll`.
    ///
    /// # Errors
    ///
    /// [`ConsumeError`] if consuming cannot begin, or the client fails for good.
    pub fn run<H: SourceHandler<RawMessages>>(
        self,
        handler: &mut H,
        stop: &CancellationToken,
    ) -> Result<(), ConsumeError> {
        let client = Arc::clone(&self.client);
        let queue = BatchQueue::new(Arc::clone(&client), BATCH_MAX).ok_or(ConsumeError::Queue)?;
        let (ask, jobs) = sync_channel(16);
        let (report, reports) = sync_channel(1024);
        let recovery = self.recovery();
        let recovering = thread::Builder::new()
            .name("kcbq-recover".into())
            .spawn(move || recovery.run(&jobs, &report))
            .map_err(ConsumeError::Thread)?;
        let channels = Channels { jobs: ask, reports };
        let committer = self.committer();
        let mut poll = PollLoop::new((client, queue), self.ownership, channels, committer, handler);
        let ended = poll.subscribe(self.topics.matching([])).map_err(ConsumeError::Subscribe);
        let ended = ended.and_then(|()| poll.run(stop));
        drop(poll);
        close(&self.client);
        if recovering.join().is_err() {
            tracing::error!("the thread for Kafka's metadata panicked");
        }
        ended
    }

    fn recovery(&self) -> Recovery {
        Recovery::new(
            Arc::clone(&self.client),
            self.committer(),
            (self.settings.start, self.settings.on_data_loss),
            (self.topics.clone(), TopicIds::new(self.needs_topic_ids)),
            Duration::from_secs(u64::from(self.settings.discovery_interval_seconds.max(1))),
        )
    }
}

/// Leaves the group. Not left to the client's `Drop`, which would wait without a deadline.
fn close(client: &Client) {
    client.context().close();
    if let Err(error) = client.close_queue() {
        tracing::warn!(%error, "closing the Kafka consumer failed");
        return;
    }
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    while !client.closed() {
        if Instant::now() > deadline {
            tracing::warn!("the Kafka consumer did not close in time; the group will notice");
            return;
        }
        drop(client.poll(Duration::from_millis(50)));
    }
}

/// The ends of partitions as the client last saw them.
#[derive(Clone)]
pub struct Watermarks(Arc<Client>);

impl std::fmt::Debug for Watermarks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watermarks")
    }
}

impl Ends for Watermarks {
    fn high(&self, lane: &TopicPartition) -> Option<i64> {
        ffi::cached_high(&self.0, lane)
    }
}
