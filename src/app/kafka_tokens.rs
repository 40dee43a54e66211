//! The process's Google identity for Google's Managed Service for Apache Kafka.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::runtime::Handle;

use crate::{
    config::Settings,
    fault::{Fault, FaultKind},
    gcp::auth::{AuthError, GoogleTokens},
    kafka::{
        oauth::{AccessToken, TokenSource},
        settings::Sasl,
    },
    secret::Secret,
};

/// How long the client keeps a token before it asks again. Google's library renews its tokens some
/// minutes before they expire, so what it hands out is good for this long.
const LIFETIME: Duration = Duration::from_secs(180);

/// How long the poll thread waits for a token; it must go on polling.
const ANSWER: Duration = Duration::from_secs(5);

/// [`TokenSource`] over the credentials that BigQuery is written with.
struct KafkaTokens {
    tokens: GoogleTokens,
    runtime: Handle,
}

/// A source of tokens, if the settings ask for one. Must run inside a tokio runtime.
///
/// # Errors
/// The credentials are refused.
pub(crate) fn kafka_tokens(settings: &Settings) -> Result<Option<Arc<dyn TokenSource>>, AuthError> {
    if !matches!(settings.kafka.security.sasl, Some(Sasl::OauthGoogle)) {
        return Ok(None);
    }
    let tokens = GoogleTokens::new(settings.bigquery.credentials.clone())?;
    Ok(Some(Arc::new(KafkaTokens { tokens, runtime: Handle::current() })))
}

impl TokenSource for KafkaTokens {
    fn token(&self) -> Result<AccessToken, Fault> {
        let refused = |message| Fault::refused(FaultKind::Unauthenticated, "noToken", message);
        let asked = async { tokio::time::timeout(ANSWER, self.tokens.access_token()).await };
        let token = self
            .runtime
            .block_on(asked)
            .map_err(|_| refused("Google's credentials gave no token in time"))?
            .map_err(|error| refused("Google's credentials gave no token").with_source(error))?;
        Ok(AccessToken {
            token: Secret::new(token),
            // The broker takes the identity from the token itself.
            email: String::new(),
            expires: SystemTime::now() + LIFETIME,
        })
    }
}
