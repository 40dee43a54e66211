//! `jobs.query`, for the two statements that the product issues: widening a column's type, and counting rows.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::sim::{
    bigquery::{
        BigQuery, change::Via, columns::find, error::ApiError, server_fields, tables::TablePath,
    },
    message::{Request, Response},
};

pub mod statement;

use statement::{Alter, Count, SqlType, Statement, TableName};

impl BigQuery {
    pub(crate) fn query(
        &mut self,
        project: &str,
        request: &Request,
        now: Duration,
    ) -> Result<Response, ApiError> {
        let body = server_fields::body_object(request)?;
        let text = body.get("query").and_then(Value::as_str).unwrap_or_default();
        if body.get("useLegacySql").and_then(Value::as_bool) != Some(false) {
            return Err(invalid_query("DDL needs useLegacySql=false (it is true by default)"));
        }
        let more = match statement::parse(text).map_err(|detail| invalid_query(&detail))? {
            Statement::Alter(alter) => {
                self.alter_column(project, &alter, now)?;
                json!({"ddlOperationPerformed": "ALTER"})
            }
            Statement::Count(count) => {
                let rows = self.count(project, &count)?.to_string();
                json!({"totalRows": "1", "rows": [{"f": [{"v": rows}]}]})
            }
        };
        let job = self.jobs.next_id();
        let mut answer = json!({
            "kind": "bigquery#queryResponse",
            "jobReference": {"projectId": project, "jobId": job, "location": "US"},
            "jobComplete": true,
            "totalBytesProcessed": "0",
            "cacheHit": false,
        });
        if let (Some(answer), Value::Object(more)) = (answer.as_object_mut(), more) {
            answer.extend(more);
        }
        Ok(Response::json(200, &answer))
    }

    /// Values are counted of rows that are kept.
    fn count(&self, default_project: &str, count: &Count) -> Result<u64, ApiError> {
        let table = self.table(count.table.path(default_project))?;
        let Some(name) = &count.column else { return Ok(table.store.count()) };
        let column = find(&table.columns, name)
            .ok_or_else(|| invalid_query(&format!("Unrecognized name: {name}")))?;
        let has = |row: &&Map<String, Value>| row.get(&column.name).is_some_and(|it| !it.is_null());
        Ok(table.store.rows().iter().filter(has).count() as u64)
    }

    fn alter_column(
        &mut self,
        default_project: &str,
        alter: &Alter,
        now: Duration,
    ) -> Result<(), ApiError> {
        let path = alter.table.path(default_project);
        let mut document = match &self.table(path)?.document {
            Value::Object(document) => document.clone(),
            _ => Map::new(),
        };
        let fields = document.get_mut("schema").and_then(|schema| schema.get_mut("fields"));
        let field = fields.and_then(Value::as_array_mut).and_then(|fields| {
            fields.iter_mut().filter_map(Value::as_object_mut).find(|field| {
                let name = field.get("name").and_then(Value::as_str);
                name.is_some_and(|name| name.eq_ignore_ascii_case(&alter.column))
            })
        });
        let field =
            field.ok_or_else(|| invalid_query(&format!("Column not found: {}", alter.column)))?;
        set_type(field, &alter.ty).map_err(|detail| invalid_query(&detail))?;
        self.apply(path, document, Via::Ddl, now)?;
        Ok(())
    }
}

impl TableName {
    fn path<'a>(&'a self, default_project: &'a str) -> TablePath<'a> {
        let project = self.project.as_deref().unwrap_or(default_project);
        TablePath { project, dataset: &self.dataset, table: &self.table }
    }
}

fn invalid_query(detail: &str) -> ApiError {
    ApiError::new(400, "invalidQuery", detail)
}

/// Writes a SQL type into a column's document, keeping every other attribute.
fn set_type(field: &mut Map<String, Value>, ty: &SqlType) -> Result<(), String> {
    let repeated = field.get("mode").and_then(Value::as_str) == Some("REPEATED");
    let ty = match ty {
        SqlType::Array(item) if repeated => item,
        SqlType::Array(_) => return Err("ALTER COLUMN cannot make a column an ARRAY".to_owned()),
        _ if repeated => return Err("ALTER COLUMN cannot make an ARRAY a scalar".to_owned()),
        ty => ty,
    };
    match ty {
        SqlType::Scalar { name, parameters } => {
            for key in ["precision", "scale", "maxLength"] {
                field.shift_remove(key);
            }
            field.insert("type".into(), json!(name));
            for (key, value) in parameters {
                field.insert((*key).into(), json!(value.to_string()));
            }
            Ok(())
        }
        SqlType::Struct(members) => set_members(field, members),
        SqlType::Array(_) => Err("ARRAY of ARRAY is not a type".to_owned()),
    }
}

fn set_members(
    field: &mut Map<String, Value>,
    members: &[(String, SqlType)],
) -> Result<(), String> {
    let fields = field.get_mut("fields").and_then(Value::as_array_mut);
    let fields = fields.ok_or("ALTER COLUMN cannot make a column a STRUCT")?;
    if fields.len() > members.len() {
        return Err("ALTER COLUMN cannot drop STRUCT fields".to_owned());
    }
    for (name, ty) in members {
        let known = fields.iter_mut().filter_map(Value::as_object_mut).find(|field| {
            let known = field.get("name").and_then(Value::as_str);
            known.is_some_and(|known| known.eq_ignore_ascii_case(name))
        });
        let known = known.ok_or_else(|| format!("STRUCT field {name} is not in the table"))?;
        set_type(known, ty)?;
    }
    Ok(())
}
