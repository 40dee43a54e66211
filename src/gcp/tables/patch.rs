//! A table's received `schema.fields`, edited in place.
//!
//! Only what a change names is touched: precision, default values, policy tags, range element types,
//! descriptions and attributes this service has never heard of go back as they came.

use serde_json::{Map, Value};

use crate::{gcp::tables::document, schema::diff::Change};

/// A change that does not fit the document it is to be made in. The table was described wrongly or
/// the difference was taken from another version.
#[derive(Debug, thiserror::Error)]
#[error("the table has no column `{0}` that could be changed")]
pub struct Misfit(String);

/// The `fields` array of `document` with all additions and relaxations in `changes`; widenings are
/// left out, since `tables.patch` refuses to change a type.
pub fn fields(document: &Value, changes: &[Change]) -> Result<Value, Misfit> {
    let mut fields =
        document.pointer("/schema/fields").cloned().unwrap_or_else(|| Value::Array(Vec::new()));
    for change in changes {
        match change {
            Change::AddColumn { parent, column } => {
                let siblings = siblings(&mut fields, parent)?;
                let known = siblings.iter().any(|field| is_named(field, &column.name));
                if !known {
                    siblings.push(document::field(column));
                }
            }
            Change::Relax { path } => {
                let field = field_mut(&mut fields, path)?;
                field.insert("mode".into(), "NULLABLE".into());
            }
            Change::Widen { .. } => {}
        }
    }
    Ok(fields)
}

/// The same fields without any policy tag. Left out of a patch, tags stay as they are.
pub fn without_policy_tags(fields: &mut Value) {
    for field in fields.as_array_mut().into_iter().flatten() {
        if let Some(members) = field.as_object_mut() {
            members.remove("policyTags");
        }
        if let Some(nested) = field.get_mut("fields") {
            without_policy_tags(nested);
        }
    }
}

/// Whether any of the fields has a policy tag.
pub fn has_policy_tags(fields: &Value) -> bool {
    fields.as_array().into_iter().flatten().any(|field| {
        field.get("policyTags").is_some() || field.get("fields").is_some_and(has_policy_tags)
    })
}

/// The fields of the record at `parent`.
fn siblings<'a>(fields: &'a mut Value, parent: &[String]) -> Result<&'a mut Vec<Value>, Misfit> {
    let fields = match parent {
        [] => fields,
        path => {
            let record = field_mut(fields, path)?;
            record.entry("fields").or_insert_with(|| Value::Array(Vec::new()))
        }
    };
    fields.as_array_mut().ok_or_else(|| misfit(parent))
}

/// The field at `path`.
pub fn field_mut<'a>(
    fields: &'a mut Value,
    path: &[String],
) -> Result<&'a mut Map<String, Value>, Misfit> {
    let mut at = fields;
    for (depth, name) in path.iter().enumerate() {
        if depth > 0 {
            at = at.get_mut("fields").ok_or_else(|| misfit(path))?;
        }
        let siblings = at.as_array_mut().ok_or_else(|| misfit(path))?;
        at = siblings.iter_mut().find(|field| is_named(field, name)).ok_or_else(|| misfit(path))?;
    }
    at.as_object_mut().ok_or_else(|| misfit(path))
}

fn is_named(field: &Value, name: &str) -> bool {
    let own = field.get("name").and_then(Value::as_str);
    own.is_some_and(|own| own.eq_ignore_ascii_case(name))
}

fn misfit(path: &[String]) -> Misfit {
    Misfit(path.join("."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::{Column, ColumnKind};

    fn received() -> Value {
        json!({"schema": {"fields": [
            {"name": "id", "type": "NUMERIC", "mode": "REQUIRED", "precision": "10", "scale": "2",
             "defaultValueExpression": "0", "policyTags": {"names": ["t"]}},
            {"name": "p", "type": "RANGE", "rangeElementType": {"type": "DATE"}},
            {"name": "R", "type": "RECORD", "novel": {"x": [1]}, "fields": [
                {"name": "in", "type": "STRING", "mode": "REQUIRED", "maxLength": "5"}]},
        ]}})
    }

    fn path(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_what_is_named_changes() {
        let changes = [
            Change::AddColumn { parent: vec![], column: Column::new("new", ColumnKind::Json) },
            Change::AddColumn {
                parent: path(&["r"]),
                column: Column::new("deep", ColumnKind::Bool),
            },
            Change::Relax { path: path(&["r", "IN"]) },
        ];
        let document = received();
        let mut expected = document["schema"]["fields"].clone();
        expected
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "new", "type": "JSON", "mode": "NULLABLE"}));
        expected[2]["fields"][0]["mode"] = "NULLABLE".into();
        let inner = expected[2]["fields"].as_array_mut().unwrap();
        inner.push(json!({"name": "deep", "type": "BOOLEAN", "mode": "NULLABLE"}));
        assert_eq!(fields(&document, &changes).unwrap(), expected);
    }

    #[test]
    fn a_column_that_is_there_is_not_added_again() {
        let changes =
            [Change::AddColumn { parent: vec![], column: Column::new("ID", ColumnKind::Json) }];
        let document = received();
        assert_eq!(fields(&document, &changes).unwrap(), document["schema"]["fields"]);
    }

    #[test]
    fn a_change_of_a_column_that_is_not_there_is_refused() {
        for path in [path(&["nope"]), path(&["id", "x"]), path(&["R", "x"])] {
            assert!(fields(&received(), &[Change::Relax { path }]).is_err());
        }
    }

    #[test]
    fn policy_tags_are_found_and_left_out() {
        let mut fields = received()["schema"]["fields"].clone();
        assert!(has_policy_tags(&fields));
        without_policy_tags(&mut fields);
        assert!(!has_policy_tags(&fields));
        assert_eq!(fields[0]["precision"], "10");
    }
}
