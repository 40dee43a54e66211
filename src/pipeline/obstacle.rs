//! What keeps something from being prepared: told by the task that prepares it, read by the status
//! page, and by a drain, which does not wait for what may last.

use std::sync::{Arc, Mutex, PoisonError};

use crate::telemetry::Cause;

/// One obstacle, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Its kind.
    pub cause: Cause,
    /// What is in the way. Holds no value of any record.
    pub message: String,
    /// What to do about it; `None` where only time helps.
    pub remedy: Option<String>,
}

/// The present obstacle of one need; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Way(Arc<Mutex<Option<Arc<Obstacle>>>>);

impl Way {
    /// Something is in the way.
    pub fn is_blocked_by(&self, obstacle: Arc<Obstacle>) {
        self.put(Some(obstacle));
    }

    /// Nothing is in the way any more.
    pub fn is_free(&self) {
        self.put(None);
    }

    /// What is in the way.
    pub fn obstacle(&self) -> Option<Arc<Obstacle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn put(&self, obstacle: Option<Arc<Obstacle>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = obstacle;
    }
}
