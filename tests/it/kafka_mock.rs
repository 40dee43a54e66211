//! A mock cluster, a producer, and a handler that records what it is told.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kcbq::{
    committer::{CommitMetadata, Committer, LaneCommit},
    kafka::{
        commit::SyncCommitter,
        consumer::{ConsumeError, KafkaSource},
        settings::KafkaSettings,
        topics::Topics,
    },
    record::TopicPartition,
    source::{
        AssignedLane, Flow, LaneBatch, Messages, MissingTopic, OwnedLane, SourceFault,
        SourceHandler,
    },
};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _},
};
use tokio_util::sync::CancellationToken;

pub(crate) type Cluster = MockCluster<'static, DefaultProducerContext>;

pub(crate) fn cluster(topics: &[(&str, i32)]) -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    for (topic, partitions) in topics {
        cluster.create_topic(topic, *partitions, 1).unwrap();
    }
    cluster
}

/// The mock cluster lets a rebalance wait for as long as the session timeout: keep it short.
pub(crate) fn settings(bootstrap: &str, group: &str) -> KafkaSettings {
    let yaml = format!(
        "bootstrap_servers: ['{bootstrap}']\ngroup_id: {group}\ndiscovery_interval_seconds: 1\n\
         properties: {{session.timeout.ms: '4000', heartbeat.interval.ms: '500'}}\n"
    );
    serde_saphyr::from_str(&yaml).unwrap()
}

/// Produces `values` to one partition.
pub(crate) fn produce(
    bootstrap: &str,
    topic: &str,
    partition: i32,
    values: impl IntoIterator<Item = String>,
) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("linger.ms", "0")
        .create()
        .unwrap();
    for value in values {
        let headers = OwnedHeaders::new()
            .insert(Header { key: "origin", value: Some("test") })
            .insert(Header { key: "none", value: None::<&str> });
        let record = BaseRecord::to(topic)
            .partition(partition)
            .key("key")
            .payload(&value)
            .timestamp(1_000)
            .headers(headers);
        producer.send(record).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}

/// What a handler was told, shared with the test.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) records: BTreeMap<TopicPartition, Vec<(i64, String)>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) assigned: Vec<AssignedLane>,
    pub(crate) revoked: Vec<OwnedLane>,
    pub(crate) lost: Vec<OwnedLane>,
    pub(crate) restarted: Vec<OwnedLane>,
    pub(crate) faults: Vec<SourceFault>,
    pub(crate) read_again: Vec<OwnedLane>,
    pub(crate) missing: Vec<Vec<MissingTopic>>,
    pub(crate) ticks: u64,
    pub(crate) flow: Flow,
    /// The lanes held.
    pub(crate) held: HashMap<TopicPartition, Held>,
}

/// A lane, and what there is to commit of it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) lane: OwnedLane,
    pub(crate) next: i64,
    pub(crate) last: Option<kcbq::committer::Fingerprint>,
    pub(crate) topic_id: Option<String>,
}

#[derive(Clone, Default)]
pub(crate) struct Recorder(pub(crate) Arc<Mutex<Seen>>);

impl<M: Messages> SourceHandler<M> for Recorder {
    fn records(&mut self, batches: Vec<LaneBatch<M>>) {
        let mut seen = self.0.lock().unwrap();
        let mut flat = Vec::new();
        for batch in batches {
            let lane = batch.lane.lane.clone();
            for index in 0..batch.messages.len() {
                let record = batch.messages.record(index, Some(&mut flat)).unwrap();
                assert_eq!((record.key, record.timestamp_ms), (Some(&b"key"[..]), Some(1_000)));
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                seen.headers = record
                    .headers
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
                    .collect();
                let last = kcbq::committer::Fingerprint::of(&record);
                let next = record.offset + 1;
                seen.records.entry(lane.clone()).or_default().push((record.offset, value));
                let held = seen.held.get_mut(&lane).unwrap();
                assert_eq!(held.lane, batch.lane);
                (held.next, held.last) = (next, Some(last));
            }
        }
    }

    fn assigned(&mut self, lanes: Vec<AssignedLane>) {
        let mut seen = self.0.lock().unwrap();
        for AssignedLane { lane, start, topic_id, .. } in &lanes {
            let topic_id = topic_id.clone();
            let held = Held { lane: lane.clone(), next: *start, last: None, topic_id };
            seen.held.insert(lane.lane.clone(), held);
        }
        seen.assigned.extend(lanes);
    }

    fn revoke(&mut self, lanes: &[OwnedLane]) -> Vec<LaneCommit> {
        let mut seen = self.0.lock().unwrap();
        seen.revoked.extend_from_slice(lanes);
        lanes.iter().filter_map(|lane| seen.held.remove(&lane.lane)).map(commit_of).collect()
    }

    fn lost(&mut self, lanes: &[OwnedLane]) {
        self.0.lock().unwrap().lost.extend_from_slice(lanes);
    }

    fn restarted(&mut self, lanes: &[OwnedLane]) {
        self.0.lock().unwrap().restarted.extend_from_slice(lanes);
    }

    fn read_again(&mut self, lane: &OwnedLane) {
        self.0.lock().unwrap().read_again.push(lane.clone());
    }

    fn missing(&mut self, topics: Vec<MissingTopic>) {
        self.0.lock().unwrap().missing.push(topics);
    }

    fn flow(&mut self) -> Flow {
        std::mem::take(&mut self.0.lock().unwrap().flow)
    }

    fn fault(&mut self, fault: SourceFault) {
        self.0.lock().unwrap().faults.push(fault);
    }

    fn tick(&mut self) {
        self.0.lock().unwrap().ticks += 1;
    }
}

pub(crate) fn commit_of(Held { lane, next, last, topic_id }: Held) -> LaneCommit {
    let metadata =
        CommitMetadata { last, topic_id, topic_partitions: Some(1), ..CommitMetadata::default() };
    LaneCommit { lane: lane.lane, epoch: lane.epoch, offset: next, metadata: metadata.encode() }
}

/// A consumer on a thread of its own.
pub(crate) struct Running {
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) committer: SyncCommitter,
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<(), ConsumeError>>>,
}

impl Running {
    pub(crate) fn start(settings: &KafkaSettings, topics: Topics) -> Self {
        Self::of(KafkaSource::new(settings, topics, None).unwrap())
    }

    pub(crate) fn of(source: KafkaSource) -> Self {
        let committer = source.committer();
        let recorder = Recorder::default();
        let seen = Arc::clone(&recorder.0);
        let stop = CancellationToken::new();
        let token = stop.clone();
        let thread = thread::spawn(move || source.run(&mut { recorder }, &token));
        Self { seen, committer, stop, thread: Some(thread) }
    }

    /// Waits until the handler has seen what is asked for.
    pub(crate) fn wait<T>(&self, what: &str, mut until: impl FnMut(&mut Seen) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(found) = until(&mut self.seen.lock().unwrap()) {
                return found;
            }
            if Instant::now() > deadline {
                // The lock must not be held by a panic: the handler could not end in good order.
                let seen = format!("{:?}", self.seen.lock().unwrap());
                panic!("never: {what}; {seen}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn wait_records(&self, count: usize) {
        self.wait(&format!("{count} records"), |seen| {
            (seen.records.values().map(Vec::len).sum::<usize>() >= count).then_some(())
        });
    }

    /// Commits the position of all lanes held.
    pub(crate) fn commit(&self) -> Vec<kcbq::committer::LaneOutcome> {
        let commits: Vec<_> =
            self.seen.lock().unwrap().held.values().cloned().map(commit_of).collect();
        self.committer.commit(&commits).lanes
    }

    pub(crate) fn stop(mut self) -> Arc<Mutex<Seen>> {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap().unwrap();
        Arc::clone(&self.seen)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
