//! `tables.*`: get, insert, patch, update, list, delete.

use std::{sync::Arc, time::Duration};

use http::header;
use serde_json::{Map, Value, json};

use crate::sim::{
    bigquery::{
        BigQuery,
        change::{self, Via},
        columns::{self, Column, SchemaLimits},
        error::ApiError,
        layout, names,
        server_fields::{self, TableIdentity},
        table::Table,
    },
    message::{Request, Response},
};

/// A table's place, as the path names it.
#[derive(Clone, Copy, Debug)]
pub struct TablePath<'a> {
    /// The project.
    pub project: &'a str,
    /// The dataset.
    pub dataset: &'a str,
    /// The table id.
    pub table: &'a str,
}

impl TablePath<'_> {
    /// `p:d.t`, as BigQuery's messages spell it.
    pub fn name(&self) -> String {
        format!("{}:{}.{}", self.project, self.dataset, self.table)
    }
}

impl BigQuery {
    pub(crate) fn get_table(&self, path: TablePath<'_>) -> Result<Response, ApiError> {
        Ok(table_response(self.table(path)?))
    }

    pub(crate) fn insert_table(
        &mut self,
        project: &str,
        dataset: &str,
        request: &Request,
        now: Duration,
    ) -> Result<Response, ApiError> {
        self.dataset(project, dataset)?;
        let document = server_fields::body_object(request)?;
        let id = document
            .get("tableReference")
            .and_then(|reference| reference.get("tableId"))
            .and_then(Value::as_str)
            .ok_or_else(|| ApiError::invalid("Table reference is missing"))?
            .to_owned();
        self.create_table(TablePath { project, dataset, table: &id }, document, now)
    }

    /// Creates a table from what a client said about it, and answers with it.
    pub(crate) fn create_table(
        &mut self,
        path: TablePath<'_>,
        mut document: Map<String, Value>,
        now: Duration,
    ) -> Result<Response, ApiError> {
        let TablePath { project, dataset, table: id } = path;
        let location = self.location(project, dataset)?;
        names::check_table(id)?;
        if self.table(path).is_ok() {
            return Err(ApiError::duplicate(&format!("Table {}", path.name())));
        }
        server_fields::strip_output_only(&mut document);
        server_fields::normalise_schema(&mut document);
        let etag = self.next_etag();
        let identity = TableIdentity { project, dataset, id, location: &location };
        server_fields::complete_table(&mut document, identity, &etag, now, now);
        let (document, columns) = self.checked(document)?;
        let table = Table::new(document, columns, now, &self.settings);
        let response = table_response(&table);
        self.dataset_mut(project, dataset)?.tables.insert(id.to_owned(), table);
        Ok(response)
    }

    /// `tables.patch` (merge) and `tables.update` (replace).
    pub(crate) fn change_table(
        &mut self,
        path: TablePath<'_>,
        request: &Request,
        now: Duration,
        replace: bool,
    ) -> Result<Response, ApiError> {
        let mut body = server_fields::body_object(request)?;
        server_fields::strip_output_only(&mut body);
        server_fields::normalise_schema(&mut body);
        let current = self.table(path)?;
        if request.if_match().is_some_and(|tag| tag != current.etag()) {
            return Err(ApiError::condition_not_met());
        }
        let document = match (&current.document, replace) {
            (Value::Object(old), false) => {
                let mut merged = old.clone();
                server_fields::merge(&mut merged, body);
                merged
            }
            _ => body,
        };
        self.apply(path, document, Via::Rest, now)
    }

    /// Puts a changed document in place if BigQuery would, and answers with it.
    pub(crate) fn apply(
        &mut self,
        path: TablePath<'_>,
        mut document: Map<String, Value>,
        via: Via,
        now: Duration,
    ) -> Result<Response, ApiError> {
        let location = self.location(path.project, path.dataset)?;
        let current = self.table(path)?;
        let created = current.document.get("creationTime").and_then(Value::as_str);
        let created = created.and_then(|text| text.parse().ok()).map(Duration::from_millis);
        let etag = self.next_etag();
        let TablePath { project, dataset, table: id } = path;
        let identity = TableIdentity { project, dataset, id, location: &location };
        server_fields::complete_table(&mut document, identity, &etag, created.unwrap_or(now), now);
        let (document, columns) = self.checked(document)?;
        let current = self.table(path)?;
        change::check(&path.name(), &current.columns, &columns, via)?;
        layout::check_change(&current.document, &document)?;
        let settings = Arc::clone(&self.settings);
        let current = self.table_mut(path)?;
        current.spend_update(&path.name(), now, &settings)?;
        current.replace(document, columns, now, &settings);
        Ok(table_response(current))
    }

    /// Reads the columns of a document and refuses what no table may have.
    pub(crate) fn checked(
        &self,
        document: Map<String, Value>,
    ) -> Result<(Value, Vec<Column>), ApiError> {
        let document = Value::Object(document);
        let limits = SchemaLimits {
            columns_max: self.settings.columns_max,
            nesting_max: self.settings.nesting_max,
        };
        let columns = columns::parse(&document, limits)?;
        layout::check(&document, &columns)?;
        Ok((document, columns))
    }

    pub(crate) fn list_tables(
        &self,
        project: &str,
        dataset: &str,
        request: &Request,
    ) -> Result<Response, ApiError> {
        let tables = &self.dataset(project, dataset)?.tables;
        let after = request.parameter("pageToken").unwrap_or_default();
        let max = request.number("maxResults").unwrap_or(1_000);
        let mut rest = tables.iter().filter(|(id, _)| **id > after).peekable();
        let page: Vec<_> = rest.by_ref().take(max).collect();
        let next = rest.peek().and_then(|_| page.last()).map(|(id, _)| (*id).clone());
        let listed: Vec<Value> = page.iter().map(|(_, table)| list_entry(table)).collect();
        let mut body = json!({
            "kind": "bigquery#tableList",
            "tables": listed,
            "totalItems": tables.len(),
        });
        if let (Some(next), Some(body)) = (next, body.as_object_mut()) {
            body.insert("nextPageToken".into(), json!(next));
        }
        Ok(Response::json(200, &body))
    }

    pub(crate) fn delete_table(
        &mut self,
        path: TablePath<'_>,
        request: &Request,
    ) -> Result<Response, ApiError> {
        if request.if_match().is_some_and(|tag| self.table(path).is_ok_and(|t| t.etag() != tag)) {
            return Err(ApiError::condition_not_met());
        }
        self.table(path)?;
        self.dataset_mut(path.project, path.dataset)?.tables.remove(path.table);
        Ok(Response::empty(204))
    }
}

fn list_entry(table: &Table) -> Value {
    let keys = ["kind", "id", "tableReference", "type", "creationTime", "timePartitioning"];
    let entries = keys
        .iter()
        .filter_map(|key| table.document.get(*key).map(|value| ((*key).to_owned(), value.clone())));
    Value::Object(entries.collect())
}

fn table_response(table: &Table) -> Response {
    let mut document = table.document.clone();
    if let Some(document) = document.as_object_mut() {
        document.insert("numRows".into(), json!(table.store.count().to_string()));
    }
    Response::json(200, &document).with_header(header::ETAG, table.etag())
}
