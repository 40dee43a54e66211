//! Unusual input of the Kafka adapter: large compressed batches, reads that fail.

use std::time::Duration;

use kcbq::{
    kafka::topics::Topics,
    record::TopicPartition,
    source::{MissingTopic, SourceFault},
};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer as _},
    types::{RDKafkaApiKey as ApiKey, RDKafkaRespErr as RespErr},
};

use crate::kafka_mock::{Running, Seen, cluster, produce, settings};

const CODECS: [&str; 4] = ["zstd", "gzip", "lz4", "snappy"];

fn named(topic: &str) -> Topics {
    Topics::new(vec![topic], vec![], vec![]).unwrap()
}

/// Produces `values` in one batch, however large.
fn produce_batch(bootstrap: &str, topic: &str, codec: &str, values: &[String]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("compression.codec", codec)
        .set("message.max.bytes", "1000000000")
        .set("batch.size", "1000000000")
        .set("batch.num.messages", "1000000")
        .set("queue.buffering.max.kbytes", "2000000")
        .set("queue.buffering.max.messages", "1000000")
        .set("linger.ms", "60000")
        .create()
        .unwrap();
    for value in values {
        let record = BaseRecord::to(topic).partition(0).key("key").payload(value).timestamp(1_000);
        producer.send(record).unwrap();
    }
    // A flush sends what waits at once.
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// Lines of a log, about 20 MB, that compress well.
fn log() -> Vec<String> {
    let line = r#""level":"info","service":"checkout","message":"the order was taken""#;
    (0..16_000).map(|n| format!("{{\"n\":{n},{}}}", [line; 19].join(","))).collect()
}

#[test]
fn a_batch_of_20_mb_is_read_whatever_its_codec() {
    let values = log();
    assert!(values.iter().map(String::len).sum::<usize>() > 20_000_000);
    for codec in CODECS {
        let cluster = cluster(&[("orders", 1)]);
        let bootstrap = cluster.bootstrap_servers();
        produce_batch(&bootstrap, "orders", codec, &values);
        let running = Running::start(&settings(&bootstrap, "large"), named("orders"));
        running.wait_records(values.len());
        let seen = running.stop();
        let seen = seen.lock().unwrap();
        let read = &seen.records[&TopicPartition::new("orders", 0)];
        assert!(read.iter().map(|(_, value)| value).eq(&values), "{codec}");
        assert!(seen.faults.is_empty(), "{codec}: {:?}", seen.faults);
    }
}

fn read_faults(seen: &Seen) -> Vec<(String, bool)> {
    let read = seen.faults.iter().filter_map(|fault| match fault {
        SourceFault::Read { remedy, lasts, .. } => Some((remedy.clone(), *lasts)),
        _ => None,
    });
    read.collect()
}

#[test]
fn a_lane_that_may_not_be_read_says_so_with_the_remedy_and_goes_on_when_it_may() {
    let cluster = cluster(&[("orders", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    produce(&bootstrap, "orders", 0, (0..10).map(|n| format!("value-{n}")));
    let denied = [RespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 50];
    cluster.request_errors(ApiKey::Fetch, &denied);
    let running = Running::start(&settings(&bootstrap, "denied"), named("orders"));
    let faults = running.wait("a failure that lasts", |seen| {
        let faults = read_faults(seen);
        faults.iter().any(|(_, lasts)| *lasts).then_some(faults)
    });
    assert!(!faults[0].1, "the first may pass");
    assert!(faults.iter().all(|(remedy, _)| remedy.contains("ACL `READ`")), "{faults:?}");
    assert!(running.seen.lock().unwrap().read_again.is_empty());
    cluster.clear_request_errors(ApiKey::Fetch);
    running.wait_records(10);
    let again = running.wait("that it is read again", |seen| seen.read_again.first().cloned());
    assert_eq!(again.lane, TopicPartition::new("orders", 0));
    running.stop();
}

#[test]
fn a_lane_without_records_is_read_again_once_its_tries_do_not_fail() {
    let cluster = cluster(&[("orders", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    let denied = [RespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 50];
    cluster.request_errors(ApiKey::Fetch, &denied);
    let running = Running::start(&settings(&bootstrap, "denied-empty"), named("orders"));
    running.wait("a failure that lasts", |seen| {
        read_faults(seen).iter().any(|(_, lasts)| *lasts).then_some(())
    });
    cluster.clear_request_errors(ApiKey::Fetch);
    running.wait("that it is read again", |seen| seen.read_again.first().cloned());
    running.stop();
}

/// One record, and a batch behind it that takes 150 MB.
fn produce_bomb(bootstrap: &str, codec: &str) {
    produce_batch(bootstrap, "orders", "none", &["first".to_owned()]);
    let zeros = match codec {
        // The mock cluster keeps 5 MB of a partition, and Snappy makes at most a twentieth of its input:
        // small records, which take more memory than their bytes.
        "snappy" => vec!["0".to_owned(); 450_000],
        _ => vec!["0".repeat(1_000_000); 150],
    };
    produce_batch(bootstrap, "orders", codec, &zeros);
}

/// Fails where librdkafka calls another function than those that `build.rs` names.
#[test]
fn a_bomb_is_not_decompressed_whatever_its_codec_and_its_lane_says_what_to_set() {
    for codec in CODECS {
        let cluster = cluster(&[("orders", 1)]);
        let bootstrap = cluster.bootstrap_servers();
        produce_bomb(&bootstrap, codec);
        let running = Running::start(&settings(&bootstrap, "bomb"), named("orders"));
        let remedy = running.wait("a failure that lasts", |seen| {
            read_faults(seen).into_iter().find_map(|(remedy, lasts)| lasts.then_some(remedy))
        });
        assert!(
            remedy.contains("`kafka.decompressed_bytes_max` to 201326592"),
            "{codec}: {remedy}"
        );
        let seen = running.stop();
        let seen = seen.lock().unwrap();
        let read = &seen.records[&TopicPartition::new("orders", 0)];
        assert_eq!(*read, [(0, "first".to_owned())], "{codec}: what is before it is read");
    }
}

/// More than may be in memory at once: each gives back what it took, and none counts for the next.
#[test]
fn large_batches_are_read_one_after_the_other() {
    const BATCHES: usize = 8;
    let cluster = cluster(&[("orders", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    let values = log();
    for _ in 0..BATCHES {
        produce_batch(&bootstrap, "orders", "zstd", &values);
    }
    let running = Running::start(&settings(&bootstrap, "many"), named("orders"));
    running.wait_records(BATCHES * values.len());
    let seen = running.stop();
    let seen = seen.lock().unwrap();
    let offsets = seen.records[&TopicPartition::new("orders", 0)].iter().map(|(offset, _)| *offset);
    assert!(offsets.eq(0..(BATCHES * values.len()) as i64));
    assert!(read_faults(&seen).iter().all(|(_, lasts)| !lasts));
}

fn missing(running: &Running, what: &str, count: usize) -> Vec<MissingTopic> {
    running.wait(what, |seen| {
        let last = seen.missing.last()?;
        (last.len() == count).then(|| last.clone())
    })
}

#[test]
fn topics_that_do_not_exist_are_told_until_they_do() {
    let cluster = cluster(&[("orders", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    let topics = Topics::new(vec!["orders", "absent"], vec![r"later\..+"], vec![]).unwrap();
    let running = Running::start(&settings(&bootstrap, "absent"), topics);
    let told = missing(&running, "two missing topics", 2);
    let wanted: Vec<&str> = told.iter().map(|topic| &*topic.wanted).collect();
    assert_eq!(wanted, ["absent", r"later\..+"]);
    assert!(told.iter().all(|topic| topic.remedy.contains("`match`")), "{told:?}");
    cluster.create_topic("later.made", 1, 1).unwrap();
    assert_eq!(missing(&running, "one missing topic", 1)[0].wanted, "absent");
    cluster.create_topic("absent", 1, 1).unwrap();
    missing(&running, "no missing topic", 0);
    for topic in ["absent", "later.made"] {
        produce(&bootstrap, topic, 0, ["value".to_owned()]);
    }
    running.wait_records(2);
    let seen = running.stop();
    let faults = &seen.lock().unwrap().faults;
    assert!(faults.is_empty(), "told once, not twice: {faults:?}");
}
