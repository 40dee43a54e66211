//! The drivers around the delivery core: dispatch, schema gate, commits, lifecycle.

pub mod schema_gate;
pub mod settings;
