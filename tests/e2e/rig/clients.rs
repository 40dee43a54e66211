//! The rig's own Kafka clients: they share nothing with the product but librdkafka.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaError,
    message::BorrowedMessage,
    producer::{BaseProducer, BaseRecord, Producer},
    types::RDKafkaErrorCode,
};
use tokio::runtime::Builder;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A topic's name and a partition's number.
pub(crate) type Lane = (String, i32);

fn config(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("log_level", "0");
    config
}

/// Creates topics, each with a number of partitions.
pub(crate) fn create_topics(address: &str, topics: &[(&str, i32)]) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(address).create()?;
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(1)))
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let results = Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(admin.create_topics(&new, &options))?;
    for result in results {
        result.map_err(|(topic, code)| anyhow::anyhow!("creating {topic}: {code}"))?;
    }
    Ok(())
}

/// Sets the largest batch of records that `topic` takes.
pub(crate) fn set_batch_bytes_max(address: &str, topic: &str, bytes: u32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(address).create()?;
    let bytes = bytes.to_string();
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    let change = change.set("max.message.bytes", &bytes);
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let results = Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(admin.alter_configs([&change], &options))?;
    for result in results {
        result.map_err(|(resource, code)| anyhow::anyhow!("altering {resource:?}: {code}"))?;
    }
    Ok(())
}

/// Commits offsets for a group that has no member.
pub(crate) fn commit(address: &str, group: &str, offsets: &BTreeMap<Lane, i64>) -> Result<()> {
    let consumer: BaseConsumer = config(address).set("group.id", group).create()?;
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    consumer.commit(&list, CommitMode::Sync).context("committing for a group")
}

/// A producer that waits where its queue is full.
pub(crate) struct Sender(BaseProducer);

impl Sender {
    /// Connects to the broker. Nothing is lost or reordered over a broker's restart.
    pub(crate) fn new(address: &str) -> Result<Self> {
        let producer = config(address)
            .set("linger.ms", "20")
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "300000")
            .set("message.max.bytes", "20000000")
            .set("queue.buffering.max.messages", "500000")
            .create()
            .context("creating the producer")?;
        Ok(Self(producer))
    }

    /// Queues one record; `value: None` is a tombstone.
    pub(crate) fn send(
        &self,
        lane: (&str, i32),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<()> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(lane.0).partition(lane.1);
        record.key = key;
        record.payload = value;
        loop {
            match self.0.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    self.0.poll(Duration::from_millis(20));
                    record = refused;
                }
                Err((error, _)) => return Err(error).context("producing"),
            }
        }
    }

    /// Lets the client work off delivery reports.
    pub(crate) fn poll(&self) {
        self.0.poll(Duration::ZERO);
    }

    /// Waits until the broker has everything.
    pub(crate) fn flush(&self) -> Result<()> {
        self.0.flush(Duration::from_secs(120)).context("flushing the producer")
    }
}

/// Sends `values` to partition 0 of `topic` in one batch, however large.
pub(crate) fn send_batch(
    address: &str,
    topic: &str,
    codec: &str,
    values: impl IntoIterator<Item = Vec<u8>>,
) -> Result<()> {
    let producer: BaseProducer = config(address)
        .set("compression.codec", codec)
        .set("message.max.bytes", "1000000000")
        .set("batch.size", "1000000000")
        .set("queue.buffering.max.kbytes", "2000000")
        .set("queue.buffering.max.messages", "1000000")
        .set("batch.num.messages", "1000000")
        // A flush sends what waits at once.
        .set("linger.ms", "60000")
        .create()
        .context("creating the producer of one batch")?;
    for value in values {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(0).payload(&value);
        producer.send(record).map_err(|(error, _)| error).context("producing")?;
    }
    producer.flush(Duration::from_secs(120)).context("flushing the producer of one batch")
}

/// An observer of topics and of a group's offsets. It never joins the group.
pub(crate) struct Observer {
    consumer: BaseConsumer,
}

impl Observer {
    /// Connects to the broker as a bystander of `group`.
    pub(crate) fn new(address: &str, group: &str) -> Result<Self> {
        let consumer = config(address)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("message.max.bytes", "20000000")
            .set("fetch.message.max.bytes", "4000000")
            .create()
            .context("creating the observer")?;
        Ok(Self { consumer })
    }

    /// The partitions of `topics`.
    pub(crate) fn lanes(&self, topics: &[String]) -> Result<Vec<Lane>> {
        let mut lanes = Vec::new();
        for name in topics {
            let metadata = self.consumer.fetch_metadata(Some(name), TIMEOUT)?;
            let topic = metadata.topics().first().context("no such topic")?;
            lanes.extend(topic.partitions().iter().map(|part| (name.clone(), part.id())));
        }
        Ok(lanes)
    }

    /// What the group has committed; 0 where it has not.
    pub(crate) fn committed(&self, lanes: &[Lane]) -> Result<BTreeMap<Lane, i64>> {
        let mut list = TopicPartitionList::new();
        lanes.iter().for_each(|(topic, partition)| {
            list.add_partition(topic, *partition);
        });
        let committed = self.retry("committed offsets", || {
            self.consumer.committed_offsets(list.clone(), Duration::from_secs(5))
        })?;
        let offset = |offset| if let Offset::Offset(offset) = offset { offset } else { 0 };
        let elements = committed.elements();
        Ok(elements
            .iter()
            .map(|part| ((part.topic().to_owned(), part.partition()), offset(part.offset())))
            .collect())
    }

    /// The ends of the partitions.
    pub(crate) fn ends(&self, lanes: &[Lane]) -> Result<BTreeMap<Lane, i64>> {
        lanes
            .iter()
            .map(|(topic, partition)| {
                let (_, end) = self.retry("watermarks", || {
                    self.consumer.fetch_watermarks(topic, *partition, Duration::from_secs(5))
                })?;
                Ok(((topic.clone(), *partition), end))
            })
            .collect()
    }

    /// Records that the group has not committed.
    pub(crate) fn lag(&self, lanes: &[Lane]) -> Result<i64> {
        let committed = self.committed(lanes)?;
        let ends = self.ends(lanes)?;
        Ok(ends.iter().map(|(lane, end)| end - committed.get(lane).unwrap_or(&0)).sum())
    }

    /// Waits until the group has committed everything.
    pub(crate) fn wait_for_no_lag(&self, lanes: &[Lane], timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        loop {
            let lag = self.lag(lanes)?;
            if lag == 0 {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("{lag} records are still not committed after {timeout:?}");
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Reads every record of `lanes` that is there now.
    pub(crate) fn read(
        &self,
        lanes: &[Lane],
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<()>,
    ) -> Result<u64> {
        let ends = self.ends(lanes)?;
        let mut left: u64 = 0;
        let mut list = TopicPartitionList::new();
        for ((topic, partition), end) in &ends {
            list.add_partition_offset(topic, *partition, Offset::Offset(0))?;
            left += u64::try_from(*end)?;
        }
        let count = left;
        self.consumer.assign(&list)?;
        let mut stalled_since = Instant::now();
        while left > 0 {
            match self.consumer.poll(Duration::from_millis(500)) {
                Some(Ok(message)) => {
                    let lane = (message.topic().to_owned(), message.partition());
                    if ends.get(&lane).is_some_and(|end| message.offset() < *end) {
                        each(&message)?;
                        left -= 1;
                    }
                    stalled_since = Instant::now();
                }
                Some(Err(error)) => eprintln!("observer: {error}"),
                None if stalled_since.elapsed() > TIMEOUT => bail!("{left} records do not come"),
                None => {}
            }
        }
        self.consumer.unassign()?;
        Ok(count)
    }

    /// A broker that restarts answers nothing for a while.
    fn retry<T>(&self, what: &str, ask: impl Fn() -> Result<T, KafkaError>) -> Result<T> {
        let end = Instant::now() + TIMEOUT;
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) if Instant::now() > end => {
                    return Err(error).with_context(|| format!("asking for {what}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }
}
