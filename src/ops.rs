//! What the operator sees: metrics, health, status, logs, a progress line.

use futures_util::future::BoxFuture;

use crate::record::TopicPartition;

pub mod admin;
pub mod connections;
pub mod logging;
pub mod progress;
pub mod settings;

/// What an operator may tell the pipeline.
pub trait LaneControl: Send + Sync + 'static {
    /// Lets a halted lane run again from its next offset. Resolves when the pipeline has taken the
    /// order, not when the lane has caught up. A lane that halts again for the same cause is a new
    /// halt.
    fn release(&self, lane: TopicPartition) -> BoxFuture<'_, Result<(), ReleaseError>>;
}

/// Why a lane was not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Another replica owns it, or nobody.
    #[error("this process does not own the partition: ask the replica that does")]
    NotOwned,
    /// It is in another state.
    #[error("the partition is not halted")]
    NotHalted,
    /// The process is stopping.
    #[error("the process is stopping")]
    Stopping,
}
