//! What follows from a fault, in one place.

use crate::fault::{Certainty, Fault, FaultKind};

/// What the core does with a request that was not acknowledged as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Send the same bytes again after a short, growing wait.
    Retry,
    /// The same after minutes: a quota or a permission has to come back. The lanes show the reason.
    RetrySlowly,
    /// Prepare the table again, encode the rows for it, send again.
    Replan,
    /// Send the halves: the request is too large, or some row in it is bad and none is named.
    Split,
}

/// What to do about a request that failed with `fault`.
///
/// An unknown outcome allows nothing but sending the same bytes again: whatever else is done to the
/// rows could store them a second time under another identity, or dead-letter what is stored.
pub fn of_request(fault: &Fault) -> Disposition {
    if fault.certainty == Certainty::Unknown {
        return match fault.kind {
            FaultKind::QuotaExceeded => Disposition::RetrySlowly,
            _ => Disposition::Retry,
        };
    }
    match fault.kind {
        // Passes by itself. A create race answers Conflict/AlreadyExists; the next look settles it.
        FaultKind::Transient
        | FaultKind::Throttled
        | FaultKind::Conflict
        | FaultKind::AlreadyExists => Disposition::Retry,
        // Passes by itself or by an administrator, in minutes.
        FaultKind::QuotaExceeded | FaultKind::Unauthenticated | FaultKind::PermissionDenied => {
            Disposition::RetrySlowly
        }
        // The table was dropped, recreated, altered, or is not visible yet.
        FaultKind::TableNotFound | FaultKind::SchemaMismatch => Disposition::Replan,
        // Some row is to blame and none is named: find it.
        FaultKind::TooLarge
        | FaultKind::InvalidRequest
        | FaultKind::InvalidRow
        | FaultKind::PartitionOutOfRange => Disposition::Split,
    }
}

/// Whether one refused row can become acceptable by preparing the table again. Otherwise it is a bad
/// record.
pub fn row_may_pass(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::SchemaMismatch | FaultKind::TableNotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_outcome_is_only_ever_repeated() {
        for kind in [
            FaultKind::Transient,
            FaultKind::InvalidRow,
            FaultKind::TooLarge,
            FaultKind::InvalidRequest,
            FaultKind::SchemaMismatch,
            FaultKind::TableNotFound,
        ] {
            assert_eq!(of_request(&Fault::unknown(kind, "", "")), Disposition::Retry, "{kind:?}");
        }
    }
}
