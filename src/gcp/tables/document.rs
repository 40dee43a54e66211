//! BigQuery's JSON for tables, read into and written from the crate's vocabulary.
//!
//! REST uses the names of legacy SQL (`INTEGER`, `FLOAT`, `BOOLEAN`, `RECORD`) and also takes those of
//! GoogleSQL; both are read
//! (<https://docs.cloud.google.com/bigquery/docs/reference/rest/v2/tables#TableFieldSchema>).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::{
    catalog::TableDescription,
    fault::{Fault, FaultKind},
    table::{Column, ColumnKind, Granularity, Mode, TableLayout, TableRef, TableSchema},
};

/// BigQuery nests records at most this deep; a deeper document is not read.
pub const DEPTH_MAX: usize = 15;
/// Descriptions are cut to BigQuery's limit.
const DESCRIPTION_CHARS_MAX: usize = 1024;

/// A `Table` resource as a description.
pub fn description(document: Value) -> Result<TableDescription, Fault> {
    let columns = match document.pointer("/schema/fields") {
        Some(fields) => columns(fields, 0)?,
        None => Vec::new(),
    };
    let etag = document.get("etag").and_then(Value::as_str).ok_or_else(|| unreadable("etag"))?;
    Ok(TableDescription {
        schema: Arc::new(TableSchema { columns }),
        etag: Arc::from(etag),
        created_ms: int64(document.get("creationTime")).unwrap_or_default(),
        document: Arc::new(document),
    })
}

fn unreadable(member: &str) -> Fault {
    Fault::unknown(
        FaultKind::Transient,
        "unreadableAnswer",
        format!("BigQuery's description of the table has no readable `{member}`"),
    )
}

/// int64 values travel as strings.
fn int64(value: Option<&Value>) -> Option<i64> {
    let value = value?;
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn columns(fields: &Value, depth: usize) -> Result<Vec<Column>, Fault> {
    let fields = fields.as_array().ok_or_else(|| unreadable("schema.fields"))?;
    if depth > DEPTH_MAX {
        return Err(unreadable("schema.fields"));
    }
    fields.iter().map(|field| column(field, depth)).collect()
}

fn column(field: &Value, depth: usize) -> Result<Column, Fault> {
    let text = |member: &str| field.get(member).and_then(Value::as_str);
    let name = text("name").ok_or_else(|| unreadable("schema.fields.name"))?;
    let kind = match text("type").ok_or_else(|| unreadable("schema.fields.type"))? {
        "RECORD" | "STRUCT" => ColumnKind::Record(match field.get("fields") {
            Some(fields) => columns(fields, depth + 1)?,
            None => Vec::new(),
        }),
        other => scalar(other),
    };
    let mode = match text("mode").unwrap_or_default() {
        "REQUIRED" => Mode::Required,
        "REPEATED" => Mode::Repeated,
        _ => Mode::Nullable,
    };
    let description = text("description").map(str::to_owned);
    Ok(Column { name: name.to_owned(), kind, mode, description })
}

fn scalar(name: &str) -> ColumnKind {
    match name {
        "BOOLEAN" | "BOOL" => ColumnKind::Bool,
        "INTEGER" | "INT64" => ColumnKind::Int64,
        "FLOAT" | "FLOAT64" => ColumnKind::Float64,
        "NUMERIC" | "DECIMAL" => ColumnKind::Numeric,
        "BIGNUMERIC" | "BIGDECIMAL" => ColumnKind::BigNumeric,
        "STRING" => ColumnKind::String,
        "BYTES" => ColumnKind::Bytes,
        "DATE" => ColumnKind::Date,
        "TIME" => ColumnKind::Time,
        "DATETIME" => ColumnKind::DateTime,
        "TIMESTAMP" => ColumnKind::Timestamp,
        "JSON" => ColumnKind::Json,
        "GEOGRAPHY" => ColumnKind::Geography,
        other => ColumnKind::Other(other.to_owned()),
    }
}

/// The name REST gives a type.
pub fn rest_type(kind: &ColumnKind) -> &str {
    match kind {
        ColumnKind::Bool => "BOOLEAN",
        ColumnKind::Int64 => "INTEGER",
        ColumnKind::Float64 => "FLOAT",
        ColumnKind::Numeric => "NUMERIC",
        ColumnKind::BigNumeric => "BIGNUMERIC",
        ColumnKind::String => "STRING",
        ColumnKind::Bytes => "BYTES",
        ColumnKind::Date => "DATE",
        ColumnKind::Time => "TIME",
        ColumnKind::DateTime => "DATETIME",
        ColumnKind::Timestamp => "TIMESTAMP",
        ColumnKind::Json => "JSON",
        ColumnKind::Geography => "GEOGRAPHY",
        ColumnKind::Record(_) => "RECORD",
        ColumnKind::Other(name) => name,
    }
}

/// A new column as BigQuery takes it.
pub fn field(column: &Column) -> Value {
    let mut field = Map::new();
    field.insert("name".into(), column.name.clone().into());
    field.insert("type".into(), rest_type(&column.kind).into());
    let mode = match column.mode {
        Mode::Nullable => "NULLABLE",
        Mode::Required => "REQUIRED",
        Mode::Repeated => "REPEATED",
    };
    field.insert("mode".into(), mode.into());
    if let Some(text) = &column.description {
        let text: String = text.chars().take(DESCRIPTION_CHARS_MAX).collect();
        field.insert("description".into(), text.into());
    }
    if let ColumnKind::Record(fields) = &column.kind {
        field.insert("fields".into(), fields.iter().map(self::field).collect());
    }
    Value::Object(field)
}

/// A `Table` resource for `tables.insert`.
pub fn new_table(table: &TableRef, schema: &TableSchema, layout: &TableLayout) -> Value {
    let mut document = json!({
        "tableReference": {
            "projectId": *table.project, "datasetId": *table.dataset, "tableId": *table.table,
        },
        "schema": { "fields": schema.columns.iter().map(field).collect::<Vec<_>>() },
    });
    let Some(members) = document.as_object_mut() else { return document };
    if let Some(partitioning) = &layout.partitioning {
        let mut time = Map::new();
        time.insert("type".into(), granularity(partitioning.granularity).into());
        if let Some(column) = &partitioning.column {
            time.insert("field".into(), column.clone().into());
        }
        if let Some(expiration_ms) = partitioning.expiration_ms {
            time.insert("expirationMs".into(), expiration_ms.to_string().into());
        }
        members.insert("timePartitioning".into(), time.into());
    }
    if !layout.clustering.is_empty() {
        members.insert("clustering".into(), json!({ "fields": layout.clustering }));
    }
    if !layout.labels.is_empty() {
        let labels = layout.labels.iter().map(|(key, value)| (key.clone(), value.clone().into()));
        members.insert("labels".into(), labels.collect::<Map<String, Value>>().into());
    }
    if let Some(description) = &layout.description {
        members.insert("description".into(), description.clone().into());
    }
    document
}

fn granularity(granularity: Granularity) -> &'static str {
    match granularity {
        Granularity::Hour => "HOUR",
        Granularity::Day => "DAY",
        Granularity::Month => "MONTH",
        Granularity::Year => "YEAR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Partitioning;

    #[test]
    fn both_spellings_are_read_and_unknown_types_are_kept() {
        let document = json!({"etag": "e", "creationTime": "17", "schema": {"fields": [
            {"name": "a", "type": "INT64", "mode": "REQUIRED"},
            {"name": "b", "type": "INTEGER"},
            {"name": "r", "type": "STRUCT", "mode": "REPEATED", "fields": [{"name": "x", "type": "BOOL"}]},
            {"name": "p", "type": "RANGE", "rangeElementType": {"type": "DATE"}},
        ]}});
        let table = description(document).unwrap();
        let kinds: Vec<_> = table.schema.columns.iter().map(|c| (c.kind.clone(), c.mode)).collect();
        assert_eq!(kinds[0], (ColumnKind::Int64, Mode::Required));
        assert_eq!(kinds[1], (ColumnKind::Int64, Mode::Nullable));
        assert_eq!(kinds[2].0, ColumnKind::Record(vec![Column::new("x", ColumnKind::Bool)]));
        assert_eq!(kinds[3].0, ColumnKind::Other("RANGE".into()));
        assert_eq!((table.etag.as_ref(), table.created_ms), ("e", 17));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let columns = vec![
            Column::new("a", ColumnKind::Numeric).with_mode(Mode::Required),
            Column {
                description: Some("d".into()),
                ..Column::new("r", ColumnKind::Record(vec![Column::new("x", ColumnKind::Json)]))
            },
        ];
        let fields: Vec<_> = columns.iter().map(field).collect();
        assert_eq!(super::columns(&fields.into(), 0).unwrap(), columns);
    }

    #[test]
    fn a_layout_is_written_in_full() {
        let table = TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() };
        let layout = TableLayout {
            partitioning: Some(Partitioning {
                granularity: Granularity::Month,
                column: Some("ts".into()),
                expiration_ms: Some(5),
            }),
            clustering: vec!["c".into()],
            labels: vec![("k".into(), "v".into())],
            description: Some("text".into()),
        };
        let document = new_table(&table, &TableSchema::default(), &layout);
        assert_eq!(
            document["timePartitioning"],
            json!({"type": "MONTH", "field": "ts", "expirationMs": "5"})
        );
        assert_eq!(document["clustering"], json!({"fields": ["c"]}));
        assert_eq!(document["labels"], json!({"k": "v"}));
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let mut field = json!({"name": "x", "type": "INTEGER"});
        for _ in 0..40 {
            field = json!({"name": "x", "type": "RECORD", "fields": [field]});
        }
        assert!(description(json!({"etag": "e", "schema": {"fields": [field]}})).is_err());
    }
}
