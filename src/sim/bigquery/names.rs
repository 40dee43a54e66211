//! What BigQuery allows as a name.

use crate::sim::bigquery::error::ApiError;

/// Prefixes that no column may start with, in any case.
const RESERVED_PREFIXES: [&str; 9] = [
    "_TABLE_",
    "_FILE_",
    "_PARTITION",
    "_ROW_TIMESTAMP",
    "__ROOT__",
    "_COLIDENTIFIER",
    "_CHANGE_SEQUENCE_NUMBER",
    "_CHANGE_TYPE",
    "_CHANGE_TIMESTAMP",
];

/// Refuses a column name that BigQuery refuses.
///
/// Letters, digits and underscores, not starting with a digit, at most 300 characters. The flexible
/// column names that BigQuery takes elsewhere are refused: streaming inserts do not carry them
/// everywhere, and the service never creates one.
pub fn check_column(name: &str) -> Result<(), ApiError> {
    let mut chars = name.chars();
    let starts_well = chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !starts_well || !chars.all(word) || name.len() > 300 {
        return Err(ApiError::invalid(format!(
            "Invalid field name \"{name}\". Fields must contain only letters, numbers, and \
             underscores, start with a letter or underscore, and be at most 300 characters long."
        )));
    }
    let upper = name.to_ascii_uppercase();
    match RESERVED_PREFIXES.iter().find(|prefix| upper.starts_with(**prefix)) {
        Some(prefix) => Err(ApiError::invalid(format!(
            "Invalid field name \"{name}\". Field names are not allowed to start with the \
             (case-insensitive) prefixes {prefix}"
        ))),
        None => Ok(()),
    }
}

/// Refuses a table id that BigQuery refuses: letters, marks, numbers, connectors, dashes and
/// spaces, at most 1,024 bytes.
pub fn check_table(id: &str) -> Result<(), ApiError> {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ');
    if !id.is_empty() && id.len() <= 1_024 && id.chars().all(word) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "Invalid table ID \"{id}\". Table IDs must be alphanumeric (plus underscores, dashes, and \
         spaces) and must be at most 1024 characters long."
    )))
}

/// Refuses a dataset id that BigQuery refuses: letters, digits, underscores, at most 1,024.
pub fn check_dataset(id: &str) -> Result<(), ApiError> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !id.is_empty() && id.len() <= 1_024 && id.chars().all(word) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "Invalid dataset ID \"{id}\". Dataset IDs must be alphanumeric (plus underscores) and must \
         be at most 1024 characters long."
    )))
}
