//! Which credential documents are trusted.
//!
//! A credential document can name files to read, addresses to call and programs to run. Whoever can
//! plant one could read this machine's files or call its internal services, so everything a document
//! points to is checked before Google's library sees it.

use std::path::Path;

use serde_json::Value;
use url::Url;

use crate::{gcp::settings::ExternalSources, secret::without_user_info};

/// Impersonation may name another document as its source; no deeper than this.
const DEPTH_MAX: u8 = 3;

/// Why a credential document is refused. Never holds anything secret.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be read.
    #[error("cannot read the credentials file {path}")]
    Read {
        /// The file.
        path: String,
        /// The error underneath.
        #[source]
        source: std::io::Error,
    },
    /// The file is not JSON.
    #[error("the credentials file {path} is not JSON")]
    NotJson {
        /// The file.
        path: String,
    },
    /// The `type` is missing or not one of those supported.
    #[error(
        "credentials of type `{0}` are not supported; use service_account, authorized_user, \
         external_account or impersonated_service_account"
    )]
    Type(String),
    /// An address that would get the credentials is not Google's.
    #[error(
        "`{field}` in the credentials points to `{host}`; only https://*.googleapis.com is allowed"
    )]
    Endpoint {
        /// The member of the document.
        field: &'static str,
        /// The host it names.
        host: String,
    },
    /// The document wants a program to be run.
    #[error("credentials that run a program (`executable`) are refused; use a file or url source")]
    Executable,
    /// The subject token's file is not on the allow-list.
    #[error("the subject token file {0} is not in bigquery.credentials.external_sources.files")]
    File(String),
    /// The subject token's address is not on the allow-list.
    #[error("the subject token address {0} is not in bigquery.credentials.external_sources.urls")]
    Url(String),
    /// Impersonation on top of impersonation, too deep.
    #[error("the credentials are nested too deep")]
    Depth,
    /// The document has no `credential_source`.
    #[error(
        "external_account credentials without a credential_source of kind file or url are refused"
    )]
    NoSource,
}

/// Reads and checks a credentials file.
pub fn read(path: &Path, allowed: &ExternalSources) -> Result<Value, SourceError> {
    let shown = || path.display().to_string();
    let text = std::fs::read(path).map_err(|source| SourceError::Read { path: shown(), source })?;
    let document =
        serde_json::from_slice(&text).map_err(|_| SourceError::NotJson { path: shown() })?;
    check(&document, allowed)?;
    Ok(document)
}

/// Whether others than the owner may read the file: a reason for a warning.
#[cfg(unix)]
pub fn readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

/// Refuses a document that points anywhere it should not.
pub fn check(document: &Value, allowed: &ExternalSources) -> Result<(), SourceError> {
    check_at(document, allowed, 0)
}

fn check_at(document: &Value, allowed: &ExternalSources, depth: u8) -> Result<(), SourceError> {
    if depth >= DEPTH_MAX {
        return Err(SourceError::Depth);
    }
    match text(document, "type").unwrap_or_default() {
        "service_account" | "authorized_user" => google(document, "token_uri"),
        "impersonated_service_account" => {
            google(document, "service_account_impersonation_url")?;
            match document.get("source_credentials") {
                Some(source) => check_at(source, allowed, depth + 1),
                None => Ok(()),
            }
        }
        "external_account" => {
            google(document, "token_url")?;
            google(document, "token_info_url")?;
            google(document, "service_account_impersonation_url")?;
            external(document.get("credential_source"), allowed)
        }
        other => Err(SourceError::Type(other.chars().take(60).collect())),
    }
}

/// A subject token comes from a file or an address that the operator has allowed by name, or from
/// AWS's metadata service at its fixed address.
fn external(source: Option<&Value>, allowed: &ExternalSources) -> Result<(), SourceError> {
    let source = source.ok_or(SourceError::NoSource)?;
    if source.get("executable").is_some() {
        return Err(SourceError::Executable);
    }
    let mut named = false;
    if let Some(file) = source.get("file") {
        let file = file.as_str().unwrap_or_default();
        if !allowed.files.iter().any(|allowed| allowed == file) {
            return Err(SourceError::File(file.to_owned()));
        }
        named = true;
    }
    // AWS documents name several addresses; each is asked for something.
    let addresses =
        ["url", "region_url", "regional_cred_verification_url", "imdsv2_session_token_url"];
    for address in addresses.iter().filter_map(|field| source.get(*field)) {
        let address = address.as_str().unwrap_or_default();
        if !allowed.urls.iter().any(|allowed| allowed == address) {
            return Err(SourceError::Url(without_user_info(address).into_owned()));
        }
        named = true;
    }
    if named { Ok(()) } else { Err(SourceError::NoSource) }
}

/// The address in `field`, if there is one, is Google's.
fn google(document: &Value, field: &'static str) -> Result<(), SourceError> {
    let Some(value) = document.get(field) else { return Ok(()) };
    let address = value.as_str().unwrap_or_default();
    // accounts.google.com is what gcloud writes as token_uri of older user credentials.
    let trusted = Url::parse(address).is_ok_and(|url| {
        url.scheme() == "https"
            && url.port().is_none()
            && url.username().is_empty()
            && url.password().is_none()
            && url
                .host_str()
                .is_some_and(|host| host == "googleapis.com" || host.ends_with(".googleapis.com"))
    });
    if trusted {
        return Ok(());
    }
    let host = Url::parse(address).ok().and_then(|url| url.host_str().map(str::to_owned));
    Err(SourceError::Endpoint { field, host: host.unwrap_or_else(|| "no address".into()) })
}

fn text<'a>(document: &'a Value, field: &str) -> Option<&'a str> {
    document.get(field).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn allowed() -> ExternalSources {
        ExternalSources {
            files: vec!["/var/run/token".into()],
            urls: vec!["http://localhost/token".into()],
        }
    }

    #[test]
    fn documents_that_point_nowhere_else_are_taken() {
        let good = [
            json!({"type": "service_account", "token_uri": "https://oauth2.googleapis.com/token"}),
            json!({"type": "authorized_user"}),
            json!({"type": "external_account", "token_url": "https://sts.googleapis.com/v1/token",
                   "credential_source": {"file": "/var/run/token"}}),
            json!({"type": "external_account", "credential_source": {"url": "http://localhost/token"}}),
            json!({"type": "impersonated_service_account",
                   "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/x",
                   "source_credentials": {"type": "authorized_user"}}),
        ];
        for document in good {
            check(&document, &allowed()).unwrap();
        }
    }

    #[test]
    fn documents_that_point_elsewhere_are_refused() {
        let bad = [
            json!({"type": "service_account", "token_uri": "https://evil.example/token"}),
            json!({"type": "service_account", "token_uri": "http://oauth2.googleapis.com/token"}),
            json!({"type": "service_account", "token_uri": "https://evilgoogleapis.com/token"}),
            json!({"type": "service_account", "token_uri": "https://x@oauth2.googleapis.com/token"}),
            json!({"type": "service_account", "token_uri": 7}),
            json!({"type": "external_account", "credential_source": {"executable": {"command": "id"}}}),
            json!({"type": "external_account", "credential_source": {"file": "/etc/shadow"}}),
            json!({"type": "external_account", "credential_source": {"url": "http://169.254.169.254/"}}),
            json!({"type": "external_account", "credential_source": {"file": "/var/run/token", "url": "http://other/"}}),
            json!({"type": "external_account", "credential_source": {}}),
            json!({"type": "external_account"}),
            json!({"type": "impersonated_service_account",
                   "source_credentials": {"type": "service_account", "token_uri": "https://evil.example"}}),
            json!({"type": "gdch_service_account"}),
            json!({}),
        ];
        for document in bad {
            assert!(check(&document, &allowed()).is_err(), "{document}");
        }
    }

    #[test]
    fn impersonation_does_not_nest_without_end() {
        let mut document = json!({"type": "authorized_user"});
        for _ in 0..4 {
            document =
                json!({"type": "impersonated_service_account", "source_credentials": document});
        }
        assert!(matches!(check(&document, &allowed()), Err(SourceError::Depth)));
    }
}
