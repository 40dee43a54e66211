//! The port from Kafka into the pipeline: records, and who owns which partition.
//!
//! One thread, the poll thread, makes every call of a [`SourceHandler`], one after the other. An
//! assignment of a lane has an *epoch*: a number that never returns. Whatever names a lane names its
//! epoch too, so that work begun under an earlier assignment cannot be mistaken for the present one.

use std::time::Instant;

use crate::{
    committer::{CommitMetadata, LaneCommit},
    record::{Record, TopicPartition},
};

/// One assignment of a lane; larger is later, within this process.
pub type Epoch = u64;

/// A lane under one assignment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnedLane {
    /// The topic-partition.
    pub lane: TopicPartition,
    /// Which assignment of it.
    pub epoch: Epoch,
}

/// The records of one lane in one poll, in offset order.
///
/// Dropping it releases them to the Kafka client. Every record pins the whole fetch response it came
/// in (often several MB), so keep it no longer than it takes to read or copy the records.
pub trait Messages: Send + 'static {
    /// How many records.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record at `index`, from 0; `None` past the end.
    ///
    /// Headers are flattened into `headers`, which is cleared first: one buffer serves all records in
    /// turn. Without it the record has none: librdkafka takes a twentieth of a record's whole time to
    /// see that there are none.
    fn record<'a>(&'a self, index: usize, headers: Option<&'a mut Vec<u8>>) -> Option<Record<'a>>;
}

/// What one poll brought for one lane.
#[derive(Debug)]
pub struct LaneBatch<M> {
    /// Which lane, under which assignment.
    pub lane: OwnedLane,
    /// Its records, never empty, in offset order, none twice, none below the lane's next offset.
    /// Offsets may have gaps (compaction, aborted transactions).
    pub messages: M,
}

/// A lane whose recovery is complete and whose records will follow.
#[derive(Clone, Debug)]
pub struct AssignedLane {
    /// Which lane, under which assignment.
    pub lane: OwnedLane,
    /// The offset of the first record to be delivered.
    pub start: i64,
    /// Whether no offset was committed before: commit `start` as the genesis record soon, so that
    /// the decision is durable before `latest` or a timestamp could mean something else.
    pub genesis: bool,
    /// The metadata of the committed offset; `None` where missing or foreign.
    pub metadata: Option<CommitMetadata>,
    /// The topic's id, where the brokers told it, or the one that was made up for the lane. Carry it in every
    /// commit's metadata.
    pub topic_id: Option<String>,
    /// How many partitions the topic had when the group first met it. Carry it in every commit's
    /// metadata: a partition at or above it appeared later and starts at its earliest record.
    pub topic_partitions: Option<u32>,
    /// The earliest offset the broker still holds.
    pub low: i64,
    /// The offset after the last record that may be read (the last stable offset).
    pub high: i64,
}

/// What to pause and resume now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Lanes from which no more records are wanted. What the client prefetched is dropped.
    pub pause: Vec<OwnedLane>,
    /// Lanes to resume, each with the offset of its next record: the client's own idea of its
    /// position is not trusted.
    pub resume: Vec<(OwnedLane, i64)>,
    /// Lanes to give up and to take over again from their committed offsets, as if they had been lost
    /// and assigned.
    pub restart: Vec<OwnedLane>,
    /// Whether to hand over nothing until the next look: for a moment, so that nothing that was
    /// fetched is thrown away for it. Rebalances are served all the same.
    pub hold: bool,
}

/// Where partitions end, as far as the client knows without asking the brokers.
pub trait Ends: Send + Sync + 'static {
    /// The offset behind the last record of `lane` as of its last fetch; `None` is unknown, not
    /// zero.
    fn high(&self, lane: &TopicPartition) -> Option<i64>;
}

/// A broker that does not answer; the client keeps trying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostBroker {
    /// `host:port`.
    pub broker: String,
    /// Since when.
    pub since: Instant,
    /// Why, in the client's words.
    pub reason: String,
}

/// A topic, or a pattern of topics, that is configured and of which there is nothing to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingTopic {
    /// The name, or the pattern.
    pub wanted: String,
    /// Why.
    pub reason: String,
    /// What a person can do.
    pub remedy: &'static str,
}

/// Something that went wrong at the source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceFault {
    /// The cluster refuses something, or a question failed; the client keeps trying. That a broker
    /// does not answer is told through [`SourceHandler::brokers`].
    #[error("Kafka: {message}")]
    Unavailable {
        /// The client's words.
        message: String,
    },
    /// The client has failed for good (for instance: fenced). The poll loop ends.
    #[error("the Kafka client has failed for good: {message}; the process must be restarted")]
    Fatal {
        /// The client's words.
        message: String,
    },
    /// The lane's committed offset or watermarks cannot be read yet; tried again by itself.
    #[error("{lane} is recovering: {message}; trying again")]
    Recovering {
        /// Which lane.
        lane: TopicPartition,
        /// Why it is not done.
        message: String,
    },
    /// Records up to `low` were deleted before they were read. With `halted` the lane stands still;
    /// without, it goes on at `low`, and the range is lost.
    #[error(
        "{lane}: the records from offset {from} up to {low} were deleted by retention before they were read; {}",
        if *.halted { "the partition stands still" }
        else { "going on at the first record left, as `on_data_loss: skip_and_report` says" }
    )]
    RetentionLoss {
        /// Which lane.
        lane: TopicPartition,
        /// The offset that was to be read next.
        from: i64,
        /// The earliest offset left.
        low: i64,
        /// Whether the lane stands still.
        halted: bool,
    },
    /// The committed offset lies beyond the partition's end. The lane stands still.
    #[error(
        "{lane}: the committed offset {committed} lies beyond the end {high}: the topic was recreated, or truncated after an unclean leader election"
    )]
    Truncated {
        /// Which lane.
        lane: TopicPartition,
        /// The committed offset.
        committed: i64,
        /// The partition's end.
        high: i64,
    },
    /// The record before the committed offset is not the one that was committed. The lane stands
    /// still.
    #[error(
        "{lane}: the record at offset {offset} is not the one this group committed: the topic was recreated or rewritten"
    )]
    Recreated {
        /// Which lane.
        lane: TopicPartition,
        /// The offset that was compared.
        offset: i64,
    },
    /// The topic has another id than when the offset was committed, or reading began. The lane
    /// stands still.
    #[error(
        "{lane}: the topic was deleted and made again: its id is not the one of which offset {next} was to be read next; what the old topic still held is lost"
    )]
    OtherTopic {
        /// Which lane.
        lane: TopicPartition,
        /// The offset that was to be read next.
        next: i64,
    },
    /// The broker or the client reports an error for the lane; fetching goes on at `next`. Whether one that
    /// lasts is over, [`SourceHandler::read_again`] says.
    #[error("{lane}: reading at offset {next} failed: {message}; trying again")]
    Read {
        /// Which lane.
        lane: TopicPartition,
        /// The offset to be read next.
        next: i64,
        /// The client's words.
        message: String,
        /// What a person can do.
        remedy: String,
        /// Whether it has failed before, and no record came since.
        lasts: bool,
    },
}

impl SourceFault {
    /// What a person can do about it, where it does not pass by itself.
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::RetentionLoss { halted: true, .. } => Some(
                "set `on_data_loss: skip_and_report`, or stop all replicas and reset the group's offset",
            ),
            Self::Truncated { .. } | Self::Recreated { .. } => Some(
                "find out what happened to the topic, then stop all replicas and reset the group's offset",
            ),
            Self::OtherTopic { .. } => {
                Some("to read the new topic, stop all replicas and reset the group's offset")
            }
            Self::Fatal { .. } => Some("restart the process"),
            Self::Unavailable { .. } | Self::Recovering { .. } | Self::RetentionLoss { .. } => None,
            Self::Read { remedy, .. } => Some(remedy),
        }
    }
}

/// Takes what the source delivers. All calls come from the poll thread and none may block, but
/// [`SourceHandler::revoke`].
pub trait SourceHandler<M: Messages>: Send {
    /// One whole poll, grouped by lane. Only running lanes, never a paused one.
    fn records(&mut self, batches: Vec<LaneBatch<M>>);

    /// The group gave these lanes to this member; their recovery begins.
    fn recovering(&mut self, _lanes: &[OwnedLane]) {}

    /// Recovery of these lanes is complete; their records follow. Called once per assignment: where
    /// an offset turns out to be gone later, the lane recovers by itself, after a fault that says so,
    /// and goes on with a gap in its offsets or stands still.
    fn assigned(&mut self, lanes: Vec<AssignedLane>);

    /// The group takes these lanes away in good order. Blocks until what is in flight for them is
    /// resolved or the handler's drain deadline is over (well below `max.poll.interval.ms`), and
    /// returns what is to be committed last, each lane's in the order it was earned. The lanes may
    /// include some that are still recovering.
    ///
    /// When this returns the source makes the final commits and gives the lanes up; no record of them
    /// is delivered any more and any later commit is answered with `NotOwned`.
    fn revoke(&mut self, lanes: &[OwnedLane]) -> Vec<LaneCommit>;

    /// The lanes were lost (the group has given them to somebody else already). Abandon the work in
    /// hand; nothing can be committed. The lanes may include some that are still recovering.
    fn lost(&mut self, lanes: &[OwnedLane]);

    /// The lanes restart as the handler wished ([`Flow::restart`]): as after [`lost`](Self::lost), but no
    /// other member has them, and this one's recovery of them begins.
    fn restarted(&mut self, lanes: &[OwnedLane]);

    /// A lane of which a fault said that it cannot be read, or that it recovers, is read again.
    fn read_again(&mut self, _lane: &OwnedLane) {}

    /// What to pause and resume; asked once per turn of the loop. Whatever is delivered of a resumed
    /// lane after this call begins at the offset given, also where the lane was not paused: then the
    /// pause was overtaken by its end.
    fn flow(&mut self) -> Flow;

    /// These brokers do not answer, all others do: called whenever that changes.
    fn brokers(&mut self, _lost: Vec<LostBroker>) {}

    /// These configured topics are not there, all others are: called whenever that changes.
    fn missing(&mut self, _topics: Vec<MissingTopic>) {}

    /// Something went wrong.
    fn fault(&mut self, fault: SourceFault);

    /// One turn of the loop is complete: the sign of life for liveness probes.
    fn tick(&mut self);
}
