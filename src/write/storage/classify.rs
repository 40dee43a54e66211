//! What an answer, or the end of a connection, means for a request and for each of its rows.
//!
//! A request is appended as a whole or not at all: "if a request failed due to corrupted rows, no rows in the
//! batch will be appended"; an error in an answer "indicates rows were not accepted into the system"
//! (<https://github.com/googleapis/googleapis/blob/master/google/cloud/bigquery/storage/v1/storage.proto>).
//! So what is refused in an answer is certainly not stored; what a connection's end leaves without an answer may
//! be.

use bytes::Bytes;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::{
    cloud::bigquery::storage::v1::{
        AppendRowsResponse, StorageError, append_rows_response::Response,
        storage_error::StorageErrorCode,
    },
    rpc::Status,
};
use prost::Message as _;

use crate::{
    fault::{Certainty, Fault, FaultKind},
    gcp::classify::{TOKEN_REMEDY, contains_ignoring_case, told},
    rpc::{RpcError, RpcStatus},
    write::{RowFault, WriteOutcome},
};

const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const UNAUTHENTICATED: i32 = 16;

/// What a row's texts say: `(text, kind, class)`. The class is what users and metrics see; the text itself may
/// hold the row's value and is dropped. The first match wins.
const ROW_TEXTS: &[(&str, FaultKind, &str)] = &[
    // What was sent is not what the connection was told of, or the table has changed under it.
    ("not in the writer schema", FaultKind::SchemaMismatch, "the table has no such column"),
    ("is required", FaultKind::SchemaMismatch, "a REQUIRED column has no value"),
    ("missing required field", FaultKind::SchemaMismatch, "a REQUIRED column has no value"),
    (
        "outside the allowed bounds",
        FaultKind::PartitionOutOfRange,
        "the partition is outside the window of streaming",
    ),
];

/// What is told of a request that BigQuery does not take.
const UNREADABLE: &str =
    "BigQuery does not take the request; its words are left out, for they may quote a value";

/// What an answer says.
#[derive(Debug)]
pub struct Answered {
    /// What became of the request.
    pub outcome: WriteOutcome,
    /// The table has other columns than when the connection was opened.
    pub has_schema_news: bool,
}

/// What the answer to a request of `rows` rows says.
pub fn answered(answer: Bytes, rows: u32) -> Answered {
    match AppendRowsResponse::decode(answer) {
        Ok(answer) => Answered {
            has_schema_news: answer.updated_schema.is_some(),
            outcome: outcome(answer, rows),
        },
        Err(error) => {
            Answered { outcome: WriteOutcome::Unknown(unreadable(error)), has_schema_news: false }
        }
    }
}

fn outcome(answer: AppendRowsResponse, rows: u32) -> WriteOutcome {
    match answer.response {
        Some(Response::AppendResult(_)) => WriteOutcome::Acked,
        Some(Response::Error(_)) if !answer.row_errors.is_empty() => {
            let listed = answer.row_errors.iter().filter_map(|error| {
                let row = u32::try_from(error.index).ok().filter(|row| *row < rows)?;
                Some((row, error.message.as_str()))
            });
            partial(listed.collect(), rows)
        }
        Some(Response::Error(status)) => WriteOutcome::Refused(fault_of(&status)),
        None => WriteOutcome::Unknown(unsaid()),
    }
}

fn partial(mut listed: Vec<(u32, &str)>, rows: u32) -> WriteOutcome {
    listed.sort_unstable_by_key(|(row, _)| *row);
    listed.dedup_by_key(|(row, _)| *row);
    let unsent = (0..rows).filter(|row| listed.binary_search_by_key(row, |(row, _)| *row).is_err());
    WriteOutcome::Partial {
        unsent: unsent.collect(),
        rejected: listed.iter().map(|(row, text)| row_fault(*row, text)).collect(),
        is_doubtful: false,
    }
}

fn row_fault(row: u32, text: &str) -> RowFault {
    let known = ROW_TEXTS.iter().find(|(part, ..)| contains_ignoring_case(text, part));
    let (kind, message) = known
        .map_or((FaultKind::InvalidRow, "BigQuery does not take a value"), |(_, kind, class)| {
            (*kind, *class)
        });
    RowFault {
        row,
        fault: Fault::refused(kind, "FIELDS_ERROR", message),
        field: None,
        taken_for: None,
    }
}

/// The fault behind a status in an answer: nothing was stored.
fn fault_of(status: &Status) -> Fault {
    let detail = status.details.iter().find_map(|detail| StorageError::decode(&*detail.value).ok());
    let code = detail.map_or(StorageErrorCode::Unspecified, |detail| detail.code());
    let text = status.message.as_str();
    let kind = kind_of(status.code, code, text);
    let reason = match code {
        StorageErrorCode::Unspecified => format!("gRPC {}", status.code),
        known => known.as_str_name().to_owned(),
    };
    match kind {
        FaultKind::TableNotFound
        | FaultKind::SchemaMismatch
        | FaultKind::TooLarge
        | FaultKind::Throttled
        | FaultKind::QuotaExceeded
        | FaultKind::PermissionDenied
        | FaultKind::Unauthenticated => told(kind, reason, text),
        _ if contains_ignoring_case(text, "invalid proto schema") => told(kind, reason, text),
        // What BigQuery says of a request whose rows it cannot read may quote a value of one.
        FaultKind::Transient => {
            Fault::refused(kind, reason, "the stream does not take the request now")
        }
        _ => Fault::refused(kind, reason, UNREADABLE),
    }
}

fn kind_of(code: i32, detail: StorageErrorCode, text: &str) -> FaultKind {
    let says = |part: &str| contains_ignoring_case(text, part);
    match (code, detail) {
        (_, StorageErrorCode::TableNotFound | StorageErrorCode::StreamNotFound)
        | (NOT_FOUND, _) => FaultKind::TableNotFound,
        (_, StorageErrorCode::SchemaMismatchExtraFields) => FaultKind::SchemaMismatch,
        // The stream, and not the rows.
        (
            _,
            StorageErrorCode::StreamFinalized
            | StorageErrorCode::StreamAlreadyCommitted
            | StorageErrorCode::InvalidStreamState
            | StorageErrorCode::InvalidStreamType,
        ) => FaultKind::Transient,
        (INVALID_ARGUMENT, _) if says("request too large") || says("messagesize is too large") => {
            FaultKind::TooLarge
        }
        // The table's columns are others than those that the rows were encoded for.
        (INVALID_ARGUMENT, _)
            if says("mismatched with bigquery field")
                || says("missing from the writer schema")
                || says("schema mismatch") =>
        {
            FaultKind::SchemaMismatch
        }
        (INVALID_ARGUMENT, _) => FaultKind::InvalidRequest,
        (PERMISSION_DENIED, _) => FaultKind::PermissionDenied,
        (RESOURCE_EXHAUSTED, _) if says("quota") => FaultKind::QuotaExceeded,
        (RESOURCE_EXHAUSTED, _) => FaultKind::Throttled,
        (UNAUTHENTICATED, _) => FaultKind::Unauthenticated,
        _ => FaultKind::Transient,
    }
}

/// What the end of a connection means for the request that waited longest: a refusal of the service is an
/// answer to it.
pub fn ended(error: RpcError) -> WriteOutcome {
    let fault = fault_of_end(error);
    match fault.certainty {
        Certainty::Refused => WriteOutcome::Refused(fault),
        Certainty::Unknown => WriteOutcome::Unknown(fault),
    }
}

/// The fault behind the end of a call.
pub fn fault_of_end(error: RpcError) -> Fault {
    match &error {
        RpcError::Ended(status) if is_refusal(status.code) => fault_of(&decoded(status)),
        RpcError::NotSent { .. } => not_sent(error),
        RpcError::NoToken(_) => no_token(error),
        RpcError::Ended(_) | RpcError::Broken { .. } => lost(Some(error)),
    }
}

/// What the end of a connection means for a request that waited behind another, or without any word.
pub fn lost(error: Option<RpcError>) -> Fault {
    let message = match &error {
        Some(error) => format!("the connection ended before the answer: {error}"),
        None => "the connection ended before the answer".to_owned(),
    };
    let fault = Fault::unknown(FaultKind::Transient, "noAnswer", message);
    error.into_iter().fold(fault, Fault::with_source)
}

fn is_refusal(code: i32) -> bool {
    matches!(
        code,
        INVALID_ARGUMENT
            | NOT_FOUND
            | PERMISSION_DENIED
            | RESOURCE_EXHAUSTED
            | FAILED_PRECONDITION
            | UNAUTHENTICATED
    )
}

fn decoded(status: &RpcStatus) -> Status {
    let details = Status::decode(status.details.clone()).map(|status| status.details);
    Status {
        code: status.code,
        message: status.message.clone(),
        details: details.unwrap_or_default(),
    }
}

fn not_sent(error: RpcError) -> Fault {
    Fault::refused(FaultKind::Transient, "notSent", error.to_string()).with_source(error)
}

fn no_token(error: RpcError) -> Fault {
    Fault::refused(FaultKind::Unauthenticated, "noToken", error.to_string())
        .with_remedy(TOKEN_REMEDY)
        .with_source(error)
}

/// A request that met a connection in the moment of its end: it was not sent.
pub fn closed() -> Fault {
    Fault::refused(FaultKind::Transient, "closed", "the connection was closed for want of use")
}

/// A request that waited behind another for a connection that could not be made.
pub fn unreached() -> Fault {
    Fault::refused(FaultKind::Transient, "notSent", "the connection could not be made")
}

/// A request that is not sent, because it would be refused.
pub fn too_large() -> Fault {
    let message = "the request is larger than the 10 MB that BigQuery takes";
    Fault::refused(FaultKind::TooLarge, "requestTooLarge", message)
}

/// An answer that is not a message of its type: what was asked for may have happened.
pub fn unreadable(error: prost::DecodeError) -> Fault {
    let fault = Fault::unknown(FaultKind::Transient, "badAnswer", "the answer is not one");
    fault.with_source(error)
}

/// An answer to a commit that names neither a time nor an error.
pub fn unsaid() -> Fault {
    let message = "the answer says neither success nor failure";
    Fault::unknown(FaultKind::Transient, "badAnswer", message)
}

/// Why streams are not committed: none of them is.
pub fn uncommitted(error: &StorageError) -> Fault {
    let message = "the streams cannot be committed; their rows are appended again";
    Fault::refused(FaultKind::Transient, error.code().as_str_name(), message)
}

/// Whether the connection's access token is why it ended.
pub fn is_token_refused(outcome: &WriteOutcome) -> bool {
    matches!(outcome, WriteOutcome::Refused(fault) if fault.kind == FaultKind::Unauthenticated)
}

#[cfg(test)]
mod tests {
    use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::RowError;

    use super::*;

    fn shown(answer: AppendRowsResponse) -> String {
        format!("{:?}", outcome(answer, 3))
    }

    #[test]
    fn no_value_of_a_row_gets_into_a_message() {
        let texts = [
            "Errors found while processing rows: Field n: cannot convert 'canary' to INT64",
            "Invalid value canary",
            "something new about canary",
        ];
        for text in texts {
            for code in [INVALID_ARGUMENT, FAILED_PRECONDITION, 2, 13] {
                let status = Status { code, message: text.to_owned(), details: Vec::new() };
                let response = Some(Response::Error(status.clone()));
                let whole = AppendRowsResponse { response, ..AppendRowsResponse::default() };
                let ended = RpcStatus {
                    code,
                    message: text.to_owned(),
                    details: status.encode_to_vec().into(),
                };
                let row = RowError { index: 1, message: text.to_owned(), ..RowError::default() };
                let rows = AppendRowsResponse { row_errors: vec![row], ..whole.clone() };
                let fault = fault_of_end(RpcError::Ended(ended));
                for shown in [shown(whole), shown(rows), fault.to_string()] {
                    assert!(!shown.contains("canary"), "{code}: {shown}");
                }
            }
        }
    }

    #[test]
    fn what_speaks_of_the_table_is_told_as_it_is() {
        let text = "Permission 'TABLES_UPDATE_DATA' denied on resource 't' (or it may not exist).";
        let status =
            Status { code: PERMISSION_DENIED, message: text.to_owned(), details: Vec::new() };
        assert!(fault_of(&status).message.starts_with(text));
    }
}
