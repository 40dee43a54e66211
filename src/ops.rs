//! What the operator sees: metrics, health, status.

pub mod logging;
pub mod settings;
