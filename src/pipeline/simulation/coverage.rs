//! What a history reached. A set of histories that never gets somewhere tests nothing there.

use std::{collections::BTreeMap, fmt};

/// Everything that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    Kill,
    KillWithUnacknowledged,
    Rebalance,
    AmbiguousAnswer,
    StoredWithoutAnswer,
    LateArrival,
    Refused,
    Throttled,
    QuotaExceeded,
    TokenRefused,
    RowsStopped,
    RowsRejected,
    DeadLetter,
    DeadLetterFault,
    DeadLetterUnknown,
    LetterDecode,
    LetterDestination,
    LetterTranscode,
    LetterSchema,
    LetterWrite,
    SchemaWait,
    SchemaChange,
    SchemaRace,
    TableCreated,
    CreateRace,
    TableFault,
    Widened,
    StaleSchema,
    StaleType,
    TableNotVisible,
    RegistryFault,
    UnknownSchemaId,
    BrokerDown,
    Skipped,
    Halt,
    HaltTried,
    Release,
    Pause,
    Resume,
    Throttle,
    CommitLanded,
    CommitUnknown,
    CommitFenced,
    CommitRefused,
    /// Not asked for: the book forgets a lane before anything of it could be sent.
    CommitNotOwned,
    CommitLate,
    CommitBehindUnknown,
    CoordinatorAway,
    DrainClean,
    DrainLate,
    DrainHeld,
    Lost,
    Pausing,
    Zombie,
    ZombieAnswer,
    NewPartition,
    Storm,
    OffsetGap,
    ReadAgain,
    Duplicate,
    Deduplicated,
    Shutdown,
    SkewedClock,
    Staged,
    StageFault,
    ObjectExists,
    ChainFound,
    LocateFault,
    JobCreated,
    ContainerJob,
    MediaJob,
    Appended,
    AppendRefused,
    UploadAsked,
    JobExists,
    JobLoaded,
    JobFailed,
    JobUnknown,
    ObjectDeleted,
    LaneRestarted,
    ToLoad,
    ToStreaming,
    Pending,
    PendingRejected,
    PendingRefused,
    Committed,
    /// Not asked for: streams are gone or miscounted only if somebody else has touched them.
    CommitFailed,
    CommitInDoubt,
}

impl Mark {
    /// What every single history must reach; it goes on until it has.
    pub(crate) const EACH: [Self; 8] = [
        Self::Kill,
        Self::Rebalance,
        Self::AmbiguousAnswer,
        Self::SchemaChange,
        Self::DeadLetter,
        Self::CoordinatorAway,
        Self::Lost,
        Self::ZombieAnswer,
    ];

    /// What a set of histories must reach.
    pub(crate) const SET: [Self; 86] = [
        Self::Kill,
        Self::KillWithUnacknowledged,
        Self::Rebalance,
        Self::AmbiguousAnswer,
        Self::StoredWithoutAnswer,
        Self::LateArrival,
        Self::Refused,
        Self::Throttled,
        Self::QuotaExceeded,
        Self::TokenRefused,
        Self::RowsStopped,
        Self::RowsRejected,
        Self::DeadLetter,
        Self::DeadLetterFault,
        Self::DeadLetterUnknown,
        Self::LetterDecode,
        Self::LetterDestination,
        Self::LetterTranscode,
        Self::LetterSchema,
        Self::LetterWrite,
        Self::SchemaWait,
        Self::SchemaChange,
        Self::SchemaRace,
        Self::TableCreated,
        Self::CreateRace,
        Self::TableFault,
        Self::Widened,
        Self::StaleSchema,
        Self::StaleType,
        Self::TableNotVisible,
        Self::RegistryFault,
        Self::UnknownSchemaId,
        Self::BrokerDown,
        Self::Skipped,
        Self::Halt,
        Self::HaltTried,
        Self::Release,
        Self::Pause,
        Self::Resume,
        Self::Throttle,
        Self::CommitLanded,
        Self::CommitUnknown,
        Self::CommitFenced,
        Self::CommitRefused,
        Self::CommitLate,
        Self::CommitBehindUnknown,
        Self::CoordinatorAway,
        Self::DrainClean,
        Self::DrainLate,
        Self::DrainHeld,
        Self::Lost,
        Self::Pausing,
        Self::Zombie,
        Self::ZombieAnswer,
        Self::NewPartition,
        Self::Storm,
        Self::OffsetGap,
        Self::ReadAgain,
        Self::Duplicate,
        Self::Deduplicated,
        Self::Shutdown,
        Self::SkewedClock,
        Self::Staged,
        Self::StageFault,
        Self::ObjectExists,
        Self::ChainFound,
        Self::LocateFault,
        Self::JobCreated,
        Self::ContainerJob,
        Self::MediaJob,
        Self::Appended,
        Self::AppendRefused,
        Self::UploadAsked,
        Self::JobExists,
        Self::JobLoaded,
        Self::JobFailed,
        Self::JobUnknown,
        Self::ObjectDeleted,
        Self::LaneRestarted,
        Self::ToLoad,
        Self::ToStreaming,
        Self::Pending,
        Self::PendingRejected,
        Self::PendingRefused,
        Self::Committed,
        Self::CommitInDoubt,
    ];
}

/// The counters.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Coverage(BTreeMap<Mark, u64>);

impl Coverage {
    /// Counts one.
    pub(crate) fn mark(&mut self, mark: Mark) {
        *self.0.entry(mark).or_default() += 1;
    }

    /// How often.
    pub(crate) fn count(&self, mark: Mark) -> u64 {
        self.0.get(&mark).copied().unwrap_or(0)
    }

    /// Adds another history's counters.
    pub(crate) fn add(&mut self, other: &Self) {
        for (mark, count) in &other.0 {
            *self.0.entry(*mark).or_default() += count;
        }
    }

    /// Those of `marks` that were never reached.
    pub(crate) fn missing(&self, marks: &[Mark]) -> Vec<Mark> {
        marks.iter().copied().filter(|mark| self.count(*mark) == 0).collect()
    }
}

impl fmt::Debug for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0).finish()
    }
}
