//! What a load job that has failed says, without any value of a row.
//!
//! BigQuery's text quotes what it could not read, in forms that are not documented: `Could not convert value
//! 'string_value: "…"' to integer`, `Could not parse '…' as DOUBLE for field …`, `… (bad value): …`. So its
//! words are handed on only where they speak of the table, the identity or a quota. For all else there are
//! words of our own, the names of the column and the object, and the command that shows BigQuery's.

use crate::{
    fault::{Fault, FaultKind},
    gcp::classify::{Item, contains_ignoring_case, statement_fault},
    printable,
};

/// How texts begin that name the table and its columns, and no value
/// (<https://docs.cloud.google.com/bigquery/docs/error-messages>).
const ABOUT_THE_TABLE: [&str; 4] = [
    "Provided Schema does not match Table",
    "Incompatible table partitioning specification",
    "Invalid schema update",
    "The field specified for",
];

/// What a text says, and in what words it is told.
const CLASSES: [(&str, &str); 9] = [
    ("no such field", "the table has no column for a field"),
    ("missing required field", "a REQUIRED column has no value"),
    ("only optional fields can be set to null", "a REQUIRED column has no value"),
    ("convert value", "a value cannot be converted to its column's type"),
    ("could not parse", "a value cannot be read as its column's type"),
    ("invalid", "a value is none of its column's type"),
    ("out of range", "a value is out of its column's range"),
    ("too many errors", "BigQuery cannot read a row"),
    ("row size", "a row is too large"),
];

/// What stands before a column's name.
const BEFORE_NAME: [&str; 3] = ["no such field: ", "required field: ", "Field: "];

/// The fault behind the error of the load job `id`.
pub(super) fn failed(error: &Item, id: &str) -> Fault {
    let fault = statement_fault(error);
    let message = match fault.kind {
        FaultKind::Throttled
        | FaultKind::QuotaExceeded
        | FaultKind::TableNotFound
        | FaultKind::AlreadyExists
        | FaultKind::PermissionDenied
        | FaultKind::Unauthenticated => return fault,
        _ if ABOUT_THE_TABLE.iter().any(|begin| error.message.starts_with(begin)) => return fault,
        FaultKind::Transient => "BigQuery had a passing fault".to_owned(),
        FaultKind::TooLarge => "the job is larger than BigQuery takes".to_owned(),
        _ => words(error),
    };
    let remedy = format!("see BigQuery's own words, which may quote a value: `bq show -j {id}`");
    Fault { message, ..fault }.with_remedy(remedy)
}

fn words(error: &Item) -> String {
    let class = CLASSES.iter().find(|(text, _)| contains_ignoring_case(&error.message, text));
    let mut words = class.map_or("BigQuery does not take a row", |(_, class)| class).to_owned();
    if let Some(column) = column(&error.message) {
        words.push_str(&format!(" (column {column})"));
    }
    if error.location.starts_with("gs://") {
        words.push_str(&format!(" in {}", printable::text(&error.location)));
    }
    words
}

/// The column that a text names before it quotes anything.
fn column(message: &str) -> Option<String> {
    let unquoted = message.split(['\'', '"']).next().unwrap_or_default();
    let (_, rest) = BEFORE_NAME.iter().find_map(|before| {
        let at = unquoted.to_ascii_lowercase().find(&before.to_ascii_lowercase())?;
        unquoted.split_at_checked(at + before.len())
    })?;
    let name = rest.split([' ', ',', ';']).next().unwrap_or_default().trim_end_matches('.');
    let is_path = !name.is_empty()
        && name.chars().all(|char| char.is_alphanumeric() || matches!(char, '_' | '.' | '[' | ']'));
    is_path.then(|| printable::name(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reason: &str, location: &str, message: &str) -> Fault {
        let (reason, location) = (reason.to_owned(), location.to_owned());
        failed(&Item { reason, location, message: message.to_owned() }, "kcbq_7")
    }

    #[test]
    fn no_value_that_bigquery_quotes_is_told() {
        for message in [
            "Error while reading data, error message: JSON parsing error in row starting at position 0: Could not \
             convert value 'string_value: \"canary\"' to integer. Field: n; Value: canary",
            "Error while reading data, error message: JSON parsing error in row starting at position 17: \
             Cannot convert value to floating point (bad value): canary",
            "Could not parse 'canary' as DOUBLE for field x (position 2) starting at location 0",
            "Error while reading data, error message: Invalid timestamp: canary",
            "Invalid date: 'Field: canary'",
            "Parser failed: expected value near canary",
            "something new about canary",
        ] {
            for reason in ["invalid", "", "novel", "jobBackendError", "resourcesExceeded"] {
                let fault = told(reason, "gs://b/kcbq/x.json.gz", message);
                let shown = format!("{fault} {fault:?}");
                assert!(!shown.contains("canary"), "{reason}: {shown}");
            }
        }
    }

    #[test]
    fn the_column_the_object_and_the_way_to_bigquerys_words_are_named() {
        let fault =
            told("invalid", "gs://b/kcbq/x.json.gz", "JSON parsing error: No such field: a.b.");
        assert_eq!(
            fault.message,
            "the table has no column for a field (column a.b) in gs://b/kcbq/x.json.gz"
        );
        assert!(fault.remedy.is_some_and(|remedy| remedy.ends_with("`bq show -j kcbq_7`")));
        assert_eq!((fault.kind, &*fault.reason), (FaultKind::SchemaMismatch, "invalid"));
    }

    #[test]
    fn what_speaks_of_the_table_or_a_quota_is_told_as_it_is() {
        for (reason, message) in [
            ("invalid", "Provided Schema does not match Table p:d.t. Field x has changed type"),
            ("quotaExceeded", "Quota exceeded: Your table exceeded quota for imports per table"),
            ("notFound", "Not found: Table p:d.t"),
        ] {
            let fault = told(reason, "", message);
            assert!(fault.message.starts_with(message), "{fault}");
        }
    }
}
