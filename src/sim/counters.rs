//! What the simulator counted.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::sim::message::Response;

/// Counts since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Rows stored (in `count` mode: counted).
    pub rows: u64,
    /// Body bytes of insertAll requests that stored rows, and of rows that were appended.
    pub bytes: u64,
    /// Of `rows`, those of load jobs.
    pub loaded_rows: u64,
    /// Of `rows`, those of the Storage Write API.
    pub appended_rows: u64,
    /// Load jobs that ended without an error.
    pub jobs_succeeded: u64,
    /// Load jobs that failed or were cancelled.
    pub jobs_failed: u64,
    /// Rows dropped because their insertId was remembered.
    pub duplicates: u64,
    /// Entries in `insertErrors`, `stopped` ones included, and in `row_errors` of appends.
    pub row_errors: u64,
    /// Table metadata updates that took effect.
    pub updates_accepted: u64,
    /// Table metadata updates that were refused, for whatever reason.
    pub updates_refused: u64,
    /// Faults of the script that fired, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Requests by operation.
    pub operations: BTreeMap<&'static str, OperationCounters>,
}

/// Counts of one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OperationCounters {
    /// Requests that arrived.
    pub requests: u64,
    /// Requests answered with a status of an error, faults of the script left out.
    pub errors: u64,
    /// The statuses of those.
    pub errors_by_status: BTreeMap<u16, u64>,
}

impl Counters {
    /// Counts stored rows that were not looked at.
    pub fn add_rows(&mut self, rows: u64, bytes: usize) {
        self.rows += rows;
        self.bytes += bytes as u64;
    }

    /// Counts a request on arrival.
    pub fn arrived(&mut self, operation: &'static str) {
        self.operations.entry(operation).or_default().requests += 1;
    }

    /// Counts what became of a request.
    pub fn answered(&mut self, operation: &'static str, response: &Response) {
        if matches!(operation, "tables.patch" | "tables.update" | "jobs.query") {
            let counter = match response.is_success() {
                true => &mut self.updates_accepted,
                false => &mut self.updates_refused,
            };
            *counter += 1;
        }
        // 304 and 308 tell how things stand; they refuse nothing.
        if response.status >= 400 {
            let counters = self.operations.entry(operation).or_default();
            counters.errors += 1;
            *counters.errors_by_status.entry(response.status).or_default() += 1;
        }
    }
}
