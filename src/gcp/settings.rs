//! Placeholder until the `gcp` branch is merged.

/// Placeholder.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BigQuerySettings {
    /// The Google Cloud project.
    pub project: String,
    /// The dataset of tables that name none.
    pub dataset: String,
    /// Where a missing dataset is created.
    #[serde(default)]
    pub location: Option<String>,
    /// Only for emulators.
    #[serde(default)]
    pub endpoint: Option<String>,
}
