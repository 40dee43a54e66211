//! The drivers around the delivery core: dispatch, schema gate, commits, lifecycle.

pub mod schema_gate;
pub mod settings;

// The defects are switches that exist only in tests, so the simulation is a module and not a test of
// its own; it needs the BigQuery simulator.
#[cfg(test)]
#[cfg(feature = "sim")]
mod simulation;
