//! What a BigQuery must do, as far as the service relies on it.
//!
//! Runs against every front of the simulator (`sim_contract_fronts.rs`), and by `tests/e2e` against a
//! public emulator, with the same assertions: that keeps the simulator from drifting into agreeing
//! only with us. What the emulator is known to do otherwise is listed with each check.

mod rows;
mod schemas;
mod tables;
mod values;

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use kcbq::rest::{Rest, RestError, RestRequest, RestResponse};
use serde_json::{Value, json};

/// An endpoint under test, with a dataset of its own.
pub(crate) struct Subject<'a> {
    pub(crate) rest: &'a dyn Rest,
    pub(crate) project: &'a str,
    pub(crate) dataset: String,
}

type Run = for<'a> fn(&'a Subject<'a>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// One thing that holds for BigQuery.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// What local-bigquery 0.3.2 does instead, where it differs.
    pub(crate) difference: Option<&'static str>,
    run: Run,
}

macro_rules! checks {
    ($($module:ident::$name:ident $(=> $difference:literal)?),* $(,)?) => {
        /// Every check.
        pub(crate) const CHECKS: &[Check] = &[$(Check {
            name: stringify!($name),
            difference: checks!(@ $($difference)?),
            run: |subject| Box::pin($module::$name(subject)),
        }),*];
    };
    (@) => { None };
    (@ $difference:literal) => { Some($difference) };
}

checks! {
    tables::datasets_come_and_go,
    tables::tables_come_and_go,
    tables::etags_guard_changes,
    tables::lost_updates_have_a_reason,
    tables::unknown_attributes_survive_an_added_column => "attributes that it does not know are gone",
    tables::table_updates_have_a_quota => "no quota",
    tables::bad_layouts_are_refused => "any partitioning and clustering is taken",
    schemas::added_columns_take_rows,
    schemas::legal_changes_are_taken,
    schemas::illegal_changes_are_refused => "other words, and most illegal changes are taken",
    schemas::bad_schemas_are_refused => "any column is taken",
    schemas::types_widen_by_ddl_only => "NUMERIC does not become BIGNUMERIC",
    schemas::other_queries_are_refused => "it is a database: queries are answered",
    rows::insert_ids_deduplicate,
    rows::rows_without_an_insert_id_are_all_stored,
    rows::one_bad_row_stops_all,
    rows::only_listed_rows_fail_when_skipping,
    rows::required_columns_are_required,
    rows::missing_values_are_named => "null in a REQUIRED column is called missing",
    rows::unknown_columns_are_refused,
    rows::unknown_columns_are_refused_at_every_depth => "inside records they are dropped",
    rows::unknown_columns_may_be_ignored,
    rows::requests_have_limits => "no limits",
    rows::rows_come_in_pages,
    rows::unknown_tables_take_no_rows,
    rows::unknown_datasets_and_tables_without_columns_take_no_rows => "the table is named, not the dataset",
    values::scalars_survive,
    values::plainly_wrong_values_are_refused,
    values::wrong_values_are_refused => "other words, and some wrong values are taken",
    values::values_out_of_bounds_are_refused => "other words, and some such values are cut",
    values::right_values_are_taken,
    values::wide_decimals_numeric_timestamps_and_json_are_taken
        => "18 digits after the point, no epoch numbers, JSON keys in their order",
    values::nested_and_repeated_cells_survive,
    values::required_columns_are_required_inside_records => "inside records nothing is checked",
}

impl Check {
    /// Runs it in a dataset of its own; panics where it does not hold.
    pub(crate) async fn run(&self, rest: &dyn Rest, project: &str) {
        let subject = Subject { rest, project, dataset: format!("contract_{}", self.name) };
        let body = json!({"datasetReference": {"datasetId": subject.dataset}});
        let (status, answer) = subject.send(Method::POST, "/datasets", Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        (self.run)(&subject).await;
    }
}

/// A [`Rest`] over HTTP without credentials.
pub(crate) struct HttpRest {
    client: reqwest::Client,
    endpoint: String,
}

impl HttpRest {
    pub(crate) fn new(endpoint: impl Into<String>) -> Self {
        // Emulators close connections without notice after some answers.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build();
        Self { client: client.expect("a client"), endpoint: endpoint.into() }
    }
}

impl Rest for HttpRest {
    fn call(
        &self,
        request: RestRequest,
    ) -> futures_util::future::BoxFuture<'_, Result<RestResponse, RestError>> {
        Box::pin(async move {
            let no_answer = |error: reqwest::Error| RestError::NoAnswer {
                endpoint: self.endpoint.clone(),
                source: error.into(),
            };
            let url = format!("{}{}", self.endpoint, request.path);
            let sent = self.client.request(request.method, url).headers(request.headers);
            let answer = sent.body(request.body.into_bytes()).send().await.map_err(no_answer)?;
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            let body = answer.bytes().await.map_err(no_answer)?;
            Ok(RestResponse { status, headers, body })
        })
    }
}

/// A request with a JSON body.
pub(crate) fn json_request(
    method: Method,
    path: impl Into<String>,
    body: Option<&Value>,
) -> RestRequest {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    RestRequest { method, path: path.into(), headers, body: body.into() }
}

/// The answer's body as JSON, null if it is none.
pub(crate) fn parsed(response: &RestResponse) -> Value {
    serde_json::from_slice(&response.body).unwrap_or(Value::Null)
}

/// The first reason of an error envelope.
pub(crate) fn reason(body: &Value) -> &str {
    body["error"]["errors"][0]["reason"].as_str().unwrap_or_default()
}

/// The message of an error envelope.
pub(crate) fn message(body: &Value) -> &str {
    body["error"]["message"].as_str().unwrap_or_default()
}

impl Subject<'_> {
    /// One request below the project.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let path = format!("/bigquery/v2/projects/{}{path}", self.project);
        let request = json_request(method, path, body.as_ref());
        let response = self.rest.call(request).await.expect("an answer");
        (response.status, parsed(&response))
    }

    pub(crate) fn table_path(&self, table: &str) -> String {
        format!("/datasets/{}/tables/{table}", self.dataset)
    }

    /// Tries to create a table with more than columns.
    pub(crate) async fn try_create(&self, table: &str, rest: Value) -> (u16, Value) {
        let mut body = json!({"tableReference": {
            "projectId": self.project, "datasetId": self.dataset, "tableId": table,
        }});
        for (key, value) in rest.as_object().expect("an object") {
            body[key] = value.clone();
        }
        self.send(Method::POST, &format!("/datasets/{}/tables", self.dataset), Some(body)).await
    }

    pub(crate) async fn create(&self, table: &str, fields: Value) -> Value {
        let (status, body) = self.try_create(table, json!({"schema": {"fields": fields}})).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    pub(crate) async fn get(&self, table: &str) -> Value {
        let (status, body) = self.send(Method::GET, &self.table_path(table), None).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    pub(crate) async fn patch(&self, table: &str, body: Value) -> (u16, Value) {
        self.send(Method::PATCH, &self.table_path(table), Some(body)).await
    }

    /// insertAll of plain rows without insertIds.
    pub(crate) async fn insert(&self, table: &str, rows: &[Value]) -> Value {
        let rows: Vec<Value> = rows.iter().map(|row| json!({"json": row})).collect();
        let (status, body) = self.insert_body(table, json!({"rows": rows})).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    pub(crate) async fn insert_body(&self, table: &str, body: Value) -> (u16, Value) {
        let path = format!("{}/insertAll", self.table_path(table));
        self.send(Method::POST, &path, Some(body)).await
    }

    /// The stored rows' cells, timestamps in microseconds.
    pub(crate) async fn rows(&self, table: &str) -> Vec<Value> {
        let path = format!("{}/data?formatOptions.useInt64Timestamp=true", self.table_path(table));
        let (status, body) = self.send(Method::GET, &path, None).await;
        assert_eq!(status, 200, "{body}");
        body["rows"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) async fn query(&self, sql: &str) -> (u16, Value) {
        let body = json!({"query": sql, "useLegacySql": false});
        self.send(Method::POST, "/queries", Some(body)).await
    }

    /// The single error of the single row, which must be `invalid`.
    pub(crate) async fn refusal(&self, table: &str, row: Value) -> (String, String) {
        let body = self.insert(table, std::slice::from_ref(&row)).await;
        let error = &body["insertErrors"][0]["errors"][0];
        assert_eq!(error["reason"], "invalid", "{row} was answered with {body}");
        let text = |key: &str| error[key].as_str().expect("a text").to_owned();
        (text("location"), text("message"))
    }
}
