//! The Kafka adapter against librdkafka's mock cluster.

use kcbq::{
    committer::{Committer as _, LaneOutcome},
    kafka::topics::Topics,
    record::TopicPartition,
};

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
