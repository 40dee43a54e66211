//! BigQuery's REST errors, in its envelope.

use serde_json::{Value, json};

use crate::sim::message::Response;

/// One refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The reason, as in <https://docs.cloud.google.com/bigquery/docs/error-messages>.
    pub reason: String,
    /// The message.
    pub message: String,
}

impl ApiError {
    /// An error with these parts.
    pub fn new(status: u16, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), message: message.into() }
    }

    /// 404: `what` is the kind and the name, such as `Table p:d.t`.
    pub fn not_found(what: &str) -> Self {
        Self::new(404, "notFound", format!("Not found: {what}"))
    }

    /// 409: `what` is the kind and the name.
    pub fn duplicate(what: &str) -> Self {
        Self::new(409, "duplicate", format!("Already Exists: {what}"))
    }

    /// 400 with reason `invalid`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid", message)
    }

    /// 412: the entity tag of `If-Match` is not the current one.
    pub fn condition_not_met() -> Self {
        Self::new(412, "conditionNotMet", "Precondition check failed.")
    }

    /// 413: the body is larger than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request payload size exceeds the limit: {limit} bytes.");
        Self::new(413, "requestTooLarge", message)
    }

    /// The envelope.
    pub fn to_json(&self) -> Value {
        json!({"error": {
            "code": self.status,
            "message": self.message,
            "errors": [{
                "message": self.message,
                "domain": "global",
                "reason": self.reason,
            }],
            "status": status_name(self.status),
        }})
    }
}

impl From<ApiError> for Response {
    fn from(error: ApiError) -> Self {
        Self::json(error.status, &error.to_json())
    }
}

fn status_name(status: u16) -> &'static str {
    match status {
        400 | 413 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ALREADY_EXISTS",
        412 => "FAILED_PRECONDITION",
        429 => "RESOURCE_EXHAUSTED",
        501 => "UNIMPLEMENTED",
        503 => "UNAVAILABLE",
        _ => "INTERNAL",
    }
}
