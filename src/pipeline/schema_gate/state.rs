//! What `/status` shows of a table's gate.

use serde::Serialize;

use crate::fault::Fault;

/// What the gate of a table is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GatePhase {
    /// Nobody waits.
    #[default]
    Idle,
    /// Waiting for its turn, or for a fault to pass.
    Waiting,
    /// Looking at the table.
    Looking,
    /// Creating it or its dataset.
    Creating,
    /// Changing it.
    Altering,
}

/// The state of a table's gate.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GateState {
    /// What it is at.
    pub phase: GatePhase,
    /// Callers that wait.
    pub waiting: usize,
    /// The version that callers get, 0 if the table was never seen.
    pub version: u64,
    /// Changes made by this process, the table's creation included.
    pub changes: u64,
    /// Changes of this process that BigQuery refused: lost races and too many changes.
    pub refused: u64,
    /// The last fault, as `kind (reason): message`; cleared by the next success.
    pub last_error: Option<String>,
    /// The same, for callers.
    #[serde(skip)]
    pub last_fault: Option<Fault>,
}

impl GateState {
    /// Notes a fault.
    pub fn failed(&mut self, fault: &Fault) {
        self.last_error = Some(fault.to_string());
        self.last_fault = Some(fault.clone());
    }

    /// Notes a success.
    pub fn succeeded(&mut self) {
        self.last_error = None;
        self.last_fault = None;
    }
}
