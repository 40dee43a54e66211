//! Buckets: which exist.

use serde_json::{Value, json};

use crate::sim::{
    gcs::{Gcs, error::GcsError},
    message::{Request, Response},
};

impl Gcs {
    /// Every bucket exists unless the settings name those that do; one may be created.
    pub(crate) fn exists(&self, bucket: &str) -> bool {
        let declared = &self.settings.buckets;
        declared.is_empty()
            || declared.iter().any(|known| known == bucket)
            || self.created.contains(bucket)
    }

    pub(crate) fn insert_bucket(&mut self, request: &Request) -> Result<Response, GcsError> {
        let body: Value = serde_json::from_slice(&request.body)
            .map_err(|_| GcsError::new(400, "parseError", "Parse Error"))?;
        let name = body.get("name").and_then(Value::as_str).unwrap_or_default();
        check_name(name)?;
        let declared = self.settings.buckets.iter().any(|known| known == name);
        if declared || !self.created.insert(name.to_owned()) {
            let message = "Your previous request to create the named bucket succeeded and you already own it.";
            return Err(GcsError::new(409, "conflict", message));
        }
        Ok(response(name))
    }
}

/// Letters, digits, dashes, underscores and dots, 3 to 222 of them.
fn check_name(name: &str) -> Result<(), GcsError> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if (3..=222).contains(&name.len()) && name.chars().all(inner) {
        return Ok(());
    }
    Err(GcsError::invalid(format!("Invalid bucket name: '{name}'")))
}

/// A bucket's resource.
pub fn response(bucket: &str) -> Response {
    Response::json(
        200,
        &json!({
            "kind": "storage#bucket",
            "id": bucket,
            "name": bucket,
            "metageneration": "1",
            "etag": "CAE=",
            "location": "US",
            "locationType": "multi-region",
            "storageClass": "STANDARD",
            "selfLink": format!("https://www.googleapis.com/storage/v1/b/{bucket}"),
        }),
    )
}
