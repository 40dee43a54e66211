//! Why a lane is not simply running, and what of that is a trouble.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    batch::LaneSlot,
    delivery::core::{Core, OpenLetter},
    fault::{Fault, FaultKind},
    pipeline::{encoder::TopicEncoder, now_ms, obstacle::Obstacle},
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

    /// The record at `offset` waits for something that may last.
    pub(super) fn obstacle(offset: i64, obstacle: &Obstacle) -> Self {
        let Obstacle { cause, message, remedy } = obstacle;
        let trouble = Trouble::new(*cause, message, now_ms()).with_remedy(remedy.clone());
        let remedy = remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
        Self {
            state: LaneState::Waiting,
            reason: format!("offset {offset}: {message}{remedy}"),
            trouble: Some(trouble.at(Some(offset))),
        }
    }
}

/// How long a dead letter may be on its way before its lane says that it waits.
const LETTER_PATIENCE: Duration = Duration::from_secs(5);

/// The first dead letter of each lane that is not taken, or is on its way for long.
pub(super) fn add_letters(core: &Core<TopicEncoder>, waits: &mut Waits, now: Instant) {
    let mut first: HashMap<LaneSlot, OpenLetter<'_>> = HashMap::new();
    for letter in core.open_letters() {
        let wait = now.saturating_duration_since(letter.since);
        if letter.fault.is_none() && wait < LETTER_PATIENCE {
            continue;
        }
        let known = first.entry(letter.lane).or_insert(letter);
        if letter.offset < known.offset {
            *known = letter;
        }
    }
    for (lane, letter) in first {
        waits.insert(lane, letter_wait(&letter));
    }
}

fn letter_wait(letter: &OpenLetter<'_>) -> Wait {
    let wait = match letter.fault {
        Some(fault) => {
            let what = format!("offset {}", letter.offset);
            Wait::fault(&what, fault, Cause::DeadLetter, now_ms())
        }
        None => {
            let message = format!(
                "the dead-letter topic {} has not acknowledged the letter of offset {} yet",
                letter.topic, letter.offset
            );
            let trouble = Trouble::new(Cause::DeadLetter, message.clone(), now_ms());
            Wait { state: LaneState::Waiting, reason: message, trouble: Some(trouble) }
        }
    };
    let trouble = wait.trouble.map(|trouble| trouble.at(Some(letter.offset)));
    Wait { trouble, ..wait }
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
