//! The port through which offsets are committed, and what a commit carries.

use crate::{fault::Fault, record::TopicPartition, source::Epoch};

pub mod finals;
pub mod metadata;
pub mod ownership;

pub use metadata::CommitMetadata;

pub use crate::record::Fingerprint;

/// One lane's part of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneCommit {
    /// Which lane.
    pub lane: TopicPartition,
    /// Under which assignment the offset was earned.
    pub epoch: Epoch,
    /// The offset of the next record to read: everything below is resolved.
    pub offset: i64,
    /// ASCII, at most [`metadata::BYTES_MAX`] bytes; see [`CommitMetadata::encode`].
    pub metadata: String,
}

/// What became of one lane's part of a commit.
#[derive(Clone, Debug)]
pub enum LaneOutcome {
    /// The offset and its metadata are durable.
    Landed,
    /// Certainly not committed.
    Refused {
        /// Why.
        fault: Fault,
        /// Whether the same record may be sent again while the lane is owned; this is so in every
        /// ordinary rebalance.
        retryable: bool,
    },
    /// The member is no longer part of the group: its lanes are lost.
    Lost(Fault),
    /// No answer: it may have been committed. Send the same record again until it is known, and
    /// nothing else for this lane before.
    Unknown(Fault),
    /// The lane is not owned under this epoch; nothing was sent.
    NotOwned,
}

/// One [`LaneOutcome`] per [`LaneCommit`], in the same order.
#[derive(Clone, Debug)]
pub struct CommitOutcome {
    /// The outcomes, in the order of the request.
    pub lanes: Vec<LaneOutcome>,
}

/// Commits offsets.
///
/// `commit` blocks until the outcome is known or the client gives up waiting (it may take a minute
/// while the coordinator is away), so it is called from a thread of its own, or from the revoke
/// path. Calls are serialised: one commit is in flight at a time. Ownership is checked and held for
/// the whole of the call, so a lane cannot be given up between the check and the answer.
///
/// A refused or unknown lane does not stop the others: each has its own outcome. The caller never
/// lets a lane's offset go backwards.
pub trait Committer: Send + Sync + 'static {
    /// Commits these lanes.
    fn commit(&self, lanes: &[LaneCommit]) -> CommitOutcome;
}
