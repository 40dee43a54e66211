//! The Schema Registry over HTTP (Confluent's API, which Apicurio, Karapace and Redpanda speak too).
//!
//! Whoever may register schemas, or produce records that name any id, must not be able to fill the
//! memory or to use up the sockets: few requests are on their way at a time, whoever asks, and what a
//! schema refers to is counted while it is gathered.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Certificate, Client, Identity, StatusCode, Url, redirect};
use serde::{Deserialize, de::DeserializeOwned};

use tokio::{sync::Semaphore, time::timeout};

use super::settings::RegistrySettings;
use crate::{
    fault::{Fault, FaultKind},
    printable,
    registry::{RegisteredSchema, Registry, RegistryError, TEXT_BYTES_MAX},
    secret::{may_hold_user_info, without_user_info},
};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a schema and everything that it refers to may take.
const WALK_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests on their way at a time.
const REQUESTS_MAX: usize = 8;
/// Schemas whose references are gathered at a time.
const WALKS_MAX: usize = 2;
/// The largest answer that is read: the longest text, with every second byte escaped.
const BODY_BYTES_MAX: usize = 2 * TEXT_BYTES_MAX + 64 * 1024;
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
    /// A URL holds a user name or a password.
    #[error(
        "schema_registry.url holds a user name or a password; write them as `schema_registry.username` and \
         `schema_registry.password`"
    )]
    UserInfo,
    /// Credentials would travel in the clear.
    #[error(
        "schema_registry sends its credentials over a connection that anyone may read; write https://, or set \
         schema_registry.allow_insecure: true"
    )]
    Insecure,
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
    /// The URLs, for people.
    address: String,
    settings: RegistrySettings,
    requests: Semaphore,
    walks: Semaphore,
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
    /// The answer is larger than any that is of use.
    TooLarge,
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
        let urls = urls(settings)?;
        Ok(Self {
            http: http(settings)?,
            address: address(&urls),
            urls,
            settings: settings.clone(),
            requests: Semaphore::new(REQUESTS_MAX),
            walks: Semaphore::new(WALKS_MAX),
        })
    }

    async fn resolve(&self, id: u32) -> Result<RegisteredSchema, RegistryError> {
        let answer = self.root(id).await?;
        if answer.references.is_empty() {
            let mut gathered = Gathered::new(id);
            gathered.count(answer.schema.len())?;
            return Ok(gathered.into_schema(answer));
        }
        // Many may wait here for long, so nothing is kept meanwhile: the schema is asked for again.
        drop(answer);
        let Ok(_turn) = self.walks.acquire().await else { return Err(too_slow().into()) };
        timeout(WALK_TIMEOUT, self.walk(id)).await.unwrap_or_else(|_| Err(too_slow().into()))
    }

    async fn root(&self, id: u32) -> Result<Answer, RegistryError> {
        match self.ask(&["schemas", "ids", &id.to_string()]).await {
            Ok(answer) => Ok(answer),
            Err(Refusal::NotFound(40403)) => Err(RegistryError::UnknownId { id }),
            Err(refusal) => Err(self.error(refusal, id, &format!("schema id {id}"))),
        }
    }

    /// The schema and all schemas referred to, each after those it refers to itself: a depth-first
    /// walk with a stack of its own.
    async fn walk(&self, id: u32) -> Result<RegisteredSchema, RegistryError> {
        enum Step {
            Enter(Reference, usize),
            Leave(String),
        }
        let mut root = self.root(id).await?;
        let mut gathered = Gathered::new(id);
        gathered.count(root.schema.len())?;
        let below = gathered.references(&mut root)?;
        let mut steps: Vec<_> = below.map(|root| Step::Enter(root, 1)).collect();
        while let Some(step) = steps.pop() {
            let (reference, depth) = match step {
                Step::Leave(text) => {
                    gathered.texts.push(text.into());
                    continue;
                }
                Step::Enter(reference, depth) => (reference, depth),
            };
            if !gathered.is_new(&reference, depth)? {
                continue;
            }
            let mut answer = self.reference(&reference, id).await?;
            gathered.count(answer.schema.len())?;
            let below = gathered.references(&mut answer)?;
            steps.push(Step::Leave(answer.schema));
            steps.extend(below.map(|reference| Step::Enter(reference, depth + 1)));
        }
        Ok(gathered.into_schema(root))
    }

    async fn reference(&self, reference: &Reference, id: u32) -> Result<Answer, RegistryError> {
        let version = reference.version.to_string();
        let path = ["subjects", &reference.subject, "versions", &version];
        let what = format!("version {version} of subject {}", printable::name(&reference.subject));
        self.ask(&path).await.map_err(|refusal| self.error(refusal, id, &what))
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
        // The semaphore is never closed.
        let _turn = self.requests.acquire().await.ok();
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

    fn error(&self, refusal: Refusal, id: u32, what: &str) -> RegistryError {
        match refusal {
            Refusal::Elsewhere(fault) | Refusal::Final(fault) => fault.into(),
            Refusal::TooLarge => unusable(id, beyond_bytes()),
            Refusal::NotFound(code) => Fault::refused(
                FaultKind::Transient,
                format!("404/{code}"),
                format!("the schema registry at {} knows nothing of {what}", self.address),
            )
            .with_remedy("check schema_registry.url")
            .into(),
        }
    }
}

/// What a schema refers to, counted while it is gathered.
struct Gathered {
    id: u32,
    texts: Vec<Arc<str>>,
    seen: BTreeSet<(String, i32)>,
    /// Of texts, and of the names by which references are still to be followed.
    bytes: usize,
}

impl Gathered {
    fn new(id: u32) -> Self {
        Self { id, texts: Vec::new(), seen: BTreeSet::new(), bytes: 0 }
    }

    fn count(&mut self, bytes: usize) -> Result<(), RegistryError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > TEXT_BYTES_MAX {
            return Err(unusable(self.id, beyond_bytes()));
        }
        Ok(())
    }

    /// Takes the references of an answer out of it, the last one first.
    fn references(
        &mut self,
        answer: &mut Answer,
    ) -> Result<impl Iterator<Item = Reference> + use<>, RegistryError> {
        let references = std::mem::take(&mut answer.references);
        if references.len() > REFERENCES_MAX {
            return Err(self.beyond_references());
        }
        let held = |one: &Reference| one.subject.len() + size_of::<Reference>();
        self.count(references.iter().map(held).sum())?;
        Ok(references.into_iter().rev())
    }

    /// Whether the reference was not followed yet.
    fn is_new(&mut self, reference: &Reference, depth: usize) -> Result<bool, RegistryError> {
        let is_new = self.seen.insert((reference.subject.clone(), reference.version));
        if is_new && (depth > DEPTH_MAX || self.seen.len() > REFERENCES_MAX) {
            return Err(self.beyond_references());
        }
        Ok(is_new)
    }

    fn beyond_references(&self) -> RegistryError {
        let problem = format!(
            "it refers to more than {REFERENCES_MAX} schemas, or more than {DEPTH_MAX} deep"
        );
        unusable(self.id, problem)
    }

    fn into_schema(self, root: Answer) -> RegisteredSchema {
        RegisteredSchema {
            id: self.id,
            format: printable::name(root.format.as_deref().unwrap_or("AVRO")).into_owned(),
            text: root.schema.into(),
            references: self.texts,
        }
    }
}

fn unusable(id: u32, problem: String) -> RegistryError {
    RegistryError::Unusable { id, problem }
}

fn beyond_bytes() -> String {
    format!("it and what it refers to are larger than {TEXT_BYTES_MAX} bytes")
}

fn too_slow() -> Fault {
    let seconds = WALK_TIMEOUT.as_secs();
    let message = format!("the schema registry took more than {seconds} s for one schema");
    Fault::refused(FaultKind::Transient, "timeout", message)
}

impl Registry for RegistryClient {
    fn schema(&self, id: u32) -> BoxFuture<'_, Result<RegisteredSchema, RegistryError>> {
        Box::pin(self.resolve(id))
    }

    fn address(&self) -> &str {
        &self.address
    }
}

/// The URLs without credentials.
fn address(urls: &[Url]) -> String {
    let bare = urls.iter().map(|url| {
        let mut bare = url.clone();
        // A URL with a host, as each of them, takes both.
        bare.set_username("").ok();
        bare.set_password(None).ok();
        bare.as_str().trim_end_matches('/').to_owned()
    });
    bare.collect::<Vec<_>>().join(", ")
}

/// The registry's addresses, where its credentials may go to all of them.
///
/// # Errors
///
/// [`RegistryClientError`] if one is no address, holds credentials, or would get them in the clear.
pub fn urls(settings: &RegistrySettings) -> Result<Vec<Url>, RegistryClientError> {
    if may_hold_user_info(&settings.url) {
        return Err(RegistryClientError::UserInfo);
    }
    let texts = settings.url.split(',').map(str::trim).filter(|url| !url.is_empty());
    let urls = texts.map(base_url).collect::<Result<Vec<_>, _>>()?;
    if urls.is_empty() {
        return Err(RegistryClientError::Url(String::new()));
    }
    let has_credentials = settings.username.is_some() || settings.bearer_token.is_some();
    let is_plain = urls.iter().any(|url| url.scheme() == "http");
    match has_credentials && is_plain && !settings.allow_insecure {
        true => Err(RegistryClientError::Insecure),
        false => Ok(urls),
    }
}

fn base_url(text: &str) -> Result<Url, RegistryClientError> {
    let refused = || RegistryClientError::Url(without_user_info(text).into_owned());
    let url = Url::parse(text).map_err(|_| refused())?;
    let usable = matches!(url.scheme(), "http" | "https") && url.has_host();
    if usable { Ok(url) } else { Err(refused()) }
}

fn http(settings: &RegistrySettings) -> Result<Client, RegistryClientError> {
    let mut builder = Client::builder()
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(REQUESTS_MAX)
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
            Ok(Some(_)) => return Err(Refusal::TooLarge),
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
