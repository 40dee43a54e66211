//! Cloud Storage's errors, in the envelope of its JSON API.

use serde_json::{Value, json};

use crate::sim::message::Response;

/// One refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcsError {
    /// The HTTP status.
    pub status: u16,
    /// The reason, as in <https://docs.cloud.google.com/storage/docs/json_api/v1/status-codes>.
    pub reason: String,
    /// The message.
    pub message: String,
}

impl GcsError {
    /// An error with these parts.
    pub fn new(status: u16, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), message: message.into() }
    }

    /// 400 with reason `invalid`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid", message)
    }

    /// 404 for a bucket.
    pub fn no_bucket() -> Self {
        Self::new(404, "notFound", "The specified bucket does not exist.")
    }

    /// 404 for an object.
    pub fn no_object(bucket: &str, object: &str) -> Self {
        Self::new(404, "notFound", format!("No such object: {bucket}/{object}"))
    }

    /// 412: a precondition of the query does not hold.
    pub fn condition_not_met() -> Self {
        let message = "At least one of the pre-conditions you specified did not hold.";
        Self::new(412, "conditionNotMet", message)
    }

    /// 304: a reader has what it asks for already.
    pub fn not_modified() -> Self {
        Self::new(304, "notModified", "Not Modified")
    }

    /// The envelope.
    pub fn to_json(&self) -> Value {
        let mut detail = json!({
            "message": self.message,
            "domain": "global",
            "reason": self.reason,
        });
        if let (412, Some(detail)) = (self.status, detail.as_object_mut()) {
            detail.insert("locationType".into(), json!("header"));
            detail.insert("location".into(), json!("If-Match"));
        }
        json!({"error": {"code": self.status, "message": self.message, "errors": [detail]}})
    }

    /// The answer to a request for media: its errors are plain text.
    pub fn as_text(&self) -> Response {
        match self.status {
            304 => Response::empty(304),
            status => Response::with_type(status, "text/html; charset=UTF-8", self.message.clone()),
        }
    }
}

impl From<GcsError> for Response {
    fn from(error: GcsError) -> Self {
        match error.status {
            304 => Self::empty(304),
            status => Self::json(status, &error.to_json()),
        }
    }
}
