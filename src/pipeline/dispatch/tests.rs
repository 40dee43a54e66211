use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{Dispatcher, FlowBoard, Message, unfinished};
use crate::{
    committer::{CommitMetadata, CommitOutcome, Committer, Fingerprint, LaneCommit, LaneOutcome},
    config::{self, Process},
    pipeline::{commit::Commits, fingerprint::Fingerprints},
    record::{Record, TopicPartition},
    source::{
        AssignedLane, LostBroker, Messages, MissingTopic, OwnedLane, SourceFault,
        SourceHandler as _,
    },
    telemetry::{Cause, LaneState, LaneStatus, Telemetry, Teller},
};

#[derive(Debug)]
struct Nothing;

impl Messages for Nothing {
    fn len(&self) -> usize {
        0
    }

    fn record<'a>(&'a self, _: usize, _: Option<&'a mut Vec<u8>>) -> Option<Record<'a>> {
        None
    }
}

/// Takes every commit and remembers it.
#[derive(Default)]
struct Kafka(Mutex<Vec<LaneCommit>>);

impl Committer for Kafka {
    fn commit(&self, lanes: &[LaneCommit]) -> CommitOutcome {
        self.0.lock().unwrap().extend_from_slice(lanes);
        CommitOutcome { lanes: lanes.iter().map(|_| LaneOutcome::Landed).collect() }
    }
}

impl Kafka {
    fn metadata(&self) -> Vec<(i64, CommitMetadata)> {
        let commits = std::mem::take(&mut *self.0.lock().unwrap());
        let read = |commit: LaneCommit| {
            (commit.offset, CommitMetadata::decode(commit.metadata.as_bytes()).unwrap())
        };
        commits.into_iter().map(read).collect()
    }
}

struct Rig {
    dispatcher: Dispatcher<Nothing>,
    commits: Arc<Commits>,
    telemetry: Arc<Telemetry>,
    own: String,
}

impl Rig {
    fn new() -> Self {
        let text = "kafka: {bootstrap_servers: 'localhost:1', group_id: g}\n\
                    bigquery: {project: p, dataset: raw}\n\
                    topics: [{match: orders, value_format: json}]\n";
        let settings = config::parse(text, &Process).unwrap();
        let fingerprints = Fingerprints::new("p", &settings.topics, |_| None);
        let own = fingerprints.of("orders").unwrap().to_string();
        let telemetry = Arc::new(Telemetry::new(1, Instant::now(), 0).unwrap());
        let commits = Arc::new(Commits::new(Arc::clone(&telemetry)));
        let (inbox, mut messages) = mpsc::channel(64);
        // A worker that has nothing to do; it ends with the dispatcher.
        thread::spawn(move || {
            while let Some(message) = messages.blocking_recv() {
                if let Message::Drop(_, done) = message {
                    done.send(()).unwrap();
                }
            }
        });
        let dispatcher = Dispatcher::new(
            vec![inbox],
            Arc::new(FlowBoard::default()),
            Arc::clone(&commits),
            fingerprints,
            Duration::ZERO,
            Arc::clone(&telemetry),
        );
        Self { dispatcher, commits, telemetry, own }
    }

    fn assign(&mut self, lane: AssignedLane) {
        self.dispatcher.recovering(std::slice::from_ref(&lane.lane));
        self.dispatcher.assigned(vec![lane]);
    }

    fn lane(&self) -> LaneStatus {
        self.telemetry.status.snapshot().lanes.remove(0)
    }

    fn config_changes(&self) -> u64 {
        self.telemetry.topic("orders").config_changes.get()
    }
}

fn lane(epoch: u64) -> OwnedLane {
    OwnedLane { lane: TopicPartition::new("orders", 0), epoch }
}

fn assigned(epoch: u64, metadata: Option<CommitMetadata>) -> AssignedLane {
    AssignedLane {
        lane: lane(epoch),
        start: 7,
        genesis: false,
        metadata,
        topic_partitions: Some(1),
        topic_id: Some("id".to_owned()),
        low: 0,
        high: 9,
    }
}

fn committed(config: &str) -> CommitMetadata {
    CommitMetadata {
        topic_id: Some("id".to_owned()),
        config: Some(config.to_owned()),
        last: Some(Fingerprint { offset: 6, timestamp_ms: 1, hash: 2 }),
        topic_partitions: Some(1),
        ..CommitMetadata::default()
    }
}

#[test]
fn another_configuration_is_reported_once_and_then_it_is_ours() {
    let (mut rig, kafka) = (Rig::new(), Kafka::default());
    rig.assign(assigned(1, Some(committed("00000000"))));
    assert_eq!(rig.config_changes(), 1);
    let status = rig.lane();
    assert_eq!(status.config_before.as_deref(), Some("00000000"));
    assert_eq!(status.config.as_ref(), Some(&rig.own));
    // Committed at once, without a new record: the next owner must not report it again.
    rig.commits.round(&kafka);
    let own = rig.own.clone();
    assert_eq!(kafka.metadata(), [(7, committed(&own))]);
    rig.dispatcher.lost(&[lane(1)]);
    rig.assign(assigned(2, Some(committed(&own))));
    assert_eq!(rig.config_changes(), 1);
    assert_eq!(rig.lane().config_before, None);
    rig.commits.round(&kafka);
    assert!(kafka.metadata().is_empty(), "nothing has changed, nothing is committed");
}

#[test]
fn a_commit_of_an_older_version_or_of_another_tool_is_no_other_configuration() {
    let (mut rig, kafka) = (Rig::new(), Kafka::default());
    rig.assign(assigned(1, Some(CommitMetadata::default())));
    rig.dispatcher.lost(&[lane(1)]);
    rig.assign(assigned(2, None));
    assert_eq!(rig.config_changes(), 0);
    rig.commits.round(&kafka);
    let [(7, metadata)] = &kafka.metadata()[..] else { panic!("one commit") };
    assert_eq!((metadata.config.as_ref(), metadata.last), (Some(&rig.own), None));
}

#[test]
fn a_topic_id_that_is_not_told_this_time_is_carried_on() {
    let (mut rig, kafka) = (Rig::new(), Kafka::default());
    let own = rig.own.clone();
    rig.assign(AssignedLane { topic_id: None, ..assigned(1, Some(committed(&own))) });
    rig.commits.round(&kafka);
    assert!(kafka.metadata().is_empty());
    rig.dispatcher.lost(&[lane(1)]);
    rig.assign(AssignedLane { topic_id: None, ..assigned(2, Some(committed("00000000"))) });
    rig.commits.round(&kafka);
    assert_eq!(kafka.metadata()[0].1.topic_id.as_deref(), Some("id"));
}

#[test]
fn a_lane_that_the_source_holds_back_stays_halted_whatever_is_in_flight() {
    let mut rig = Rig::new();
    rig.assign(assigned(1, None));
    let fault = SourceFault::OtherTopic { lane: lane(1).lane, next: 7 };
    rig.dispatcher.fault(fault);
    rig.telemetry.status.update_lane(&"orders".into(), 0, |status| {
        // As a worker's report does a few times a second.
        status.enter(LaneState::Running, None, 1);
    });
    let status = rig.lane();
    assert_eq!(status.state, LaneState::Halted);
    assert!(status.last_error.unwrap().remedy.unwrap().contains("reset the group's offset"));
    let trouble = status.troubles.iter().next().unwrap();
    assert_eq!((trouble.cause, trouble.offset), (Cause::Offset, status.next_offset));
    assert!(trouble.remedy.as_ref().unwrap().contains("reset the group's offset"));
}

#[test]
fn brokers_that_do_not_answer_are_on_the_board_until_they_do() {
    let mut rig = Rig::new();
    let since = Instant::now();
    let reason = "Connection refused".to_owned();
    rig.dispatcher.brokers(vec![LostBroker { broker: "kafka:9092".to_owned(), since, reason }]);
    let lost = rig.telemetry.status.process().unreachable_brokers;
    assert_eq!((lost.len(), &*lost[0].broker), (1, "kafka:9092"));
    rig.dispatcher.brokers(Vec::new());
    assert!(rig.telemetry.status.process().unreachable_brokers.is_empty());
}

#[test]
fn commits_that_fail_are_counted_by_cause() {
    struct Away;
    impl Committer for Away {
        fn commit(&self, lanes: &[LaneCommit]) -> CommitOutcome {
            let fault = crate::fault::Fault::unknown(
                crate::fault::FaultKind::Transient,
                "no_answer",
                "the coordinator is away",
            );
            CommitOutcome {
                lanes: lanes.iter().map(|_| LaneOutcome::Unknown(fault.clone())).collect(),
            }
        }
    }
    let mut rig = Rig::new();
    rig.assign(assigned(1, None));
    rig.commits.round(&Away);
    rig.commits.round(&Away);
    let failures = &rig.telemetry.metrics.commit_failures;
    assert_eq!(failures.with_label_values(&["transient"]).get(), 2);
    assert_eq!(rig.lane().last_error.unwrap().stage, "commit");
    let kafka = Kafka::default();
    rig.commits.round(&kafka);
    assert_eq!(kafka.metadata()[0].0, 7, "the same record, once the coordinator is back");
}

#[test]
fn what_the_next_owner_reads_again_is_told_by_partition() {
    let lane = |partition, committed_offset, next_offset| LaneStatus {
        committed_offset,
        next_offset: Some(next_offset),
        ..LaneStatus::new("orders".into(), partition, 1, 0)
    };
    let last = |partition, offset| LaneCommit {
        lane: TopicPartition::new("orders", partition),
        epoch: 1,
        offset,
        metadata: String::new(),
    };
    let left = [lane(0, Some(5), 9), lane(1, Some(9), 9), lane(2, None, 4), lane(3, Some(5), 9)];
    let finals = [last(0, 6), last(0, 7), last(3, 9)];
    let told: Vec<_> =
        unfinished(&left, &finals).map(|(lane, offset)| (lane.partition, offset)).collect();
    assert_eq!(told, [(0, Some(7)), (2, None)]);
}

fn unreadable(lasts: bool) -> SourceFault {
    let (message, remedy) = ("not authorized".to_owned(), "allow it".to_owned());
    SourceFault::Read { lane: lane(1).lane, next: 7, message, remedy, lasts }
}

#[test]
fn a_lane_that_cannot_be_read_waits_with_the_remedy_until_it_is_read_again() {
    let mut rig = Rig::new();
    rig.assign(assigned(1, None));
    rig.dispatcher.fault(unreadable(false));
    assert_eq!(rig.lane().state, LaneState::Running, "the first failure may pass");
    rig.dispatcher.fault(unreadable(true));
    rig.telemetry.status.update_lane(&"orders".into(), 0, |status| {
        // As a worker's report does a few times a second.
        status.enter(LaneState::Running, None, 1);
    });
    let status = rig.lane();
    assert_eq!(status.state, LaneState::Waiting);
    assert!(status.reason.unwrap().contains("reading at offset 7 failed: not authorized"));
    assert_eq!(status.last_error.unwrap().remedy.as_deref(), Some("allow it"));
    let told = status.troubles.of(Teller::Source).unwrap();
    assert_eq!(
        (told.cause, told.remedy.as_deref(), told.offset),
        (Cause::Read, Some("allow it"), Some(7))
    );
    assert_eq!(rig.telemetry.topic("orders").read_failures.get(), 2);
    rig.dispatcher.read_again(&lane(1));
    assert_eq!(rig.lane().state, LaneState::Running);
    assert!(rig.lane().troubles.of(Teller::Source).is_none());
}

#[test]
fn a_topic_that_is_missing_is_a_trouble_of_the_process_until_it_is_there() {
    let mut rig = Rig::new();
    let missing = |wanted: &str| MissingTopic {
        wanted: wanted.to_owned(),
        reason: "it does not exist".to_owned(),
        remedy: "create it",
    };
    rig.dispatcher.missing(vec![missing("absent"), missing("later.*")]);
    let troubles = rig.telemetry.status.process().troubles;
    assert_eq!(troubles.len(), 2);
    assert_eq!(troubles["absent"].cause, Cause::TopicMissing);
    assert_eq!(troubles["absent"].remedy.as_deref(), Some("create it"));
    rig.dispatcher.missing(vec![missing("later.*")]);
    let troubles = rig.telemetry.status.process().troubles;
    assert_eq!(troubles.keys().map(String::as_str).collect::<Vec<_>>(), ["later.*"]);
}

#[test]
fn a_lane_that_recovers_in_place_says_so_until_it_is_read_again() {
    let mut rig = Rig::new();
    rig.assign(assigned(1, None));
    let message = "the offset is out of range".to_owned();
    rig.dispatcher.fault(SourceFault::Recovering { lane: lane(1).lane, message });
    rig.telemetry.status.update_lane(&"orders".into(), 0, |status| {
        status.enter(LaneState::Running, None, 1);
    });
    assert_eq!(rig.lane().state, LaneState::Recovering);
    rig.dispatcher.read_again(&lane(1));
    assert_eq!(rig.lane().state, LaneState::Running);
}

#[test]
fn a_lane_that_the_source_halts_is_not_read_again() {
    let mut rig = Rig::new();
    rig.assign(assigned(1, None));
    rig.dispatcher.fault(unreadable(true));
    rig.dispatcher.fault(SourceFault::OtherTopic { lane: lane(1).lane, next: 7 });
    rig.dispatcher.read_again(&lane(1));
    assert_eq!(rig.lane().state, LaneState::Halted);
}
