//! The Kafka adapter against librdkafka's mock cluster.

use kcbq::{
    committer::{Committer as _, LaneOutcome},
    kafka::{consumer::KafkaSource, topics::Topics},
    record::TopicPartition,
    source::SourceFault,
};
use rdkafka::types::{RDKafkaApiKey as ApiKey, RDKafkaRespErr as RespErr};

use crate::kafka_mock::{Running, cluster, produce, settings};

fn named(topic: &str) -> Topics {
    Topics::new(vec![topic], vec![], vec![]).unwrap()
}

fn values(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|n| format!("value-{n}"))
}

fn offsets(records: &[(i64, String)]) -> Vec<i64> {
    records.iter().map(|(offset, _)| *offset).collect()
}

#[test]
fn records_arrive_in_order_and_the_committed_offset_and_its_metadata_survive_a_restart() {
    let cluster = cluster(&[("orders", 2)]);
    let bootstrap = cluster.bootstrap_servers();
    let settings = settings(&bootstrap, "restart");
    for partition in 0..2 {
        produce(&bootstrap, "orders", partition, values(0..100));
    }
    let first = Running::start(&settings, named("orders"));
    first.wait_records(200);
    assert!(first.commit().iter().all(|outcome| matches!(outcome, LaneOutcome::Landed)));
    let seen = first.stop();
    let seen = seen.lock().unwrap();
    assert!(seen.assigned.iter().all(|lane| lane.genesis && lane.start == 0 && lane.high == 100));
    assert_eq!((seen.revoked.len(), seen.lost.len()), (2, 0));
    for records in seen.records.values() {
        assert_eq!(offsets(records), (0..100).collect::<Vec<_>>());
        assert!(records.iter().enumerate().all(|(n, (_, value))| *value == format!("value-{n}")));
    }
    let expected = [("origin".to_owned(), Some(b"test".to_vec())), ("none".to_owned(), None)];
    assert_eq!(seen.headers, expected);
    drop(seen);

    for partition in 0..2 {
        produce(&bootstrap, "orders", partition, values(100..110));
    }
    let second = Running::start(&settings, named("orders"));
    second.wait_records(20);
    let seen = second.stop();
    let seen = seen.lock().unwrap();
    for lane in &seen.assigned {
        assert_eq!((lane.start, lane.genesis), (100, false));
        let last = lane.metadata.as_ref().unwrap().last.unwrap();
        assert_eq!((last.offset, last.timestamp_ms), (99, 1_000));
    }
    for records in seen.records.values() {
        assert_eq!(
            offsets(records),
            (100..110).collect::<Vec<_>>(),
            "none of record 99, read to compare"
        );
    }
}

#[test]
fn a_commit_for_an_assignment_that_is_over_is_not_sent() {
    let cluster = cluster(&[("orders", 1)]);
    let settings = settings(&cluster.bootstrap_servers(), "stale");
    let running = Running::start(&settings, named("orders"));
    let lane = running.wait("an assignment", |seen| seen.assigned.first().cloned());
    let commit = kcbq::committer::LaneCommit {
        lane: TopicPartition::new("orders", 0),
        epoch: lane.lane.epoch + 1,
        offset: 0,
        metadata: String::new(),
    };
    let outcome = running.committer.commit(&[commit]);
    assert!(matches!(outcome.lanes[..], [LaneOutcome::NotOwned]));
    running.stop();
}

#[test]
fn a_second_member_takes_lanes_over_where_the_first_left_them() {
    let cluster = cluster(&[("orders", 4)]);
    let bootstrap = cluster.bootstrap_servers();
    let settings = settings(&bootstrap, "rebalance");
    for partition in 0..4 {
        produce(&bootstrap, "orders", partition, values(0..50));
    }
    let first = Running::start(&settings, named("orders"));
    first.wait_records(200);
    // Nothing is committed yet: only the final commit of the revocation tells the second member.
    let second = Running::start(&settings, named("orders"));
    let moved = second.wait("two lanes for the second member", |seen| {
        (seen.assigned.len() == 2).then(|| seen.assigned.clone())
    });
    for lane in &moved {
        assert_eq!((lane.start, lane.genesis), (50, false), "{lane:?}");
    }
    let revoked = first.seen.lock().unwrap().revoked.clone();
    assert_eq!(revoked.len(), 2, "the other lanes stay where they are");
    for partition in 0..4 {
        produce(&bootstrap, "orders", partition, values(50..60));
    }
    first.wait_records(220);
    second.wait_records(20);
    // What moved is not owned by the first any more, and what stayed still is.
    let stale: Vec<_> = revoked
        .iter()
        .map(|lane| kcbq::committer::LaneCommit {
            lane: lane.lane.clone(),
            epoch: lane.epoch,
            offset: 1,
            metadata: String::new(),
        })
        .collect();
    let outcomes = first.committer.commit(&stale).lanes;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, LaneOutcome::NotOwned)));
    assert!(first.commit().iter().all(|outcome| matches!(outcome, LaneOutcome::Landed)));
    let mut all = first.stop().lock().unwrap().records.clone();
    for (lane, records) in &second.stop().lock().unwrap().records {
        all.entry(lane.clone()).or_default().extend(records.iter().cloned());
    }
    for records in all.values() {
        assert_eq!(offsets(records), (0..60).collect::<Vec<_>>(), "none lost, none twice");
    }
}

#[test]
fn a_paused_lane_is_silent_and_resumes_at_the_offset_it_is_told() {
    let cluster = cluster(&[("orders", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    let running = Running::start(&settings(&bootstrap, "pause"), named("orders"));
    produce(&bootstrap, "orders", 0, values(0..10));
    running.wait_records(10);
    let lane = running.seen.lock().unwrap().assigned[0].lane.clone();
    running.seen.lock().unwrap().flow.pause.push(lane.clone());
    let paused_at = running.seen.lock().unwrap().ticks;
    running.wait("the pause", |seen| (seen.ticks > paused_at + 2).then_some(()));
    produce(&bootstrap, "orders", 0, values(10..20));
    let until = running.seen.lock().unwrap().ticks + 40;
    running.wait("turns", |seen| (seen.ticks > until).then_some(()));
    assert_eq!(running.seen.lock().unwrap().records[&lane.lane].len(), 10, "silent");
    running.seen.lock().unwrap().flow.resume.push((lane.clone(), 5));
    running.wait_records(25);
    let seen = running.stop();
    let expected: Vec<i64> = (0..10).chain(5..20).collect();
    assert_eq!(offsets(&seen.lock().unwrap().records[&lane.lane]), expected);
}

#[test]
fn a_lane_that_is_to_restart_is_read_again_from_its_committed_offset_and_is_not_lost() {
    let cluster = cluster(&[("orders", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    produce(&bootstrap, "orders", 0, values(0..10));
    let running = Running::start(&settings(&bootstrap, "again"), named("orders"));
    running.wait_records(10);
    let lane = running.seen.lock().unwrap().assigned[0].lane.clone();
    running.seen.lock().unwrap().flow.restart.push(lane.clone());
    running.wait_records(20);
    let seen = running.stop();
    let seen = seen.lock().unwrap();
    assert_eq!((&seen.restarted[..], seen.lost.len()), (&[lane.clone()][..], 0));
    assert_eq!(offsets(&seen.records[&lane.lane]), (0..10).chain(0..10).collect::<Vec<_>>());
    assert!(seen.assigned[1].lane.epoch > lane.epoch);
}

/// The mock does not answer `DescribeTopics`.
#[test]
fn where_topic_ids_are_needed_a_lane_waits_for_them_and_says_so() {
    let cluster = cluster(&[("orders", 1)]);
    let settings = settings(&cluster.bootstrap_servers(), "ids");
    let source = KafkaSource::new(&settings, named("orders"), None).unwrap();
    let running = Running::of(source.needing_topic_ids(true));
    let message = running.wait("the reason", |seen| {
        seen.faults.iter().find_map(|fault| match fault {
            SourceFault::Recovering { message, .. } => Some(message.clone()),
            _ => None,
        })
    });
    assert!(message.contains("do not tell the topic's id"), "{message}");
    assert!(running.stop().lock().unwrap().assigned.is_empty());
}

#[test]
fn a_topic_that_begins_to_exist_is_discovered_and_read_from_its_beginning() {
    let cluster = cluster(&[("shop.orders", 1), ("shop.dead", 1), ("xshop.orders", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    let topics = Topics::new(vec![], vec![r"shop\..*"], vec!["shop.dead"]).unwrap();
    let running = Running::start(&settings(&bootstrap, "discover"), topics);
    running.wait("the first topic", |seen| (seen.assigned.len() == 1).then_some(()));
    cluster.create_topic("shop.returns", 1, 1).unwrap();
    produce(&bootstrap, "shop.returns", 0, values(0..5));
    produce(&bootstrap, "xshop.orders", 0, values(0..5));
    running.wait_records(5);
    let seen = running.stop();
    let seen = seen.lock().unwrap();
    let names: Vec<_> = seen.assigned.iter().map(|lane| &*lane.lane.lane.topic).collect();
    assert_eq!(names, ["shop.orders", "shop.returns"]);
    assert_eq!(seen.records.len(), 1);
}

#[test]
fn a_committed_offset_beyond_the_end_and_another_record_below_it_halt_the_lane() {
    let cluster = cluster(&[("orders", 1), ("returns", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    let settings = settings(&bootstrap, "recreated");
    let topics = || Topics::new(vec!["orders", "returns"], vec![], vec![]).unwrap();
    for topic in ["orders", "returns"] {
        produce(&bootstrap, topic, 0, values(0..10));
    }
    let first = Running::start(&settings, topics());
    first.wait_records(20);
    {
        let mut seen = first.seen.lock().unwrap();
        seen.held.get_mut(&TopicPartition::new("orders", 0)).unwrap().next = 99;
        let last = &mut seen.held.get_mut(&TopicPartition::new("returns", 0)).unwrap().last;
        last.as_mut().unwrap().hash ^= 1;
    }
    first.stop();
    let second = Running::start(&settings, topics());
    second.wait("two faults", |seen| (seen.faults.len() >= 2).then_some(()));
    let seen = second.stop();
    let seen = seen.lock().unwrap();
    let mut texts: Vec<_> = seen.faults.iter().map(ToString::to_string).collect();
    texts.sort();
    assert!(
        texts[0].contains("orders[0]: the committed offset 99 lies beyond the end 10"),
        "{texts:?}"
    );
    assert!(texts[1].contains("returns[0]: the record at offset 9 is not the one"), "{texts:?}");
    assert!(seen.records.is_empty());
}

#[test]
fn a_group_that_begins_at_latest_reads_only_what_comes_after() {
    let cluster = cluster(&[("orders", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    produce(&bootstrap, "orders", 0, values(0..10));
    let mut settings = settings(&bootstrap, "latest");
    settings.start = kcbq::kafka::settings::StartPosition::Latest;
    let running = Running::start(&settings, named("orders"));
    let lane = running.wait("an assignment", |seen| seen.assigned.first().cloned());
    assert_eq!((lane.start, lane.genesis, lane.topic_partitions), (10, true, Some(1)));
    produce(&bootstrap, "orders", 0, values(10..15));
    running.wait_records(5);
    let seen = running.stop();
    assert_eq!(offsets(&seen.lock().unwrap().records[&lane.lane.lane]), [10, 11, 12, 13, 14]);
}

#[test]
fn a_commit_in_a_rebalance_is_refused_and_lands_when_it_is_sent_again() {
    let cluster = cluster(&[("orders", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    produce(&bootstrap, "orders", 0, values(0..10));
    let running = Running::start(&settings(&bootstrap, "rebalancing"), named("orders"));
    running.wait_records(10);
    cluster
        .request_errors(ApiKey::OffsetCommit, &[RespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS]);
    let refused = running.commit();
    let again = running.commit();
    assert!(matches!(refused[..], [LaneOutcome::Refused { retryable: true, .. }]), "{refused:?}");
    assert!(matches!(again[..], [LaneOutcome::Landed]), "{again:?}");
    let seen = running.stop();
    let seen = seen.lock().unwrap();
    assert_eq!((seen.assigned.len(), seen.lost.len()), (1, 0), "the lane was kept all the time");
}

#[test]
fn a_member_that_the_group_went_on_without_loses_its_lanes_and_reads_them_again() {
    // Out of a rebalance librdkafka takes a wrong generation for a loss, too.
    for (error, lost) in [
        (RespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID, true),
        (RespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, false),
    ] {
        let cluster = cluster(&[("orders", 1)]);
        let bootstrap = cluster.bootstrap_servers();
        produce(&bootstrap, "orders", 0, values(0..10));
        let running = Running::start(&settings(&bootstrap, "went-on"), named("orders"));
        running.wait_records(10);
        cluster.request_errors(ApiKey::OffsetCommit, &[error]);
        let outcome = running.commit();
        assert_eq!(matches!(outcome[..], [LaneOutcome::Lost(_)]), lost, "{outcome:?}");
        assert!(!matches!(outcome[..], [LaneOutcome::Landed]), "{outcome:?}");
        running.wait("the loss", |seen| (!seen.lost.is_empty()).then_some(()));
        // Nothing was committed: the same records once more.
        running.wait_records(20);
        let again = running.commit();
        assert!(matches!(again[..], [LaneOutcome::Landed]), "{again:?}");
        let seen = running.stop();
        let seen = seen.lock().unwrap();
        assert_eq!((seen.assigned.len(), seen.lost.len()), (2, 1));
    }
}
