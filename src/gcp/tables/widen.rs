//! Widening a column's type, which only SQL can do.
//!
//! `tables.patch` refuses any change of a type. `ALTER TABLE … ALTER COLUMN … SET DATA TYPE` makes those
//! that lose nothing, by metadata alone
//! (<https://docs.cloud.google.com/bigquery/docs/reference/standard-sql/data-definition-language#alter_column_set_data_type_statement>).
//! A nested column is widened by naming its whole top-level column anew, each field as it is but for
//! the one to widen.
//!
//! SQL knows no `If-Match`. A race is harmless all the same: BigQuery refuses what would narrow a type
//! or lose a field, so a statement that was planned from an older version either changes nothing that
//! another replica did or is refused, and the caller looks again.

use serde_json::{Map, Value};

use crate::{
    fault::{Fault, FaultKind},
    gcp::tables::{document, names},
    table::{ColumnKind, TableRef},
};

/// What a field may hold for this module to write it out again in SQL. A field with anything more (a
/// policy tag, a collation) inside a record to widen is left alone, lest it be lost.
const WRITABLE: [&str; 9] = [
    "name",
    "type",
    "mode",
    "fields",
    "precision",
    "scale",
    "maxLength",
    "rangeElementType",
    "description",
];

/// The statement that turns the column at `path` of `fields` into `to`.
pub fn statement(
    table: &TableRef,
    fields: &Value,
    path: &[String],
    to: &ColumnKind,
) -> Result<String, Fault> {
    let (top, rest) = path.split_first().ok_or_else(|| refused("no column is named"))?;
    let field = find(fields, top).ok_or_else(|| refused("the table has no such column"))?;
    let sql_type = type_of(field, Some((rest, to)))?;
    let table =
        names::quoted_table(table).ok_or_else(|| refused("the table's name is unusable"))?;
    let column = names::quoted(text(field, "name"))
        .ok_or_else(|| refused("the column's name is unusable"))?;
    Ok(format!("ALTER TABLE {table} ALTER COLUMN {column} SET DATA TYPE {sql_type}"))
}

/// A field's type in SQL; `widen` names the type at a path below it.
fn type_of(
    field: &Map<String, Value>,
    widen: Option<(&[String], &ColumnKind)>,
) -> Result<String, Fault> {
    let single = match (text(field, "type"), widen) {
        ("RECORD" | "STRUCT", None) => record(field, None)?,
        ("RECORD" | "STRUCT", Some(([next, rest @ ..], to))) => {
            record(field, Some((next, rest, to)))?
        }
        (_, Some(([], to))) => scalar(to)?.to_owned(),
        (_, Some(_)) => return Err(refused("the column is no record")),
        (name, None) => parameterised(name, field)?,
    };
    Ok(if text(field, "mode") == "REPEATED" { format!("ARRAY<{single}>") } else { single })
}

fn record(
    field: &Map<String, Value>,
    widen: Option<(&String, &[String], &ColumnKind)>,
) -> Result<String, Fault> {
    let mut out = Vec::new();
    let mut found = widen.is_none();
    for nested in field.get("fields").and_then(Value::as_array).into_iter().flatten() {
        let nested = nested.as_object().ok_or_else(|| refused("a field is unreadable"))?;
        if let Some(strange) = nested.keys().find(|key| !WRITABLE.contains(&key.as_str())) {
            return Err(refused(format!(
                "a field of the record has `{strange}`, which SQL would drop"
            )));
        }
        let below = widen.filter(|(name, ..)| name.eq_ignore_ascii_case(text(nested, "name")));
        found |= below.is_some();
        let name = names::quoted(text(nested, "name"))
            .ok_or_else(|| refused("a field's name is unusable"))?;
        let kind = type_of(nested, below.map(|(_, rest, to)| (rest, to)))?;
        let required = if text(nested, "mode") == "REQUIRED" { " NOT NULL" } else { "" };
        let description = match nested.get("description").and_then(Value::as_str) {
            Some(description) => format!(" OPTIONS(description={})", literal(description)),
            None => String::new(),
        };
        out.push(format!("{name} {kind}{required}{description}"));
    }
    if !found {
        return Err(refused("the record has no such field"));
    }
    Ok(format!("STRUCT<{}>", out.join(", ")))
}

/// A type with its parameters, as the document has them.
fn parameterised(name: &str, field: &Map<String, Value>) -> Result<String, Fault> {
    if name == "RANGE" {
        let element =
            field.get("rangeElementType").and_then(|e| e.get("type")).and_then(Value::as_str);
        let element = element.filter(|e| matches!(*e, "DATE" | "DATETIME" | "TIMESTAMP"));
        return element
            .map(|e| format!("RANGE<{e}>"))
            .ok_or_else(|| refused("a range is unreadable"));
    }
    let sql = match name {
        "INTEGER" => "INT64",
        "FLOAT" => "FLOAT64",
        "BOOLEAN" => "BOOL",
        name if name.bytes().all(|b| b.is_ascii_alphanumeric()) && !name.is_empty() => name,
        _ => return Err(refused("a type is unreadable")),
    };
    let number = |member: &str| match field.get(member) {
        Some(Value::String(digits)) => digits.parse::<u32>().ok(),
        Some(Value::Number(number)) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
        _ => None,
    };
    Ok(match (number("precision"), number("scale"), number("maxLength")) {
        (Some(precision), Some(scale), _) => format!("{sql}({precision}, {scale})"),
        (Some(precision), None, _) => format!("{sql}({precision})"),
        (None, _, Some(length)) => format!("{sql}({length})"),
        _ => sql.to_owned(),
    })
}

fn scalar(kind: &ColumnKind) -> Result<&'static str, Fault> {
    match kind {
        ColumnKind::Float64 => Ok("FLOAT64"),
        ColumnKind::Numeric => Ok("NUMERIC"),
        ColumnKind::BigNumeric => Ok("BIGNUMERIC"),
        other => {
            Err(refused(format!("no column can be widened to {}", document::rest_type(other))))
        }
    }
}

/// A string literal of GoogleSQL.
fn literal(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn find<'a>(fields: &'a Value, name: &str) -> Option<&'a Map<String, Value>> {
    let fields = fields.as_array()?.iter().filter_map(Value::as_object);
    fields.into_iter().find(|field| text(field, "name").eq_ignore_ascii_case(name))
}

fn text<'a>(field: &'a Map<String, Value>, member: &str) -> &'a str {
    field.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn refused(why: impl std::fmt::Display) -> Fault {
    Fault::refused(
        FaultKind::InvalidRequest,
        "cannotWiden",
        format!("the column cannot be widened: {why}; change the table by hand"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sql(fields: Value, path: &[&str], to: ColumnKind) -> Result<String, Fault> {
        let table = TableRef { project: "p".into(), dataset: "d".into(), table: "t`".into() };
        let path: Vec<_> = path.iter().map(|name| (*name).to_owned()).collect();
        statement(&table, &fields, &path, &to)
    }

    #[test]
    fn a_top_level_column_is_named_by_itself() {
        let fields = json!([{"name": "a", "type": "INTEGER", "policyTags": {"names": ["x"]}}]);
        assert_eq!(
            sql(fields, &["A"], ColumnKind::Numeric).unwrap(),
            r"ALTER TABLE `p.d.t\`` ALTER COLUMN `a` SET DATA TYPE NUMERIC"
        );
    }

    #[test]
    fn a_nested_column_brings_its_whole_record() {
        let fields = json!([{"name": "r", "type": "RECORD", "mode": "REPEATED", "fields": [
            {"name": "x", "type": "INTEGER", "mode": "REQUIRED", "description": "a \"b\"\n"},
            {"name": "n", "type": "NUMERIC", "precision": "10", "scale": "2"},
            {"name": "s", "type": "STRING", "maxLength": "5", "mode": "REPEATED"},
            {"name": "g", "type": "RANGE", "rangeElementType": {"type": "DATE"}},
        ]}]);
        assert_eq!(
            sql(fields, &["r", "x"], ColumnKind::Float64).unwrap(),
            "ALTER TABLE `p.d.t\\`` ALTER COLUMN `r` SET DATA TYPE ARRAY<STRUCT<\
             `x` FLOAT64 NOT NULL OPTIONS(description=\"a \\\"b\\\"\\u000a\"), `n` NUMERIC(10, 2), \
             `s` ARRAY<STRING(5)>, `g` RANGE<DATE>>>"
        );
    }

    #[test]
    fn what_sql_would_drop_or_cannot_do_is_refused() {
        let tagged = json!([{"name": "r", "type": "RECORD", "fields": [
            {"name": "x", "type": "INTEGER"}, {"name": "y", "type": "STRING", "policyTags": {}}]}]);
        assert!(sql(tagged.clone(), &["r", "x"], ColumnKind::Float64).is_err());
        assert!(sql(tagged.clone(), &["nope"], ColumnKind::Float64).is_err());
        let plain =
            json!([{"name": "r", "type": "RECORD", "fields": [{"name": "x", "type": "INTEGER"}]}]);
        assert!(sql(plain.clone(), &["r", "nope"], ColumnKind::Float64).is_err());
        assert!(sql(plain, &["r", "x"], ColumnKind::Date).is_err());
    }
}
