//! What an answer to insertAll means for the request and for each of its rows.
//!
//! Requests are sent with `skipInvalidRows=false`: if any row is refused, none is stored. BigQuery
//! then lists the rows at fault and, mostly, marks their neighbours `stopped`; a row that it does not
//! list at all is not stored either. Texts: `bigquery.md` of the design, from
//! <https://docs.cloud.google.com/bigquery/docs/error-messages> and the issue trackers of other sinks.

use serde::Deserialize;

use crate::{
    fault::{Certainty, Fault, FaultKind},
    gcp::classify::{Item, answer_fault, call_fault, contains_ignoring_case, kind_of},
    printable,
    rest::{RestError, RestResponse},
    table::ColumnKind,
    write::{RowFault, WriteOutcome},
};

/// A column's path is cut to this many characters.
const FIELD_CHARS_MAX: usize = 300;

#[derive(Debug, Deserialize)]
struct Answer {
    /// `bigquery#tableDataInsertAllResponse`: tells an answer of BigQuery from any other 200.
    #[serde(default)]
    kind: String,
    #[serde(default, rename = "insertErrors")]
    insert_errors: Vec<RowErrors>,
}

#[derive(Debug, Deserialize)]
struct RowErrors {
    #[serde(default)]
    index: u32,
    #[serde(default)]
    errors: Vec<Item>,
}

/// What a row's texts say, most telling part first: `(text, kind, class)`. The class is what users and
/// metrics see; the text itself may hold the row's value and is dropped.
///
/// Order matters: the first match wins, so schema before data.
const ROW_TEXTS: &[(&str, FaultKind, &str)] = &[
    // The row has a column that the table has not, or not yet for the streaming backend, which learns
    // of a change minutes later.
    ("no such field", FaultKind::SchemaMismatch, "the table has no such column"),
    // The table requires a column that the row has not: relaxing it helps.
    ("missing required field", FaultKind::SchemaMismatch, "a REQUIRED column has no value"),
    (
        "only optional fields can be set to null",
        FaultKind::SchemaMismatch,
        "a REQUIRED column is null",
    ),
    // The shapes differ: plan and table disagree.
    ("is not a record", FaultKind::SchemaMismatch, "a record for a column that is none"),
    ("is not a repeated", FaultKind::SchemaMismatch, "an array for a column that is not repeated"),
    (
        "array specified for non-repeated field",
        FaultKind::SchemaMismatch,
        "an array for a column that is not repeated",
    ),
    (
        "repeated field must be imported as a json array",
        FaultKind::SchemaMismatch,
        "a single value for a repeated column",
    ),
    (
        "repeated record must be imported as a json array",
        FaultKind::SchemaMismatch,
        "a single value for a repeated column",
    ),
    ("destination table has no schema", FaultKind::SchemaMismatch, "the table has no columns"),
    // A row for a partition that streaming does not reach.
    (
        "outside the allowed bounds. you can only stream",
        FaultKind::PartitionOutOfRange,
        "the partition is outside the window of streaming inserts",
    ),
    (
        "you can only stream to",
        FaultKind::PartitionOutOfRange,
        "the partition is outside the window of streaming inserts",
    ),
    (
        "allowed bounds. the range",
        FaultKind::PartitionOutOfRange,
        "the partition is outside the window of streaming inserts",
    ),
    // The row by itself is too large: BigQuery takes 10 MB.
    ("maximum allowed row size", FaultKind::TooLarge, "the row is larger than 10 MB"),
    ("row payload", FaultKind::TooLarge, "the row is larger than 10 MB"),
    ("row size is larger", FaultKind::TooLarge, "the row is larger than 10 MB"),
    ("row is too large", FaultKind::TooLarge, "the row is larger than 10 MB"),
    // Values that the column's type cannot hold.
    (
        "could not convert",
        FaultKind::InvalidRow,
        "the value cannot be converted to the column's type",
    ),
    ("cannot convert", FaultKind::InvalidRow, "the value cannot be converted to the column's type"),
    ("invalid date", FaultKind::InvalidRow, "the value is no date"),
    ("invalid timestamp", FaultKind::InvalidRow, "the value is no timestamp"),
    ("invalid time", FaultKind::InvalidRow, "the value is no time"),
    ("could not parse", FaultKind::InvalidRow, "the value cannot be read as the column's type"),
    ("out of range", FaultKind::InvalidRow, "the value is out of the column's range"),
    ("outside the allowed bounds", FaultKind::InvalidRow, "the value is out of the column's range"),
    ("invalid numeric", FaultKind::InvalidRow, "the value is no number of the column's precision"),
    ("base64", FaultKind::InvalidRow, "the value is not base64"),
];

/// What became of a request of `rows` rows.
pub fn outcome(answer: Result<RestResponse, RestError>, rows: u32) -> WriteOutcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return settled(call_fault(error)),
    };
    if answer.status != 200 {
        return settled(redacted(answer_fault(&answer)));
    }
    match serde_json::from_slice::<Answer>(&answer.body) {
        Ok(answer) if answer.insert_errors.is_empty() && answer.kind.contains("InsertAll") => {
            WriteOutcome::Acked
        }
        Ok(answer) if !answer.insert_errors.is_empty() => partial(&answer.insert_errors, rows),
        // Success without an answer that says so: a proxy's page, or a body cut short.
        Ok(_) | Err(_) => WriteOutcome::Unknown(Fault::unknown(
            FaultKind::Transient,
            "unreadableAnswer",
            "the answer is not one of BigQuery; is there a proxy in between?",
        )),
    }
}

fn settled(fault: Fault) -> WriteOutcome {
    match fault.certainty {
        Certainty::Refused => WriteOutcome::Refused(fault),
        Certainty::Unknown => WriteOutcome::Unknown(fault),
    }
}

/// Sorts the rows: refused for their own sake, or innocent and to be sent again.
fn partial(errors: &[RowErrors], rows: u32) -> WriteOutcome {
    let mut rejected: Vec<RowFault> = errors
        .iter()
        .filter(|errors| errors.index < rows)
        .filter_map(|errors| row_fault(errors.index, &errors.errors))
        .collect();
    rejected.sort_by_key(|row| row.row);
    rejected.dedup_by_key(|row| row.row);
    // Nothing was stored: everyone else is to be sent again, listed as `stopped` or not.
    let mut refused = rejected.iter().map(|row| row.row).peekable();
    let unsent = (0..rows).filter(|row| refused.next_if_eq(row).is_none()).collect();
    WriteOutcome::Partial { rejected, unsent, is_doubtful: false }
}

/// The fault of one row; `None` for an innocent one.
fn row_fault(row: u32, errors: &[Item]) -> Option<RowFault> {
    // A row may have several errors; the first that is its own decides. A collateral `stopped`, or a
    // passing fault that BigQuery pins on a row, says nothing about the row.
    let error = errors.iter().find(|error| !is_collateral(error))?;
    let (kind, class) = row_kind(error);
    let field = field_of(error);
    let message = match &field {
        Some(field) => format!("{class}: {field}"),
        None => class.to_owned(),
    };
    let fault = Fault::refused(kind, printable::name(&error.reason), message);
    Some(RowFault { row, fault, field, taken_for: taken_for(&error.message) })
}

/// The narrower type that BigQuery took the column for, where it speaks of a value that does not fit in.
fn taken_for(message: &str) -> Option<ColumnKind> {
    let says = |text| contains_ignoring_case(message, text);
    let converts = says("convert value");
    if converts && says(" to integer") {
        Some(ColumnKind::Int64)
    } else if says("invalid numeric value") || converts && says(" to numeric") {
        Some(ColumnKind::Numeric)
    } else {
        None
    }
}

fn is_collateral(error: &Item) -> bool {
    let (kind, _) = kind_of(&error.reason, 200, "");
    let innocent = matches!(kind, FaultKind::Throttled | FaultKind::QuotaExceeded)
        || (kind == FaultKind::Transient && error.reason != "invalid");
    // An unknown reason with status 200 reads as transient, which would send the row for ever.
    innocent && KNOWN_COLLATERAL.contains(&error.reason.as_str())
}

/// Reasons that say nothing about the row they are pinned on.
const KNOWN_COLLATERAL: &[&str] = &[
    "stopped",
    "backendError",
    "internalError",
    "timeout",
    "rateLimitExceeded",
    "quotaExceeded",
    "tableUnavailable",
];

fn row_kind(error: &Item) -> (FaultKind, &'static str) {
    ROW_TEXTS
        .iter()
        .find(|(text, ..)| contains_ignoring_case(&error.message, text))
        .map_or((FaultKind::InvalidRow, "BigQuery refuses the row"), |(_, kind, class)| {
            (*kind, class)
        })
}

/// The column's path, from `location` or, where that is empty, from texts that are known to name
/// nothing but a column.
fn field_of(error: &Item) -> Option<String> {
    const BEFORE_NAME: [&str; 5] = [
        "no such field: ",
        "This field: ",
        "Missing required field: ",
        "non-repeated field: ",
        "Field: ",
    ];
    let name = if error.location.is_empty() {
        let (_, rest) = BEFORE_NAME.iter().find_map(|text| error.message.split_once(text))?;
        rest.split([' ', ',', ';']).next().unwrap_or_default().trim_end_matches('.')
    } else {
        error.location.as_str()
    };
    // Only what a path can be made of: a value must not slip through.
    let is_path = !name.is_empty()
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '[' | ']'));
    is_path.then(|| name.chars().take(FIELD_CHARS_MAX).collect())
}

/// A refusal of the whole request may echo parts of its body: keep the remote's text only where it
/// speaks of resources.
fn redacted(fault: Fault) -> Fault {
    let message = match fault.kind {
        FaultKind::InvalidRequest => "BigQuery refuses the request as a whole",
        FaultKind::InvalidRow => "BigQuery refuses a row",
        FaultKind::SchemaMismatch => "the table's columns do not fit the rows",
        FaultKind::PartitionOutOfRange => "a partition is outside the window of streaming inserts",
        FaultKind::TooLarge => "the request is larger than insertAll takes",
        FaultKind::Transient => "BigQuery had a passing fault",
        FaultKind::Throttled
        | FaultKind::QuotaExceeded
        | FaultKind::TableNotFound
        | FaultKind::Conflict
        | FaultKind::AlreadyExists
        | FaultKind::Unauthenticated
        | FaultKind::PermissionDenied => return fault,
    };
    Fault { message: message.to_owned(), ..fault }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: impl ToString) -> Result<RestResponse, RestError> {
        Ok(RestResponse { status, headers: HeaderMap::new(), body: Bytes::from(body.to_string()) })
    }

    fn row_errors(errors: &[(u32, &str, &str, &str)]) -> Result<RestResponse, RestError> {
        let errors: Vec<_> = errors
            .iter()
            .map(|(index, reason, location, message)| {
                json!({"index": index, "errors": [{"reason": reason, "location": location,
                       "debugInfo": "", "message": message}]})
            })
            .collect();
        answer(200, json!({"kind": "bigquery#tableDataInsertAllResponse", "insertErrors": errors}))
    }

    fn rejected(message: &str) -> RowFault {
        match outcome(row_errors(&[(0, "invalid", "", message)]), 1) {
            WriteOutcome::Partial { mut rejected, .. } => rejected.remove(0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_empty_answer_of_bigquery_is_an_ack_and_any_other_200_is_not() {
        let ack = json!({"kind": "bigquery#tableDataInsertAllResponse"});
        assert!(matches!(outcome(answer(200, ack), 3), WriteOutcome::Acked));
        for body in ["", "{}", "<html>", "[]"] {
            assert!(matches!(outcome(answer(200, body), 3), WriteOutcome::Unknown(_)), "{body}");
        }
    }

    #[test]
    fn rows_at_fault_are_told_from_their_neighbours() {
        let answer = row_errors(&[
            (1, "invalid", "a.b[0].c", "no such field: c."),
            (0, "stopped", "", ""),
            (3, "backendError", "", ""),
        ]);
        let WriteOutcome::Partial { rejected, unsent, .. } = outcome(answer, 5) else { panic!() };
        assert_eq!(rejected.len(), 1);
        assert_eq!((rejected[0].row, rejected[0].fault.kind), (1, FaultKind::SchemaMismatch));
        assert_eq!(rejected[0].field.as_deref(), Some("a.b[0].c"));
        // Row 2 and 4 are not listed; with skipInvalidRows=false they are not stored either.
        assert_eq!(unsent, [0, 2, 3, 4]);
    }

    #[test]
    fn only_passing_faults_on_rows_mean_all_is_to_be_sent_again() {
        let answer = row_errors(&[(0, "timeout", "", ""), (1, "rateLimitExceeded", "", "")]);
        let WriteOutcome::Partial { rejected, unsent, .. } = outcome(answer, 2) else { panic!() };
        assert!(rejected.is_empty());
        assert_eq!(unsent, [0, 1]);
    }

    #[test]
    fn an_unknown_reason_on_a_row_is_the_rows_fault() {
        let WriteOutcome::Partial { rejected, .. } =
            outcome(row_errors(&[(0, "novel", "", "?")]), 1)
        else {
            panic!()
        };
        assert_eq!(rejected[0].fault.kind, FaultKind::InvalidRow);
    }

    #[test]
    fn every_known_text_has_its_kind() {
        let table = [
            ("no such field: x.", FaultKind::SchemaMismatch, Some("x")),
            (
                "Missing required field: Msg_0_CLOUD_QUERY_TABLE.x.",
                FaultKind::SchemaMismatch,
                Some("Msg_0_CLOUD_QUERY_TABLE.x"),
            ),
            ("Missing required fields: x, y", FaultKind::SchemaMismatch, None),
            ("This field: x is not a record.", FaultKind::SchemaMismatch, Some("x")),
            ("Array specified for non-repeated field: x.", FaultKind::SchemaMismatch, Some("x")),
            ("The destination table has no schema.", FaultKind::SchemaMismatch, None),
            (
                "Only optional fields can be set to NULL. Field: x; Value: NULL",
                FaultKind::SchemaMismatch,
                Some("x"),
            ),
            (
                "Repeated field must be imported as a JSON array. Field: x.",
                FaultKind::SchemaMismatch,
                Some("x"),
            ),
            (
                "Could not convert value 'secret' to integer. Field: x; Value: secret",
                FaultKind::InvalidRow,
                Some("x"),
            ),
            (
                "Cannot convert value to floating point (bad value): secret",
                FaultKind::InvalidRow,
                None,
            ),
            ("Invalid date: 'secret'", FaultKind::InvalidRow, None),
            ("Timestamp field value is out of range: 1234567", FaultKind::InvalidRow, None),
            ("Value 5 of field x is outside the allowed bounds", FaultKind::InvalidRow, None),
            (
                "The destination table's partition t$20100101 is outside the allowed bounds. You can only stream to partitions within 31 days in the past and 16 days in the future relative to the current date.",
                FaultKind::PartitionOutOfRange,
                None,
            ),
        ];
        for (message, kind, field) in table {
            let row = rejected(message);
            assert_eq!((row.fault.kind, row.field.as_deref()), (kind, field), "{message}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_says_what_the_column_was_taken_for() {
        let table = [
            ("Could not convert value '5.5' to integer. Field: x", Some(ColumnKind::Int64)),
            ("Cannot convert value to integer (bad value): 5.5", Some(ColumnKind::Int64)),
            ("Invalid NUMERIC value: 1e30", Some(ColumnKind::Numeric)),
            ("Invalid BIGNUMERIC value: 1e99", None),
            ("Cannot convert value to floating point (bad value): x", None),
            ("no such field: x.", None),
        ];
        for (message, kind) in table {
            assert_eq!(rejected(message).taken_for, kind, "{message}");
        }
    }

    #[test]
    fn no_value_of_a_row_gets_into_a_message() {
        for message in [
            "Could not convert value 'secret' to integer. Field: x; Value: secret",
            "Invalid date: 'secret'",
            "something new about secret",
        ] {
            assert!(!format!("{:?}", rejected(message)).contains("secret"), "{message}");
        }
        let body = json!({"error": {"code": 400, "errors": [{"reason": "invalid",
            "message": "Invalid value at 'rows[0].json': \"secret\""}]}});
        let WriteOutcome::Refused(fault) = outcome(answer(400, body), 1) else { panic!() };
        assert_eq!(fault.kind, FaultKind::InvalidRequest);
        assert!(!format!("{fault:?}").contains("secret"));
    }

    #[test]
    fn lost_answers_and_server_faults_leave_doubt_and_refusals_do_not() {
        let lost = Err(RestError::NoAnswer { endpoint: "e".into(), source: "reset".into() });
        assert!(matches!(outcome(lost, 1), WriteOutcome::Unknown(_)));
        let unsent = Err(RestError::NotSent { endpoint: "e".into(), source: "dns".into() });
        assert!(matches!(outcome(unsent, 1), WriteOutcome::Refused(_)));
        assert!(matches!(outcome(answer(503, ""), 1), WriteOutcome::Unknown(_)));
        assert!(matches!(outcome(answer(404, ""), 1), WriteOutcome::Refused(_)));
    }
}
