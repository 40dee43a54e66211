//! Defects that a test can switch on in the production core, to show that the checkers catch them.

/// One deliberate mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// The watermark moves when a record is delivered, not when it is acknowledged.
    CommitBeforeAcknowledgement,
    /// The row's identity leaves the topic out.
    IdentityWithoutTopic,
    /// A refused request releases the watermark.
    NackDoesNotBlock,
    /// A lane's progress is still committed after it was revoked.
    CommitAfterRevoke,
    /// A request without an answer is taken for one that was refused.
    AnswerLostTakenForRefused,
    /// What was on its way when a lane was paused is taken in after its resume, behind a gap.
    StaleAfterResume,
    /// A value that a widened column takes, and its narrower past did not, is taken for a bad one.
    WideningTakenForBad,
    /// A load job's id names its end: two owners that cut a slot differently both load it.
    EndOffsetInJobId,
    /// A job that failed is tried again under its own id.
    FailedJobIdReused,
    /// Rows count as stored once their object is uploaded.
    CommitAfterUpload,
    /// A job's objects are deleted when it is done, before the offsets are committed.
    ObjectsDeletedBeforeCommit,
    /// A job that is done is taken for one that has succeeded.
    DoneTakenForSuccess,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::CommitBeforeAcknowledgement,
        Self::IdentityWithoutTopic,
        Self::NackDoesNotBlock,
        Self::CommitAfterRevoke,
        Self::AnswerLostTakenForRefused,
        Self::StaleAfterResume,
        Self::WideningTakenForBad,
        Self::EndOffsetInJobId,
        Self::FailedJobIdReused,
        Self::CommitAfterUpload,
        Self::ObjectsDeletedBeforeCommit,
        Self::DoneTakenForSuccess,
    ];
}
