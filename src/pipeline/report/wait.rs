//! Why a lane is not simply running, and what of that is a trouble.

use std::collections::HashMap;

use crate::{
    batch::LaneSlot,
    fault::{Fault, FaultKind},
    telemetry::{Cause, LaneState, Trouble},
};

/// What each lane waits for; a lane that only runs has no entry.
pub(super) type Waits = HashMap<LaneSlot, Wait>;

/// What a lane waits for.
#[derive(Clone, Debug)]
pub(super) struct Wait {
    /// The lane's state meanwhile.
    pub state: LaneState,
    /// One sentence, with the remedy where there is one.
    pub reason: String,
    /// What it is, unless it is as things should be.
    pub trouble: Option<Trouble>,
}

impl Wait {
    /// Rows are on their way as they should be.
    pub(super) fn calm(state: LaneState, reason: String) -> Self {
        Self { state, reason, trouble: None }
    }

    /// `fault` keeps rows back that `what` tells.
    pub(super) fn fault(what: &str, fault: &Fault, cause: Cause, now_ms: i64) -> Self {
        let trouble = Trouble::new(cause, format!("{what}: {}", fault.what()), now_ms)
            .with_remedy(fault.remedy.as_deref());
        let reason = format!("{what}: {fault}");
        Self { state: LaneState::Waiting, reason, trouble: Some(trouble) }
    }
}

/// The kind of trouble that a fault of BigQuery makes.
pub fn cause_of(fault: &Fault) -> Cause {
    match fault.kind {
        FaultKind::Transient | FaultKind::Conflict | FaultKind::AlreadyExists => Cause::Remote,
        FaultKind::Throttled => Cause::Throttled,
        FaultKind::QuotaExceeded => Cause::Quota,
        FaultKind::TableNotFound => Cause::TableMissing,
        FaultKind::SchemaMismatch => Cause::TableSchema,
        FaultKind::InvalidRow
        | FaultKind::InvalidRequest
        | FaultKind::TooLarge
        | FaultKind::PartitionOutOfRange => Cause::Refused,
        FaultKind::Unauthenticated => Cause::Credentials,
        FaultKind::PermissionDenied => Cause::Denied,
    }
}
