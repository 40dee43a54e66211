//! The `admin` section of the configuration.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{secret::Secret, telemetry::Thresholds};

/// What the JSON Schema calls an IP address with a port.
pub const SOCKET_ADDRESS: &str = "socket-address";
/// The address of this machine for itself.
pub const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// An IP address with a port in the JSON Schema.
#[derive(Debug)]
struct AddressText;

impl JsonSchema for AddressText {
    fn schema_name() -> Cow<'static, str> {
        "AddressText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": SOCKET_ADDRESS })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// The admin endpoint: metrics, health, status, releasing a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Address and port, such as `127.0.0.1:8080`; port 0 takes a free one. Any address but the
    /// machine's own loopback needs `token`.
    #[schemars(with = "AddressText")]
    pub listen: SocketAddr,
    /// The bearer token that every request but `/livez` and `/readyz` must carry (`Authorization:
    /// Bearer …`), at least 16 characters. Needed where `listen` can be reached from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Names by which requests may call this endpoint, beside `localhost` and IP addresses: those of a
    /// Kubernetes service, say. A request for another name is refused, but for `/livez` and `/readyz`: a web page may
    /// point a name of its own at this machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_names: Vec<String>,
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
            listen: SocketAddr::new(IpAddr::V4(LOCAL), 8080),
            token: None,
            host_names: Vec::new(),
            live_turn_max_ms: 30_000,
            live_progress_max_ms: 300_000,
        }
    }
}
