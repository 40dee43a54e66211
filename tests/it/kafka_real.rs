//! The Kafka adapter against a real broker: what the mock cluster cannot do. Run with
//! `KCBQ_TEST_BOOTSTRAP=127.0.0.1:19192 cargo test --test it kafka_real -- --ignored`, on a broker
//! without the topics of an earlier run.

use std::time::Duration;

use kcbq::{
    committer::LaneCommit,
    kafka::{
        admin::{Cluster, Limit},
        settings::OnDataLoss,
        topics::Topics,
    },
    record::TopicPartition,
    source::SourceFault,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    producer::{BaseProducer, BaseRecord, Producer as _},
};

use crate::kafka_mock::{self, Running, produce, settings};

fn bootstrap() -> String {
    std::env::var("KCBQ_TEST_BOOTSTRAP").unwrap()
}

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", bootstrap()).create().unwrap()
}

async fn create(topic: &str, partitions: i32) -> Topics {
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for created in admin().create_topics(&[new], &AdminOptions::new()).await.unwrap() {
        created.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    Topics::new(vec![topic], vec![], vec![]).unwrap()
}

async fn recreate(topic: &str, partitions: i32) -> Topics {
    for deleted in admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap() {
        deleted.unwrap();
    }
    create(topic, partitions).await
}

async fn delete_records(topic: &str, before: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(before)).unwrap();
    admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
}

fn values(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|n| format!("value-{n}"))
}

fn offsets(running: &Running, topic: &str) -> Vec<i64> {
    let seen = running.seen.lock().unwrap();
    let records = seen.records.get(&TopicPartition::new(topic, 0));
    records.into_iter().flatten().map(|(offset, _)| *offset).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker: KCBQ_TEST_BOOTSTRAP"]
async fn lanes_move_between_members_without_loss_or_repetition() {
    let topics = create("real-rebalance", 8).await;
    let settings = settings(&bootstrap(), "real-rebalance");
    for partition in 0..8 {
        produce(&bootstrap(), "real-rebalance", partition, values(0..100));
    }
    let first = Running::start(&settings, topics.clone());
    first.wait_records(800);
    let second = Running::start(&settings, topics.clone());
    second.wait("four lanes", |seen| (seen.assigned.len() == 4).then_some(()));
    for partition in 0..8 {
        produce(&bootstrap(), "real-rebalance", partition, values(100..150));
    }
    first.wait_records(1_000);
    second.wait_records(200);
    let first = first.stop();
    second.wait("all lanes", |seen| (seen.assigned.len() == 8).then_some(()));
    for partition in 0..8 {
        produce(&bootstrap(), "real-rebalance", partition, values(150..160));
    }
    second.wait_records(280);
    let second = second.stop();
    let (first, second) = (first.lock().unwrap(), second.lock().unwrap());
    let mut all = first.records.clone();
    for (lane, records) in &second.records {
        all.entry(lane.clone()).or_default().extend(records.iter().cloned());
    }
    for (lane, records) in all {
        let offsets: Vec<i64> = records.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, (0..160).collect::<Vec<_>>(), "{lane}");
    }
    assert!(first.lost.is_empty() && second.lost.is_empty());
    assert!(first.faults.is_empty() && second.faults.is_empty(), "{:?}", first.faults);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker: KCBQ_TEST_BOOTSTRAP"]
async fn records_deleted_before_they_were_read_halt_the_lane_or_are_reported() {
    let topics = create("real-loss", 1).await;
    let mut settings = settings(&bootstrap(), "real-loss");
    produce(&bootstrap(), "real-loss", 0, values(0..10));
    let first = Running::start(&settings, topics.clone());
    first.wait_records(10);
    first.stop();
    produce(&bootstrap(), "real-loss", 0, values(10..30));
    delete_records("real-loss", 20).await;
    let halted = Running::start(&settings, topics.clone());
    let fault = halted.wait("a fault", |seen| seen.faults.first().cloned());
    assert!(fault.to_string().contains("from offset 10 up to 20"), "{fault}");
    halted.stop();
    settings.on_data_loss = OnDataLoss::SkipAndReport;
    let skipping = Running::start(&settings, topics);
    skipping.wait_records(10);
    assert_eq!(offsets(&skipping, "real-loss"), (20..30).collect::<Vec<_>>());
    assert_eq!(skipping.stop().lock().unwrap().faults.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker: KCBQ_TEST_BOOTSTRAP"]
async fn a_topic_made_again_with_the_same_records_is_told_by_its_id() {
    let topics = create("real-again", 1).await;
    let settings = settings(&bootstrap(), "real-again");
    produce(&bootstrap(), "real-again", 0, values(0..10));
    let first = Running::start(&settings, topics);
    first.wait_records(10);
    let held = first.seen.lock().unwrap().held[&TopicPartition::new("real-again", 0)].clone();
    assert_eq!(held.topic_id.as_ref().map(String::len), Some(22));
    first.stop();
    let topics = recreate("real-again", 1).await;
    // The record below the committed offset is the very same, and more than it are there. Kafka
    // forgets offsets with their topic, so it is committed as by a member that did not notice.
    produce(&bootstrap(), "real-again", 0, values(0..20));
    commit_as("real-again", &kafka_mock::commit_of(held));
    let second = Running::start(&settings, topics);
    let fault = second.wait("a fault", |seen| seen.faults.first().cloned());
    let text = fault.to_string();
    assert!(text.contains("deleted and made again") && text.contains("offset 10"), "{text}");
    let seen = second.stop();
    let seen = seen.lock().unwrap();
    assert!(seen.records.is_empty() && seen.assigned.is_empty(), "{seen:?}");
}

/// Commits for a group without members.
fn commit_as(group: &str, commit: &LaneCommit) {
    let mut config = ClientConfig::new();
    let config = config.set("bootstrap.servers", bootstrap()).set("group.id", group);
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(&commit.lane.topic, commit.lane.partition);
    element.set_offset(Offset::Offset(commit.offset)).unwrap();
    element.set_metadata(&commit.metadata);
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker: KCBQ_TEST_BOOTSTRAP"]
async fn a_topic_made_again_under_a_running_lane_halts_it() {
    let topics = create("real-under", 1).await;
    let settings = settings(&bootstrap(), "real-under");
    produce(&bootstrap(), "real-under", 0, values(0..10));
    let running = Running::start(&settings, topics);
    running.wait_records(10);
    running.commit();
    recreate("real-under", 1).await;
    produce(&bootstrap(), "real-under", 0, values(0..20));
    // By the id under the running lane, or at the next assignment, whichever the client sees first.
    let other = |fault: &SourceFault| matches!(fault, SourceFault::OtherTopic { .. });
    running.wait("the halt", |seen| seen.faults.iter().find(|fault| other(fault)).cloned());
    running.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker: KCBQ_TEST_BOOTSTRAP"]
async fn an_offset_that_vanishes_under_a_running_lane_is_recovered_in_place() {
    let topics = create("real-vanish", 1).await;
    let mut settings = settings(&bootstrap(), "real-vanish");
    settings.on_data_loss = OnDataLoss::SkipAndReport;
    produce(&bootstrap(), "real-vanish", 0, values(0..10));
    let running = Running::start(&settings, topics);
    running.wait_records(10);
    let lane = running.seen.lock().unwrap().assigned[0].lane.clone();
    running.seen.lock().unwrap().flow.pause.push(lane.clone());
    let ticks = running.seen.lock().unwrap().ticks;
    running.wait("the pause", |seen| (seen.ticks > ticks + 2).then_some(()));
    produce(&bootstrap(), "real-vanish", 0, values(10..30));
    delete_records("real-vanish", 20).await;
    running.seen.lock().unwrap().flow.resume.push((lane, 10));
    running.wait_records(20);
    let expected: Vec<i64> = (0..10).chain(20..30).collect();
    assert_eq!(offsets(&running, "real-vanish"), expected);
    let seen = running.stop();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.assigned.len(), 1, "told once per assignment");
    let texts: Vec<_> = seen.faults.iter().map(ToString::to_string).collect();
    assert!(texts.iter().any(|text| text.contains("from offset 10 up to 20")), "{texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker: KCBQ_TEST_BOOTSTRAP"]
async fn a_partition_added_later_is_read_from_its_first_record_even_at_latest() {
    let topics = create("real-growth", 1).await;
    let mut settings = settings(&bootstrap(), "real-growth");
    settings.start = kcbq::kafka::settings::StartPosition::Latest;
    produce(&bootstrap(), "real-growth", 0, values(0..10));
    let running = Running::start(&settings, topics);
    let lane = running.wait("an assignment", |seen| seen.assigned.first().cloned());
    assert_eq!((lane.start, lane.topic_partitions), (10, Some(1)));
    running.commit();
    let grown = NewPartitions::new("real-growth", 2);
    for grown in admin().create_partitions(&[grown], &AdminOptions::new()).await.unwrap() {
        grown.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    produce(&bootstrap(), "real-growth", 1, values(0..5));
    running.wait_records(5);
    let seen = running.stop();
    let seen = seen.lock().unwrap();
    let added = seen.assigned.iter().find(|lane| lane.lane.lane.partition == 1).unwrap();
    assert_eq!((added.start, added.genesis, added.topic_partitions), (0, true, Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker: KCBQ_TEST_BOOTSTRAP"]
async fn records_of_aborted_transactions_are_never_seen_and_their_gaps_do_no_harm() {
    let topics = create("real-transactions", 1).await;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap())
        .set("transactional.id", "real-transactions")
        .create()
        .unwrap();
    let timeout = Duration::from_secs(10);
    producer.init_transactions(timeout).unwrap();
    for commit in [false, true, false] {
        producer.begin_transaction().unwrap();
        for _ in 0..5 {
            let value = if commit { "committed" } else { "aborted" };
            let record = BaseRecord::to("real-transactions").partition(0).key("key").payload(value);
            producer.send(record.timestamp(1_000)).unwrap();
        }
        producer.flush(timeout).unwrap();
        if commit {
            producer.commit_transaction(timeout).unwrap();
        } else {
            producer.abort_transaction(timeout).unwrap();
        }
    }
    let settings = settings(&bootstrap(), "real-transactions");
    let first = Running::start(&settings, topics.clone());
    first.wait_records(5);
    let seen = first.stop();
    let records = seen.lock().unwrap().records.values().next().unwrap().clone();
    assert!(records.iter().all(|(_, value)| value == "committed"));
    let second = Running::start(&settings, topics);
    let lane = second.wait("an assignment", |seen| seen.assigned.first().cloned());
    assert_eq!(lane.start, 11, "after the last record seen");
    assert_eq!(lane.high, 18, "two markers and an aborted transaction follow");
    produce(&bootstrap(), "real-transactions", 0, values(0..3));
    second.wait_records(3);
    assert_eq!(offsets(&second, "real-transactions"), [18, 19, 20]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker: KCBQ_TEST_BOOTSTRAP"]
async fn a_broker_keeps_4096_bytes_of_metadata_unless_it_is_told_otherwise() {
    create("real-metadata", 1).await;
    let asking = Cluster::new(&settings(&bootstrap(), "real-metadata-probe"), None).unwrap();
    let lane = TopicPartition::new("real-metadata", 0);
    let mut told = Vec::new();
    let mut tell = |bytes: usize, answer: &str, _| told.push(format!("{bytes}: {answer}"));
    let limit = asking.longest_metadata(&lane, 4_000, 32_000, &mut tell).unwrap();
    assert_eq!(limit, Limit { bytes: 4_096, is_whole: true }, "{told:?}");
}
