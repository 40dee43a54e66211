//! Where a lane begins: pure decisions from what the broker said.

use super::{
    settings::{OnDataLoss, StartPosition},
    topic_ids::is_made_up,
};
use crate::{
    committer::{CommitMetadata, Fingerprint},
    record::TopicPartition,
    source::SourceFault,
};

/// How far before the committed offset the remembered record may lie and still be read again.
const VERIFY_SPAN_MAX: i64 = 100_000;

/// What is known about the lane's position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// The group's committed offset, and its metadata where it is ours.
    Committed(i64, Option<CommitMetadata>),
    /// The group has none for this lane.
    Uncommitted(Known),
    /// This process's own next offset: the lane was running under this very assignment.
    Own(i64),
}

/// What is known about a topic of which a lane has no committed offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// How many partitions the topic has now.
    pub partitions: u32,
    /// Whether the group has a committed offset for any of its partitions.
    pub committed: bool,
    /// How many it had when the group first met it, as some committed offset's metadata says.
    pub at_genesis: Option<u32>,
}

impl Known {
    /// The number to carry on as [`CommitMetadata::topic_partitions`]. Offsets that were committed
    /// by somebody else say nothing: then no partition counts as there from the start.
    pub fn topic_partitions(&self) -> u32 {
        if self.committed { self.at_genesis.unwrap_or(0) } else { self.partitions }
    }
}

/// What the broker said about a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which lane.
    pub lane: TopicPartition,
    /// Its position.
    pub position: Position,
    /// The topic's id, where the brokers told it.
    pub topic_id: Option<String>,
    /// Whether it is another one than while this process was reading.
    pub replaced: bool,
    /// The earliest offset left.
    pub low: i64,
    /// The last stable offset.
    pub high: i64,
    /// The first offset at or after the configured time, if a time is configured and there is one.
    pub at_time: Option<i64>,
}

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The first record to deliver.
    pub offset: i64,
    /// Whether to commit it as the genesis record.
    pub genesis: bool,
    /// The record below, to be read again and compared before anything is delivered.
    pub verify: Option<Fingerprint>,
    /// The metadata that was committed.
    pub metadata: Option<CommitMetadata>,
    /// The topic's id, where it is known; or the one that was made up for the lane.
    pub topic_id: Option<String>,
    /// See [`CommitMetadata::topic_partitions`].
    pub topic_partitions: Option<u32>,
    /// A loss to report.
    pub loss: Option<SourceFault>,
}

/// Decides where a lane begins.
///
/// # Errors
///
/// The fault for which the lane must stand still.
pub fn decide(
    found: &Found,
    start: StartPosition,
    on_data_loss: OnDataLoss,
) -> Result<Start, SourceFault> {
    let at = |offset, metadata: Option<CommitMetadata>| Start {
        offset,
        genesis: false,
        verify: None,
        topic_partitions: metadata.as_ref().and_then(|metadata| metadata.topic_partitions),
        topic_id: made_up(metadata.as_ref()).or_else(|| found.topic_id.clone()),
        metadata,
        loss: None,
    };
    match &found.position {
        Position::Uncommitted(known) => Ok(Start {
            genesis: true,
            topic_partitions: Some(known.topic_partitions()),
            ..at(first(found, *known, start), None)
        }),
        Position::Own(next) if found.replaced => {
            Err(SourceFault::OtherTopic { lane: found.lane.clone(), next: *next })
        }
        Position::Own(offset) => within(found, *offset, on_data_loss, at(*offset, None)),
        Position::Committed(offset, Some(metadata)) if is_another(metadata, found) => {
            Err(SourceFault::OtherTopic { lane: found.lane.clone(), next: *offset })
        }
        Position::Committed(offset, metadata) => {
            let verify = metadata.as_ref().and_then(|metadata| metadata.last);
            let verify = verify.filter(|last| {
                (found.low..*offset).contains(&last.offset)
                    && offset.saturating_sub(last.offset) <= VERIFY_SPAN_MAX
            });
            let start = Start { verify, ..at(*offset, metadata.clone()) };
            within(found, *offset, on_data_loss, start)
        }
    }
}

/// Whether the offset was committed for a topic that had the name before.
fn is_another(metadata: &CommitMetadata, found: &Found) -> bool {
    match (&metadata.topic_id, &found.topic_id) {
        (Some(committed), Some(present)) => !is_made_up(committed) && committed != present,
        _ => false,
    }
}

/// The id that was made up for the lane: it stays, even if the brokers have learnt to tell ids since.
fn made_up(metadata: Option<&CommitMetadata>) -> Option<String> {
    metadata?.topic_id.clone().filter(|id| is_made_up(id))
}

/// Checks an offset against what the partition holds.
fn within(
    found: &Found,
    offset: i64,
    on_data_loss: OnDataLoss,
    start: Start,
) -> Result<Start, SourceFault> {
    let lane = found.lane.clone();
    if offset > found.high {
        return Err(SourceFault::Truncated { lane, committed: offset, high: found.high });
    }
    if offset >= found.low {
        return Ok(start);
    }
    let halted = on_data_loss == OnDataLoss::Halt;
    let loss = SourceFault::RetentionLoss { lane, from: offset, low: found.low, halted };
    if halted {
        return Err(loss);
    }
    Ok(Start { offset: found.low, verify: None, loss: Some(loss), ..start })
}

/// The first offset of a lane without a committed one.
fn first(found: &Found, known: Known, start: StartPosition) -> i64 {
    let partition = u32::try_from(found.lane.partition).unwrap_or(0);
    let appeared_later = known.committed && partition >= known.topic_partitions();
    match start {
        _ if appeared_later => found.low,
        StartPosition::Earliest => found.low,
        StartPosition::Latest => found.high,
        StartPosition::TimestampMs(_) => found.at_time.unwrap_or(found.high),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(position: Position) -> Found {
        Found {
            lane: TopicPartition::new("t", 5),
            position,
            topic_id: Some("now".to_owned()),
            replaced: false,
            low: 100,
            high: 200,
            at_time: Some(150),
        }
    }

    fn start_at(position: Position, start: StartPosition) -> i64 {
        decide(&found(position), start, OnDataLoss::Halt).unwrap().offset
    }

    fn known(committed: bool, at_genesis: Option<u32>) -> Position {
        Position::Uncommitted(Known { partitions: 12, committed, at_genesis })
    }

    #[test]
    fn a_new_group_begins_where_the_settings_say() {
        for (start, offset) in [
            (StartPosition::Earliest, 100),
            (StartPosition::Latest, 200),
            (StartPosition::TimestampMs(1), 150),
        ] {
            assert_eq!(start_at(known(false, None), start), offset);
        }
        let genesis = decide(&found(known(false, None)), StartPosition::Latest, OnDataLoss::Halt);
        let genesis = genesis.unwrap();
        assert!(genesis.genesis);
        assert_eq!(genesis.topic_partitions, Some(12));
    }

    #[test]
    fn a_partition_that_appears_later_begins_at_its_earliest_record() {
        let latest = StartPosition::Latest;
        assert_eq!(start_at(known(true, Some(4)), latest), 100, "added after genesis");
        assert_eq!(start_at(known(true, Some(12)), latest), 200, "there from the start");
        assert_eq!(start_at(known(true, None), latest), 100, "nobody knows: lose nothing");
    }

    #[test]
    fn a_new_partition_carries_the_number_at_genesis_on() {
        let start = decide(&found(known(true, Some(4))), StartPosition::Latest, OnDataLoss::Halt);
        assert_eq!(start.unwrap().topic_partitions, Some(4));
    }

    #[test]
    fn an_offset_outside_what_the_partition_holds_is_never_ignored() {
        let at = |offset, policy| {
            decide(&found(Position::Committed(offset, None)), StartPosition::Earliest, policy)
        };
        for inside in [100, 150, 200] {
            assert_eq!(at(inside, OnDataLoss::Halt).unwrap().offset, inside);
        }
        assert!(matches!(
            at(201, OnDataLoss::SkipAndReport),
            Err(SourceFault::Truncated { committed: 201, high: 200, .. })
        ));
        assert!(matches!(
            at(99, OnDataLoss::Halt),
            Err(SourceFault::RetentionLoss { from: 99, low: 100, halted: true, .. })
        ));
        let skipped = at(40, OnDataLoss::SkipAndReport).unwrap();
        assert_eq!(skipped.offset, 100);
        assert!(matches!(
            skipped.loss,
            Some(SourceFault::RetentionLoss { from: 40, low: 100, halted: false, .. })
        ));
    }

    #[test]
    fn an_offset_of_a_topic_with_another_id_is_no_offset_of_this_one() {
        let decided = |id: Option<&str>| {
            let topic_id = id.map(str::to_owned);
            let metadata = CommitMetadata { topic_id, ..CommitMetadata::default() };
            let position = Position::Committed(150, Some(metadata));
            decide(&found(position), StartPosition::Earliest, OnDataLoss::SkipAndReport)
        };
        assert!(matches!(decided(Some("then")), Err(SourceFault::OtherTopic { next: 150, .. })));
        let start = decided(Some("now")).unwrap();
        assert_eq!((start.offset, start.topic_id.as_deref()), (150, Some("now")));
        assert_eq!(decided(None).unwrap().offset, 150, "committed before ids were known");
        let kept = decided(Some("~0123")).unwrap();
        assert_eq!(kept.topic_id.as_deref(), Some("~0123"), "made up before ids were told");
        let running = Found { replaced: true, ..found(Position::Own(150)) };
        let halted = decide(&running, StartPosition::Earliest, OnDataLoss::SkipAndReport);
        assert!(matches!(halted, Err(SourceFault::OtherTopic { next: 150, .. })));
        let reset = found(Position::Committed(150, None));
        let reset = decide(&reset, StartPosition::Earliest, OnDataLoss::Halt).unwrap();
        assert_eq!(reset.offset, 150, "an operator's reset");
    }

    #[test]
    fn the_record_below_is_read_again_where_it_still_exists() {
        let committed = |last: i64| {
            let last = Fingerprint { offset: last, timestamp_ms: 1, hash: 2 };
            let metadata = CommitMetadata { last: Some(last), ..CommitMetadata::default() };
            let position = Position::Committed(150, Some(metadata));
            let start = decide(&found(position), StartPosition::Earliest, OnDataLoss::Halt);
            let start = start.unwrap();
            assert_eq!(start.offset, 150);
            start.verify.map(|fingerprint| fingerprint.offset)
        };
        assert_eq!(committed(148), Some(148));
        assert_eq!(committed(99), None, "deleted by retention");
        assert_eq!(committed(150), None, "not below the offset: nonsense");
    }
}
