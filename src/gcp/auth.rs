//! Access tokens: Application Default Credentials through Google's own library, sources checked
//! before they are trusted.

pub mod google;
pub mod source;

use std::fmt;

use futures_util::future::BoxFuture;
use http::HeaderValue;

pub use google::GoogleTokens;

/// An access token as a header, and which refresh it came from.
#[derive(Clone)]
pub struct Token {
    header: HeaderValue,
    generation: u64,
}

impl Token {
    /// `Bearer <token>`; an error if the token cannot stand in a header.
    pub fn bearer(token: &str, generation: u64) -> Result<Self, AuthError> {
        let mut header =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| AuthError::Malformed)?;
        header.set_sensitive(true);
        Ok(Self { header, generation })
    }

    /// The value of the `Authorization` header, marked sensitive.
    pub fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// The number to hand to [`TokenProvider::refresh`] when this token is refused.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The credentials' document is refused.
    #[error(transparent)]
    Source(#[from] source::SourceError),
    /// Google's library could not use the credentials.
    #[error("the Google credentials cannot be used; is the file complete?")]
    Build(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The token endpoint, or the metadata server, gave no token.
    #[error("no access token was given {origin}")]
    Fetch {
        /// Who was asked, for whom.
        origin: String,
        /// The error underneath.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The token would go to an address where anyone on the way may read it.
    #[error(
        "Google's access tokens would go to {endpoint} over a connection that anyone may read; write https://, an \
         address of this machine, or leave bigquery.credentials.file out"
    )]
    InTheClear {
        /// The address.
        endpoint: String,
    },
    /// The token holds characters that no header can.
    #[error("the access token is malformed")]
    Malformed,
}

/// Where access tokens come from.
///
/// Calls are cheap while a token is valid. Concurrent calls share one fetch.
pub trait TokenProvider: fmt::Debug + Send + Sync + 'static {
    /// A valid token; `None` for anonymous access.
    fn token(&self) -> BoxFuture<'_, Result<Option<Token>, AuthError>>;

    /// Makes the next [`token`](Self::token) a fresh one, unless that has been done since
    /// `generation` was handed out.
    fn refresh(&self, generation: u64) -> BoxFuture<'_, ()>;
}

/// No credentials at all: for emulators.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

impl TokenProvider for Anonymous {
    fn token(&self) -> BoxFuture<'_, Result<Option<Token>, AuthError>> {
        Box::pin(async { Ok(None) })
    }

    fn refresh(&self, _generation: u64) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
