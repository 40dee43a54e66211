//! OAUTHBEARER for Google's Managed Service for Apache Kafka.
//!
//! The service takes a Google access token wrapped in something shaped like a JWT:
//! `base64url({"typ":"JWT","alg":"GOOG_OAUTH2_TOKEN"}) . base64url({exp, iat, iss, scope, sub}) .
//! base64url(access token)` (googleapis/managedkafka, `GcpBearerAuthCredential`).

use std::{error::Error, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rdkafka::client::OAuthToken;

use crate::{fault::Fault, secret::Secret};

/// A Google access token with what the wrapper needs to say about it.
#[derive(Clone, Debug)]
pub struct AccessToken {
    /// The token.
    pub token: Secret,
    /// The service account's e-mail address.
    pub email: String,
    /// When it expires.
    pub expires: SystemTime,
}

/// Where access tokens come from.
///
/// Called from the poll thread whenever the client wants a new token (at 80 % of the old one's
/// life), so it answers from a cache, or within a few seconds. On an error the client asks again
/// after ten seconds.
pub trait TokenSource: Send + Sync + 'static {
    /// A token that is good for some minutes more.
    fn token(&self) -> Result<AccessToken, Fault>;
}

/// The token in the shape that rdkafka takes.
pub fn generate(source: Option<&dyn TokenSource>) -> Result<OAuthToken, Box<dyn Error>> {
    let source = source.ok_or("SASL mechanism OAUTHBEARER needs `oauth: google`")?;
    let access = source.token().map_err(|fault| fault.to_string().replace('\0', " "))?;
    Ok(wrap(&access, SystemTime::now()))
}

fn wrap(access: &AccessToken, now: SystemTime) -> OAuthToken {
    let seconds = |at: SystemTime| {
        at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
    };
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let payload = serde_json::json!({
        "exp": seconds(access.expires),
        "iat": seconds(now),
        "iss": "Google",
        "scope": "kafka",
        "sub": access.email,
    });
    let token = [
        encode(r#"{"typ":"JWT","alg":"GOOG_OAUTH2_TOKEN"}"#),
        encode(&payload.to_string()),
        encode(access.token.expose()),
    ]
    .join(".");
    OAuthToken {
        token,
        principal_name: access.email.clone(),
        lifetime_ms: i64::try_from(seconds(access.expires))
            .unwrap_or(i64::MAX)
            .saturating_mul(1000),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_token_has_three_parts_that_say_what_google_expects() {
        let access = AccessToken {
            token: Secret::new("ya29.canary"),
            email: "sink@project.iam.gserviceaccount.com".into(),
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(2_000),
        };
        let wrapped = wrap(&access, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
        let parts: Vec<Vec<u8>> =
            wrapped.token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        assert_eq!(parts.len(), 3);
        let header: serde_json::Value = serde_json::from_slice(&parts[0]).unwrap();
        let payload: serde_json::Value = serde_json::from_slice(&parts[1]).unwrap();
        assert_eq!(header["alg"], "GOOG_OAUTH2_TOKEN");
        assert_eq!((&payload["iat"], &payload["exp"]), (&1_000.into(), &2_000.into()));
        assert_eq!(payload["sub"], "sink@project.iam.gserviceaccount.com");
        assert_eq!(parts[2], b"ya29.canary");
        assert_eq!(wrapped.lifetime_ms, 2_000_000);
        assert!(generate(None).is_err());
    }
}
