//! What the server itself writes into a document, and how a client's change is merged into one.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::sim::{bigquery::error::ApiError, message::Request};

/// Fields that a client's document cannot set or change.
const OUTPUT_ONLY: [&str; 12] = [
    "kind",
    "etag",
    "id",
    "selfLink",
    "creationTime",
    "lastModifiedTime",
    "numBytes",
    "numLongTermBytes",
    "numRows",
    "type",
    "location",
    "streamingBuffer",
];

/// The request's body as a JSON object.
pub fn body_object(request: &Request) -> Result<Map<String, Value>, ApiError> {
    let parse_error = || ApiError::new(400, "parseError", "Parse Error");
    match serde_json::from_slice(&request.body).map_err(|_| parse_error())? {
        Value::Object(object) => Ok(object),
        _ => Err(parse_error()),
    }
}

/// Removes what a client cannot set.
pub fn strip_output_only(document: &mut Map<String, Value>) {
    document.retain(|key, _| !OUTPUT_ONLY.contains(&key.as_str()));
}

/// Adds the server's fields to a new dataset.
pub fn complete_dataset(
    document: &mut Map<String, Value>,
    project: &str,
    id: &str,
    etag: &str,
    now: Duration,
) {
    let millis = now.as_millis().to_string();
    let entry = document.entry("location").or_insert(Value::Null);
    if entry.is_null() {
        *entry = json!("US");
    }
    document.insert("kind".into(), json!("bigquery#dataset"));
    document.insert("etag".into(), json!(etag));
    document.insert("id".into(), json!(format!("{project}:{id}")));
    document.insert("datasetReference".into(), json!({"projectId": project, "datasetId": id}));
    document.insert("creationTime".into(), json!(millis));
    document.insert("lastModifiedTime".into(), json!(millis));
}

/// Who a table is, for [`complete_table`].
#[derive(Clone, Copy, Debug)]
pub struct TableIdentity<'a> {
    /// Its project.
    pub project: &'a str,
    /// Its dataset.
    pub dataset: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Its dataset's location.
    pub location: &'a str,
}

/// Adds the server's fields to a table; `created` is kept over changes.
pub fn complete_table(
    document: &mut Map<String, Value>,
    table: TableIdentity<'_>,
    etag: &str,
    created: Duration,
    now: Duration,
) {
    let TableIdentity { project, dataset, id, location } = table;
    let path = format!("/bigquery/v2/projects/{project}/datasets/{dataset}/tables/{id}");
    document.insert("kind".into(), json!("bigquery#table"));
    document.insert("etag".into(), json!(etag));
    document.insert("id".into(), json!(format!("{project}:{dataset}.{id}")));
    document.insert("selfLink".into(), json!(format!("https://bigquery.googleapis.com{path}")));
    document.insert(
        "tableReference".into(),
        json!({"projectId": project, "datasetId": dataset, "tableId": id}),
    );
    document.insert("creationTime".into(), json!(created.as_millis().to_string()));
    document.insert("lastModifiedTime".into(), json!(now.as_millis().to_string()));
    document.insert("type".into(), json!("TABLE"));
    document.insert("location".into(), json!(location));
}

/// Merges a patch: objects field by field, null removes, anything else replaces.
///
/// An array of columns is replaced as a whole, as BigQuery does: attributes that the patch leaves
/// out of a column are gone.
pub fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        match (target.get_mut(&key), value) {
            (_, Value::Null) => {
                target.shift_remove(&key);
            }
            (Some(Value::Object(inner)), Value::Object(value)) => merge(inner, value),
            (_, value) => {
                target.insert(key, value);
            }
        }
    }
}

/// Writes column types, modes and int64 parameters as the server spells them.
pub fn normalise_schema(document: &mut Map<String, Value>) {
    if let Some(fields) = document.get_mut("schema").and_then(|schema| schema.get_mut("fields")) {
        normalise_fields(fields);
    }
}

/// Writes the columns of `fields` as the server spells them.
pub fn normalise_fields(fields: &mut Value) {
    let Some(fields) = fields.as_array_mut() else { return };
    for field in fields.iter_mut().filter_map(Value::as_object_mut) {
        if let Some(ty) = field.get("type").and_then(Value::as_str) {
            let ty = rest_type(&ty.to_ascii_uppercase());
            field.insert("type".into(), ty.into());
        }
        for key in ["precision", "scale", "maxLength"] {
            if let Some(number) = field.get(key).and_then(Value::as_u64) {
                field.insert(key.into(), json!(number.to_string()));
            }
        }
        if let Some(inner) = field.get_mut("fields") {
            normalise_fields(inner);
        }
    }
}

fn rest_type(ty: &str) -> String {
    match ty {
        "INT64" => "INTEGER",
        "FLOAT64" => "FLOAT",
        "BOOL" => "BOOLEAN",
        "STRUCT" => "RECORD",
        "DECIMAL" => "NUMERIC",
        "BIGDECIMAL" => "BIGNUMERIC",
        other => other,
    }
    .to_owned()
}
