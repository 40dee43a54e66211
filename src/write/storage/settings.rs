//! The `storage` section of the configuration: the limits and retries of the Storage Write API.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::write::stack::{Limits, retry::RetrySettings};

/// BigQuery refuses larger requests: "AppendRows request too large: … limit 10485760".
pub const REQUEST_BYTES_HARD_MAX: usize = 10 << 20;

/// What a request has beside its rows, at most: the names, and a schema of ten thousand columns.
const HEAD_BYTES_MAX: usize = 1 << 20;

/// More bytes of rows than this are not sent: BigQuery would refuse them.
pub const ROWS_BYTES_MAX: usize = REQUEST_BYTES_HARD_MAX - HEAD_BYTES_MAX;

/// How rows are appended by the Storage Write API. The quotas behind the limits belong to the Google Cloud
/// project and are shared by everything that writes to it: give this service its share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StorageSettings {
    /// Connections of this process, shared by the tables; each dataset has one, whatever this says.
    /// One takes about 10 MB a second. Google's quota for a project is 1,000 in a region, 10,000 in
    /// the EU and US multi-regions. Default: 16.
    pub connections_max: usize,
    /// Bytes of rows per second that this process sends. Google's quota for a project is 3 GB/s in
    /// the EU and US multi-regions and 300 MB/s elsewhere. Default: 100,000,000.
    pub bytes_per_second: u64,
    /// Requests without an answer at a time, over all tables of this process. Default: 128.
    pub requests_in_flight: usize,
    /// Requests at a time for one table, those waiting for a retry included. Default: 32.
    pub requests_in_flight_per_table: usize,
    /// Streams that this service may create in an hour for `write: pending`, all its replicas together: one of each
    /// partition for each commit. Google's quota for a project is 10,000 in a region; one tenth is kept for
    /// streams that had to end early. Default: 10,000.
    #[schemars(range(min = 1))]
    pub streams_per_hour: u32,
    /// A request without an answer after this many milliseconds counts as lost: it may have been
    /// stored, and is stored again. Default: 30,000.
    pub timeout_ms: u64,
    /// What happens to requests that fail for a moment.
    pub retry: RetrySettings,
}

impl Default for StorageSettings {
    fn default() -> Self {
        Self {
            connections_max: 16,
            bytes_per_second: 100_000_000,
            requests_in_flight: 128,
            requests_in_flight_per_table: 32,
            streams_per_hour: 10_000,
            timeout_ms: 30_000,
            retry: RetrySettings::default(),
        }
    }
}

impl StorageSettings {
    /// What is wrong with the values, one sentence each, with the key's name below this section.
    pub fn problems(&self) -> Vec<String> {
        let rules = [
            (self.streams_per_hour > 0, "streams_per_hour must be at least 1"),
            (
                (1..=1_000).contains(&self.connections_max),
                "connections_max must lie between 1 and 1,000",
            ),
            (
                self.bytes_per_second >= REQUEST_BYTES_HARD_MAX as u64,
                "bytes_per_second must be at least 10,485,760",
            ),
        ];
        let broken = rules.iter().filter(|(holds, _)| !holds).map(|(_, text)| (*text).to_owned());
        broken.chain(self.limits().problems()).collect()
    }

    /// The limits of the path's stack.
    pub fn limits(&self) -> Limits {
        Limits {
            bytes_per_second: self.bytes_per_second,
            requests_in_flight: self.requests_in_flight,
            requests_in_flight_per_table: self.requests_in_flight_per_table,
            timeout: Duration::from_millis(self.timeout_ms),
            retry: self.retry.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_limits_are_checked() {
        assert_eq!(StorageSettings::default().problems(), Vec::<String>::new());
        let wrong = StorageSettings { connections_max: 0, timeout_ms: 1, ..Default::default() };
        assert_eq!(wrong.problems().len(), 2);
    }
}
