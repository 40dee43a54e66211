//! The blocking questions to the brokers, asked on a thread of their own: committed offsets and
//! watermarks of newly assigned lanes, and which topics there are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use rdkafka::{TopicPartitionList, consumer::Consumer as _, error::KafkaResult};
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode as Code},
    topic_partition_list::Offset,
};

use super::{
    commit::SyncCommitter,
    ffi::{self, Client, Element},
    settings::{OnDataLoss, StartPosition},
    start::{self, Found, Known, Position, Start},
    topic_ids::{self, Learnt, TopicIds},
    topics::Topics,
};
use crate::{
    committer::{CommitMetadata, Committer, LaneCommit, LaneOutcome},
    record::TopicPartition,
    source::{MissingTopic, OwnedLane, SourceFault},
};

/// How long one question may take. A failed one is asked again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a topic is looked for that is configured and not there.
const MISSED_INTERVAL: Duration = Duration::from_secs(5);

/// A lane to recover.
#[derive(Clone, Debug)]
pub struct Job {
    /// Which lane, under which assignment.
    pub lane: OwnedLane,
    /// This process's own next offset, where the lane was running already.
    pub own: Option<i64>,
}

/// What the thread has found out.
#[derive(Debug)]
pub enum Report {
    /// One lane's recovery.
    Recovered(OwnedLane, Box<Outcome>),
    /// The topics that match now; to be subscribed to.
    Topics(Vec<String>),
    /// The topics could not be listed.
    DiscoveryFailed(String),
    /// The topics that are configured and not there.
    Missing(Vec<MissingTopic>),
    /// These topics were deleted and made again.
    Recreated(BTreeSet<Arc<str>>),
}

/// What a lane's recovery came to.
#[derive(Debug)]
pub enum Outcome {
    /// Begin here; with the watermarks.
    Start {
        /// Where.
        start: Box<Start>,
        /// The earliest offset left.
        low: i64,
        /// The last stable offset.
        high: i64,
    },
    /// The lane must stand still.
    Halt(SourceFault),
    /// A question failed; ask again later.
    Failed(String),
}

/// Asks the questions.
pub struct Recovery {
    client: Arc<Client>,
    start: StartPosition,
    on_data_loss: OnDataLoss,
    topics: Topics,
    discovery_interval: Duration,
    ids: TopicIds,
    committer: SyncCommitter,
    /// Whether a configured topic was not there at the last look.
    is_missed: bool,
}

impl std::fmt::Debug for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recovery").field("topics", &self.topics).finish_non_exhaustive()
    }
}

impl Recovery {
    /// Recovers lanes of `topics` by the given policies.
    pub fn new(
        client: Arc<Client>,
        committer: SyncCommitter,
        policy: (StartPosition, OnDataLoss),
        (topics, ids): (Topics, TopicIds),
        discovery_interval: Duration,
    ) -> Self {
        let (start, on_data_loss) = policy;
        let is_missed = false;
        Self { client, start, on_data_loss, topics, discovery_interval, ids, committer, is_missed }
    }

    /// Works until the other end of either channel is dropped.
    pub fn run(mut self, jobs: &Receiver<Vec<Job>>, reports: &SyncSender<Report>) {
        let mut answers = self.discover();
        let mut next_look = Instant::now() + self.pause();
        loop {
            for answer in answers {
                if reports.send(answer).is_err() {
                    return;
                }
            }
            let wait = next_look.saturating_duration_since(Instant::now());
            answers = match jobs.recv_timeout(wait) {
                Ok(jobs) => self.recover(&jobs),
                Err(RecvTimeoutError::Timeout) => {
                    let found = self.look();
                    next_look = Instant::now() + self.pause();
                    found
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
        }
    }

    /// How long until the next look: a topic that is missed is looked for oftener.
    fn pause(&self) -> Duration {
        match self.is_missed {
            true => self.discovery_interval.min(MISSED_INTERVAL),
            false => self.discovery_interval,
        }
    }

    /// What is looked for from time to time.
    fn look(&mut self) -> Vec<Report> {
        let mut found = self.discover();
        let replaced = self.ids.look(&self.client);
        if !replaced.is_empty() {
            found.push(Report::Recreated(replaced));
        }
        found
    }

    /// Which of the configured topics there are.
    fn discover(&mut self) -> Vec<Report> {
        let mut found = Vec::new();
        let mut missing = match self.unavailable() {
            Ok(missing) => missing,
            Err(error) => return vec![Report::DiscoveryFailed(error.to_string())],
        };
        if self.topics.has_patterns() {
            let metadata = match self.client.fetch_metadata(None, REQUEST_TIMEOUT) {
                Ok(metadata) => metadata,
                Err(error) => return vec![Report::DiscoveryFailed(error.to_string())],
            };
            let names: Vec<&str> = metadata.topics().iter().map(|topic| topic.name()).collect();
            found.push(Report::Topics(self.topics.matching(names.iter().copied())));
            missing.extend(self.topics.idle_patterns(names).into_iter().map(no_match));
        }
        self.is_missed = !missing.is_empty();
        found.push(Report::Missing(missing));
        found
    }

    /// The topics that are configured by name and that the brokers do not tell the partitions of.
    fn unavailable(&self) -> KafkaResult<Vec<MissingTopic>> {
        let mut missing = Vec::new();
        for name in self.topics.names() {
            let metadata = self.client.fetch_metadata(Some(name), REQUEST_TIMEOUT)?;
            let topic = metadata.topics().iter().find(|topic| topic.name() == name);
            let error = topic.map(|topic| topic.error().map(Code::from));
            missing.extend(unavailable(name, error.unwrap_or(Some(Code::UnknownTopic))));
        }
        Ok(missing)
    }

    fn recover(&mut self, jobs: &[Job]) -> Vec<Report> {
        let answers = self.ask(jobs);
        let outcome = |job: &Job| match &answers {
            Ok(answers) => match answers.found(job, &self.ids) {
                Ok(found) => begin(&found, self.start, self.on_data_loss),
                Err(message) => Outcome::Failed(message),
            },
            Err(error) => Outcome::Failed(error.to_string()),
        };
        let mut outcomes: Vec<Outcome> = jobs.iter().map(outcome).collect();
        if self.ids.is_needed() {
            name(&self.committer, jobs, &mut outcomes);
        }
        let recovered =
            |(job, outcome): (&Job, _)| Report::Recovered(job.lane.clone(), Box::new(outcome));
        let mut reports: Vec<Report> = jobs.iter().zip(outcomes).map(recovered).collect();
        if let Ok(Answers { learnt: Learnt { replaced, .. }, .. }) = answers
            && !replaced.is_empty()
        {
            // First: what recovers now belongs to the new topic, what runs to the old one.
            reports.insert(0, Report::Recreated(replaced));
        }
        reports
    }

    fn ask(&mut self, jobs: &[Job]) -> KafkaResult<Answers> {
        let lanes: Vec<_> = jobs.iter().map(|job| job.lane.lane.clone()).collect();
        let ids =
            self.ids.ask(&self.client, &lanes.iter().map(|lane| Arc::clone(&lane.topic)).collect());
        let committed = self.committed(&lanes)?;
        let unknown: BTreeSet<_> = committed
            .values()
            .filter(|element| element.error.is_none() && element.offset < 0)
            .map(|element| Arc::clone(&element.lane.topic))
            .collect();
        let mut topics = BTreeMap::new();
        for topic in unknown {
            let known = self.known(&topic)?;
            topics.insert(topic, known);
        }
        let at_time = match self.start {
            StartPosition::TimestampMs(at) if !topics.is_empty() => {
                self.offsets(&lanes, Offset::Offset(at.max(0)))?
            }
            _ => HashMap::new(),
        };
        let low = self.offsets(&lanes, Offset::Beginning)?;
        let high = self.offsets(&lanes, Offset::End)?;
        let learnt = self.ids.learn(ids);
        Ok(Answers { committed, low, high, at_time, topics, learnt })
    }

    fn committed(&self, lanes: &[TopicPartition]) -> KafkaResult<Elements> {
        let list = list(lanes, Offset::Invalid)?;
        Ok(by_lane(&self.client.committed_offsets(list, REQUEST_TIMEOUT)?))
    }

    /// `ListOffsets`: one request per leader for all lanes. librdkafka passes the logical offsets
    /// −2 and −1 through as the protocol's own words for earliest and latest.
    fn offsets(&self, lanes: &[TopicPartition], at: Offset) -> KafkaResult<Elements> {
        Ok(by_lane(&self.client.offsets_for_times(list(lanes, at)?, REQUEST_TIMEOUT)?))
    }

    /// What the group knows of a topic.
    fn known(&self, topic: &Arc<str>) -> KafkaResult<Known> {
        let metadata = self.client.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
        let partitions =
            metadata.topics().iter().map(|topic| topic.partitions().len()).sum::<usize>();
        let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
        let lanes: Vec<_> = (0..i32::try_from(partitions).unwrap_or(i32::MAX))
            .map(|partition| TopicPartition::new(Arc::clone(topic), partition))
            .collect();
        if lanes.is_empty() {
            return Err(KafkaError::MetadataFetch(
                rdkafka::error::RDKafkaErrorCode::UnknownTopicOrPartition,
            ));
        }
        let committed = self.committed(&lanes)?;
        if let Some(code) = committed.values().find_map(|element| element.error) {
            return Err(KafkaError::OffsetFetch(code));
        }
        let committed: Vec<_> = committed.values().filter(|element| element.offset >= 0).collect();
        let at_genesis = committed
            .iter()
            .filter_map(|element| CommitMetadata::decode(&element.metadata).ok()?.topic_partitions)
            .max();
        Ok(Known { partitions, committed: !committed.is_empty(), at_genesis })
    }
}

/// A pattern that no topic fits.
fn no_match(pattern: String) -> MissingTopic {
    let reason = "no topic's whole name matches the pattern".to_owned();
    let remedy = "correct `match` (dead-letter topics and names that begin with `__` never match), create \
                  the topic, or allow the service's Kafka user to see it (ACL `DESCRIBE`)";
    MissingTopic { wanted: pattern, reason, remedy }
}

/// A topic that is configured by name, if what the brokers answer is no passing trouble.
fn unavailable(name: &str, error: Option<Code>) -> Option<MissingTopic> {
    let (reason, remedy) = match error? {
        Code::TopicAuthorizationFailed => (
            "the brokers do not let the service see the topic",
            "allow the service's Kafka user to see and to read it (ACLs `DESCRIBE` and `READ`)",
        ),
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic => {
            ("the topic does not exist", "create it, or correct `match`")
        }
        // The leader is being elected, for instance.
        _ => return None,
    };
    Some(MissingTopic { wanted: name.to_owned(), reason: reason.to_owned(), remedy })
}

type Elements = HashMap<TopicPartition, Element>;

/// The brokers' answers about some lanes.
struct Answers {
    committed: Elements,
    low: Elements,
    high: Elements,
    at_time: Elements,
    topics: BTreeMap<Arc<str>, Known>,
    learnt: Learnt,
}

impl Answers {
    fn found(&self, job: &Job, ids: &TopicIds) -> Result<Found, String> {
        let lane = &job.lane.lane;
        let low = answer(&self.low, lane, "its earliest offset")?.offset;
        let high = answer(&self.high, lane, "its end offset")?.offset;
        if low < 0 || high < 0 {
            return Err("the brokers did not tell its earliest or its end offset".into());
        }
        let at_time = self.at_time.get(lane).filter(|element| element.error.is_none());
        let at_time = at_time.map(|element| element.offset).filter(|offset| *offset >= 0);
        let position = self.position(job)?;
        let topic_id = ids.id(&self.learnt, &lane.topic)?;
        let replaced = self.learnt.replaced.contains(&lane.topic);
        Ok(Found { lane: lane.clone(), position, topic_id, replaced, low, high, at_time })
    }

    fn position(&self, job: &Job) -> Result<Position, String> {
        let lane = &job.lane.lane;
        if let Some(own) = job.own {
            return Ok(Position::Own(own));
        }
        let committed = answer(&self.committed, lane, "its committed offset")?;
        if committed.offset < 0 {
            let known = self.topics.get(&lane.topic).copied();
            return known.map(Position::Uncommitted).ok_or_else(|| "its topic vanished".to_owned());
        }
        let metadata = match CommitMetadata::decode(&committed.metadata) {
            Ok(metadata) => Some(metadata),
            Err(reason) => {
                tracing::warn!(%lane, offset = committed.offset, %reason,
                    "the committed offset's metadata tells nothing; taken as an operator's reset");
                None
            }
        };
        Ok(Position::Committed(committed.offset, metadata))
    }
}

/// Gives lanes of topics without an id one of their own. It is committed before they begin: two owners that
/// make up one each would load rows twice.
fn name(committer: &impl Committer, jobs: &[Job], outcomes: &mut [Outcome]) {
    let (mut commits, mut named) = (Vec::new(), Vec::new());
    for (job, outcome) in jobs.iter().zip(outcomes) {
        let Outcome::Start { start, .. } = outcome else { continue };
        // One that runs already has its id, and more under way than what is committed.
        if job.own.is_none() && start.topic_id.is_none() {
            start.topic_id = Some(topic_ids::make_up());
            commits.push(named_commit(job, start));
            named.push(outcome);
        }
    }
    if commits.is_empty() {
        return;
    }
    let answers = committer.commit(&commits).lanes;
    for (outcome, answer) in named.into_iter().zip(answers) {
        if !matches!(answer, LaneOutcome::Landed) {
            let message =
                format!("an id in place of its topic's could not be committed: {answer:?}");
            *outcome = Outcome::Failed(message);
        }
    }
}

/// What was committed, or the first offset, with the id.
fn named_commit(job: &Job, start: &Start) -> LaneCommit {
    let OwnedLane { lane, epoch } = job.lane.clone();
    let (topic_id, topic_partitions) = (start.topic_id.clone(), start.topic_partitions);
    let before = start.metadata.clone().unwrap_or_default();
    let metadata = CommitMetadata { topic_id, topic_partitions, ..before };
    LaneCommit { lane, epoch, offset: start.offset, metadata: metadata.encode() }
}

fn begin(found: &Found, start: StartPosition, on_data_loss: OnDataLoss) -> Outcome {
    match start::decide(found, start, on_data_loss) {
        Ok(start) => Outcome::Start { start: Box::new(start), low: found.low, high: found.high },
        Err(fault) => Outcome::Halt(fault),
    }
}

fn answer<'a>(
    elements: &'a Elements,
    lane: &TopicPartition,
    what: &str,
) -> Result<&'a Element, String> {
    let element = elements.get(lane).ok_or_else(|| format!("no answer about {what}"))?;
    match element.error {
        Some(code) => Err(format!("asking for {what} was answered with {code}")),
        None => Ok(element),
    }
}

fn list(lanes: &[TopicPartition], at: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(lanes.len());
    for lane in lanes {
        list.add_partition(&lane.topic, lane.partition).set_offset(at)?;
    }
    Ok(list)
}

fn by_lane(list: &TopicPartitionList) -> Elements {
    ffi::elements(list).into_iter().map(|element| (element.lane.clone(), element)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{
        committer::CommitOutcome,
        fault::{Fault, FaultKind},
    };

    /// Takes commits of even partitions, and never answers about the others.
    #[derive(Default)]
    struct EvenOnly(Mutex<Vec<LaneCommit>>);

    impl Committer for EvenOnly {
        fn commit(&self, lanes: &[LaneCommit]) -> CommitOutcome {
            self.0.lock().unwrap().extend_from_slice(lanes);
            let answer = |commit: &LaneCommit| match commit.lane.partition % 2 {
                0 => LaneOutcome::Landed,
                _ => LaneOutcome::Unknown(Fault::unknown(FaultKind::Transient, "r", "m")),
            };
            CommitOutcome { lanes: lanes.iter().map(answer).collect() }
        }
    }

    fn job(partition: i32) -> Job {
        let lane = TopicPartition::new("t", partition);
        Job { lane: OwnedLane { lane, epoch: 1 }, own: None }
    }

    fn start(topic_id: Option<&str>) -> Outcome {
        let before = CommitMetadata { config: Some("c".to_owned()), ..CommitMetadata::default() };
        let start = Start {
            offset: 7,
            genesis: false,
            verify: None,
            metadata: Some(before),
            topic_id: topic_id.map(str::to_owned),
            topic_partitions: Some(4),
            loss: None,
        };
        Outcome::Start { start: Box::new(start), low: 0, high: 9 }
    }

    fn id(outcome: &Outcome) -> Option<&str> {
        let Outcome::Start { start, .. } = outcome else { panic!("{outcome:?}") };
        start.topic_id.as_deref()
    }

    #[test]
    fn a_lane_without_an_id_begins_once_one_of_its_own_is_committed() {
        let mut jobs: Vec<Job> = (0..5).map(job).collect();
        jobs[4].own = Some(8);
        let mut outcomes = vec![
            start(None),
            start(None),
            start(Some("told")),
            Outcome::Failed("asked in vain".to_owned()),
            start(None),
        ];
        let committer = EvenOnly::default();
        name(&committer, &jobs, &mut outcomes);
        let commits = committer.0.into_inner().unwrap();
        let [first, second] = &commits[..] else { panic!("{commits:?}") };
        assert_eq!((first.lane.partition, first.offset), (0, 7));
        let made_up = id(&outcomes[0]).filter(|id| topic_ids::is_made_up(id));
        assert!(made_up.is_some() && first.metadata != second.metadata, "each its own");
        let committed = CommitMetadata::decode(first.metadata.as_bytes()).unwrap();
        assert_eq!((committed.topic_id.as_deref(), committed.topic_partitions), (made_up, Some(4)));
        assert_eq!(committed.config.as_deref(), Some("c"), "and all else as before");
        assert!(matches!(outcomes[1], Outcome::Failed(_)), "it may have landed: asked again");
        assert_eq!(id(&outcomes[2]), Some("told"));
        assert!(matches!(outcomes[3], Outcome::Failed(_)));
        assert_eq!(id(&outcomes[4]), None, "it runs, and has its id");
    }
}
