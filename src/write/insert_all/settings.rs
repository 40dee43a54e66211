//! The `streaming` section of the configuration: insertAll's sizes, limits and retries.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::write::stack::{Limits, retry::RetrySettings};

/// BigQuery refuses larger requests: 10 MB, read as 10 MiB by the error message
/// (<https://docs.cloud.google.com/bigquery/quotas#streaming_inserts>).
pub const BODY_BYTES_HARD_MAX: usize = 10_000_000;

/// How rows are streamed into BigQuery. The quotas behind the limits belong to the Google Cloud
/// project and are shared by everything that writes to it: give this service its share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InsertAllSettings {
    /// No request is larger, unless a single row is; that one is refused. BigQuery's own limit is
    /// 10 MB. Default: 9,000,000.
    pub body_bytes_max: usize,
    /// Whether bodies are compressed (gzip, level 1). Saves about three quarters of the traffic
    /// for more than twice the CPU time. Default: false.
    pub gzip: bool,
    /// Uncompressed body bytes per second that this process sends. Google's quota for a project is
    /// 1 GB/s in the EU and US multi-regions and 300 MB/s elsewhere. Default: 100,000,000.
    pub bytes_per_second: u64,
    /// Requests on the wire at a time, over all tables of this process. Default: 64.
    pub requests_in_flight: usize,
    /// Requests at a time for one table, those waiting for a retry included, so that a table that
    /// hangs leaves the others their share. Default: 16.
    pub requests_in_flight_per_table: usize,
    /// A request without an answer after this many milliseconds counts as lost: it may have been
    /// stored. Default: 30,000.
    pub timeout_ms: u64,
    /// What happens to requests that fail for a moment.
    pub retry: RetrySettings,
}

impl Default for InsertAllSettings {
    fn default() -> Self {
        Self {
            body_bytes_max: 9_000_000,
            gzip: false,
            bytes_per_second: 100_000_000,
            requests_in_flight: 64,
            requests_in_flight_per_table: 16,
            timeout_ms: 30_000,
            retry: RetrySettings::default(),
        }
    }
}

impl InsertAllSettings {
    /// What is wrong with the values, one sentence each, with the key's name below this section.
    pub fn problems(&self) -> Vec<String> {
        let rules = [
            (
                self.body_bytes_max <= BODY_BYTES_HARD_MAX,
                "body_bytes_max is above BigQuery's limit of 10,000,000",
            ),
            (self.body_bytes_max >= 1024, "body_bytes_max must be at least 1,024"),
            (
                self.bytes_per_second >= self.body_bytes_max as u64,
                "bytes_per_second must be at least body_bytes_max",
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
        assert_eq!(InsertAllSettings::default().problems(), Vec::<String>::new());
        let wrong = InsertAllSettings { body_bytes_max: 7, timeout_ms: 1, ..Default::default() };
        assert_eq!(wrong.problems().len(), 2);
    }
}
