//! Fills the demo's topics: a backlog first, the rest while the service runs.

use std::time::Duration;

use anyhow::Context as _;
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use serde_json::{Value, json};

use crate::app::demo::shop::{self, ORDERS, PARTITIONS, PAYMENTS, Version};

const FLUSH: Duration = Duration::from_secs(20);

/// The shop's producer.
pub struct Feed {
    producer: BaseProducer,
    registry: String,
    schema_id: u32,
    version: Version,
    next: u64,
    poison: u64,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Feed {
    /// A producer at `brokers` that registers the first schema at the registry's URL. Payment number
    /// `poison` will be broken.
    ///
    /// # Errors
    ///
    /// The registry does not take the schema.
    pub async fn new(brokers: &str, registry: String, poison: u64) -> anyhow::Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "100000")
            .create()
            .context("demo producer")?;
        let version = Version::One;
        let mut feed = Self { producer, registry, schema_id: 0, version, next: 0, poison };
        feed.register().await?;
        Ok(feed)
    }

    /// From here on, records are of version two.
    ///
    /// # Errors
    ///
    /// The registry does not take the schema.
    pub async fn upgrade(&mut self) -> anyhow::Result<()> {
        self.version = Version::Two;
        self.register().await
    }

    async fn register(&mut self) -> anyhow::Result<()> {
        let url = format!("{}/subjects/{ORDERS}-value/versions", self.registry);
        let body = json!({"schema": shop::order_schema(self.version).to_string()});
        let client = reqwest::Client::builder().no_proxy().build()?;
        let answer = client.post(url).json(&body).send().await?.error_for_status()?;
        let answer: Value = answer.json().await?;
        let id = answer.get("id").and_then(Value::as_u64).context("the registry gave no id")?;
        self.schema_id = u32::try_from(id)?;
        Ok(())
    }

    /// How many records each topic has been sent.
    pub fn produced(&self) -> u64 {
        self.next
    }

    /// Sends `count` records to each topic and waits until the broker has them. Blocks.
    ///
    /// # Errors
    ///
    /// The broker does not take them.
    pub fn send(&mut self, count: u64) -> anyhow::Result<()> {
        for number in self.next..self.next + count {
            let order = shop::order(number, self.schema_id, self.version);
            self.record(ORDERS, number, &order)?;
            let payment = match number == self.poison {
                true => shop::poison(number),
                false => shop::payment(number, self.version),
            };
            self.record(PAYMENTS, number, &payment)?;
        }
        self.next += count;
        self.producer.flush(FLUSH).context("the embedded Kafka did not take the records")
    }

    fn record(&self, topic: &str, number: u64, value: &[u8]) -> anyhow::Result<()> {
        let key = format!("order-{number}");
        let partition = i32::try_from(number % u64::from(PARTITIONS.unsigned_abs()))?;
        let mut record = BaseRecord::to(topic).partition(partition).key(&key).payload(value);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.producer.poll(Duration::from_millis(10));
                    record = back;
                }
                Err((error, _)) => return Err(error).context("demo producer"),
            }
        }
    }
}
