//! Which keys a job's body may have.

use serde_json::{Map, Value};

use crate::sim::bigquery::error::ApiError;

/// Values of `schemaUpdateOptions`.
pub const SCHEMA_UPDATES: [&str; 2] = ["ALLOW_FIELD_ADDITION", "ALLOW_FIELD_RELAXATION"];
/// Values of `decimalTargetTypes`.
pub const DECIMAL_TARGETS: [&str; 3] = ["NUMERIC", "BIGNUMERIC", "STRING"];

/// Keys of a job; those that only the server writes are dropped, as the service does.
const JOB: [&str; 10] = [
    "configuration",
    "jobReference",
    "kind",
    "etag",
    "id",
    "selfLink",
    "user_email",
    "status",
    "statistics",
    "jobCreationReason",
];
const CONFIGURATION: [&str; 3] = ["load", "labels", "jobType"];
/// Keys of the service that are refused when they ask for something.
const CONFIGURATION_UNSUPPORTED: [&str; 7] =
    ["query", "copy", "extract", "dryRun", "jobTimeoutMs", "reservation", "maxSlots"];
const LOAD: [&str; 15] = [
    "sourceUris",
    "destinationTable",
    "schema",
    "sourceFormat",
    "createDisposition",
    "writeDisposition",
    "maxBadRecords",
    "ignoreUnknownValues",
    "useAvroLogicalTypes",
    "decimalTargetTypes",
    "schemaUpdateOptions",
    "timePartitioning",
    "clustering",
    "autodetect",
    "encoding",
];
const LOAD_UNSUPPORTED: [&str; 27] = [
    "allowJaggedRows",
    "allowQuotedNewlines",
    "columnNameCharacterMap",
    "connectionProperties",
    "copyFilesOnly",
    "createSession",
    "dateFormat",
    "datetimeFormat",
    "destinationEncryptionConfiguration",
    "destinationTableProperties",
    "fieldDelimiter",
    "fileSetSpecType",
    "hivePartitioningOptions",
    "jsonExtension",
    "nullMarker",
    "nullMarkers",
    "parquetOptions",
    "preserveAsciiControlCharacters",
    "projectionFields",
    "quote",
    "rangePartitioning",
    "referenceFileSchemaUri",
    "skipLeadingRows",
    "sourceColumnMatch",
    "timeFormat",
    "timeZone",
    "timestampFormat",
];

/// Checks the keys on every level, and answers `configuration.load`.
pub fn check(body: &Map<String, Value>) -> Result<&Map<String, Value>, ApiError> {
    check_keys(body, "job", &JOB, &[])?;
    let configuration = body.get("configuration").and_then(Value::as_object);
    let missing = |what: &str| {
        ApiError::new(400, "required", format!("Required parameter is missing: {what}"))
    };
    let configuration = configuration.ok_or_else(|| missing("configuration"))?;
    check_keys(configuration, "job.configuration", &CONFIGURATION, &CONFIGURATION_UNSUPPORTED)?;
    check_labels(configuration.get("labels"))?;
    let load = configuration.get("load").and_then(Value::as_object);
    let load = load.ok_or_else(|| missing("load"))?;
    check_keys(load, "job.configuration.load", &LOAD, &LOAD_UNSUPPORTED)?;
    if load.get("autodetect").is_some_and(asks) {
        return Err(not_simulated("autodetect"));
    }
    if load.get("encoding").is_some_and(|encoding| encoding != "UTF-8") {
        return Err(not_simulated("encoding other than UTF-8"));
    }
    Ok(load)
}

/// Refuses any other value of a list.
pub fn check_members(key: &str, values: &[String], known: &[&str]) -> Result<(), ApiError> {
    match values.iter().find(|value| !known.contains(&value.as_str())) {
        Some(value) => Err(ApiError::invalid(format!("Invalid value for {key}: {value}"))),
        None => Ok(()),
    }
}

fn check_keys(
    object: &Map<String, Value>,
    place: &str,
    known: &[&str],
    unsupported: &[&str],
) -> Result<(), ApiError> {
    for (key, value) in object {
        if unsupported.contains(&key.as_str()) {
            if asks(value) {
                return Err(not_simulated(key));
            }
        } else if !known.contains(&key.as_str()) {
            return Err(ApiError::invalid(format!(
                "Invalid JSON payload received. Unknown name \"{key}\" at '{place}': Cannot find field."
            )));
        }
    }
    Ok(())
}

/// Whether a value asks for anything.
fn asks(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

fn not_simulated(what: &str) -> ApiError {
    ApiError::new(501, "notImplemented", format!("{what} is not simulated"))
}

/// At most 64 labels; lower-case letters, digits, dashes and underscores, at most 63 of them, a key
/// beginning with a letter. <https://docs.cloud.google.com/bigquery/docs/labels-intro>
fn check_labels(labels: Option<&Value>) -> Result<(), ApiError> {
    let labels = match labels {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(labels)) if labels.len() <= 64 => labels,
        Some(_) => return Err(ApiError::invalid("labels must be an object of at most 64 texts")),
    };
    let word = |text: &str| {
        let inner = |c: char| {
            matches!(c, '_' | '-') || c.is_numeric() || (c.is_alphabetic() && !c.is_uppercase())
        };
        text.chars().count() <= 63 && text.chars().all(inner)
    };
    for (key, value) in labels {
        let starts_well = key.chars().next().is_some_and(char::is_alphabetic);
        if !starts_well || !word(key) || !value.as_str().is_some_and(word) {
            return Err(ApiError::invalid(format!(
                "Label \"{key}\" is invalid: labels have lower-case letters, digits, dashes and \
                 underscores only, at most 63 of them."
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels() {
        for (labels, valid) in [
            (json!({"kcbq_end": "123", "a-b": ""}), true),
            (json!({"End": "1"}), false),
            (json!({"1": "1"}), false),
            (json!({"a": "A"}), false),
            (json!({"a": "x".repeat(64)}), false),
            (json!({"a": 1}), false),
        ] {
            assert_eq!(check_labels(Some(&labels)).is_ok(), valid, "{labels}");
        }
    }
}
