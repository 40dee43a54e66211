//! Text that must not be seen: passwords, tokens.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// What is shown in a secret's place.
pub const REDACTED: &str = "[redacted]";

/// A secret: shown and serialised as [`REDACTED`], wiped from memory when dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes `text` as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the one place that must send or compare it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// Whether the text of a URL, or of several with commas between them, may hold a user name or a password.
///
/// `@` ends them (RFC 3986, section 3.2.1). One further on would be harmless, but no address that this service
/// asks for has one, and a password with `/` or `,` in it makes all that follows look like something else.
pub fn may_hold_user_info(urls: &str) -> bool {
    urls.contains('@')
}

/// The text of a URL, or of several, as a message may show it: without what stands before the last `@`.
pub fn without_user_info(urls: &str) -> Cow<'_, str> {
    let Some((before, after)) = urls.rsplit_once('@') else { return Cow::Borrowed(urls) };
    let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
    let is_scheme = !scheme.is_empty() && scheme.chars().all(|char| char.is_ascii_alphabetic());
    let begin = if is_scheme { format!("{scheme}://") } else { String::new() };
    Cow::Owned(format!("{begin}{REDACTED}@{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_user_and_password() {
        for (url, shown) in [
            ("https://registry:8081/a", "https://registry:8081/a"),
            ("https://ann:canary@registry:8081", "https://[redacted]@registry:8081"),
            ("https://ann:ca/nary,@registry", "https://[redacted]@registry"),
            ("http://a:1,http://ann:canary@b:2", "http://[redacted]@b:2"),
            ("ann:canary@registry", "[redacted]@registry"),
            ("canary://ann@registry", "canary://[redacted]@registry"),
        ] {
            assert_eq!(without_user_info(url), shown);
            assert_eq!(may_hold_user_info(url), url != shown);
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret: Secret = serde_json::from_str("\"canary\"").unwrap();
        assert_eq!(secret.expose(), "canary");
        let shown = format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
