//! The longest metadata that the brokers keep, by commits to librdkafka's mock cluster.

use std::time::Duration;

use kcbq::{
    kafka::admin::{Cluster, Limit},
    record::TopicPartition,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    types::{RDKafkaApiKey as ApiKey, RDKafkaRespErr as RespErr},
};

use crate::kafka_mock::{cluster, settings};

const LIKELY: usize = 4_096;
const MAX: usize = 32_000;

/// What is found in a group, and how many commits that took.
fn longest(bootstrap: &str, group: &str) -> (Limit, Vec<(usize, String)>) {
    let asking = Cluster::new(&settings(bootstrap, group), None).unwrap();
    let lane = TopicPartition::new("orders", 0);
    let mut told = Vec::new();
    let mut tell = |bytes: usize, answer: &str, _| told.push((bytes, answer.to_owned()));
    let limit = asking.longest_metadata(&lane, LIKELY, MAX, &mut tell).unwrap();
    (limit, told)
}

#[test]
fn brokers_without_a_limit_are_asked_for_no_more_than_the_protocol_has() {
    let cluster = cluster(&[("orders", 1)]);
    let (limit, told) = longest(&cluster.bootstrap_servers(), "free");
    assert_eq!(limit, Limit { bytes: MAX, is_whole: true });
    let sizes: Vec<usize> = told.iter().map(|(bytes, _)| *bytes).collect();
    assert_eq!(sizes, [LIKELY, LIKELY + 1, MAX, MAX, 0]);
}

#[test]
fn the_limit_is_found_to_the_byte() {
    let cluster = cluster(&[("orders", 1)]);
    let refused = RespErr::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE;
    let taken = RespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    // 4,096 is taken, 4,097 is not.
    cluster.request_errors(ApiKey::OffsetCommit, &[taken, refused]);
    let (limit, told) = longest(&cluster.bootstrap_servers(), "usual");
    assert_eq!(limit, Limit { bytes: LIKELY, is_whole: true });
    assert_eq!(told.len(), 4, "{told:?}");
    // From now on 4,095 is the limit, by the answers to what bisection asks for.
    cluster.request_errors(ApiKey::OffsetCommit, &[refused]);
    let (limit, told) = longest(&cluster.bootstrap_servers(), "smaller");
    assert_eq!(limit, Limit { bytes: LIKELY - 1, is_whole: true });
    assert!(told.len() < 20, "{told:?}");
}

#[test]
fn the_offset_stays_where_it_was_and_nothing_is_left_beside_it() {
    let cluster = cluster(&[("orders", 1)]);
    let bootstrap = cluster.bootstrap_servers();
    let mut config = ClientConfig::new();
    let config = config.set("bootstrap.servers", &bootstrap).set("group.id", "own");
    let owner: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("orders", 0, Offset::Offset(7)).unwrap();
    owner.commit(&list, CommitMode::Sync).unwrap();
    assert_eq!(longest(&bootstrap, "own").0.bytes, MAX);
    let found = owner.committed_offsets(list, Duration::from_secs(10)).unwrap();
    let found = &found.elements()[0];
    assert_eq!((found.offset(), found.metadata()), (Offset::Offset(7), ""));
}

#[test]
fn a_refusal_for_another_cause_is_an_error() {
    let cluster = cluster(&[("orders", 1)]);
    let denied = RespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
    cluster.request_errors(ApiKey::OffsetCommit, &[denied]);
    let asking = Cluster::new(&settings(&cluster.bootstrap_servers(), "denied"), None).unwrap();
    let lane = TopicPartition::new("orders", 0);
    let refused = asking.longest_metadata(&lane, LIKELY, MAX, &mut |_, _, _| {}).unwrap_err();
    assert!(refused.source.to_string().contains("Group authorization failed"), "{refused:?}");
}
