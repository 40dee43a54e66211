//! The `bigquery` section of the configuration.

use std::{path::PathBuf, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::duration;
use crate::gcp::{
    auth::{Anonymous, AuthError, GoogleTokens, TokenProvider},
    grpc::{GrpcError, GrpcRpc},
    http::{self, HttpRest, HttpRestError},
    objects,
};
use crate::secret::without_user_info;
use crate::write::{
    insert_all::settings::InsertAllSettings, load::settings::LoadSettings,
    storage::settings::StorageSettings,
};

/// Where the tables live and how to reach them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BigQuerySettings {
    /// The Google Cloud project that holds the dataset.
    pub project: String,
    /// The dataset that tables without one of their own go to. Created if it is missing and the
    /// topic's policy allows.
    pub dataset: String,
    /// Where a missing dataset is created, such as `EU` or `europe-west6`. Default: BigQuery's, `US`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Only for emulators: scheme, host and port to use in place of
    /// `https://bigquery.googleapis.com`. No credentials are sent to it unless `credentials.file`
    /// names some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Only for emulators: scheme, host and port to use in place of
    /// `https://bigquerystorage.googleapis.com`, for the Storage Write API (gRPC; with `http://` without
    /// TLS). No credentials are sent to it unless `credentials.file` names some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_endpoint: Option<String>,
    /// The project that requests are counted and billed to, where it is not the identity's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_project: Option<String>,
    /// Who the service is.
    #[serde(default)]
    pub credentials: CredentialSettings,
    /// The Storage Write API: limits, retries.
    #[serde(default)]
    pub storage: StorageSettings,
    /// Streaming inserts: sizes, limits, retries.
    #[serde(default)]
    pub streaming: InsertAllSettings,
    /// Load jobs: sizes and the share of the quota.
    #[serde(default)]
    pub load: LoadSettings,
}

/// Who the service is: by default Application Default Credentials.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialSettings {
    /// A credentials file: a service account's key, a user's (for development), workload identity
    /// federation, or impersonation. Default: `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's own file,
    /// the metadata server, in this order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// What an `external_account` file may read its subject token from.
    pub external_sources: ExternalSources,
}

/// What an `external_account` file may read its subject token from. Programs are never run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalSources {
    /// Files, exactly as the credentials file names them.
    pub files: Vec<String>,
    /// Addresses, exactly as the credentials file names them.
    pub urls: Vec<String>,
}

/// The bucket that rows are staged in for load jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GcsSettings {
    /// The bucket, in the dataset's location. Staged objects are deleted once their offsets are
    /// committed.
    pub bucket: String,
    /// What the names of staged objects begin with. Default: `kcbq/`.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// How old a staged object below `prefix` must be to be deleted as one that a crash has left
    /// behind, such as `3d`; at least a day more than any `freshness` of topics that are loaded.
    /// Services that share the prefix sweep each other's: give them the same age. Default: `7d`.
    #[serde(default = "orphan_age", with = "duration")]
    #[schemars(with = "duration::SpanText")]
    pub orphan_age: Duration,
    /// Only for emulators: scheme, host and port to use in place of
    /// `https://storage.googleapis.com`. No credentials are sent to it unless
    /// `bigquery.credentials.file` names some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

fn prefix() -> String {
    "kcbq/".to_owned()
}

fn orphan_age() -> Duration {
    Duration::from_hours(7 * 24)
}

/// Why BigQuery cannot be reached with these settings.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The credentials are refused or unusable.
    #[error("bigquery.credentials")]
    Auth(#[from] AuthError),
    /// The transport cannot be built.
    #[error("bigquery.endpoint")]
    Http(#[from] HttpRestError),
    /// The transport to the Storage Write API cannot be built.
    #[error("bigquery.storage_endpoint")]
    Grpc(#[from] GrpcError),
}

impl BigQuerySettings {
    /// Where the tokens for `endpoint`, Google's own if none is named, come from: none go to an endpoint of one's
    /// own without a credentials file. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// The credentials are refused, or would go over plain HTTP.
    fn tokens_for(&self, endpoint: Option<&str>) -> Result<Arc<dyn TokenProvider>, AuthError> {
        match endpoint {
            Some(_) if self.credentials.file.is_none() => Ok(Arc::new(Anonymous)),
            Some(endpoint) if self.is_token_in_the_clear(endpoint) => {
                Err(AuthError::InTheClear { endpoint: without_user_info(endpoint).into_owned() })
            }
            _ => Ok(Arc::new(GoogleTokens::new(self.credentials.clone())?)),
        }
    }

    /// Whether access tokens would go to `endpoint` where anyone on the way may read them: over plain HTTP to
    /// another machine.
    pub fn is_token_in_the_clear(&self, endpoint: &str) -> bool {
        let is_here = |url: &Url| match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        let is_safe = |url: Url| url.scheme() == "https" || is_here(&url);
        self.credentials.file.is_some() && !Url::parse(endpoint).is_ok_and(is_safe)
    }

    /// The transport to BigQuery, keeping at most `connections_max` idle connections. Must run
    /// inside a tokio runtime.
    pub fn connect(&self, connections_max: usize) -> Result<HttpRest, ConnectError> {
        self.connect_to(self.endpoint.as_deref(), http::ENDPOINT, connections_max)
    }

    /// The transport to the bucket, as the same identity. Otherwise as [`connect`](Self::connect).
    pub fn connect_bucket(
        &self,
        gcs: &GcsSettings,
        connections_max: usize,
    ) -> Result<HttpRest, ConnectError> {
        self.connect_to(gcs.endpoint.as_deref(), objects::ENDPOINT, connections_max)
    }

    /// Whether the Storage Write API can be reached: where all else is an emulator, it must be named, too.
    pub fn has_storage(&self) -> bool {
        self.endpoint.is_none() || self.storage_endpoint.is_some()
    }

    /// The transport to the Storage Write API. Otherwise as [`connect`](Self::connect).
    pub fn connect_storage(&self) -> Result<GrpcRpc, ConnectError> {
        let endpoint = self.storage_endpoint.as_deref();
        Ok(GrpcRpc::new(endpoint, self.quota_project.as_deref(), self.tokens_for(endpoint)?)?)
    }

    fn connect_to(
        &self,
        own: Option<&str>,
        googles: &str,
        connections_max: usize,
    ) -> Result<HttpRest, ConnectError> {
        let (tokens, endpoint) = (self.tokens_for(own)?, own.unwrap_or(googles));
        let quota_project = self.quota_project.as_deref();
        Ok(HttpRest::new(Some(endpoint), quota_project, tokens, connections_max)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tokens_never_go_over_plain_http_except_to_this_machine() {
        let document =
            r#"{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"r"}"#;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), document).unwrap();
        let mut settings: BigQuerySettings =
            serde_json::from_str(r#"{"project":"p","dataset":"d"}"#).unwrap();
        let mut gcs: GcsSettings = serde_json::from_str(r#"{"bucket":"staging"}"#).unwrap();
        for (endpoint, sent) in [
            ("http://bigquery.example:9050", false),
            ("http://10.0.0.1:9050", false),
            ("http://localhost.example:9050", false),
            ("http://localhost:9050", true),
            ("http://127.0.0.1:9050", true),
            ("http://[::1]:9050", true),
            ("https://bigquery.example", true),
        ] {
            settings.credentials.file = Some(file.path().to_owned());
            settings.endpoint = Some(endpoint.to_owned());
            settings.storage_endpoint = Some(endpoint.to_owned());
            gcs.endpoint = Some(endpoint.to_owned());
            let made = [
                settings.connect(1).is_ok(),
                settings.connect_storage().is_ok(),
                settings.connect_bucket(&gcs, 1).is_ok(),
            ];
            assert_eq!(made, [sent; 3], "{endpoint}");
            settings.credentials.file = None;
            assert!(settings.connect(1).is_ok(), "without credentials: {endpoint}");
        }
    }

    #[test]
    fn an_emulator_needs_three_lines_and_no_credentials() {
        let text = r#"{"project":"acme","dataset":"raw","endpoint":"http://localhost:9050"}"#;
        let settings: BigQuerySettings = serde_json::from_str(text).unwrap();
        assert!(settings.connect(1).is_ok());
        assert!(
            serde_json::from_str::<BigQuerySettings>(r#"{"project":"p","dataset":"d","x":1}"#)
                .is_err()
        );
    }
}
