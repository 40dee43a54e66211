//! Addresses: none holds credentials, and none gets them where anyone on the way may read them.

use super::Check;
use crate::{
    gcp::settings::BigQuerySettings,
    kafka::{
        registry_client::{self, RegistryClientError},
        settings::RegistrySettings,
    },
    secret::may_hold_user_info,
};

impl Check<'_> {
    /// An emulator's address in place of Google's.
    pub(super) fn endpoint(
        &mut self,
        path: &str,
        endpoint: Option<&str>,
        bigquery: &BigQuerySettings,
    ) {
        let Some(endpoint) = endpoint else { return };
        let is_http = |url: &url::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        if may_hold_user_info(endpoint) {
            let remedy = "write scheme, host and port only; credentials stand in a file that \
                          `bigquery.credentials.file` names";
            self.problem(path, "holds a user name or a password", Some(remedy));
        } else if !url::Url::parse(endpoint).as_ref().is_ok_and(is_http) {
            let remedy = Some("write scheme, host and port: `http://localhost:9050`");
            self.problem(path, "is not an HTTP address", remedy);
        } else if bigquery.is_token_in_the_clear(endpoint) {
            let problem = "would get Google's access tokens over a connection that anyone may read";
            let remedy = "write https://, an address of this machine, or leave \
                          `bigquery.credentials.file` out";
            self.problem(path, problem, Some(remedy));
        }
    }

    /// The schema registry's addresses.
    pub(super) fn registry(&mut self, registry: &RegistrySettings) {
        let Err(error) = registry_client::urls(registry) else { return };
        let (problem, remedy) = match error {
            RegistryClientError::UserInfo => (
                "holds a user name or a password",
                "write them as `schema_registry.username` and `schema_registry.password`, such as \
                 `${REGISTRY_PASSWORD}` or `${file:/path}`",
            ),
            RegistryClientError::Insecure => (
                "would get the credentials over a connection that anyone may read",
                "write https://, or set `schema_registry.allow_insecure: true`",
            ),
            _ => ("is not an http:// or https:// URL", "write `https://registry:8081`"),
        };
        self.problem("schema_registry.url", problem, Some(remedy));
    }
}
