//! What a job's schema does to its table's: nothing, an added or a relaxed column, or a refusal.

use serde_json::{Map, Value, json};

use crate::sim::bigquery::{
    error::ApiError,
    load::config::{Format, LoadConfig},
};

/// The columns in a table's document.
pub fn fields_of(document: &Map<String, Value>) -> Vec<Value> {
    let fields = document.get("schema").and_then(|schema| schema.get("fields"));
    fields.and_then(Value::as_array).cloned().unwrap_or_default()
}

/// How a job's schema is merged into its table's.
///
/// Types are compared by their names, without parameters; a table's column that the job does not have
/// stays. The words: answers quoted in googleapis/google-cloud-python#3602,
/// googleapis/google-cloud-dotnet#11062, GoogleCloudDataproc/spark-bigquery-connector#1070.
#[derive(Debug)]
pub struct Merge<'a> {
    table: &'a str,
    add: bool,
    relax: bool,
    /// Whether what the table does not have is left out.
    ignore: bool,
    /// Whether the table is being created: then its columns are the job's.
    create: bool,
    /// Whether a job's REQUIRED fits a table's NULLABLE: what an Avro file cannot leave out fits.
    stricter: bool,
}

impl<'a> Merge<'a> {
    /// The rules of one job.
    pub fn new(table: &'a str, load: &LoadConfig, exists: bool) -> Self {
        Self {
            table,
            add: load.add_fields,
            relax: load.relax_fields,
            ignore: load.ignore_unknown && load.format == Format::Avro,
            create: !exists,
            stricter: load.format == Format::Avro,
        }
    }

    /// Merges; true if the table's columns have changed.
    pub fn merge(&self, fields: &mut Vec<Value>, provided: &[Value]) -> Result<bool, ApiError> {
        self.level(fields, provided, "").map_err(|detail| {
            ApiError::invalid(format!(
                "Provided Schema does not match Table {}. {detail}",
                self.table
            ))
        })
    }

    fn level(
        &self,
        fields: &mut Vec<Value>,
        provided: &[Value],
        path: &str,
    ) -> Result<bool, String> {
        let mut changed = false;
        for field in provided {
            let name = text(field, "name");
            let here = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let known =
                fields.iter_mut().find(|known| text(known, "name").eq_ignore_ascii_case(name));
            changed |= match known {
                Some(known) => self.column(known, field, &here)?,
                None if self.ignore && !self.add && !self.create => false,
                None => {
                    self.check_added(field, &here)?;
                    fields.push(field.clone());
                    true
                }
            };
        }
        Ok(changed)
    }

    fn check_added(&self, field: &Value, path: &str) -> Result<(), String> {
        match (self.create, self.add, mode(field)) {
            (true, ..) => Ok(()),
            (false, false, _) => Err(format!("Cannot add fields (field: {path})")),
            (false, true, "REQUIRED") => {
                Err(format!("Cannot add required fields to an existing schema. (field: {path})"))
            }
            (false, true, _) => Ok(()),
        }
    }

    fn column(&self, known: &mut Value, field: &Value, path: &str) -> Result<bool, String> {
        let (old, new) = (text(known, "type"), text(field, "type"));
        if old != new {
            return Err(format!("Field {path} has changed type from {old} to {new}"));
        }
        let relaxed = match (mode(known), mode(field)) {
            (old, new) if old == new => false,
            ("REQUIRED", "NULLABLE") if self.relax => true,
            ("NULLABLE", "REQUIRED") if self.stricter => false,
            (old, new) => {
                return Err(format!("Field {path} has changed mode from {old} to {new}"));
            }
        };
        if let (true, Some(known)) = (relaxed, known.as_object_mut()) {
            known.insert("mode".into(), json!("NULLABLE"));
        }
        let inner = match known.get_mut("fields") {
            Some(Value::Array(inner)) => self.level(inner, &inner_fields(field), path)?,
            _ => false,
        };
        Ok(relaxed || inner)
    }
}

fn inner_fields(field: &Value) -> Vec<Value> {
    field.get("fields").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn text<'a>(field: &'a Value, key: &str) -> &'a str {
    field.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn mode(field: &Value) -> &str {
    match text(field, "mode") {
        "" => "NULLABLE",
        mode => mode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(
        table: Value,
        job: Value,
        (add, relax, avro): (bool, bool, bool),
    ) -> Result<(bool, Value), String> {
        let merge = Merge { table: "t", add, relax, ignore: false, create: false, stricter: avro };
        let mut fields = table.as_array().unwrap().clone();
        let changed = merge.merge(&mut fields, job.as_array().unwrap());
        let strip =
            |error: ApiError| error.message.replace("Provided Schema does not match Table t. ", "");
        changed.map(|changed| (changed, json!(fields))).map_err(strip)
    }

    fn field(name: &str, ty: &str, mode: &str) -> Value {
        json!({"name": name, "type": ty, "mode": mode})
    }

    #[test]
    fn what_is_allowed_changes_the_table() {
        let table = json!([field("a", "STRING", "REQUIRED")]);
        let job = json!([field("A", "STRING", "NULLABLE"), field("b", "INTEGER", "NULLABLE")]);
        let (changed, fields) = merged(table.clone(), job, (true, true, false)).unwrap();
        assert!(changed);
        assert_eq!(
            fields,
            json!([field("a", "STRING", "NULLABLE"), field("b", "INTEGER", "NULLABLE")])
        );
        let same = merged(table.clone(), json!([]), (true, true, false)).unwrap();
        assert_eq!(same, (false, table));
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let table = json!([field("a", "STRING", "REQUIRED"), field("n", "STRING", "NULLABLE"),
            {"name": "r", "type": "RECORD", "mode": "NULLABLE", "fields": []}]);
        let none = (false, false, false);
        for (job, rules, expected) in [
            (field("b", "STRING", "NULLABLE"), none, "Cannot add fields (field: b)"),
            (
                field("b", "STRING", "REQUIRED"),
                (true, true, true),
                "Cannot add required fields to an existing schema. (field: b)",
            ),
            (field("a", "JSON", "REQUIRED"), none, "Field a has changed type from STRING to JSON"),
            (
                field("a", "STRING", "NULLABLE"),
                none,
                "Field a has changed mode from REQUIRED to NULLABLE",
            ),
            (
                field("n", "STRING", "REPEATED"),
                (true, true, true),
                "Field n has changed mode from NULLABLE to REPEATED",
            ),
            (
                field("n", "STRING", "REQUIRED"),
                none,
                "Field n has changed mode from NULLABLE to REQUIRED",
            ),
            (
                json!({"name": "r", "type": "RECORD", "fields": [field("x", "STRING", "NULLABLE")]}),
                none,
                "Cannot add fields (field: r.x)",
            ),
        ] {
            let refused = merged(table.clone(), json!([job]), rules).unwrap_err();
            assert_eq!(refused, expected);
        }
        let stricter = json!([field("n", "STRING", "REQUIRED")]);
        assert!(!merged(table, stricter, (false, false, true)).unwrap().0);
    }
}
