//! How patiently tables are created and changed.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How tables are created and changed. BigQuery takes five changes of one table per ten seconds, from
/// everyone together (<https://docs.cloud.google.com/bigquery/quotas#standard_tables>).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GateSettings {
    /// Changes of one table within this many milliseconds are `update_window_max` at most, over all
    /// replicas. Default: 10,000.
    pub update_window_ms: u64,
    /// See `update_window_ms`. Default: 5.
    pub update_window_max: u32,
    /// After another replica's change, or a refusal, a replica waits for its turn and then up to this
    /// many milliseconds more, by chance. Longer means fewer refusals among many replicas. Default:
    /// 4,000.
    pub spread_ms: u64,
    /// The longest pause after a fault that may pass, in milliseconds. Default: 30,000.
    pub backoff_max_ms: u64,
    /// A call to BigQuery without an answer after this many milliseconds counts as lost. Default:
    /// 60,000.
    pub timeout_ms: u64,
    /// Rows wait for their table at most this many milliseconds before the lane shows the fault and
    /// starts over. Default: 300,000.
    pub deadline_ms: u64,
    /// Tables remembered. Default: 10,000.
    pub tables_max: usize,
}

impl Default for GateSettings {
    fn default() -> Self {
        Self {
            update_window_ms: 10_000,
            update_window_max: 5,
            spread_ms: 4_000,
            backoff_max_ms: 30_000,
            timeout_ms: 60_000,
            deadline_ms: 300_000,
            tables_max: 10_000,
        }
    }
}

impl GateSettings {
    /// The time between two changes of a table.
    pub fn spacing(&self) -> Duration {
        // Just over the exact quotient: the window that BigQuery counts in has two ends.
        Duration::from_millis(self.update_window_ms) / self.update_window_max.max(1)
            + Duration::from_millis(10)
    }

    /// The window of the limit.
    pub fn window(&self) -> Duration {
        Duration::from_millis(self.update_window_ms)
    }

    /// The random part of a wait.
    pub fn spread(&self) -> Duration {
        Duration::from_millis(self.spread_ms)
    }

    /// The longest pause after a passing fault.
    pub fn backoff_max(&self) -> Duration {
        Duration::from_millis(self.backoff_max_ms)
    }

    /// The bound of one call.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// The bound of one wait.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}
