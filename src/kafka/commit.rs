//! Plain `OffsetCommit`, one in flight, under the ownership lock.

use std::{collections::HashMap, sync::Arc};

use rdkafka::{TopicPartitionList, error::RDKafkaErrorCode as Code, topic_partition_list::Offset};

use super::ffi::{self, Client, Committed};
use crate::{
    committer::{CommitOutcome, Committer, LaneCommit, LaneOutcome, ownership::Ownership},
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
            let owned = held.admit(request);
            let answer = match list(request, &owned) {
                Some(list) => ffi::commit(&self.client, &list),
                None => Committed::default(),
            };
            let elements: HashMap<_, _> =
                answer.elements.iter().map(|element| (&element.lane, element.error)).collect();
            for (commit, owned) in request.iter().zip(owned) {
                let own = elements.get(&commit.lane).copied();
                let outcome =
                    if owned { outcome(commit, own, &answer) } else { LaneOutcome::NotOwned };
                held.answered(&outcome);
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

/// One lane's outcome: its own error if the answer has one, else the request's. `own` is `None` where
/// the answer does not mention the lane.
fn outcome(commit: &LaneCommit, own: Option<Option<Code>>, answer: &Committed) -> LaneOutcome {
    // The request's error may only repeat that of some other partition.
    let whole = answer.error.filter(|_| answer.elements.iter().all(|other| other.error.is_none()));
    match (own, whole) {
        (Some(Some(code)), _) | (_, Some(code)) => classify(code),
        (Some(None), None) => LaneOutcome::Landed,
        (None, None) => LaneOutcome::Unknown(Fault::unknown(
            FaultKind::Transient,
            "no_answer",
            format!("the answer to the offset commit does not mention {}", commit.lane),
        )),
    }
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
///
/// Where no rebalance is under way librdkafka gives all lanes up as lost after an
/// `ILLEGAL_GENERATION`, as it does after an `UNKNOWN_MEMBER_ID`: what is sent again is then
/// answered with [`LaneOutcome::NotOwned`]. A `FENCED_INSTANCE_ID` is fatal to the client.
pub(crate) fn classify(code: Code) -> LaneOutcome {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kafka::ffi::Element, record::TopicPartition};

    fn commit(partition: i32, metadata: usize) -> LaneCommit {
        let lane = TopicPartition::new("t", partition);
        LaneCommit { lane, epoch: 1, offset: 5, metadata: "m".repeat(metadata) }
    }

    fn answer(error: Option<Code>, elements: &[(i32, Option<Code>)]) -> Committed {
        let element = |(partition, error): &(i32, Option<Code>)| Element {
            lane: TopicPartition::new("t", *partition),
            offset: 5,
            metadata: Vec::new(),
            error: *error,
        };
        Committed { error, elements: elements.iter().map(element).collect() }
    }

    fn of(answer: &Committed, partition: i32) -> LaneOutcome {
        let lane = TopicPartition::new("t", partition);
        let own = answer.elements.iter().find(|element| element.lane == lane);
        outcome(&commit(partition, 0), own.map(|element| element.error), answer)
    }

    #[test]
    fn a_commit_landed_only_where_the_lane_itself_was_answered_without_error() {
        let mixed = answer(
            Some(Code::TopicAuthorizationFailed),
            &[(0, None), (1, Some(Code::TopicAuthorizationFailed))],
        );
        assert!(matches!(of(&mixed, 0), LaneOutcome::Landed));
        assert!(matches!(of(&mixed, 1), LaneOutcome::Refused { retryable: false, .. }));
        assert!(matches!(of(&mixed, 2), LaneOutcome::Unknown(_)));
        let lost = answer(Some(Code::RequestTimedOut), &[(0, None)]);
        assert!(matches!(of(&lost, 0), LaneOutcome::Unknown(_)));
    }

    #[test]
    fn an_ordinary_rebalance_is_not_a_loss_and_a_fenced_member_is() {
        for code in [
            Code::IllegalGeneration,
            Code::RebalanceInProgress,
            Code::StaleMemberEpoch,
            Code::CoordinatorLoadInProgress,
            Code::CoordinatorNotAvailable,
            Code::NotCoordinator,
            Code::WaitingForCoordinator,
        ] {
            assert!(matches!(classify(code), LaneOutcome::Refused { retryable: true, .. }));
        }
        for code in [Code::UnknownMemberId, Code::FencedInstanceId, Code::FencedMemberEpoch] {
            assert!(matches!(classify(code), LaneOutcome::Lost(_)));
        }
        assert!(matches!(classify(Code::BrokerTransportFailure), LaneOutcome::Unknown(_)));
    }

    #[test]
    fn requests_stay_small_and_lose_no_lane() {
        let lanes: Vec<_> = (0..300).map(|partition| commit(partition, 4_096)).collect();
        let cut: Vec<_> = requests(&lanes).collect();
        assert!(cut.len() > 1 && cut.concat() == lanes);
        let bytes =
            |request: &[LaneCommit]| request.iter().map(|lane| lane.metadata.len()).sum::<usize>();
        assert!(cut.iter().all(|request| bytes(request) <= REQUEST_BYTES_MAX));
        assert_eq!(requests(&[commit(0, 2 * REQUEST_BYTES_MAX)]).count(), 1);
    }
}
