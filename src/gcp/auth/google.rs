//! Tokens from Google's credentials library.

use std::{path::PathBuf, time::Duration};

use futures_util::future::BoxFuture;
use google_cloud_auth::credentials::{
    AccessTokenCredentials, external_account, impersonated, mds, service_account, user_account,
};
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};

use crate::gcp::{
    auth::{AuthError, Token, TokenProvider, source},
    settings::CredentialSettings,
};

/// What the tokens may be used for.
const SCOPES: [&str; 1] = ["https://www.googleapis.com/auth/cloud-platform"];
/// A refused token is replaced at most this often: with revoked credentials every request is
/// refused, and the token endpoint must not get them all.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// Application Default Credentials: the file that the settings name, else the file that
/// `GOOGLE_APPLICATION_CREDENTIALS` names, else gcloud's own file, else the metadata server.
///
/// The library caches tokens and renews them before they expire. A refused token makes it start
/// anew, reading the file again, so that a rotated key is picked up.
#[derive(Debug)]
pub struct GoogleTokens {
    settings: CredentialSettings,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    credentials: AccessTokenCredentials,
    /// Where they are from, for people.
    origin: String,
    generation: u64,
    renewed: Option<Instant>,
}

impl GoogleTokens {
    /// Finds and checks the credentials; asks for no token yet. Must run inside a tokio runtime,
    /// because the library renews tokens in the background.
    pub fn new(settings: CredentialSettings) -> Result<Self, AuthError> {
        let (credentials, origin) = build(&settings)?;
        let current = Mutex::new(Current { credentials, origin, generation: 0, renewed: None });
        Ok(Self { settings, current })
    }

    /// The bare access token, for Kafka's OAUTHBEARER on Google's Managed Kafka.
    pub async fn access_token(&self) -> Result<String, AuthError> {
        Ok(self.fetch().await?.0)
    }

    async fn fetch(&self) -> Result<(String, u64), AuthError> {
        let (credentials, origin, generation) = {
            let current = self.current.lock().await;
            (current.credentials.clone(), current.origin.clone(), current.generation)
        };
        let asked = credentials.access_token().await;
        let token = asked.map_err(|error| AuthError::Fetch { origin, source: Box::new(error) })?;
        Ok((token.token, generation))
    }

    async fn renew(&self, generation: u64) {
        let mut current = self.current.lock().await;
        let now = Instant::now();
        let lately = current.renewed.is_some_and(|at| now.duration_since(at) < REFRESH_INTERVAL);
        if current.generation != generation || lately {
            return;
        }
        current.renewed = Some(now);
        match build(&self.settings) {
            Ok((credentials, origin)) => {
                current.credentials = credentials;
                current.origin = origin;
                current.generation += 1;
            }
            // The old credentials stay; the caller's second attempt shows the refusal.
            Err(error) => tracing::warn!(%error, "could not renew the Google credentials"),
        }
    }
}

impl TokenProvider for GoogleTokens {
    fn token(&self) -> BoxFuture<'_, Result<Option<Token>, AuthError>> {
        Box::pin(async move {
            let (token, generation) = self.fetch().await?;
            Token::bearer(&token, generation).map(Some)
        })
    }

    fn refresh(&self, generation: u64) -> BoxFuture<'_, ()> {
        Box::pin(self.renew(generation))
    }
}

/// The credentials, and where they are from.
fn build(settings: &CredentialSettings) -> Result<(AccessTokenCredentials, String), AuthError> {
    let Some(path) = settings.file.clone().or_else(default_file) else {
        let builder = mds::Builder::default().with_scopes(SCOPES);
        let server = "by the metadata server, and there is no credentials file".to_owned();
        return Ok((built(builder.build_access_token_credentials())?, server));
    };
    let document = source::read(&path, &settings.external_sources)?;
    #[cfg(unix)]
    if source::readable_by_others(&path) && holds_key(&document) {
        tracing::warn!(path = %path.display(), "the Google credentials file is readable by others; chmod it to 0600");
    }
    Ok((from_document(document)?, format!("for the credentials in {}", path.display())))
}

fn from_document(document: Value) -> Result<AccessTokenCredentials, AuthError> {
    match document.get("type").and_then(Value::as_str).unwrap_or_default() {
        "service_account" => {
            let scopes = service_account::AccessSpecifier::from_scopes(SCOPES);
            built(
                service_account::Builder::new(document)
                    .with_access_specifier(scopes)
                    .build_access_token_credentials(),
            )
        }
        "authorized_user" => built(
            user_account::Builder::new(document)
                .with_scopes(SCOPES)
                .build_access_token_credentials(),
        ),
        "impersonated_service_account" => built(
            impersonated::Builder::new(document)
                .with_scopes(SCOPES)
                .build_access_token_credentials(),
        ),
        "external_account" => built(
            external_account::Builder::new(document)
                .with_scopes(SCOPES)
                .build_access_token_credentials(),
        ),
        other => Err(source::SourceError::Type(other.to_owned()).into()),
    }
}

fn built<E: std::error::Error + Send + Sync + 'static>(
    result: Result<AccessTokenCredentials, E>,
) -> Result<AccessTokenCredentials, AuthError> {
    result.map_err(|error| AuthError::Build(Box::new(error)))
}

/// Whether the document is a secret by itself.
fn holds_key(document: &Value) -> bool {
    ["private_key", "refresh_token", "client_secret"].iter().any(|key| document.get(key).is_some())
}

/// The file that Google's own tools would use.
fn default_file() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS") {
        return Some(PathBuf::from(path));
    }
    let home = PathBuf::from(std::env::var_os("HOME")?);
    let path = home.join(".config/gcloud/application_default_credentials.json");
    path.exists().then_some(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn settings(document: &str) -> (tempfile::NamedTempFile, CredentialSettings) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(document.as_bytes()).unwrap();
        let settings =
            CredentialSettings { file: Some(file.path().to_owned()), ..Default::default() };
        (file, settings)
    }

    #[tokio::test]
    async fn a_refused_source_never_reaches_the_library() {
        let (_file, settings) = settings(
            r#"{"type":"external_account","credential_source":{"executable":{"command":"id"}}}"#,
        );
        assert!(matches!(
            GoogleTokens::new(settings),
            Err(AuthError::Source(source::SourceError::Executable))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn one_refusal_renews_once_and_not_too_often() {
        let (_file, settings) = settings(
            r#"{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"r"}"#,
        );
        let tokens = GoogleTokens::new(settings).unwrap();
        tokens.renew(0).await;
        tokens.renew(0).await;
        assert_eq!(tokens.current.lock().await.generation, 1, "the second caller came too late");
        tokens.renew(1).await;
        assert_eq!(tokens.current.lock().await.generation, 1, "renewed a moment ago");
        tokio::time::advance(REFRESH_INTERVAL).await;
        tokens.renew(1).await;
        assert_eq!(tokens.current.lock().await.generation, 2);
    }
}
