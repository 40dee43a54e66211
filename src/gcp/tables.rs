//! The catalog port over BigQuery's REST API: look at, create and change tables.

pub mod document;
pub mod names;
pub mod patch;
pub mod widen;

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, header::IF_MATCH};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    catalog::{Catalog, TableDescription},
    fault::{Fault, FaultKind},
    gcp::classify::{Item, statement_fault, succeed},
    rest::{Rest, RestRequest, RestResponse},
    schema::diff::Change,
    table::{ColumnKind, TableLayout, TableRef, TableSchema},
};

/// How long BigQuery may take for a statement before it answers that it is still at it.
const QUERY_TIMEOUT_MS: u32 = 30_000;

/// [`Catalog`] over a REST endpoint. Cheap to clone.
#[derive(Clone)]
pub struct Tables {
    rest: Arc<dyn Rest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct QueryAnswer {
    job_complete: bool,
    errors: Vec<Item>,
}

impl Tables {
    /// A catalog over `rest`.
    pub fn new(rest: Arc<dyn Rest>) -> Self {
        Self { rest }
    }

    async fn send(
        &self,
        method: Method,
        path: String,
        body: Option<&Value>,
        if_match: Option<&str>,
    ) -> Result<RestResponse, Fault> {
        let mut request = RestRequest::json(method, path, body);
        if let Some(etag) = if_match {
            let etag = HeaderValue::from_str(etag).map_err(|_| unreadable())?;
            request.headers.insert(IF_MATCH, etag);
        }
        succeed(&*self.rest, request).await
    }

    async fn look(&self, table: &TableRef) -> Result<Option<TableDescription>, Fault> {
        match self.send(Method::GET, names::table_path(table), None, None).await {
            Ok(answer) => described(&answer).map(Some),
            Err(fault) if fault.kind == FaultKind::TableNotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn new_dataset(&self, table: &TableRef, location: Option<&str>) -> Result<(), Fault> {
        let mut body = json!({
            "datasetReference": { "projectId": *table.project, "datasetId": *table.dataset },
        });
        if let (Some(location), Some(members)) = (location, body.as_object_mut()) {
            members.insert("location".into(), location.into());
        }
        let path = format!("{}/datasets", names::project_path(table));
        self.send(Method::POST, path, Some(&body), None).await.map(drop)
    }

    async fn new_table(
        &self,
        table: &TableRef,
        schema: &TableSchema,
        layout: &TableLayout,
    ) -> Result<TableDescription, Fault> {
        let body = document::new_table(table, schema, layout);
        let path = format!("{}/tables", names::dataset_path(table));
        described(&self.send(Method::POST, path, Some(&body), None).await?)
    }

    async fn change(
        &self,
        table: &TableRef,
        base: &TableDescription,
        changes: &[Change],
    ) -> Result<TableDescription, Fault> {
        let mut latest = None;
        if changes.iter().any(|change| !matches!(change, Change::Widen { .. })) {
            latest = Some(self.patch(table, base, changes).await?);
        }
        for change in changes {
            if let Change::Widen { path, to } = change {
                latest = Some(self.widen(table, latest.as_ref().unwrap_or(base), path, to).await?);
            }
        }
        Ok(latest.unwrap_or_else(|| base.clone()))
    }

    /// Sends the edited fields back, policy tags included, which certainly keeps them. An identity that
    /// may change tables but not see taxonomies is refused for that; then they are left out, which also
    /// keeps them (python-bigquery#557, airflow#15367), and needs no right.
    async fn patch(
        &self,
        table: &TableRef,
        base: &TableDescription,
        changes: &[Change],
    ) -> Result<TableDescription, Fault> {
        let mut fields = patch::fields(&base.document, changes).map_err(|misfit| {
            Fault::refused(FaultKind::InvalidRequest, "misfit", misfit.to_string())
                .with_source(misfit)
        })?;
        match self.patch_fields(table, base, &fields).await {
            Err(fault)
                if fault.kind == FaultKind::PermissionDenied && patch::has_policy_tags(&fields) =>
            {
                patch::without_policy_tags(&mut fields);
                self.patch_fields(table, base, &fields).await
            }
            other => other,
        }
    }

    async fn patch_fields(
        &self,
        table: &TableRef,
        base: &TableDescription,
        fields: &Value,
    ) -> Result<TableDescription, Fault> {
        let body = json!({ "schema": { "fields": fields } });
        let path = names::table_path(table);
        let answer = self.send(Method::PATCH, path, Some(&body), Some(&base.etag)).await?;
        described(&answer)
    }

    /// Widens one column by SQL, if the table still is what `base` says. Between the look and the
    /// statement another replica may change it; see [`widen`] for why that does no harm.
    async fn widen(
        &self,
        table: &TableRef,
        base: &TableDescription,
        path: &[String],
        to: &ColumnKind,
    ) -> Result<TableDescription, Fault> {
        let now = self.look(table).await?.ok_or_else(|| gone(table))?;
        if now.etag != base.etag {
            return Err(Fault::refused(FaultKind::Conflict, "etag", "the table has changed"));
        }
        let fields = now.document.pointer("/schema/fields").unwrap_or(&Value::Null);
        let sql = widen::statement(table, fields, path, to)?;
        self.query(table, &sql, now.document.get("location").and_then(Value::as_str)).await?;
        self.look(table).await?.ok_or_else(|| gone(table))
    }

    /// Runs a statement in the project of the table; it needs `bigquery.jobs.create` there.
    async fn query(
        &self,
        table: &TableRef,
        sql: &str,
        location: Option<&str>,
    ) -> Result<(), Fault> {
        let mut body =
            json!({ "query": sql, "useLegacySql": false, "timeoutMs": QUERY_TIMEOUT_MS });
        if let (Some(location), Some(members)) = (location, body.as_object_mut()) {
            members.insert("location".into(), location.into());
        }
        let path = format!("{}/queries", names::project_path(table));
        let answer = self.send(Method::POST, path, Some(&body), None).await?;
        let answer: QueryAnswer = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
        match answer.errors.first() {
            Some(error) => Err(statement_fault(error)),
            None if answer.job_complete => Ok(()),
            None => Err(Fault::unknown(
                FaultKind::Transient,
                "jobRunning",
                "the change of the table takes longer than half a minute",
            )),
        }
    }
}

impl Catalog for Tables {
    fn describe<'a>(
        &'a self,
        table: &'a TableRef,
    ) -> BoxFuture<'a, Result<Option<TableDescription>, Fault>> {
        Box::pin(self.look(table))
    }

    fn create_dataset<'a>(
        &'a self,
        table: &'a TableRef,
        location: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(self.new_dataset(table, location))
    }

    fn create_table<'a>(
        &'a self,
        table: &'a TableRef,
        schema: &'a TableSchema,
        layout: &'a TableLayout,
    ) -> BoxFuture<'a, Result<TableDescription, Fault>> {
        Box::pin(self.new_table(table, schema, layout))
    }

    fn alter<'a>(
        &'a self,
        table: &'a TableRef,
        base: &'a TableDescription,
        changes: &'a [Change],
    ) -> BoxFuture<'a, Result<TableDescription, Fault>> {
        Box::pin(self.change(table, base, changes))
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

fn described(answer: &RestResponse) -> Result<TableDescription, Fault> {
    let mut document: Value = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
    // The ETag also comes as a header; emulators send only one of them.
    let header = answer.headers.get(http::header::ETAG).and_then(|etag| etag.to_str().ok());
    if let (Some(etag), Some(members)) = (header, document.as_object_mut()) {
        members.entry("etag").or_insert_with(|| etag.into());
    }
    document::description(document)
}

fn gone(table: &TableRef) -> Fault {
    Fault::refused(FaultKind::TableNotFound, "notFound", format!("table {table} is gone"))
}

fn unreadable() -> Fault {
    Fault::unknown(
        FaultKind::Transient,
        "unreadableAnswer",
        "the answer is not one of BigQuery; is there a proxy in between?",
    )
}

#[cfg(test)]
mod tests;

#[cfg(test)]
#[cfg(feature = "sim")]
mod contract;
