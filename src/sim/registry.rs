//! The Schema Registry: Confluent's REST API over schemas in memory.
//!
//! <https://docs.confluent.io/platform/current/schema-registry/develop/api.html>. Ids start at 1, and
//! one schema (text, type and references) has one id, whatever the subjects. Compatibility is
//! checked for Avro ([`compatibility`]); other types are accepted unchecked.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use http::{Method, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::sim::message::{Request, Response};

pub mod compatibility;
pub mod subjects;

pub use subjects::Preload;

/// One refused request, in the registry's error shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryError {
    /// The HTTP status.
    pub status: u16,
    /// The registry's own code, such as 40403.
    pub code: u32,
    /// The message.
    pub message: String,
}

impl RegistryError {
    /// An error with these parts.
    pub fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// 40401.
    pub fn no_subject(subject: &str) -> Self {
        Self::new(404, 40401, format!("Subject '{subject}' not found."))
    }

    /// 40402.
    pub fn no_version(version: &str) -> Self {
        Self::new(404, 40402, format!("Version {version} not found."))
    }

    /// 40403.
    pub fn no_schema() -> Self {
        Self::new(404, 40403, "Schema not found")
    }

    /// 42201.
    pub fn invalid_schema(detail: &str) -> Self {
        Self::new(422, 42201, format!("Invalid schema: {detail}"))
    }
}

impl From<RegistryError> for Response {
    fn from(error: RegistryError) -> Self {
        let body = json!({"error_code": error.code, "message": error.message});
        registry_response(error.status, &body)
    }
}

/// Where a registry request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryRoute {
    /// The operation's name in fault scripts and counters.
    pub operation: &'static str,
    /// The subject; empty where the route has none.
    pub subject: String,
    /// The version, or the schema id; empty where the route has none.
    pub version: String,
}

impl RegistryRoute {
    /// The route of a request; `None` for a path that the registry does not have.
    pub fn of(request: &Request) -> Option<Self> {
        let segments = request.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (get, post) = (request.method == Method::GET, request.method == Method::POST);
        let (put, delete) = (request.method == Method::PUT, request.method == Method::DELETE);
        let (operation, subject, version) = match *segments {
            ["subjects"] if get => ("registry.subjects.list", "", ""),
            ["subjects", s] if post => ("registry.lookup", s, ""),
            ["subjects", s] if delete => ("registry.subjects.delete", s, ""),
            ["subjects", s, "versions"] if get => ("registry.versions.list", s, ""),
            ["subjects", s, "versions"] if post => ("registry.register", s, ""),
            ["subjects", s, "versions", v] if get => ("registry.versions.get", s, v),
            ["subjects", s, "versions", v, "schema"] if get => ("registry.versions.text", s, v),
            ["schemas", "types"] if get => ("registry.schemas.types", "", ""),
            ["schemas", "ids", id] if get => ("registry.schemas.get", "", id),
            ["schemas", "ids", id, "versions"] if get => ("registry.schemas.versions", "", id),
            ["config"] if get => ("registry.config.get", "", ""),
            ["config"] if put => ("registry.config.put", "", ""),
            ["config", s] if get => ("registry.config.get", s, ""),
            ["config", s] if put => ("registry.config.put", s, ""),
            ["compatibility", "subjects", s, "versions", v] if post => {
                ("registry.compatibility", s, v)
            }
            _ => return None,
        };
        Some(Self { operation, subject: subject.to_owned(), version: version.to_owned() })
    }
}

/// A reference from one schema to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The name the schema uses.
    pub name: String,
    /// The subject of the other schema.
    pub subject: String,
    /// Its version in that subject.
    pub version: u32,
}

/// One schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// `AVRO`, `JSON` or `PROTOBUF`.
    pub format: String,
    /// The text as registered.
    pub text: String,
    /// What it refers to.
    pub references: Vec<Reference>,
}

/// The registry.
#[derive(Debug, Default)]
pub struct Registry {
    pub(crate) schemas: BTreeMap<u32, Schema>,
    /// Ids by subject, in the order of their versions (from 1).
    pub(crate) subjects: BTreeMap<String, Vec<u32>>,
    /// Compatibility by subject; the empty subject is the global one.
    pub(crate) config: BTreeMap<String, String>,
    basic_auth: Option<String>,
}

impl Registry {
    /// An empty registry; `basic_auth` is `user:password`, if one is demanded.
    pub fn new(basic_auth: Option<String>) -> Self {
        Self { basic_auth, ..Self::default() }
    }

    /// Applies one request.
    pub fn handle(&mut self, route: &RegistryRoute, request: &Request) -> Response {
        if !self.is_authorised(request) {
            return RegistryError::new(401, 40101, "Unauthorized").into();
        }
        match self.dispatch(route, request) {
            Ok(body) => registry_response(200, &body),
            Err(error) => error.into(),
        }
    }

    fn dispatch(
        &mut self,
        route: &RegistryRoute,
        request: &Request,
    ) -> Result<Value, RegistryError> {
        let (subject, version) = (route.subject.as_str(), route.version.as_str());
        match route.operation {
            "registry.schemas.get" => self.schema_by_id(version),
            "registry.schemas.versions" => self.versions_of_id(version),
            "registry.schemas.types" => Ok(json!(["JSON", "PROTOBUF", "AVRO"])),
            "registry.subjects.list" => Ok(json!(self.subjects.keys().collect::<Vec<_>>())),
            "registry.subjects.delete" => self.delete_subject(subject),
            "registry.versions.list" => self.list_versions(subject),
            "registry.versions.get" => self.version(subject, version),
            "registry.versions.text" => self.version_text(subject, version),
            "registry.register" => self.register(subject, &body(request)?),
            "registry.lookup" => self.lookup(subject, &body(request)?),
            "registry.config.get" => self.get_config(subject, request),
            "registry.config.put" => self.put_config(subject, &body(request)?),
            "registry.compatibility" => self.check(subject, version, &body(request)?),
            _ => Err(RegistryError::new(404, 404, "HTTP 404 Not Found")),
        }
    }

    fn is_authorised(&self, request: &Request) -> bool {
        let Some(expected) = &self.basic_auth else { return true };
        let expected = format!("Basic {}", BASE64.encode(expected));
        let given = request.headers.get(header::AUTHORIZATION);
        given.is_some_and(|given| given.as_bytes() == expected.as_bytes())
    }
}

fn body(request: &Request) -> Result<Value, RegistryError> {
    serde_json::from_slice(&request.body)
        .map_err(|_| RegistryError::new(400, 400, "Unable to process JSON"))
}

fn registry_response(status: u16, body: &Value) -> Response {
    Response::with_type(status, "application/vnd.schemaregistry.v1+json", body.to_string())
}
