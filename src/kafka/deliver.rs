//! Which of the polled records of a lane are delivered.

use super::{ffi::RawMessages, lanes::Running};
use crate::{committer::Fingerprint, source::Messages as _};

/// What to do with one lane's polled records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Deliver what is left of them.
    Deliver,
    /// Nothing is left.
    Nothing,
    /// The record at this offset is not the one that was committed.
    Foreign(i64),
}

/// Drops what must not be delivered from `messages` and moves the lane's next offset on.
///
/// Records below the next offset are dropped: those fetched only to be compared, and any that the
/// client gives twice. A paused lane, or one whose position is not trusted, delivers nothing and
/// does not move.
pub fn admit(running: &mut Running, messages: &mut RawMessages) -> Verdict {
    if running.paused || running.rewind.is_some() {
        return Verdict::Nothing;
    }
    let mut below = 0;
    while let Some(offset) = messages.offset(below)
        && offset < running.next
    {
        if let Some(expected) = running.verify
            && expected.offset == offset
            && messages.record(below, None).map(|record| Fingerprint::of(&record)) != Some(expected)
        {
            return Verdict::Foreign(offset);
        }
        below += 1;
    }
    if below > 0 {
        messages.drop_before(below);
    }
    let Some(last) = messages.len().checked_sub(1).and_then(|last| messages.offset(last)) else {
        return Verdict::Nothing;
    };
    running.verify = None;
    running.next = last + 1;
    Verdict::Deliver
}
