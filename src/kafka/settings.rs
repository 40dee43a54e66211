//! How to reach Kafka and what the consumer group does.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration, secret::Secret};

/// The Kafka cluster, the consumer group and its behaviour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// Brokers to connect to first: `host:port`, several separated by commas or as a list.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany")]
    pub bootstrap_servers: Vec<String>,
    /// The consumer group. All replicas of one deployment share it, and nothing else may.
    pub group_id: String,
    /// A name of this very replica (a StatefulSet's pod name): a restart within the session timeout
    /// then moves no partition. Two live replicas must never share one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_instance_id: Option<String>,
    /// Where a group without any committed offset begins. Decided once and committed; a partition
    /// that is added to a known topic later always begins at its earliest record.
    #[serde(default)]
    pub start: StartPosition,
    /// What to do when records were deleted by retention before they were read.
    #[serde(default)]
    pub on_data_loss: OnDataLoss,
    /// How the brokers are spoken to.
    #[serde(default)]
    pub security: Security,
    /// Seconds between two looks for new topics and partitions.
    #[serde(default = "defaults::discovery_interval_seconds")]
    pub discovery_interval_seconds: u32,
    /// Bytes that the Kafka client may fetch ahead, over all partitions together; in memory small
    /// records take about twice as much.
    #[serde(default = "defaults::prefetch_bytes")]
    pub prefetch_bytes: u64,
    /// The largest record, bytes: raise it with the topics' `max.message.bytes`.
    #[serde(default = "defaults::record_bytes_max")]
    pub record_bytes_max: u32,
    /// Bytes that batches may take which producers have compressed and the Kafka client has decompressed, all
    /// together, with 320 bytes for each of their records. One that takes more alone is not read, and its
    /// partition says so.
    #[serde(default = "defaults::decompressed_bytes_max")]
    pub decompressed_bytes_max: u64,
    /// Further librdkafka properties, for the consumer and the dead-letter producer alike. Those on
    /// which the delivery guarantee rests are refused, each with its reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, Secret>,
}

/// One text with commas, or a list.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum OneOrMany {
    /// `host:port,host:port`.
    One(String),
    /// One `host:port` each.
    Many(Vec<String>),
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let list = match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(text) => text.split(',').map(|one| one.trim().to_owned()).collect(),
        OneOrMany::Many(list) => list,
    };
    Ok(list.into_iter().filter(|one: &String| !one.is_empty()).collect())
}

mod defaults {
    use std::time::Duration;

    /// Replicated registries are behind by seconds, those that a job exports to by a few minutes.
    pub(crate) fn unknown_id_wait() -> Duration {
        Duration::from_secs(300)
    }

    pub(crate) fn discovery_interval_seconds() -> u32 {
        30
    }

    pub(crate) fn prefetch_bytes() -> u64 {
        4 * 1024 * 1024
    }

    pub(crate) fn decompressed_bytes_max() -> u64 {
        128 * 1024 * 1024
    }

    pub(crate) fn record_bytes_max() -> u32 {
        4 * 1024 * 1024
    }
}

/// Where a group without committed offsets begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartPosition {
    /// At the first record that the topic still holds.
    #[default]
    Earliest,
    /// After the last record present at the first start.
    Latest,
    /// At the first record stamped at or after this time, milliseconds since the epoch.
    TimestampMs(
        /// Milliseconds since the epoch, such as `1767225600000`.
        i64,
    ),
}

/// What to do when records were deleted by retention before they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDataLoss {
    /// The partition stands still and says so, until a person decides.
    #[default]
    Halt,
    /// The lost range is reported, and reading goes on at the first record left.
    SkipAndReport,
}

/// How the brokers are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Security {
    /// TLS; without it the connection is in the clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// SASL authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
    /// Lets credentials travel over a connection without TLS.
    #[serde(default)]
    pub allow_insecure: bool,
}

/// TLS to the brokers. The host name is always verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the authorities to trust; the system's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate (mutual TLS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The key's pass phrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_password: Option<Secret>,
}

/// SASL authentication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "mechanism", rename_all = "snake_case", deny_unknown_fields)]
pub enum Sasl {
    /// User name and password in the clear: over TLS only.
    Plain {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// SCRAM-SHA-256.
    ScramSha256 {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// SCRAM-SHA-512.
    ScramSha512 {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// OAUTHBEARER with an access token of the process's Google identity, for Google's Managed
    /// Service for Apache Kafka.
    OauthGoogle,
}

/// How to reach the Schema Registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistrySettings {
    /// The registry's URL; several, separated by commas, are tried in turn. It holds no user name and no
    /// password: `username` and `password` are for that.
    pub url: String,
    /// Lets the password or the token travel to an `http://` URL, where anyone on the way may read it.
    #[serde(default)]
    pub allow_insecure: bool,
    /// User name for HTTP basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password for HTTP basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token: Option<Secret>,
    /// PEM file with the certificates that may sign the registry's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client's certificate chain and key, for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_identity_file: Option<PathBuf>,
    /// How long a record whose schema id the registry does not know is waited for, counted from when
    /// the record was written, and at least half a minute: registries replicate with a delay. Then the
    /// record is refused. Its neighbours go on meanwhile, but no offset behind it is committed.
    #[serde(default = "defaults::unknown_id_wait", with = "duration")]
    #[schemars(with = "String")]
    pub unknown_id_wait: Duration,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            username: None,
            password: None,
            bearer_token: None,
            ca_file: None,
            client_identity_file: None,
            allow_insecure: false,
            unknown_id_wait: defaults::unknown_id_wait(),
        }
    }
}
