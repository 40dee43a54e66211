//! Questions about the cluster for `check` and the status page. Every call blocks for up to ten
//! seconds.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    TopicPartitionList,
    config::FromClientConfigAndContext as _,
    consumer::BaseConsumer,
    consumer::Consumer as _,
    error::{KafkaError, RDKafkaErrorCode as Code},
    topic_partition_list::Offset,
};

use super::{
    brokers,
    consumer::ConsumeError,
    context::Context,
    ffi::{self, Client},
    oauth::TokenSource,
    properties,
    settings::KafkaSettings,
    topics::Topics,
};
use crate::{record::TopicPartition, source::LostBroker};

mod metadata;

pub use metadata::Limit;

const TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for a coordinator that moves.
const SETTLING_WAIT: Duration = Duration::from_millis(200);

/// A client that only asks: it never joins the group.
pub struct Cluster {
    client: Client,
    group: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("group", &self.group).finish_non_exhaustive()
    }
}

/// The cluster did not answer a question.
#[derive(Debug, thiserror::Error)]
#[error("Kafka does not answer {question}{}", trouble(.lost))]
pub struct AskError {
    /// The question.
    pub question: &'static str,
    /// The brokers that do not answer, and why.
    pub lost: Vec<LostBroker>,
    /// What went wrong.
    #[source]
    pub source: KafkaError,
}

fn trouble(lost: &[LostBroker]) -> String {
    let one = |lost: &LostBroker| format!("; {}: {}", lost.broker, lost.reason);
    lost.iter().map(one).collect()
}

impl AskError {
    /// What a person can do about it.
    pub fn remedy(&self) -> &'static str {
        let remedy = self.lost.iter().find_map(|lost| brokers::remedy(&lost.reason));
        remedy.unwrap_or("check the bootstrap servers, the credentials and the ACLs")
    }
}

/// The consumer group as the coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its state, such as `Stable` or `Empty`.
    pub state: String,
    /// The client ids of its members.
    pub members: Vec<String>,
}

/// Where a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The earliest offset left; `None` where the broker did not say.
    pub low: Option<i64>,
    /// The last stable offset.
    pub high: Option<i64>,
    /// The group's committed offset; `None` where there is none.
    pub committed: Option<i64>,
}

impl Position {
    /// Records not yet committed; `None` where it is unknown, which is not zero.
    pub fn lag(&self) -> Option<i64> {
        let from = self.committed.or(self.low)?;
        Some(self.high?.saturating_sub(from).max(0))
    }
}

impl Cluster {
    /// A client for the cluster and group of `settings`. Makes no connection yet.
    ///
    /// # Errors
    ///
    /// [`ConsumeError`] if the settings are refused, by the service or by librdkafka.
    pub fn new(
        settings: &KafkaSettings,
        tokens: Option<Arc<dyn TokenSource>>,
    ) -> Result<Self, ConsumeError> {
        let mut config = properties::common(settings)?;
        config.set("group.id", &settings.group_id).set("isolation.level", "read_committed");
        let client =
            BaseConsumer::from_config_and_context(&config, Context::new("questions", tokens))
                .map_err(ConsumeError::create)?;
        // Nobody polls it: its callbacks (a token, for one) are served here, on demand.
        drop(client.poll(Duration::ZERO));
        Ok(Self { client, group: settings.group_id.clone() })
    }

    /// The topics that `topics` selects, with their numbers of partitions. A topic named outright
    /// that does not exist is missing from the answer.
    ///
    /// # Errors
    ///
    /// [`AskError`] if no broker answers.
    pub fn topics(&self, topics: &Topics) -> Result<BTreeMap<String, usize>, AskError> {
        self.serve();
        let metadata = self
            .client
            .fetch_metadata(None, TIMEOUT)
            .map_err(|error| self.unanswered("which topics there are", error))?;
        let selected = metadata.topics().iter().filter(|topic| {
            topics.matches(topic.name())
                && topic.error().is_none()
                && !topic.partitions().is_empty()
        });
        Ok(selected.map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect())
    }

    /// The consumer group; `None` if the cluster does not know it yet.
    ///
    /// # Errors
    ///
    /// [`AskError`] if no broker answers, or the group must not be described.
    pub fn group(&self) -> Result<Option<Group>, AskError> {
        self.serve();
        let groups = self
            .client
            .fetch_group_list(Some(&self.group), TIMEOUT)
            .map_err(|error| self.unanswered("about the consumer group", error))?;
        let group = groups.groups().iter().find(|group| group.name() == self.group);
        Ok(group.map(|group| Group {
            state: group.state().to_owned(),
            members: group.members().iter().map(|member| member.client_id().to_owned()).collect(),
        }))
    }

    /// Where partitions stand: three requests for all of them.
    ///
    /// # Errors
    ///
    /// [`AskError`] if the brokers do not answer.
    pub fn positions(
        &self,
        lanes: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Position>, AskError> {
        if lanes.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.serve();
        let committed = self.committed(lanes)?;
        let mut positions = BTreeMap::new();
        let empty = Position { low: None, high: None, committed: None };
        for (lane, offset) in known(&committed) {
            positions.entry(lane).or_insert(empty).committed = offset;
        }
        for (lane, offset) in known(&self.offsets(lanes, Offset::Beginning)?) {
            positions.entry(lane).or_insert(empty).low = offset;
        }
        for (lane, offset) in known(&self.offsets(lanes, Offset::End)?) {
            positions.entry(lane).or_insert(empty).high = offset;
        }
        Ok(positions)
    }

    /// A coordinator that moves or loads, as at a new cluster's first question, is asked again.
    fn committed(&self, lanes: &[TopicPartition]) -> Result<TopicPartitionList, AskError> {
        let end = Instant::now() + TIMEOUT;
        loop {
            let asked = self.client.committed_offsets(list(lanes, Offset::Invalid)?, TIMEOUT);
            match asked {
                Err(error) if is_settling(&error) && Instant::now() < end => {
                    std::thread::sleep(SETTLING_WAIT);
                }
                asked => {
                    return asked
                        .map_err(|error| self.unanswered("for the committed offsets", error));
                }
            }
        }
    }

    fn offsets(
        &self,
        lanes: &[TopicPartition],
        at: Offset,
    ) -> Result<TopicPartitionList, AskError> {
        let asked = self.client.offsets_for_times(list(lanes, at)?, TIMEOUT);
        asked.map_err(|error| self.unanswered("for the partitions' offsets", error))
    }

    /// What the client has said meanwhile tells more than the error.
    fn unanswered(&self, question: &'static str, source: KafkaError) -> AskError {
        self.serve();
        AskError { question, lost: self.client.context().lost(), source }
    }

    fn serve(&self) {
        for _ in 0..16 {
            drop(self.client.poll(Duration::ZERO));
        }
    }
}

fn is_settling(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::NotCoordinator | Code::CoordinatorNotAvailable | Code::CoordinatorLoadInProgress
        )
    )
}

fn list(lanes: &[TopicPartition], at: Offset) -> Result<TopicPartitionList, AskError> {
    let mut list = TopicPartitionList::with_capacity(lanes.len());
    for lane in lanes {
        let mut element = list.add_partition(&lane.topic, lane.partition);
        let refused = |source| AskError { question: "for an offset", lost: Vec::new(), source };
        element.set_offset(at).map_err(refused)?;
    }
    Ok(list)
}

fn known(list: &TopicPartitionList) -> Vec<(TopicPartition, Option<i64>)> {
    let offset = |element: &ffi::Element| {
        (element.error.is_none() && element.offset >= 0).then_some(element.offset)
    };
    ffi::elements(list)
        .into_iter()
        .map(|element| (element.lane.clone(), offset(&element)))
        .collect()
}
