//! The `admin` section of the configuration.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{secret::Secret, telemetry::Thresholds};

/// The admin endpoint: metrics, health, status, releasing a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Address and port, such as `127.0.0.1:8080`; port 0 takes a free one. Any address but the
    /// machine's own loopback needs `token`.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// The bearer token that every request but `/livez` and `/readyz` must carry (`Authorization:
    /// Bearer …`), at least 16 characters. Needed where `listen` can be reached from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Milliseconds that the poll thread and each worker may take for one turn before `/livez`
    /// answers 503.
    #[schemars(range(min = 1_000, max = 3_600_000))]
    pub live_turn_max_ms: u64,
    /// Milliseconds that may pass with work in flight and nothing moving before `/livez` answers
    /// 503. Lanes that wait for a remote, or are halted, do not count as work: a restart would not
    /// help them.
    #[schemars(range(min = 10_000, max = 86_400_000))]
    pub live_progress_max_ms: u64,
}

impl AdminSettings {
    /// Whether the address can be reached only from the machine itself.
    pub fn is_loopback(&self) -> bool {
        self.listen.ip().is_loopback()
    }

    /// What `/livez` judges by.
    pub fn thresholds(&self) -> Thresholds {
        Thresholds {
            turn_max: Duration::from_millis(self.live_turn_max_ms),
            progress_max: Duration::from_millis(self.live_progress_max_ms),
        }
    }
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            token: None,
            live_turn_max_ms: 30_000,
            live_progress_max_ms: 300_000,
        }
    }
}
