//! Where a lane begins: the production decision over what the simulated group and log say.

use super::env::Env;
use crate::{
    committer::CommitMetadata,
    kafka::{
        settings::{OnDataLoss, StartPosition},
        start::{Found, Known, Position, Start, decide},
    },
    record::{Fingerprint, Headers, Record, TopicPartition},
};

/// Decides, and compares the record below the committed offset with what was committed beside it.
pub(crate) fn start(env: &mut Env, lane: &TopicPartition) -> Start {
    let position = match env.group.committed.get(lane) {
        Some((offset, _)) => Position::Committed(*offset, committed(env, lane)),
        None => Position::Uncommitted(known(env, lane)),
    };
    let found = Found {
        lane: lane.clone(),
        position,
        topic_id: None,
        replaced: false,
        low: 0,
        high: env.checkers.end(lane),
        at_time: None,
    };
    let start = decide(&found, StartPosition::Earliest, OnDataLoss::Halt).unwrap();
    if let Some(last) = start.verify
        && fingerprint(env, lane, last.offset) != Some(last)
    {
        env.violation(format!("fingerprint: {lane}@{} is not what was committed", last.offset));
    }
    start
}

/// The metadata of the lane's last commit.
pub(crate) fn committed(env: &Env, lane: &TopicPartition) -> Option<CommitMetadata> {
    let (_, metadata) = env.group.committed.get(lane)?;
    Some(CommitMetadata::decode(metadata.as_bytes()).unwrap())
}

fn known(env: &Env, lane: &TopicPartition) -> Known {
    let mut committed = env.group.committed.iter().filter(|(other, _)| other.topic == lane.topic);
    let metadata = committed.clone().find_map(|(_, (_, metadata))| {
        CommitMetadata::decode(metadata.as_bytes()).ok()?.topic_partitions
    });
    Known {
        partitions: env.lanes.iter().filter(|other| other.topic == lane.topic).count() as u32,
        committed: committed.next().is_some(),
        at_genesis: metadata,
    }
}

fn fingerprint(env: &Env, lane: &TopicPartition, offset: i64) -> Option<Fingerprint> {
    let record = env.checkers.log(lane)?.get(&offset)?;
    Some(Fingerprint::of(&Record {
        offset,
        timestamp_ms: Some(record.timestamp_ms),
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: Headers::from_encoded(&record.headers),
    }))
}
