//! BigQuery's REST API (v2) over tables in memory.
//!
//! What it refuses, and in which words, follows BigQuery's documentation and answers quoted in
//! public issue trackers. Where the real service is known to be uncertain (deduplication, when a
//! changed schema becomes visible), [`SimSettings`] decides.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::Method;
use serde_json::Value;

use crate::sim::{
    bigquery::{error::ApiError, jobs::Jobs, storage::Storage, table::Table, tables::TablePath},
    counters::Counters,
    message::{Request, Response},
    settings::SimSettings,
    upload,
};

pub mod change;
pub mod civil;
pub mod columns;
pub mod datasets;
pub mod decimal;
pub mod error;
pub mod hash;
pub mod insert;
pub mod jobs;
pub mod layout;
pub mod list;
pub mod load;
pub mod names;
pub mod query;
pub mod row;
pub mod server_fields;
pub mod storage;
pub mod store;
pub mod table;
pub mod tables;
pub mod value;
pub mod window;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The REST method's name, such as `tables.get`.
    pub operation: &'static str,
    /// The project; every route has one.
    pub project: String,
    /// The dataset; empty where the route has none.
    pub dataset: String,
    /// The table id without any partition decorator; the destination of a load job; empty where the
    /// route has none.
    pub table: String,
    /// The job id; empty where the route has none.
    pub job: String,
    /// The partition decorator behind `$`.
    pub decorator: Option<String>,
}

impl Route {
    /// The route of a request; `None` for a path that BigQuery does not serve here.
    pub fn of(request: &Request) -> Option<Self> {
        if let Some(segments) = upload::target(request) {
            return Self::of_upload(request, &segments);
        }
        let segments = request.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let rest = segments.strip_prefix(&["bigquery", "v2"]).unwrap_or(&segments);
        let (&project, rest) = rest.strip_prefix(&["projects"])?.split_first()?;
        let method = &request.method;
        let (operation, dataset, table) = match *rest {
            ["datasets"] if method == Method::GET => ("datasets.list", "", ""),
            ["datasets"] if method == Method::POST => ("datasets.insert", "", ""),
            ["datasets", d] if method == Method::GET => ("datasets.get", d, ""),
            ["datasets", d] if method == Method::DELETE => ("datasets.delete", d, ""),
            ["datasets", d, "tables"] if method == Method::GET => ("tables.list", d, ""),
            ["datasets", d, "tables"] if method == Method::POST => ("tables.insert", d, ""),
            ["datasets", d, "tables", t] => (table_operation(method)?, d, t),
            ["datasets", d, "tables", t, "insertAll"] if method == Method::POST => {
                ("tabledata.insertAll", d, t)
            }
            ["datasets", d, "tables", t, "data"] if method == Method::GET => {
                ("tabledata.list", d, t)
            }
            ["queries"] if method == Method::POST => ("jobs.query", "", ""),
            ["jobs", ..] => return Self::of_job(request, project, rest),
            _ => return None,
        };
        let (table, decorator) = match table.split_once('$') {
            Some((table, decorator)) => (table, Some(decorator.to_owned())),
            None => (table, None),
        };
        Some(Self {
            operation,
            project: project.to_owned(),
            dataset: dataset.to_owned(),
            table: table.to_owned(),
            job: String::new(),
            decorator,
        })
    }

    fn of_job(request: &Request, project: &str, rest: &[&str]) -> Option<Self> {
        let (operation, job) = match (rest, request.method.as_str()) {
            (["jobs"], "POST") => ("jobs.insert", ""),
            (["jobs"], "GET") => ("jobs.list", ""),
            (["jobs", job], "GET") => ("jobs.get", *job),
            (["jobs", job, "cancel"], "POST") => ("jobs.cancel", *job),
            _ => return None,
        };
        Some(Self::job(request, operation, project, job))
    }

    fn of_upload(request: &Request, segments: &[String]) -> Option<Self> {
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let operation = match (segments.as_slice(), request.method.as_str()) {
            (["bigquery", "v2", "projects", _, "jobs"], "POST") => "jobs.insert",
            (["bigquery", "v2", "projects", _, "jobs"], "PUT") => "jobs.upload",
            _ => return None,
        };
        Some(Self::job(request, operation, segments.get(3)?, ""))
    }

    fn job(request: &Request, operation: &'static str, project: &str, job: &str) -> Self {
        let table = match operation {
            "jobs.insert" => load::config::destination(request).unwrap_or_default(),
            _ => job.to_owned(),
        };
        Self {
            operation,
            project: project.to_owned(),
            dataset: String::new(),
            table,
            job: job.to_owned(),
            decorator: None,
        }
    }

    /// The table this route names.
    pub fn path(&self) -> TablePath<'_> {
        TablePath { project: &self.project, dataset: &self.dataset, table: &self.table }
    }
}

fn table_operation(method: &Method) -> Option<&'static str> {
    match method.as_str() {
        "GET" => Some("tables.get"),
        "PATCH" => Some("tables.patch"),
        "PUT" => Some("tables.update"),
        "DELETE" => Some("tables.delete"),
        _ => None,
    }
}

/// One dataset.
#[derive(Debug)]
pub struct Dataset {
    /// Its document.
    pub document: Value,
    /// Its tables by id.
    pub tables: BTreeMap<String, Table>,
}

/// All projects' datasets and tables.
#[derive(Debug)]
pub struct BigQuery {
    pub(crate) settings: Arc<SimSettings>,
    pub(crate) datasets: BTreeMap<(String, String), Dataset>,
    pub(crate) jobs: Jobs,
    pub(crate) storage: Storage,
    etags: u64,
}

impl BigQuery {
    /// An empty service.
    pub fn new(settings: Arc<SimSettings>) -> Self {
        let jobs = Jobs::new(&settings);
        Self { settings, datasets: BTreeMap::new(), jobs, storage: Storage::default(), etags: 0 }
    }

    /// Applies one request.
    pub fn handle(
        &mut self,
        route: &Route,
        request: &Request,
        now: Duration,
        counters: &mut Counters,
    ) -> Response {
        let upload = upload::is_upload(&request.path);
        if request.body.len() > self.settings.request_bytes_max && !upload {
            return ApiError::too_large(self.settings.request_bytes_max).into();
        }
        self.dispatch(route, request, now, counters).unwrap_or_else(Response::from)
    }

    fn dispatch(
        &mut self,
        route: &Route,
        request: &Request,
        now: Duration,
        counters: &mut Counters,
    ) -> Result<Response, ApiError> {
        let (project, dataset) = (route.project.as_str(), route.dataset.as_str());
        match route.operation {
            "tabledata.insertAll" => self.insert_all(route, request, now, counters),
            "tabledata.list" => self.list_rows(route.path(), request),
            "tables.get" => self.get_table(route.path()),
            "tables.insert" => self.insert_table(project, dataset, request, now),
            "tables.patch" => self.change_table(route.path(), request, now, false),
            "tables.update" => self.change_table(route.path(), request, now, true),
            "tables.list" => self.list_tables(project, dataset, request),
            "tables.delete" => self.delete_table(route.path(), request),
            "datasets.get" => self.get_dataset(project, dataset),
            "datasets.insert" => self.insert_dataset(project, request, now),
            "datasets.list" => Ok(self.list_datasets(project)),
            "datasets.delete" => self.delete_dataset(project, dataset, request),
            "jobs.query" => self.query(project, request, now),
            "jobs.insert" => self.insert_job(project, request, now),
            "jobs.upload" => self.upload_job(project, request, now),
            "jobs.get" => self.get_job(route, request),
            "jobs.list" => self.list_jobs(project, request),
            "jobs.cancel" => self.cancel_job(route, request, now, counters),
            other => Err(ApiError::new(501, "notImplemented", format!("{other} is not simulated"))),
        }
    }

    /// Every table as ((project, dataset), id, table).
    pub fn tables(&self) -> impl Iterator<Item = (TablePath<'_>, &Table)> {
        self.datasets.iter().flat_map(|((project, dataset), found)| {
            found
                .tables
                .iter()
                .map(move |(id, table)| (TablePath { project, dataset, table: id }, table))
        })
    }

    pub(crate) fn next_etag(&mut self) -> String {
        self.etags += 1;
        format!("sim{:08x}==", self.etags)
    }

    pub(crate) fn dataset(&self, project: &str, dataset: &str) -> Result<&Dataset, ApiError> {
        self.datasets
            .get(&(project.to_owned(), dataset.to_owned()))
            .ok_or_else(|| no_dataset(project, dataset))
    }

    pub(crate) fn dataset_mut(
        &mut self,
        project: &str,
        dataset: &str,
    ) -> Result<&mut Dataset, ApiError> {
        self.datasets
            .get_mut(&(project.to_owned(), dataset.to_owned()))
            .ok_or_else(|| no_dataset(project, dataset))
    }

    pub(crate) fn location(&self, project: &str, dataset: &str) -> Result<String, ApiError> {
        let document = &self.dataset(project, dataset)?.document;
        Ok(document.get("location").and_then(Value::as_str).unwrap_or("US").to_owned())
    }

    /// The table, or 404 for it or its dataset.
    pub fn table(&self, path: TablePath<'_>) -> Result<&Table, ApiError> {
        self.dataset(path.project, path.dataset)?
            .tables
            .get(path.table)
            .ok_or_else(|| ApiError::not_found(&format!("Table {}", path.name())))
    }

    pub(crate) fn table_mut(&mut self, path: TablePath<'_>) -> Result<&mut Table, ApiError> {
        self.dataset_mut(path.project, path.dataset)?
            .tables
            .get_mut(path.table)
            .ok_or_else(|| ApiError::not_found(&format!("Table {}", path.name())))
    }
}

fn no_dataset(project: &str, dataset: &str) -> ApiError {
    ApiError::not_found(&format!("Dataset {project}:{dataset}"))
}
