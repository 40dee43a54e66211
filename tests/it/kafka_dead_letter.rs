//! The dead-letter producer and the admin questions against librdkafka's mock cluster.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kcbq::{
    dead_letter::{DeadLetter, DeadLetters as _, Reason, Stage},
    fault::FaultKind,
    kafka::{admin::Cluster, dead_letter_producer::DeadLetterProducer, topics::Topics},
    record::{Coordinates, TopicPartition, push_header},
};
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
    message::{Headers as _, OwnedMessage},
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use crate::kafka_mock::{cluster, produce, settings};

fn letter(value: Option<Vec<u8>>) -> DeadLetter {
    let mut headers = Vec::new();
    push_header(&mut headers, "trace", Some(b"\x00\xff"));
    push_header(&mut headers, "none", None);
    DeadLetter {
        topic: Arc::from("orders-dead"),
        origin: Coordinates { lane: TopicPartition::new("orders", 3), offset: 42 },
        timestamp_ms: Some(1_234),
        key: Some(b"key".to_vec()),
        value,
        headers,
        reason: Reason {
            stage: Stage::Transcode,
            message: "the value has no place in its column".into(),
            field: Some("order.price".into()),
            schema_id: Some(7),
        },
    }
}

fn read(bootstrap: &str, topic: &str, count: usize) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "reader")
        .create()
        .unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(topic, 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut messages = Vec::new();
    while messages.len() < count {
        let message = consumer.poll(Duration::from_secs(20)).expect("a message in time").unwrap();
        messages.push(message.detach());
    }
    messages
}

fn headers(message: &OwnedMessage) -> Vec<(String, Option<Vec<u8>>)> {
    let headers = message.headers().unwrap().iter();
    headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_carries_the_record_and_says_where_it_came_from_and_why() {
    let cluster = cluster(&[("orders-dead", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    let producer = DeadLetterProducer::new(&settings(&bootstrap, "sink"), None).unwrap();
    producer.send(letter(Some(b"value".to_vec()))).await.unwrap();
    producer.send(letter(None)).await.unwrap();
    let messages = read(&bootstrap, "orders-dead", 2);
    let message = &messages[0];
    assert_eq!((message.key(), message.payload()), (Some(&b"key"[..]), Some(&b"value"[..])));
    // A broker may refuse the record's own, and retention would delete an old one at once.
    let age_ms = now_ms() - message.timestamp().to_millis().unwrap();
    assert!((0..60_000).contains(&age_ms), "{age_ms}");
    assert_eq!(messages[1].payload(), None, "a null value stays null");
    let text = |value: &str| Some(value.as_bytes().to_vec());
    let why = "the value has no place in its column";
    let expected = [
        ("trace", Some(vec![0, 255])),
        ("none", None),
        ("__connect.errors.topic", text("orders")),
        ("__connect.errors.partition", text("3")),
        ("__connect.errors.offset", text("42")),
        ("__connect.errors.connector.name", text("sink")),
        ("__connect.errors.task.id", text("0")),
        ("__connect.errors.stage", text("TASK_PUT")),
        ("__connect.errors.class.name", text("kcbq")),
        ("__connect.errors.exception.class.name", text("kcbq.transcode")),
        ("__connect.errors.exception.message", text(why)),
        ("kcbq.error.stage", text("transcode")),
        ("kcbq.error.reason", text(why)),
        ("kcbq.error.field", text("order.price")),
        ("kcbq.error.schema_id", text("7")),
        ("kcbq.record.timestamp_ms", text("1234")),
    ];
    let expected: Vec<_> =
        expected.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    assert_eq!(headers(message), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_too_large_loses_its_tail_and_says_so() {
    let cluster = cluster(&[("orders-dead", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    let mut settings = settings(&bootstrap, "sink");
    settings.record_bytes_max = 1_000_000;
    let producer = DeadLetterProducer::new(&settings, None).unwrap();
    producer.send(letter(Some(vec![b'x'; 2_000_000]))).await.unwrap();
    let message = &read(&bootstrap, "orders-dead", 1)[0];
    let kept = message.payload().unwrap().len();
    assert!((890_000..=900_000).contains(&kept), "{kept}");
    let headers: BTreeMap<_, _> = headers(message).into_iter().collect();
    assert_eq!(headers["kcbq.value.truncated_from_bytes"].as_deref(), Some(&b"2000000"[..]));
    assert_eq!(headers["__connect.errors.offset"].as_deref(), Some(&b"42"[..]));
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// A letter of the record at `offset`.
fn numbered(offset: i64) -> DeadLetter {
    let mut letter = letter(Some(b"value".to_vec()));
    letter.origin.offset = offset;
    letter
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_the_broker_refuses_becomes_a_minimal_one_and_its_neighbours_go_through() {
    let cluster = cluster(&[("orders-dead", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    let producer = DeadLetterProducer::new(&settings(&bootstrap, "sink"), None).unwrap();
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
    ] {
        cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
        // All are on their way at once; the broker refuses one batch.
        let sent = (0..20).map(|offset| producer.send(numbered(offset)));
        for result in futures_util::future::join_all(sent).await {
            result.unwrap();
        }
    }
    let messages = read(&bootstrap, "orders-dead", 60);
    let minimal: Vec<_> = messages.iter().filter(|message| message.payload().is_none()).collect();
    assert_eq!(minimal.len(), 3, "one for each refusal");
    for message in minimal {
        let headers: BTreeMap<_, _> = headers(message).into_iter().collect();
        let offset = headers["__connect.errors.offset"].clone().unwrap();
        let offset = String::from_utf8(offset).unwrap();
        assert_eq!(message.key(), Some(format!("orders[3]@{offset}").as_bytes()));
        assert_eq!(headers["kcbq.error.stage"].as_deref(), Some(&b"transcode"[..]));
        assert!(!headers.contains_key("trace"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_to_a_missing_topic_fails_within_seconds_and_goes_once_it_is_there() {
    let cluster = cluster(&[]);
    // The mock cluster makes topics by itself, so it says for a while that there is none.
    let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    cluster.topic_error("orders-dead", unknown).unwrap();
    let bootstrap = cluster.bootstrap_servers();
    let producer = DeadLetterProducer::new(&settings(&bootstrap, "sink"), None).unwrap();
    let began = Instant::now();
    let fault = producer.send(numbered(1)).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(fault.kind, FaultKind::TableNotFound, "{fault}");
    assert_eq!(fault.remedy.as_deref(), Some("create the topic orders-dead"));
    cluster.topic_error("orders-dead", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    cluster.create_topic("orders-dead", 1, 1).ok();
    let again = async {
        while producer.send(numbered(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.unwrap();
}

#[test]
fn the_cluster_tells_its_topics_and_where_the_group_stands() {
    let cluster = cluster(&[("orders", 2), ("other", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    produce(&bootstrap, "orders", 1, (0..7).map(|n| n.to_string()));
    let admin = Cluster::new(&settings(&bootstrap, "sink"), None).unwrap();
    let topics = admin.topics(&Topics::new(vec!["orders", "gone"], vec![], vec![]).unwrap());
    assert_eq!(topics.unwrap(), BTreeMap::from([("orders".to_owned(), 2)]));
    let lanes = [TopicPartition::new("orders", 0), TopicPartition::new("orders", 1)];
    let positions = admin.positions(&lanes).unwrap();
    assert_eq!(positions[&lanes[0]].lag(), Some(0));
    let position = positions[&lanes[1]];
    assert_eq!((position.low, position.high, position.committed), (Some(0), Some(7), None));
    assert_eq!(position.lag(), Some(7));
}
