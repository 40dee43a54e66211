//! REST requests and answers as lines of the record.

use std::{sync::Arc, time::Instant};

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::{
    app::{check::probes::chain, probe::transcript::Log},
    gcp::classify::plain_fault,
    rest::{Rest, RestError, RestRequest, RestResponse},
};

/// A REST port that notes what passes. Credentials are added behind it and never come by.
pub(super) struct Noted {
    pub(super) rest: Arc<dyn Rest>,
    pub(super) log: Log,
}

impl Rest for Noted {
    fn call(&self, request: RestRequest) -> BoxFuture<'_, Result<RestResponse, RestError>> {
        let line = request_line(&request);
        Box::pin(async move {
            let asked = Instant::now();
            let answer = self.rest.call(request).await;
            let told = match &answer {
                Ok(answer) => answer_line(answer),
                Err(error) => chain(error),
            };
            self.log.note(&line, &told, asked.elapsed());
            answer
        })
    }
}

/// Method, path and what matters of the body. What is behind `?` may hold the secret of an upload; of it only the
/// location is told.
fn request_line(request: &RestRequest) -> String {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let location = query.split('&').find(|parameter| parameter.starts_with("location="));
    let body = request.body.clone().into_bytes();
    let document: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
    let about = [text("/tableReference/tableId"), text("/query"), text("/jobReference/jobId")];
    let mut line = format!("{} {path}", request.method);
    for part in about.into_iter().flatten().chain(location) {
        line.push(' ');
        line.push_str(part);
    }
    if text("/jobReference/jobId").is_some() {
        let location = text("/jobReference/location").unwrap_or("no location");
        line.push_str(&format!(" in {location}"));
    }
    line
}

/// Status and reason of a refusal; what matters of a success.
fn answer_line(answer: &RestResponse) -> String {
    let status = answer.status;
    if status >= 400 {
        let fault = plain_fault(answer);
        return format!("{status} {}: {}", fault.reason, fault.message);
    }
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let members = [
        ("location", "/location"),
        ("location", "/jobReference/location"),
        ("state", "/status/state"),
        ("error", "/status/errorResult/reason"),
        ("message", "/status/errorResult/message"),
        ("outputRows", "/statistics/load/outputRows"),
        ("rows", "/rows/0/f/0/v"),
    ];
    let mut line = status.to_string();
    for (name, pointer) in members {
        if let Some(value) = document.pointer(pointer).and_then(Value::as_str) {
            line.push_str(&format!(", {name} {value}"));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method};

    use super::*;

    #[test]
    fn the_address_of_an_upload_is_no_ones_business() {
        let request = RestRequest {
            method: Method::PUT,
            path: "/upload/bigquery/v2/projects/p/jobs?uploadType=resumable&upload_id=canary"
                .into(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"{\"n\": 1}").into(),
        };
        assert_eq!(request_line(&request), "PUT /upload/bigquery/v2/projects/p/jobs");
        let request = RestRequest {
            method: Method::GET,
            path: "/bigquery/v2/projects/p/jobs/j?location=EU".into(),
            headers: HeaderMap::new(),
            body: Bytes::new().into(),
        };
        assert_eq!(request_line(&request), "GET /bigquery/v2/projects/p/jobs/j location=EU");
    }
}
