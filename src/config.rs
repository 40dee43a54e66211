//! The configuration file: parsed, validated, documented.
//!
//! ```text
//! text ─► yaml (tree with lines) ─► expand (${…}) ─► shape (against the JSON Schema) ─► Config
//!                                                          │ all mistakes at once        │
//!                                                          ▼                             ▼
//!                                                       Problems ◄──────────────── validate ─► Settings
//! ```
//!
//! The JSON Schema is generated from the settings' types, and the same schema checks the file,
//! documents it (`kcbq config reference`) and serves editors (`schemas/config.schema.json`): they
//! cannot disagree. Secrets are never printed, nor is anything that came out of `${…}`.

use std::{io, path::Path};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    expand::{Process, Sources},
    problem::{ConfigError, Problem, Problems},
    topic::TopicConfig,
    validate::Settings,
};
use crate::{
    gcp::settings::{BigQuerySettings, GcsSettings},
    kafka::settings::{KafkaSettings, RegistrySettings},
    ops::{logging::LogSettings, settings::AdminSettings},
    path::price::Prices,
    pipeline::settings::LimitSettings,
};

pub mod expand;
pub mod problem;
pub mod reference;
pub mod shape;
pub mod topic;
pub mod validate;
pub mod yaml;

/// The largest configuration file that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The complete example, as `kcbq config example` prints it.
pub const EXAMPLE: &str = include_str!("config/example.yaml");

/// The configuration file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The Kafka cluster and the consumer group.
    pub kafka: KafkaSettings,
    /// The Schema Registry; needed by `avro` without a local schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_registry: Option<RegistrySettings>,
    /// BigQuery: project, dataset, credentials.
    pub bigquery: BigQuerySettings,
    /// The bucket for load jobs. Without it rows of `write: load` wait in memory, which bounds what a job brings,
    /// and `write: auto` streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs: Option<GcsSettings>,
    /// What writing costs.
    #[serde(default)]
    pub prices: Prices,
    /// The admin endpoint: metrics, health, status.
    #[serde(default)]
    pub admin: AdminSettings,
    /// Which topics are read and where they go. A topic belongs to the first entry that matches it.
    #[schemars(length(min = 1))]
    pub topics: Vec<TopicConfig>,
    /// What the process may use.
    #[serde(default)]
    pub limits: LimitSettings,
    /// Logging.
    #[serde(default)]
    pub log: LogSettings,
}

/// Reads, expands and validates the file at `path`.
///
/// # Errors
///
/// The file cannot be read, is not YAML, or has mistakes: all of them at once.
pub fn load(path: &Path, sources: &dyn Sources) -> Result<Settings, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, "more than 4 MiB")));
    }
    parse(&std::fs::read_to_string(path).map_err(unreadable)?, sources)
}

/// Expands and validates configuration text.
///
/// # Errors
///
/// The text is not YAML or has mistakes: all of them at once.
pub fn parse(text: &str, sources: &dyn Sources) -> Result<Settings, ConfigError> {
    let mut problems = Problems::default();
    let mut tree = yaml::parse(text)?;
    let secrets = expand::expand(&mut tree, sources, &mut problems);
    let value = shape::check(&tree, &schema(), &mut problems);
    let settings = validate::config(value, &tree, &mut problems);
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => Err(ConfigError::Invalid(problems.finish(&secrets))),
    }
}

/// The JSON Schema of the configuration file.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Config);
    schema.insert("title".to_owned(), "kcbq configuration".into());
    schema.to_value()
}

/// The text of `schemas/config.schema.json`.
pub fn schema_text() -> String {
    format!("{:#}\n", schema())
}

#[cfg(test)]
mod tests;
