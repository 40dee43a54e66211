//! The Schema Registry over HTTP (Confluent's API, which Apicurio, Karapace and Redpanda speak too).

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Certificate, Client, Identity, StatusCode, Url, redirect};
use serde::{Deserialize, de::DeserializeOwned};

use super::settings::RegistrySettings;
use crate::{
    fault::{Fault, FaultKind},
    registry::{RegisteredSchema, Registry, RegistryError},
};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;
/// How deep references may nest.
const DEPTH_MAX: usize = 16;
/// How many schemas one schema may refer to, directly or not.
const REFERENCES_MAX: usize = 256;

/// Why the client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RegistryClientError {
    /// The URL is not an http or https URL.
    #[error("schema_registry.url: `{0}` is not an http:// or https:// URL")]
    Url(String),
    /// A file cannot be read.
    #[error("schema_registry: the file {path} cannot be read")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// TLS material is not what it should be, or TLS cannot be set up.
    #[error(
        "schema_registry: TLS cannot be set up; the files must be PEM, the identity a certificate chain and its key"
    )]
    Tls(#[source] reqwest::Error),
}

/// A registry, at one or several addresses.
#[derive(Debug)]
pub struct RegistryClient {
    http: Client,
    urls: Vec<Url>,
    settings: RegistrySettings,
}

/// A schema or a reference's version, as the registry answers it.
#[derive(Debug, Deserialize)]
struct Answer {
    schema: String,
    #[serde(rename = "schemaType", default)]
    format: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Clone, Debug, Deserialize)]
struct Reference {
    subject: String,
    version: i32,
}

/// The registry's own error body.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(default)]
    error_code: i64,
}

/// What one address answered, where it is not what was asked for.
enum Refusal {
    /// HTTP 404 with the registry's error code (0 if it gave none).
    NotFound(i64),
    /// Another address may do better.
    Elsewhere(Fault),
    /// No address will do better.
    Final(Fault),
}

impl RegistryClient {
    /// A client for the registry of `settings`. Makes no connection yet.
    ///
    /// # Errors
    ///
    /// [`RegistryClientError`] if a URL or a TLS file is not usable.
    pub fn new(settings: &RegistrySettings) -> Result<Self, RegistryClientError> {
        let urls = settings.url.split(',').map(str::trim).filter(|url| !url.is_empty());
        let urls = urls.map(base_url).collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err(RegistryClientError::Url(settings.url.clone()));
        }
        Ok(Self { http: http(settings)?, urls, settings: settings.clone() })
    }

    async fn resolve(&self, id: u32) -> Result<RegisteredSchema, RegistryError> {
        let answer: Answer = match self.ask(&["schemas", "ids", &id.to_string()]).await {
            Ok(answer) => answer,
            Err(Refusal::NotFound(40403)) => return Err(RegistryError::UnknownId { id }),
            Err(refusal) => return Err(self.fault(refusal, &format!("schema id {id}")).into()),
        };
        let references = self.references(answer.references, id).await?;
        Ok(RegisteredSchema {
            id,
            format: answer.format.unwrap_or_else(|| "AVRO".to_owned()),
            text: answer.schema.into(),
            references,
        })
    }

    /// All schemas referred to, each after those it refers to itself: a depth-first walk with a
    /// stack of its own.
    async fn references(&self, roots: Vec<Reference>, id: u32) -> Result<Vec<Arc<str>>, Fault> {
        enum Step {
            Enter(Reference, usize),
            Leave(Arc<str>),
        }
        let mut seen = BTreeSet::new();
        let mut texts = Vec::new();
        let mut steps: Vec<_> = roots.into_iter().rev().map(|root| Step::Enter(root, 1)).collect();
        while let Some(step) = steps.pop() {
            let (reference, depth) = match step {
                Step::Leave(text) => {
                    texts.push(text);
                    continue;
                }
                Step::Enter(reference, depth) => (reference, depth),
            };
            if !seen.insert((reference.subject.clone(), reference.version)) {
                continue;
            }
            if depth > DEPTH_MAX || seen.len() > REFERENCES_MAX {
                return Err(Fault::refused(
                    FaultKind::InvalidRequest,
                    "references",
                    format!(
                        "schema id {id} refers to more than {REFERENCES_MAX} schemas, or more than {DEPTH_MAX} deep"
                    ),
                ));
            }
            let answer = self.reference(&reference).await?;
            steps.push(Step::Leave(answer.schema.into()));
            let below = answer.references.into_iter().rev();
            steps.extend(below.map(|reference| Step::Enter(reference, depth + 1)));
        }
        Ok(texts)
    }

    async fn reference(&self, reference: &Reference) -> Result<Answer, Fault> {
        let version = reference.version.to_string();
        let path = ["subjects", &reference.subject, "versions", &version];
        let what = format!("version {version} of subject {}", reference.subject);
        self.ask(&path).await.map_err(|refusal| self.fault(refusal, &what))
    }

    /// Asks the addresses in turn until one gives an answer that stands.
    async fn ask<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Refusal> {
        let mut last = None;
        for url in &self.urls {
            match self.ask_one(url, path).await {
                Err(Refusal::Elsewhere(fault)) => last = Some(fault),
                answer => return answer,
            }
        }
        Err(Refusal::Elsewhere(last.unwrap_or_else(|| {
            Fault::refused(FaultKind::Transient, "no_url", "no schema registry is configured")
        })))
    }

    async fn ask_one<T: DeserializeOwned>(&self, base: &Url, path: &[&str]) -> Result<T, Refusal> {
        let mut url = base.clone();
        let encoded =
            path.iter().map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string());
        let joined = encoded.collect::<Vec<_>>().join("/");
        url.set_path(&format!("{}/{joined}", base.path().trim_end_matches('/')));
        let mut request = self
            .http
            .get(url)
            .header("accept", "application/vnd.schemaregistry.v1+json, application/json");
        if let Some(username) = &self.settings.username {
            let password = self.settings.password.as_ref().map(|password| password.expose());
            request = request.basic_auth(username, password);
        } else if let Some(token) = &self.settings.bearer_token {
            request = request.bearer_auth(token.expose());
        }
        let response = request.send().await.map_err(|error| Refusal::Elsewhere(network(error)))?;
        let status = response.status();
        let retry_after = retry_after(&response);
        let body = body(response).await?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| Refusal::Final(unreadable(error)));
        }
        let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
        Err(classify(status, problem.error_code, retry_after))
    }

    fn fault(&self, refusal: Refusal, what: &str) -> Fault {
        match refusal {
            Refusal::Elsewhere(fault) | Refusal::Final(fault) => fault,
            Refusal::NotFound(code) => Fault::refused(
                FaultKind::Transient,
                format!("404/{code}"),
                format!("the schema registry at {} knows nothing of {what}", self.settings.url),
            )
            .with_remedy("check schema_registry.url"),
        }
    }
}

impl Registry for RegistryClient {
    fn schema(&self, id: u32) -> BoxFuture<'_, Result<RegisteredSchema, RegistryError>> {
        Box::pin(self.resolve(id))
    }
}

fn base_url(text: &str) -> Result<Url, RegistryClientError> {
    let refused = || RegistryClientError::Url(text.to_owned());
    let url = Url::parse(text).map_err(|_| refused())?;
    let usable = matches!(url.scheme(), "http" | "https") && url.has_host();
    if usable { Ok(url) } else { Err(refused()) }
}

fn http(settings: &RegistrySettings) -> Result<Client, RegistryClientError> {
    let mut builder = Client::builder()
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(redirect::Policy::custom(same_origin));
    if let Some(path) = &settings.ca_file {
        let pem = read(path)?;
        let bundle = Certificate::from_pem_bundle(&pem).map_err(RegistryClientError::Tls)?;
        for certificate in bundle {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if let Some(path) = &settings.client_identity_file {
        let identity = Identity::from_pem(&read(path)?).map_err(RegistryClientError::Tls)?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(RegistryClientError::Tls)
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryClientError> {
    let shown = path.display().to_string();
    std::fs::read(path).map_err(|source| RegistryClientError::File { path: shown, source })
}

/// Credentials go to the configured host only: a redirect elsewhere is an error.
fn same_origin(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let origin = attempt.previous().first().map(Url::origin);
    if attempt.previous().len() > 3 || origin != Some(attempt.url().origin()) {
        return attempt.error("the schema registry redirects to another host");
    }
    attempt.follow()
}

async fn body(mut response: reqwest::Response) -> Result<Vec<u8>, Refusal> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= BODY_BYTES_MAX => {
                body.extend_from_slice(&chunk);
            }
            Ok(Some(_)) => {
                return Err(Refusal::Final(Fault::refused(
                    FaultKind::TooLarge,
                    "body",
                    "the schema registry's answer is larger than 5 MB",
                )));
            }
            Ok(None) => return Ok(body),
            Err(error) => return Err(Refusal::Elsewhere(network(error))),
        }
    }
}

fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let text = response.headers().get("retry-after")?.to_str().ok()?;
    text.parse().ok().map(Duration::from_secs)
}

fn network(error: reqwest::Error) -> Fault {
    // Without the URL: it may carry credentials.
    let error = error.without_url();
    let reason = if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "connect"
    } else if error.is_redirect() {
        "redirect"
    } else {
        "network"
    };
    Fault::refused(FaultKind::Transient, reason, "the schema registry cannot be reached")
        .with_source(error)
}

fn unreadable(error: serde_json::Error) -> Fault {
    Fault::refused(
        FaultKind::InvalidRequest,
        "answer",
        "the schema registry's answer is not that of a schema registry; check schema_registry.url",
    )
    .with_source(error)
}

/// What a status other than success means. Reads have no effect, so nothing is of unknown certainty.
fn classify(status: StatusCode, code: i64, retry_after: Option<Duration>) -> Refusal {
    let fault = |kind, message: &str| {
        Fault::refused(kind, format!("{}/{code}", status.as_u16()), message)
            .with_retry_after(retry_after)
    };
    match status {
        StatusCode::NOT_FOUND => Refusal::NotFound(code),
        StatusCode::UNAUTHORIZED => Refusal::Final(fault(
            FaultKind::Unauthenticated,
            "the schema registry refuses the credentials; check schema_registry's username, password or token",
        )),
        StatusCode::FORBIDDEN => Refusal::Final(fault(
            FaultKind::PermissionDenied,
            "the schema registry does not let this identity read schemas",
        )),
        StatusCode::TOO_MANY_REQUESTS => {
            Refusal::Elsewhere(fault(FaultKind::Throttled, "the schema registry is throttling"))
        }
        status if status.is_server_error() => {
            Refusal::Elsewhere(fault(FaultKind::Transient, "the schema registry fails"))
        }
        _ => Refusal::Final(fault(
            FaultKind::InvalidRequest,
            "the schema registry does not understand the request; check schema_registry.url",
        )),
    }
}

#[cfg(test)]
#[path = "registry_client/tests.rs"]
mod tests;
