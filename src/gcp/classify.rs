//! What BigQuery's REST answers mean: the one place that reads its error envelope.
//!
//! `{"error":{"code":404,"message":"…","errors":[{"reason":"notFound","message":"…"}]}}`: the
//! reason decides, then the HTTP status, then the message. Reasons and statuses:
//! <https://docs.cloud.google.com/bigquery/docs/error-messages>. Answers to `tabledata.insertAll` with status 200
//! are read by `write::insert_all::classify`, which uses this module for everything else.

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, header::RETRY_AFTER};
use serde::Deserialize;

use crate::{
    fault::{Certainty, Fault, FaultKind},
    printable,
    rest::{Rest, RestError, RestRequest, RestResponse},
};

/// What this identity needs in the project to make a job, also for a statement.
pub const JOB_ROLE: &str = "grant roles/bigquery.jobUser on the project";
/// What it needs to read, make, change and fill tables.
const DATA_ROLE: &str =
    "grant roles/bigquery.dataEditor on the dataset, and check the project's billing";
/// A longer `Retry-After` is taken for this one.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(default)]
    error: Envelope,
}

#[derive(Debug, Default, Deserialize)]
struct Envelope {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<Item>,
    #[serde(default)]
    status: String,
}

/// One error of BigQuery: an entry of `errors[]` in an envelope, a row or a job.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Item {
    /// The code, such as `notFound`.
    #[serde(default)]
    pub reason: String,
    /// What it concerns: a column's path for a row.
    #[serde(default)]
    pub location: String,
    /// Text for people. May echo a row's value: never hand it on unread.
    #[serde(default)]
    pub message: String,
}

/// The fault behind an answer that is not a success.
///
/// The message is the remote's own: only for calls whose errors cannot hold a row's value.
pub fn answer_fault(answer: &RestResponse) -> Fault {
    advised(plain_fault(answer), DATA_ROLE)
}

/// The same of a call that makes a job.
pub fn job_call_fault(answer: &RestResponse) -> Fault {
    advised(plain_fault(answer), JOB_ROLE)
}

/// The fault with what to do; `role` is what a refusal asks for that does not say what is missing.
fn advised(fault: Fault, role: &'static str) -> Fault {
    Fault { remedy: remedy(fault.kind, &fault.message, role), ..fault }
}

/// The same without a word on what to do: for services that share BigQuery's envelope and not its roles.
pub fn plain_fault(answer: &RestResponse) -> Fault {
    let envelope = serde_json::from_slice::<Answer>(&answer.body).unwrap_or_default().error;
    let item = envelope.errors.into_iter().next().unwrap_or_default();
    let message = if item.message.is_empty() { envelope.message } else { item.message };
    // Proxies in front of BigQuery answer without `errors[]`, but with a gRPC-like status.
    let reason = if item.reason.is_empty() { envelope.status } else { item.reason };
    let (kind, certainty) = kind_of(&reason, answer.status, &message);
    let reason = match reason.is_empty() {
        true => format!("http {}", answer.status),
        false => printable::name(&reason).into_owned(),
    };
    Fault {
        kind,
        certainty,
        reason,
        message: printable::text(&message).into_owned(),
        remedy: None,
        retry_after: retry_after(&answer.headers),
        source: None,
    }
}

/// Makes a call of which any answer but a success is a fault.
///
/// # Errors
/// As [`call_fault`] and [`answer_fault`] say.
pub async fn succeed(rest: &dyn Rest, request: RestRequest) -> Result<RestResponse, Fault> {
    succeed_or(rest, request, answer_fault).await
}

/// The same, where `fault` reads what is no success.
///
/// # Errors
/// As [`call_fault`] and `fault` say.
pub async fn succeed_or(
    rest: &dyn Rest,
    request: RestRequest,
    fault: fn(&RestResponse) -> Fault,
) -> Result<RestResponse, Fault> {
    let answer = rest.call(request).await.map_err(call_fault)?;
    if (200..300).contains(&answer.status) { Ok(answer) } else { Err(fault(&answer)) }
}

/// The fault behind a call without an answer.
pub fn call_fault(error: RestError) -> Fault {
    let message = error.to_string();
    let fault = match &error {
        RestError::NotSent { .. } => Fault::refused(FaultKind::Transient, "notSent", message),
        RestError::NoToken(_) => {
            let fault = Fault::refused(FaultKind::Unauthenticated, "noToken", message);
            fault.with_remedy(TOKEN_REMEDY)
        }
        RestError::NoAnswer { .. } => Fault::unknown(FaultKind::Transient, "noAnswer", message),
    };
    fault.with_source(error)
}

/// The fault behind one error of a statement, which comes with status 200. The message is BigQuery's own: only
/// for statements that hold and read no row's value.
pub fn statement_fault(item: &Item) -> Fault {
    let (kind, certainty) = kind_of(&item.reason, 400, &item.message);
    let reason = printable::name(&item.reason).into_owned();
    Fault { certainty, ..told(kind, reason, &item.message) }
}

/// Reason first, HTTP status second; the message only where both are ambiguous.
pub fn kind_of(reason: &str, status: u16, message: &str) -> (FaultKind, Certainty) {
    use Certainty::{Refused, Unknown};
    match reason {
        // Passing faults inside BigQuery. The request may have been carried out before them.
        "backendError" | "internalError" | "timeout" | "INTERNAL" | "UNAVAILABLE"
        | "DEADLINE_EXCEEDED" => (FaultKind::Transient, Unknown),
        // A job that failed for its surroundings' sake: it did nothing, another job id may succeed.
        "jobBackendError" | "jobInternalError" | "tableUnavailable" | "stopped" => {
            (FaultKind::Transient, Refused)
        }
        // Short throttling, among them "too many table update operations for this table".
        "rateLimitExceeded"
        | "jobRateLimitExceeded"
        | "userRateLimitExceeded"
        | "RESOURCE_EXHAUSTED" => (FaultKind::Throttled, Refused),
        // Long throttling: a quota per minute, hour or day is used up.
        "quotaExceeded" | "dailyLimitExceeded" => (FaultKind::QuotaExceeded, Refused),
        // Missing, deleted, or not visible yet: the caller knows which is plausible.
        "notFound" | "NOT_FOUND" => (FaultKind::TableNotFound, Refused),
        "duplicate" | "ALREADY_EXISTS" => (FaultKind::AlreadyExists, Refused),
        // A lost race for an ETag.
        "conditionNotMet" | "preconditionFailed" => (FaultKind::Conflict, Refused),
        // The identity, its permissions, the project's billing or an organisation's policy.
        "accessDenied"
        | "forbidden"
        | "insufficientPermissions"
        | "PERMISSION_DENIED"
        | "billingNotEnabled"
        | "billingTierLimitExceeded"
        | "blocked" => (FaultKind::PermissionDenied, Refused),
        "authError" | "required" | "UNAUTHENTICATED" | "invalid_grant" if status == 401 => {
            (FaultKind::Unauthenticated, Refused)
        }
        "invalid_grant" | "UNAUTHENTICATED" | "authError" => (FaultKind::Unauthenticated, Refused),
        // Too large for one request, one job or one answer.
        "requestTooLarge" | "uploadTooLarge" | "resourcesExceeded" => {
            (FaultKind::TooLarge, Refused)
        }
        // DML or DDL that met another statement on the same table may be tried again. No ETag is
        // involved, so it is no conflict in the sense of a compare-and-swap.
        "invalidQuery" if message.contains("Could not serialize access") => {
            (FaultKind::Transient, Refused)
        }
        // A defect or a missing feature: the same request will never succeed.
        "invalidQuery" | "responseTooLarge" | "notImplemented" => {
            (FaultKind::InvalidRequest, Refused)
        }
        // Everything else a caller can get wrong is called `invalid`.
        "invalid" | "badRequest" | "invalidParameter" | "parseError" | "INVALID_ARGUMENT"
            if status == 400 || status == 413 =>
        {
            (invalid_kind(message), Refused)
        }
        _ => status_kind(status, message),
    }
}

/// The meaning of a status when the reason is missing or unheard of.
fn status_kind(status: u16, message: &str) -> (FaultKind, Certainty) {
    match status {
        400 => (invalid_kind(message), Certainty::Refused),
        401 => (FaultKind::Unauthenticated, Certainty::Refused),
        403 => (FaultKind::PermissionDenied, Certainty::Refused),
        404 => (FaultKind::TableNotFound, Certainty::Refused),
        409 => (FaultKind::AlreadyExists, Certainty::Refused),
        412 => (FaultKind::Conflict, Certainty::Refused),
        413 => (FaultKind::TooLarge, Certainty::Refused),
        429 => (FaultKind::Throttled, Certainty::Refused),
        501 => (FaultKind::InvalidRequest, Certainty::Refused),
        // A redirect is never followed: something else than BigQuery answers here.
        status if (300..500).contains(&status) => (FaultKind::InvalidRequest, Certainty::Refused),
        // 5xx, and a 2xx whose body is no answer: it may have been carried out.
        _ => (FaultKind::Transient, Certainty::Unknown),
    }
}

/// `invalid` covers sizes, schemas and everything else; only the text tells.
fn invalid_kind(message: &str) -> FaultKind {
    const SIZE: [&str; 3] = ["payload size exceeds", "too many rows present", "request too large"];
    const SCHEMA: [&str; 4] =
        ["no such field", "Missing required field", "has no schema", "is not a record"];
    let has = |texts: &[&str]| texts.iter().any(|text| contains_ignoring_case(message, text));
    if has(&SIZE) {
        FaultKind::TooLarge
    } else if has(&["is outside the allowed bounds. You can only stream"]) {
        FaultKind::PartitionOutOfRange
    } else if has(&SCHEMA) {
        FaultKind::SchemaMismatch
    } else if has(&["Precondition", "Etag"]) {
        FaultKind::Conflict
    } else {
        FaultKind::InvalidRequest
    }
}

/// Whether `text` contains `part`, ignoring the case of ASCII letters.
pub fn contains_ignoring_case(text: &str, part: &str) -> bool {
    text.as_bytes().windows(part.len().max(1)).any(|w| w.eq_ignore_ascii_case(part.as_bytes()))
}

/// `Retry-After` in seconds; BigQuery does not send dates.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// A refusal in the remote's own words, cut, with what to do. Only of what cannot hold a row's value.
pub fn told(kind: FaultKind, reason: String, message: &str) -> Fault {
    advised(Fault::refused(kind, reason, printable::text(message)), DATA_ROLE)
}

/// What to do where there is no access token.
pub const TOKEN_REMEDY: &str = "set `bigquery.credentials.file` or GOOGLE_APPLICATION_CREDENTIALS, run \
                                `gcloud auth application-default login`, or run where Google's metadata \
                                server answers";

/// What a refusal names, and who grants it. Permissions and roles:
/// <https://docs.cloud.google.com/bigquery/docs/access-control>.
const GRANTS: [(&str, &str); 6] = [
    ("bigquery.jobs.", JOB_ROLE),
    (
        "serviceusage.services.use",
        "grant roles/serviceusage.serviceUsageConsumer on the quota project",
    ),
    ("bigquery.datasets.create", "grant roles/bigquery.user on the project, or create the dataset"),
    (
        "bigquerystorage.googleapis.com",
        "enable it: `gcloud services enable bigquerystorage.googleapis.com`",
    ),
    ("bigquery.googleapis.com", "enable it: `gcloud services enable bigquery.googleapis.com`"),
    ("bigquery.", DATA_ROLE),
];

/// What a person can do about a refusal of BigQuery; `role` is what it asks for that does not say what is missing.
fn remedy(kind: FaultKind, message: &str, role: &'static str) -> Option<Cow<'static, str>> {
    Some(Cow::Borrowed(match kind {
        FaultKind::PermissionDenied => {
            let named = GRANTS.iter().find(|(named, _)| contains_ignoring_case(message, named));
            named.map_or(role, |(_, remedy)| *remedy)
        }
        FaultKind::Unauthenticated => "check the service's Google credentials",
        FaultKind::QuotaExceeded => "raise the quota or lower this service's share of it",
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn answer(status: u16, body: &str) -> RestResponse {
        let body = Bytes::copy_from_slice(body.as_bytes());
        RestResponse { status, headers: HeaderMap::new(), body }
    }

    #[test]
    fn every_reason_has_its_meaning() {
        let table = [
            ("backendError", 503, "", FaultKind::Transient),
            ("internalError", 500, "", FaultKind::Transient),
            ("rateLimitExceeded", 403, "", FaultKind::Throttled),
            ("quotaExceeded", 403, "", FaultKind::QuotaExceeded),
            ("jobRateLimitExceeded", 400, "", FaultKind::Throttled),
            ("jobBackendError", 400, "", FaultKind::Transient),
            ("tableUnavailable", 400, "", FaultKind::Transient),
            ("notFound", 404, "Table is deleted: 1:d.t", FaultKind::TableNotFound),
            ("duplicate", 409, "", FaultKind::AlreadyExists),
            ("conditionNotMet", 412, "", FaultKind::Conflict),
            ("", 412, "", FaultKind::Conflict),
            ("invalid", 400, "no such field: x.", FaultKind::SchemaMismatch),
            ("invalid", 400, "Provided Schema does not match", FaultKind::InvalidRequest),
            (
                "badRequest",
                400,
                "Request payload size exceeds the limit: 10485760 bytes.",
                FaultKind::TooLarge,
            ),
            (
                "invalid",
                413,
                "too many rows present in the request, limit: 50000",
                FaultKind::TooLarge,
            ),
            ("", 413, "", FaultKind::TooLarge),
            ("invalidQuery", 400, "Syntax error", FaultKind::InvalidRequest),
            (
                "invalidQuery",
                400,
                "Could not serialize access to table t due to concurrent update",
                FaultKind::Transient,
            ),
            ("resourcesExceeded", 400, "", FaultKind::TooLarge),
            ("stopped", 200, "", FaultKind::Transient),
            ("timeout", 400, "", FaultKind::Transient),
            ("responseTooLarge", 403, "", FaultKind::InvalidRequest),
            ("accessDenied", 403, "", FaultKind::PermissionDenied),
            ("billingNotEnabled", 403, "", FaultKind::PermissionDenied),
            ("blocked", 403, "", FaultKind::PermissionDenied),
            ("notImplemented", 501, "", FaultKind::InvalidRequest),
            ("invalid_grant", 400, "", FaultKind::Unauthenticated),
            ("authError", 401, "", FaultKind::Unauthenticated),
            ("", 429, "", FaultKind::Throttled),
            ("somethingNew", 502, "", FaultKind::Transient),
            ("somethingNew", 403, "", FaultKind::PermissionDenied),
        ];
        for (reason, status, message, kind) in table {
            assert_eq!(kind_of(reason, status, message).0, kind, "{reason} {status} {message}");
        }
    }

    #[test]
    fn the_envelope_is_read_and_a_server_fault_may_have_happened() {
        let body = r#"{"error":{"code":503,"message":"m","errors":[{"reason":"backendError","message":"Backend Error"}]}}"#;
        let fault = answer_fault(&answer(503, body));
        assert_eq!((fault.kind, fault.certainty), (FaultKind::Transient, Certainty::Unknown));
        assert_eq!(
            (fault.reason.as_str(), fault.message.as_str()),
            ("backendError", "Backend Error")
        );
    }

    #[test]
    fn an_answer_that_is_no_envelope_is_judged_by_its_status() {
        let fault = answer_fault(&answer(502, "<html>Bad gateway</html>"));
        assert_eq!((fault.kind, fault.reason.as_str()), (FaultKind::Transient, "http 502"));
    }

    #[test]
    fn a_refusal_names_the_role_that_is_missing() {
        let message = |text: &str| {
            let error =
                serde_json::json!({"errors": [{"reason": "accessDenied", "message": text}]});
            answer(403, &serde_json::json!({ "error": error }).to_string())
        };
        let jobs = "Access Denied: Project p: User does not have bigquery.jobs.create permission in project p.";
        let table = "Access Denied: Table p:d.t: Permission bigquery.tables.updateData denied on table p:d.t";
        for (read, text, role) in [
            (
                answer_fault as fn(&RestResponse) -> Fault,
                jobs,
                "roles/bigquery.jobUser on the project",
            ),
            (job_call_fault, jobs, "roles/bigquery.jobUser on the project"),
            (job_call_fault, "", "roles/bigquery.jobUser on the project"),
            (job_call_fault, table, "roles/bigquery.dataEditor on the dataset"),
            (answer_fault, "", "roles/bigquery.dataEditor on the dataset"),
            (
                answer_fault,
                "BigQuery API has not been used in project 1 before or it is disabled. Enable it by visiting \
                 https://console.developers.google.com/apis/api/bigquery.googleapis.com/overview",
                "`gcloud services enable bigquery.googleapis.com`",
            ),
        ] {
            let told = read(&message(text)).to_string();
            assert!(told.contains(role), "{told}");
        }
        let none = call_fault(RestError::NoToken("none".into())).to_string();
        assert!(none.contains("`gcloud auth application-default login`"), "{none}");
    }

    #[test]
    fn retry_after_is_read_and_bounded() {
        let mut answer = answer(429, "");
        answer.headers.insert(RETRY_AFTER, http::HeaderValue::from_static("999999"));
        assert_eq!(answer_fault(&answer).retry_after, Some(RETRY_AFTER_MAX));
    }
}
