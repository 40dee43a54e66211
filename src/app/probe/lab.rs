//! What a probe works with: the remotes, tables of its own, and a record of all that is said.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Method;
use serde_json::{Value, json};

use crate::{
    app::probe::{
        noted::Noted,
        prefix,
        transcript::{Log, Trouble},
    },
    fault::{Certainty, Fault, FaultKind},
    gcp::{classify::succeed, tables::names},
    rest::{Rest, RestRequest, RestResponse},
    rpc::Rpc,
    table::TableRef,
    write::storage,
};

/// How long a table of a probe lives that could not be deleted.
const TABLE_LIFE: Duration = Duration::from_hours(24);

/// How long BigQuery may take for a query.
const QUERY_TIMEOUT_MS: u32 = 30_000;

/// Where the probes go.
pub(crate) struct Remotes {
    /// BigQuery's REST API.
    pub(crate) rest: Result<Arc<dyn Rest>, Trouble>,
    /// The Storage Write API.
    pub(crate) rpc: Result<Arc<dyn Rpc>, Trouble>,
    /// The project of the configuration.
    pub(crate) project: Arc<str>,
    /// The dataset that gets the tables.
    pub(crate) dataset: Arc<str>,
    /// `bigquery.location`.
    pub(crate) location: Option<String>,
    /// When the run began, since the epoch: part of every name.
    pub(crate) began: Duration,
}

impl Remotes {
    /// What the names of this run's tables and jobs begin with.
    pub(crate) fn prefix(&self) -> String {
        prefix(self.began)
    }
}

/// A table of a probe.
#[derive(Clone, Debug)]
pub(crate) struct ProbeTable {
    /// Its name.
    pub(crate) table: TableRef,
    /// Where it lives, as BigQuery says; empty where it does not say.
    pub(crate) location: String,
}

impl ProbeTable {
    /// The table as the Storage Write API names it.
    pub(crate) fn resource(&self) -> String {
        storage::names::table(&self.table)
    }

    /// The stream that it has from the beginning.
    pub(crate) fn default_stream(&self) -> String {
        storage::names::default_stream(&self.table)
    }
}

/// One probe's workplace.
pub(crate) struct Lab {
    pub(crate) remotes: Arc<Remotes>,
    pub(crate) log: Log,
    /// Tables that may have come to be.
    tables: Mutex<Vec<TableRef>>,
}

impl Lab {
    pub(crate) fn new(remotes: Arc<Remotes>) -> Self {
        Self { remotes, log: Log::default(), tables: Mutex::default() }
    }

    fn tables(&self) -> MutexGuard<'_, Vec<TableRef>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The REST API; everything that is said to it is noted.
    pub(crate) fn rest(&self) -> Result<Arc<dyn Rest>, Trouble> {
        let rest = Arc::clone(self.remotes.rest.as_ref().map_err(Clone::clone)?);
        Ok(Arc::new(Noted { rest, log: self.log.clone() }))
    }

    /// Creates the table that the probe works on, with the columns `n` and `t`. `more` stands beside the schema
    /// in the table's document.
    pub(crate) async fn table(&self, name: &str, more: Value) -> Result<ProbeTable, Trouble> {
        let Remotes { project, dataset, began, .. } = &*self.remotes;
        let id = format!("{}_{name}", self.remotes.prefix());
        let (project, dataset) = (Arc::clone(project), Arc::clone(dataset));
        let table = TableRef { project, dataset, table: id.as_str().into() };
        let mut document = json!({
            "tableReference": {
                "projectId": *table.project, "datasetId": *table.dataset, "tableId": id,
            },
            "description": "Made by kcbq probe, which deletes it. It may be deleted at any time.",
            "expirationTime": (*began + TABLE_LIFE).as_millis().to_string(),
            "schema": { "fields": fields(false) },
        });
        if let (Some(document), Value::Object(more)) = (document.as_object_mut(), more) {
            document.extend(more);
        }
        let path = format!("{}/tables", names::dataset_path(&table));
        // Noted first: an answer that is lost, or not waited for, leaves a table, too.
        self.tables().push(table.clone());
        let created = self.send(Method::POST, path, Some(&document)).await?;
        if created.as_ref().is_err_and(|fault| fault.certainty == Certainty::Refused) {
            // One that is there already is somebody else's.
            self.tables().retain(|other| *other != table);
        }
        let created: Value =
            serde_json::from_slice(&created?.body).map_err(|_| unreadable("an answer"))?;
        let location = created.get("location").and_then(Value::as_str).unwrap_or_default();
        Ok(ProbeTable { table, location: location.to_owned() })
    }

    /// Adds the column `later`.
    pub(crate) async fn add_column(&self, table: &ProbeTable) -> Result<(), Trouble> {
        let body = json!({ "schema": { "fields": fields(true) } });
        self.ask(Method::PATCH, names::table_path(&table.table), Some(&body)).await?;
        Ok(())
    }

    /// How many rows a query finds now.
    pub(crate) async fn count(&self, table: &ProbeTable) -> Result<i64, Trouble> {
        self.count_of(table, "*").await
    }

    /// How many values of a column a query finds now.
    pub(crate) async fn count_of(&self, table: &ProbeTable, of: &str) -> Result<i64, Trouble> {
        let name =
            names::quoted_table(&table.table).ok_or_else(|| unreadable("the table's name"))?;
        let mut body = json!({
            "query": format!("SELECT COUNT({of}) FROM {name}"),
            "useLegacySql": false,
            "useQueryCache": false,
            "timeoutMs": QUERY_TIMEOUT_MS,
        });
        if let (Some(body), false) = (body.as_object_mut(), table.location.is_empty()) {
            body.insert("location".into(), table.location.as_str().into());
        }
        let path = format!("{}/queries", names::project_path(&table.table));
        let answer = self.ask(Method::POST, path, Some(&body)).await?;
        let cell = answer.pointer("/rows/0/f/0/v").and_then(Value::as_str);
        cell.and_then(|cell| cell.parse().ok()).ok_or_else(|| unreadable("the answer to a query"))
    }

    /// Deletes the probe's tables; those that may be left, and why.
    pub(crate) async fn clean(&self) -> Vec<String> {
        let tables = std::mem::take(&mut *self.tables());
        let mut left = Vec::new();
        for table in tables {
            let deleted = self.send(Method::DELETE, names::table_path(&table), None).await;
            match deleted {
                Ok(Ok(_)) => {}
                Ok(Err(fault)) if fault.kind == FaultKind::TableNotFound => {}
                Ok(Err(fault)) => left.push(format!("{table}, for a day: {fault}")),
                // It could not be created either.
                Err(_) => {}
            }
        }
        left
    }

    async fn ask(
        &self,
        method: Method,
        path: String,
        body: Option<&Value>,
    ) -> Result<Value, Trouble> {
        let answer = self.send(method, path, body).await??;
        serde_json::from_slice(&answer.body).map_err(|_| unreadable("an answer"))
    }

    async fn send(
        &self,
        method: Method,
        path: String,
        body: Option<&Value>,
    ) -> Result<Result<RestResponse, Fault>, Trouble> {
        Ok(succeed(&*self.rest()?, RestRequest::json(method, path, body)).await)
    }
}

/// The columns of every probe's table.
fn fields(later: bool) -> Value {
    let mut fields = vec![
        json!({"name": "n", "type": "INTEGER", "mode": "REQUIRED"}),
        json!({"name": "t", "type": "STRING", "mode": "NULLABLE"}),
    ];
    if later {
        fields.push(json!({"name": "later", "type": "STRING", "mode": "NULLABLE"}));
    }
    Value::Array(fields)
}

fn unreadable(what: &str) -> Trouble {
    Trouble::new(format!("{what} cannot be read"), "is there a proxy in front of BigQuery?")
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        let remedy = match fault.kind {
            FaultKind::Unauthenticated => "check `bigquery.credentials`",
            FaultKind::PermissionDenied => {
                "grant roles/bigquery.dataEditor on the dataset and roles/bigquery.jobUser in the project"
            }
            FaultKind::TableNotFound => "create the dataset, or name another by --dataset",
            FaultKind::Throttled | FaultKind::QuotaExceeded => "run it again later",
            FaultKind::Transient => {
                "check the network, `bigquery.endpoint` and `bigquery.storage_endpoint`, and run it again"
            }
            _ => "see what was answered, in the transcript",
        };
        Self::new(fault.to_string(), remedy)
    }
}
