//! Placeholder until the `kafka` branch is merged.
use std::collections::BTreeMap;

/// Placeholder.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// Brokers to start from: `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// The consumer group.
    pub group_id: String,
    /// Any librdkafka property.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// Placeholder.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistrySettings {
    /// The registry's address.
    pub url: String,
}
