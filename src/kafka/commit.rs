//! Plain `OffsetCommit`, one in flight, under the ownership lock.

use std::sync::Arc;

use rdkafka::{TopicPartitionList, error::RDKafkaErrorCode as Code, topic_partition_list::Offset};

use super::{
    ffi::{self, Client, Committed},
    ownership::Ownership,
};
use crate::{
    committer::{CommitOutcome, Committer, LaneCommit, LaneOutcome},
    fault::{Fault, FaultKind},
};

/// The largest commit request, roughly: brokers refuse far larger ones, and one that names all of
/// thousands of lanes with long metadata holds the coordinator up.
const REQUEST_BYTES_MAX: usize = 256 * 1024;

/// Commits with plain `OffsetCommit` requests.
///
/// librdkafka stamps the request with the generation at the moment it is sent, so this alone is no
/// fence; the ownership lock is (no rebalance is answered while a commit is in flight).
pub struct SyncCommitter {
    client: Arc<Client>,
    ownership: Arc<Ownership>,
}

impl std::fmt::Debug for SyncCommitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SyncCommitter").finish_non_exhaustive()
    }
}

impl SyncCommitter {
    /// Commits through `client` what `ownership` says is owned.
    pub fn new(client: Arc<Client>, ownership: Arc<Ownership>) -> Self {
        Self { client, ownership }
    }
}

impl Committer for SyncCommitter {
    fn commit(&self, lanes: &[LaneCommit]) -> CommitOutcome {
        let mut held = self.ownership.lock();
        let mut outcomes = Vec::with_capacity(lanes.len());
        for request in requests(lanes) {
            let owned: Vec<bool> =
                request.iter().map(|commit| held.owns(&commit.lane, commit.epoch)).collect();
            let answer = match list(request, &owned) {
                Some(list) => ffi::commit(&self.client, &list),
                None => Committed::default(),
            };
            for (commit, owned) in request.iter().zip(owned) {
                let outcome = if owned { outcome(commit, &answer) } else { LaneOutcome::NotOwned };
                if matches!(outcome, LaneOutcome::Lost(_)) {
                    held.expel();
                }
                outcomes.push(outcome);
            }
        }
        CommitOutcome { lanes: outcomes }
    }
}

/// Cuts a commit into requests of at most [`REQUEST_BYTES_MAX`].
fn requests(lanes: &[LaneCommit]) -> impl Iterator<Item = &[LaneCommit]> {
    let mut rest = lanes;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|commit| {
            bytes += 64 + commit.lane.topic.len() + commit.metadata.len();
            bytes <= REQUEST_BYTES_MAX
        });
        let count = fits.count().max(1);
        let (request, after) = rest.split_at_checked(count)?;
        rest = after;
        Some(request)
    })
}

/// The owned lanes of a request as librdkafka takes them; `None` if there are none.
fn list(request: &[LaneCommit], owned: &[bool]) -> Option<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(request.len());
    for (commit, owned) in request.iter().zip(owned) {
        if *owned {
            let mut element = list.add_partition(&commit.lane.topic, commit.lane.partition);
            // An offset below zero never comes from the tracker; it would be refused by the broker.
            if element.set_offset(Offset::Offset(commit.offset)).is_ok() {
                element.set_metadata(&commit.metadata);
            }
        }
    }
    (list.count() > 0).then_some(list)
}

/// One lane's outcome: its own error if the answer names it, else the request's.
fn outcome(commit: &LaneCommit, answer: &Committed) -> LaneOutcome {
    let element = answer.elements.iter().find(|element| element.lane == commit.lane);
    let own = element.and_then(|element| element.error);
    match (own, answer.error) {
        (Some(code), _) => classify(code),
        // The request failed before the partitions got answers of their own, or this partition has
        // none while another has an error.
        (None, Some(code)) if !partition_level(answer) => classify(code),
        (None, _) if element.is_some() => LaneOutcome::Landed,
        (None, _) => LaneOutcome::Unknown(Fault::unknown(
            FaultKind::Transient,
            "no_answer",
            format!("the answer to the offset commit does not mention {}", commit.lane),
        )),
    }
}

/// Whether the request's error only repeats that of some partition.
fn partition_level(answer: &Committed) -> bool {
    answer.elements.iter().any(|element| element.error.is_some())
}

/// What an error code of `OffsetCommit` means.
///
/// | code | meaning |
/// |---|---|
/// | `ILLEGAL_GENERATION`, `REBALANCE_IN_PROGRESS`, `STALE_MEMBER_EPOCH` | an ordinary rebalance: the same record again, while owned |
/// | `COORDINATOR_*`, `NOT_COORDINATOR`, `_WAIT_COORD` | the coordinator moved or loads: again |
/// | `UNKNOWN_MEMBER_ID`, `FENCED_*` | the group has gone on without this member |
/// | `OFFSET_METADATA_TOO_LARGE`, `*_AUTHORIZATION_FAILED`, `INVALID_*` | refused for good |
/// | anything else | nobody knows |
fn classify(code: Code) -> LaneOutcome {
    let reason = format!("{code:?}");
    let message = format!("the offset commit was answered with {code}");
    let refused = |kind, retryable| LaneOutcome::Refused {
        fault: Fault::refused(kind, reason.clone(), message.clone()),
        retryable,
    };
    match code {
        Code::IllegalGeneration
        | Code::RebalanceInProgress
        | Code::StaleMemberEpoch
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::WaitingForCoordinator
        | Code::UnknownTopicOrPartition => refused(FaultKind::Transient, true),
        Code::UnknownMemberId | Code::FencedInstanceId | Code::FencedMemberEpoch | Code::Fenced => {
            LaneOutcome::Lost(Fault::refused(FaultKind::Conflict, reason, message))
        }
        Code::OffsetMetadataTooLarge => refused(FaultKind::TooLarge, false),
        Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed => {
            refused(FaultKind::PermissionDenied, false)
        }
        Code::InvalidGroupId | Code::InvalidCommitOffsetSize | Code::InvalidArgument => {
            refused(FaultKind::InvalidRequest, false)
        }
        _ => LaneOutcome::Unknown(Fault::unknown(FaultKind::Transient, reason, message)),
    }
}
