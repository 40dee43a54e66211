//! What is kept of the registry's answers, within bounds; the oldest goes first.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::dead_letter::Reason;

/// Memory of one entry beside what its owner counts.
const ENTRY_BYTES: usize = 256;

/// Refused ids that are remembered.
const REFUSALS_MAX: usize = 4_096;

/// How long a refused id is refused without asking again.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// How long a refused id is asked for once and not waited for.
const RECENT: Duration = Duration::from_mins(10);

/// Things by id, bounded by bytes.
#[derive(Debug)]
pub(super) struct Kept<T> {
    entries: HashMap<u32, (T, usize)>,
    order: VecDeque<u32>,
    bytes: usize,
    bytes_max: usize,
}

impl<T> Kept<T> {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(super) fn get(&self, id: u32) -> Option<&T> {
        self.entries.get(&id).map(|(kept, _)| kept)
    }

    /// Keeps one that takes so many bytes, in place of as many old ones as need be.
    pub(super) fn keep(&mut self, id: u32, kept: T, bytes: usize) {
        let bytes = bytes.saturating_add(ENTRY_BYTES);
        if let Some((_, before)) = self.entries.insert(id, (kept, bytes)) {
            self.bytes -= before;
        } else {
            self.order.push_back(id);
        }
        self.bytes += bytes;
        // The last one stays, however large: somebody waits for it.
        while self.bytes > self.bytes_max && self.order.len() > 1 {
            let oldest = self.order.pop_front();
            if let Some((_, bytes)) = oldest.and_then(|oldest| self.entries.remove(&oldest)) {
                self.bytes -= bytes;
            }
        }
    }
}

/// Why an id is refused.
#[derive(Debug)]
pub(super) struct Refused {
    reason: Box<Reason>,
    at: Instant,
}

impl Refused {
    /// Why, where the registry need not be asked again.
    pub(super) fn still_stands(&self) -> Option<Box<Reason>> {
        (self.at.elapsed() < REFUSED_FOR).then(|| self.reason.clone())
    }

    pub(super) fn is_recent(&self) -> bool {
        self.at.elapsed() < RECENT
    }
}

/// Ids that were refused.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    refused: HashMap<u32, Refused>,
    order: VecDeque<u32>,
}

impl Refusals {
    pub(super) fn get(&self, id: u32) -> Option<&Refused> {
        self.refused.get(&id)
    }

    pub(super) fn keep(&mut self, id: u32, reason: Box<Reason>) {
        let refused = Refused { reason, at: Instant::now() };
        if self.refused.insert(id, refused).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > REFUSALS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.refused.remove(&oldest);
        }
    }

    /// The id is known by now.
    pub(super) fn forget(&mut self, id: u32) {
        if self.refused.remove(&id).is_some() {
            self.order.retain(|refused| *refused != id);
        }
    }
}
