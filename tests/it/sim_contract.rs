//! What a BigQuery must do, as far as the service relies on it.
//!
//! Runs against every front of the simulator (`sim_contract_fronts.rs`), and may be included by
//! `tests/e2e` with `#[path]` to run against a public emulator: that keeps the simulator from
//! drifting into agreeing only with us. What the emulator is known to do wrong is skipped by name
//! (see [`Kind`]).

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use kcbq::rest::{Rest, RestError, RestRequest, RestResponse};
use serde_json::{Value, json};

/// Who is being tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The project's own simulator: everything holds.
    Simulator,
    /// local-bigquery 0.3.2, which accepts illegal schema changes, ignores nested ones, drops
    /// unknown nested columns, takes 1.5 for INT64 and a scalar for a RECORD, and has no limits.
    LocalBigquery,
}

/// An endpoint under test, with a dataset of its own.
pub(crate) struct Subject<'a> {
    pub(crate) rest: &'a dyn Rest,
    pub(crate) kind: Kind,
    pub(crate) project: &'a str,
    pub(crate) dataset: String,
}

pub(crate) type Check =
    for<'a> fn(&'a Subject<'a>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

macro_rules! checks {
    ($($kinds:ident $name:ident),* $(,)?) => {
        /// Every check: its name, whether it holds for public emulators, and itself.
        pub(crate) const CHECKS: &[(&str, bool, Check)] = &[
            $((stringify!($name), checks!(@ $kinds), |subject| Box::pin($name(subject)))),*
        ];
    };
    (@ everywhere) => { true };
    (@ simulator) => { false };
}

checks! {
    everywhere datasets_come_and_go,
    everywhere tables_come_and_go,
    everywhere etags_guard_changes,
    everywhere added_columns_take_rows,
    everywhere scalars_survive,
    everywhere insert_ids_deduplicate,
    everywhere one_bad_row_stops_all,
    everywhere only_listed_rows_fail_when_skipping,
    everywhere required_columns_are_required,
    simulator unknown_attributes_survive_an_added_column,
    simulator illegal_changes_are_refused,
    simulator legal_changes_are_taken,
    simulator bad_schemas_are_refused,
    simulator bad_layouts_are_refused,
    simulator unknown_columns_are_refused_at_every_depth,
    simulator unknown_columns_may_be_ignored,
    simulator wrong_values_are_refused,
    simulator values_out_of_bounds_are_refused,
    simulator right_values_are_taken,
    simulator nested_and_repeated_cells_survive,
    simulator requests_have_limits,
    simulator table_updates_have_a_quota,
    simulator types_widen_by_ddl_only,
    simulator other_queries_are_refused,
    simulator rows_come_in_pages,
    simulator unknown_tables_take_no_rows,
}

/// Runs every check that holds for this kind, each in a dataset of its own.
pub(crate) async fn check_all(rest: &dyn Rest, kind: Kind, project: &str) {
    for (name, everywhere, check) in CHECKS {
        if kind != Kind::Simulator && !everywhere {
            continue;
        }
        eprintln!("contract: {name}");
        let subject = Subject { rest, kind, project, dataset: format!("contract_{name}") };
        let body = json!({"datasetReference": {"datasetId": subject.dataset}});
        let (status, answer) = subject.send(Method::POST, "/datasets", Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        check(&subject).await;
    }
}

/// A [`Rest`] over HTTP without credentials.
pub(crate) struct HttpRest {
    client: reqwest::Client,
    endpoint: String,
}

impl HttpRest {
    pub(crate) fn new(endpoint: impl Into<String>) -> Self {
        Self { client: reqwest::Client::new(), endpoint: endpoint.into() }
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
            let answer = sent.body(request.body).send().await.map_err(no_answer)?;
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
    RestRequest { method, path: path.into(), headers, body }
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

async fn datasets_come_and_go(s: &Subject<'_>) {
    let body = json!({"datasetReference": {"datasetId": "come_and_go"}, "location": "EU"});
    let (status, created) = s.send(Method::POST, "/datasets", Some(body.clone())).await;
    assert_eq!(status, 200, "{created}");
    assert_eq!(s.send(Method::GET, "/datasets/come_and_go", None).await.0, 200);
    let (status, body) = s.send(Method::POST, "/datasets", Some(body)).await;
    assert_eq!((status, reason(&body)), (409, "duplicate"), "{body}");
    let (_, listed) = s.send(Method::GET, "/datasets", None).await;
    let mut ids = listed["datasets"].as_array().unwrap().iter();
    assert!(ids.any(|d| d["datasetReference"]["datasetId"] == "come_and_go"));
    let (status, _) = s.send(Method::DELETE, "/datasets/come_and_go", None).await;
    assert!((200..300).contains(&status), "{status}");
    let (status, body) = s.send(Method::GET, "/datasets/come_and_go", None).await;
    assert_eq!((status, reason(&body)), (404, "notFound"), "{body}");
}

async fn tables_come_and_go(s: &Subject<'_>) {
    let (status, body) = s.send(Method::GET, &s.table_path("t"), None).await;
    assert_eq!((status, reason(&body)), (404, "notFound"), "{body}");
    let created = s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    assert_eq!(created["tableReference"]["tableId"], "t");
    assert!(created["creationTime"].as_str().unwrap().parse::<u64>().is_ok());
    assert_eq!(s.get("t").await["schema"]["fields"][0]["name"], "a");
    let (status, body) = s.try_create("t", json!({})).await;
    assert_eq!((status, reason(&body)), (409, "duplicate"), "{body}");
    let path = format!("/datasets/{}/tables", s.dataset);
    let (_, listed) = s.send(Method::GET, &path, None).await;
    assert_eq!(listed["tables"][0]["tableReference"]["tableId"], "t");
    let (status, _) = s.send(Method::DELETE, &s.table_path("t"), None).await;
    assert!((200..300).contains(&status), "{status}");
    assert_eq!(s.send(Method::GET, &s.table_path("t"), None).await.0, 404);
}

async fn etags_guard_changes(s: &Subject<'_>) {
    let created = s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    let etag = s.get("t").await["etag"].as_str().unwrap().to_owned();
    assert_eq!(created["etag"], etag.as_str(), "reading does not change the entity tag");
    let patch = async |etag: &str, description: &str| {
        let path = format!("/bigquery/v2/projects/{}{}", s.project, s.table_path("t"));
        let body = json!({"description": description});
        let mut request = json_request(Method::PATCH, path, Some(&body));
        request.headers.insert(header::IF_MATCH, HeaderValue::from_str(etag).unwrap());
        s.rest.call(request).await.unwrap()
    };
    assert_eq!(patch(&etag, "one").await.status, 200);
    let lost = patch(&etag, "two").await;
    assert_eq!(lost.status, 412);
    let current = s.get("t").await;
    assert_eq!(current["description"], "one");
    assert_ne!(current["etag"], etag.as_str());
    if s.kind == Kind::Simulator {
        assert_eq!(reason(&parsed(&lost)), "conditionNotMet");
    }
}

async fn added_columns_take_rows(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    s.insert("t", &[json!({"a": "1"})]).await;
    let fields = json!([{"name": "a", "type": "STRING"}, {"name": "b", "type": "INTEGER"}]);
    let (status, body) = s.patch("t", json!({"schema": {"fields": fields}})).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["schema"]["fields"][1]["name"], "b");
    let answer = s.insert("t", &[json!({"a": "2", "b": 7})]).await;
    assert!(answer.get("insertErrors").is_none(), "{answer}");
    let mut rows: Vec<String> = s.rows("t").await.iter().map(|row| row["f"].to_string()).collect();
    rows.sort();
    assert_eq!(rows, [r#"[{"v":"1"},{"v":null}]"#, r#"[{"v":"2"},{"v":"7"}]"#]);
}

async fn scalars_survive(s: &Subject<'_>) {
    let cells = [
        ("BOOLEAN", json!(true), "true"),
        ("INTEGER", json!("-9223372036854775808"), "-9223372036854775808"),
        ("FLOAT", json!(0.1), "0.1"),
        (
            "NUMERIC",
            json!("12345678901234567890123456789.123456789"),
            "12345678901234567890123456789.123456789",
        ),
        ("STRING", json!("ü\u{1F600}\"\\"), "ü\u{1F600}\"\\"),
        ("BYTES", json!("AP8="), "AP8="),
        ("DATE", json!("0001-01-01"), "0001-01-01"),
        ("TIME", json!("23:59:59.999999"), "23:59:59.999999"),
        ("DATETIME", json!("2024-02-29T01:02:03.000004"), "2024-02-29T01:02:03.000004"),
        ("TIMESTAMP", json!("1969-12-31T23:59:59.999999Z"), "-1"),
    ];
    let fields: Vec<Value> =
        cells.iter().map(|(ty, ..)| json!({"name": format!("c_{ty}"), "type": ty})).collect();
    s.create("t", json!(fields)).await;
    let row: serde_json::Map<String, Value> =
        cells.iter().map(|(ty, value, _)| (format!("c_{ty}"), value.clone())).collect();
    let answer = s.insert("t", &[Value::Object(row)]).await;
    assert!(answer.get("insertErrors").is_none(), "{answer}");
    let rows = s.rows("t").await;
    for ((ty, _, expected), cell) in cells.iter().zip(rows[0]["f"].as_array().unwrap()) {
        assert_eq!(cell["v"], *expected, "{ty}");
    }
}

async fn insert_ids_deduplicate(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    let row = |id: &str, a: &str| json!({"insertId": id, "json": {"a": a}});
    for _ in 0..2 {
        let (status, body) =
            s.insert_body("t", json!({"rows": [row("1", "x"), row("2", "y")]})).await;
        assert_eq!(status, 200);
        assert!(body.get("insertErrors").is_none(), "{body}");
    }
    assert_eq!(s.rows("t").await.len(), 2);
    if s.kind == Kind::Simulator {
        s.insert_body("t", json!({"rows": [{"json": {"a": "z"}}, {"json": {"a": "z"}}]})).await;
        assert_eq!(s.rows("t").await.len(), 4, "rows without an insertId are all stored");
    }
}

async fn one_bad_row_stops_all(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "INTEGER"}])).await;
    let body = s.insert("t", &[json!({"a": 1}), json!({"a": "x"}), json!({"a": 2})]).await;
    let mut reasons: Vec<(u64, &str)> = body["insertErrors"]
        .as_array()
        .unwrap_or_else(|| panic!("no insertErrors in {body}"))
        .iter()
        .map(|e| (e["index"].as_u64().unwrap(), e["errors"][0]["reason"].as_str().unwrap()))
        .collect();
    reasons.sort_unstable();
    assert_eq!(reasons, [(0, "stopped"), (1, "invalid"), (2, "stopped")]);
    assert!(s.rows("t").await.is_empty());
}

async fn only_listed_rows_fail_when_skipping(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "INTEGER"}])).await;
    let rows = json!([{"json": {"a": 1}}, {"json": {"a": "x"}}, {"json": {"a": 2}}]);
    let (status, body) = s.insert_body("t", json!({"skipInvalidRows": true, "rows": rows})).await;
    assert_eq!(status, 200, "{body}");
    let errors = body["insertErrors"].as_array().unwrap();
    assert_eq!((errors.len(), &errors[0]["index"]), (1, &json!(1)), "{body}");
    assert_eq!(s.rows("t").await.len(), 2);
}

async fn required_columns_are_required(s: &Subject<'_>) {
    s.create(
        "t",
        json!([
            {"name": "a", "type": "STRING", "mode": "REQUIRED"},
            {"name": "b", "type": "STRING"}
        ]),
    )
    .await;
    let missing = s.refusal("t", json!({"b": "x"})).await;
    let null = s.refusal("t", json!({"a": null})).await;
    if s.kind == Kind::Simulator {
        assert_eq!(missing.1, "Missing required field: a.");
        assert_eq!(null.1, "Only optional fields can be set to NULL. Field: a; Value: NULL");
    }
}

async fn unknown_attributes_survive_an_added_column(s: &Subject<'_>) {
    let document = json!({
        "description": "kept",
        "labels": {"team": "a"},
        "schema": {"fields": [
            {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
            {"name": "amount", "type": "NUMERIC", "precision": "10", "scale": "2"},
            {"name": "state", "type": "STRING", "maxLength": "20", "defaultValueExpression": "'new'"},
            {"name": "secret", "type": "STRING", "policyTags": {"names": ["projects/p/locations/eu/taxonomies/1/policyTags/2"]}},
            {"name": "valid", "type": "RANGE", "rangeElementType": {"type": "DATE"}},
        ]},
        "tableConstraints": {"primaryKey": {"columns": ["id"]}},
        "maxStaleness": "0-0 0 0:15:0",
        "clustering": {"fields": ["id"]},
        "timePartitioning": {"type": "DAY", "expirationMs": "86400000"},
        "someFutureAttribute": {"deep": [1, 2, {"x": null}]},
    });
    let (status, created) = s.try_create("t", document.clone()).await;
    assert_eq!(status, 200, "{created}");
    let before = s.get("t").await;
    for (key, value) in document.as_object().unwrap() {
        assert_eq!(&before[key], value, "{key} as created");
    }
    let mut fields = before["schema"]["fields"].clone();
    fields.as_array_mut().unwrap().push(json!({"name": "added", "type": "STRING"}));
    let (status, body) = s.patch("t", json!({"schema": {"fields": fields}})).await;
    assert_eq!(status, 200, "{body}");
    let mut after = s.get("t").await;
    after["schema"]["fields"].as_array_mut().unwrap().pop();
    for key in ["etag", "lastModifiedTime"] {
        after[key] = before[key].clone();
    }
    assert_eq!(after, before, "nothing but the addition changed");
}

fn base_fields() -> Value {
    json!([
        {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
        {"name": "n", "type": "INTEGER"},
        {"name": "s", "type": "STRING", "maxLength": "10"},
        {"name": "d", "type": "NUMERIC", "precision": "10", "scale": "2"},
        {"name": "r", "type": "RECORD", "fields": [{"name": "x", "type": "STRING"}]},
        {"name": "l", "type": "STRING", "mode": "REPEATED"},
    ])
}

/// `base_fields` with one field (by its index path) changed by `change`.
fn changed(change: impl FnOnce(&mut Vec<Value>)) -> Value {
    let mut fields = base_fields();
    change(fields.as_array_mut().unwrap());
    fields
}

async fn illegal_changes_are_refused(s: &Subject<'_>) {
    s.create("t", base_fields()).await;
    let set =
        |at: usize, key: &'static str, value: Value| changed(move |fields| fields[at][key] = value);
    let cases = [
        (changed(|fields| drop(fields.remove(1))), "Field n is missing in new schema"),
        (set(1, "name", json!("renamed")), "Field n is missing in new schema"),
        (set(1, "name", json!("N")), "Field n has changed its name to N"),
        (set(1, "type", json!("STRING")), "Field n has changed type from INTEGER to STRING"),
        (set(1, "type", json!("FLOAT")), "Field n has changed type from INTEGER to FLOAT"),
        (set(1, "mode", json!("REQUIRED")), "Field n has changed mode from NULLABLE to REQUIRED"),
        (set(1, "mode", json!("REPEATED")), "Field n has changed mode from NULLABLE to REPEATED"),
        (set(5, "mode", json!("NULLABLE")), "Field l has changed mode from REPEATED to NULLABLE"),
        (set(2, "maxLength", json!("5")), "Field s has incompatible type parameters"),
        (set(3, "precision", json!("5")), "Field d has incompatible type parameters"),
        (set(3, "scale", json!("5")), "Field d has incompatible type parameters"),
        (
            set(4, "fields", json!([{"name": "y", "type": "STRING"}])),
            "Field r.x is missing in new schema",
        ),
        (
            set(4, "fields", json!([{"name": "x", "type": "INTEGER"}])),
            "Field r.x has changed type from STRING to INTEGER",
        ),
        (
            changed(|fields| {
                fields.push(json!({"name": "new", "type": "STRING", "mode": "REQUIRED"}));
            }),
            "Cannot add required fields to an existing schema. (field: new)",
        ),
        (
            changed(|fields| {
                let inner = fields[4]["fields"].as_array_mut().unwrap();
                inner.push(json!({"name": "new", "type": "STRING", "mode": "REQUIRED"}));
            }),
            "Cannot add required fields to an existing schema. (field: r.new)",
        ),
    ];
    let before = s.get("t").await;
    for (fields, expected) in cases {
        let (status, body) = s.patch("t", json!({"schema": {"fields": fields}})).await;
        assert_eq!((status, reason(&body)), (400, "invalid"), "{expected}: {body}");
        let whole = format!(
            "Provided Schema does not match Table {}:{}.t. {expected}",
            s.project, s.dataset
        );
        assert_eq!(message(&body), whole);
    }
    let (status, body) =
        s.send(Method::PUT, &s.table_path("t"), Some(json!({"description": "x"}))).await;
    assert_eq!(status, 400, "an update without the schema drops every column: {body}");
    assert_eq!(s.get("t").await, before, "a refused change changes nothing");
}

async fn legal_changes_are_taken(s: &Subject<'_>) {
    s.create("t", base_fields()).await;
    let all_at_once = changed(|fields| {
        fields[0]["mode"] = json!("NULLABLE");
        fields[2].as_object_mut().unwrap().remove("maxLength");
        fields[3]["precision"] = json!("12");
        fields[4]["description"] = json!("a record");
        let inner = fields[4]["fields"].as_array_mut().unwrap();
        inner.push(json!({"name": "y", "type": "INTEGER"}));
        let required = json!([{"name": "z", "type": "DATE", "mode": "REQUIRED"}]);
        fields.push(json!({"name": "new", "type": "STRUCT", "fields": required}));
        fields.push(json!({"name": "many", "type": "INT64", "mode": "REPEATED"}));
    });
    let (status, body) = s.patch("t", json!({"schema": {"fields": all_at_once}})).await;
    assert_eq!(status, 200, "{body}");
    let fields = &s.get("t").await["schema"]["fields"];
    assert_eq!((&fields[6]["type"], &fields[7]["type"]), (&json!("RECORD"), &json!("INTEGER")));
    let answer = s.insert("t", &[json!({"r": {"y": 1}, "new": {"z": "2024-01-01"}})]).await;
    assert!(answer.get("insertErrors").is_none(), "{answer}");
    let (status, body) = s.patch("t", json!({"labels": {"a": "b"}})).await;
    assert_eq!((status, &body["labels"]["a"]), (200, &json!("b")));
    let (_, body) = s.patch("t", json!({"labels": {"a": null, "c": "d"}})).await;
    assert_eq!(body["labels"], json!({"c": "d"}), "null removes a label");
}

async fn bad_schemas_are_refused(s: &Subject<'_>) {
    let field = |name: &str| json!({"name": name, "type": "STRING"});
    let nested = |levels: usize| {
        (0..levels).fold(field("leaf"), |inner, level| {
            json!({"name": format!("r{level}"), "type": "RECORD", "fields": [inner]})
        })
    };
    let many: Vec<Value> = (0..10_001).map(|n| field(&format!("c{n}"))).collect();
    let bad = [
        json!([field("1a")]),
        json!([field("a-b")]),
        json!([field("a b")]),
        json!([field("")]),
        json!([field(&"x".repeat(301))]),
        json!([field("_table_x")]),
        json!([field("_FILE_x")]),
        json!([field("_PARTITIONTIME")]),
        json!([field("_change_type")]),
        json!([field("__ROOT__x")]),
        json!([field("a"), field("A")]),
        json!([{"name": "a", "type": "WORD"}]),
        json!([{"name": "a"}]),
        json!([{"name": "a", "type": "STRING", "mode": "SOMETIMES"}]),
        json!([{"name": "a", "type": "RECORD"}]),
        json!([{"name": "a", "type": "RECORD", "fields": []}]),
        json!([{"name": "a", "type": "RECORD", "fields": [field("x"), field("X")]}]),
        json!([nested(16)]),
        json!(many),
    ];
    for (at, fields) in bad.iter().enumerate() {
        let (status, body) = s.try_create("bad", json!({"schema": {"fields": fields}})).await;
        assert_eq!((status, reason(&body)), (400, "invalid"), "case {at}: {body}");
    }
    let (status, body) = s.try_create("a/b", json!({})).await;
    assert_eq!(status, 400, "{body}");
    s.create("deepest", json!([nested(15)])).await;
    s.create("widest", json!(many[..10_000])).await;
    s.create("longest", json!([field(&"x".repeat(300)), field("_kafka_topic")])).await;
}

async fn bad_layouts_are_refused(s: &Subject<'_>) {
    let fields = json!([
        {"name": "d", "type": "DATE"}, {"name": "s", "type": "STRING"},
        {"name": "j", "type": "JSON"}
    ]);
    let with = |layout: Value| {
        let mut document = json!({"schema": {"fields": fields}});
        for (key, value) in layout.as_object().unwrap() {
            document[key] = value.clone();
        }
        document
    };
    for layout in [
        json!({"timePartitioning": {"type": "WEEK"}}),
        json!({"timePartitioning": {"type": "DAY", "field": "missing"}}),
        json!({"timePartitioning": {"type": "DAY", "field": "s"}}),
        json!({"timePartitioning": {"type": "HOUR", "field": "d"}}),
        json!({"clustering": {"fields": ["missing"]}}),
        json!({"clustering": {"fields": ["j"]}}),
    ] {
        let (status, body) = s.try_create("bad", with(layout.clone())).await;
        assert_eq!((status, reason(&body)), (400, "invalid"), "{layout}: {body}");
    }
    let layout = json!({
        "timePartitioning": {"type": "DAY", "field": "d"}, "clustering": {"fields": ["s"]}
    });
    let (status, body) = s.try_create("t", with(layout)).await;
    assert_eq!(status, 200, "{body}");
    let (status, _) = s.patch("t", json!({"timePartitioning": {"type": "HOUR"}})).await;
    assert_eq!(status, 400, "another partitioning");
    let (status, _) = s.patch("t", json!({"timePartitioning": {"expirationMs": "1"}})).await;
    assert_eq!(status, 200, "another expiration");
}

async fn unknown_columns_are_refused_at_every_depth(s: &Subject<'_>) {
    let inner = json!([{"name": "x", "type": "STRING"}]);
    s.create(
        "t",
        json!([
            {"name": "a", "type": "STRING"},
            {"name": "r", "type": "RECORD", "fields": inner},
            {"name": "l", "type": "RECORD", "mode": "REPEATED", "fields": inner}
        ]),
    )
    .await;
    for (row, location, field) in [
        (json!({"b": 1}), "b", "b"),
        (json!({"b": null}), "b", "b"),
        (json!({"r": {"y": 1}}), "r.y", "y"),
        (json!({"l": [{"x": "1"}, {"y": 1}]}), "l[1].y", "y"),
    ] {
        let expected = (location.to_owned(), format!("no such field: {field}."));
        assert_eq!(s.refusal("t", row).await, expected);
    }
    assert_eq!(s.refusal("t", json!({"a": "1", "A": "2"})).await.1, "Duplicate field: A.");
    assert!(s.rows("t").await.is_empty());
}

async fn unknown_columns_may_be_ignored(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    let body = json!({"ignoreUnknownValues": true, "rows": [{"json": {"a": "1", "b": 2}}]});
    let (status, body) = s.insert_body("t", body).await;
    assert!(status == 200 && body.get("insertErrors").is_none(), "{body}");
    assert_eq!(s.rows("t").await, [json!({"f": [{"v": "1"}]})]);
}

fn typed_fields() -> Value {
    let field = |name: &str, ty: &str| json!({"name": name, "type": ty});
    json!([
        field("i", "INT64"), field("f", "FLOAT64"), field("b", "BOOL"), field("s", "STRING"),
        field("y", "BYTES"), field("d", "DATE"), field("t", "TIME"), field("dt", "DATETIME"),
        field("ts", "TIMESTAMP"), field("n", "NUMERIC"), field("bn", "BIGNUMERIC"),
        field("j", "JSON"),
        {"name": "np", "type": "NUMERIC", "precision": "5", "scale": "2"},
        {"name": "s3", "type": "STRING", "maxLength": "3"},
        {"name": "r", "type": "RECORD", "fields": [field("x", "STRING")]},
        {"name": "l", "type": "INT64", "mode": "REPEATED"},
    ])
}

async fn refuse_each(s: &Subject<'_>, cases: &[(&str, Vec<Value>, &str)]) {
    s.create("t", typed_fields()).await;
    for (column, values, words) in cases {
        for value in values {
            let (location, message) = s.refusal("t", json!({*column: value})).await;
            assert!(location.starts_with(column), "{column}: {location}");
            assert!(message.contains(words), "{column} = {value}: {message}");
        }
    }
    assert!(s.rows("t").await.is_empty());
}

async fn wrong_values_are_refused(s: &Subject<'_>) {
    let cases = [
        (
            "i",
            vec![
                json!("x"),
                json!(1.5),
                json!(true),
                json!("1.0"),
                json!(1e19),
                json!("9223372036854775808"),
            ],
            "Could not convert value to integer",
        ),
        (
            "f",
            vec![json!("x"), json!(true), json!(""), json!("1e999")],
            "Could not convert value to float",
        ),
        ("b", vec![json!("x"), json!(1)], "Could not convert value to boolean"),
        ("s", vec![json!({"x": 1})], "This field: s is not a record."),
        ("s", vec![json!(["x"])], "Array specified for non-repeated field: s."),
        ("s3", vec![json!("abcd")], "STRING value is too long"),
        ("y", vec![json!("*"), json!(1), json!("A")], "Could not decode base64 string"),
        (
            "d",
            vec![
                json!("2023-02-29"),
                json!("0000-01-01"),
                json!("10000-01-01"),
                json!("20230101"),
                json!(5),
            ],
            "Invalid date",
        ),
        (
            "t",
            vec![json!("24:00:00"), json!("1:60:00"), json!("x"), json!("00:00:00.1234567")],
            "Invalid time",
        ),
        (
            "dt",
            vec![json!("2024-01-01T00:00:00Z"), json!("x"), json!("2024-13-01T00:00:00")],
            "Invalid datetime",
        ),
    ];
    refuse_each(s, &cases).await;
}

async fn values_out_of_bounds_are_refused(s: &Subject<'_>) {
    let nines = "9".repeat(30);
    let cases = [
        ("ts", vec![json!("x"), json!("2024-01-01T25:00:00Z"), json!(true)], "Invalid timestamp"),
        (
            "ts",
            vec![json!(1_700_000_000_000_u64), json!("1700000000000000")],
            "Timestamp field value is out of range",
        ),
        ("n", vec![json!(nines), json!("0.1234567891"), json!("x"), json!("NaN")], "NUMERIC value"),
        (
            "bn",
            vec![json!(format!("0.{}", "1".repeat(39))), json!("9".repeat(40))],
            "BIGNUMERIC value",
        ),
        ("np", vec![json!("1234"), json!("1.234")], "NUMERIC value"),
        ("j", vec![json!("{"), json!("abc")], "Invalid JSON value"),
        ("j", vec![json!({"a": 1})], "This field: j is not a record."),
        ("r", vec![json!("x"), json!(1)], "This field: r is a record."),
        (
            "l",
            vec![json!(1), json!("1"), json!({"v": 1})],
            "Repeated field must be imported as a JSON array",
        ),
        ("l", vec![json!([1, null])], "Only optional fields can be set to NULL"),
        ("l", vec![json!(null)], "Only optional fields can be set to NULL"),
        ("l", vec![json!([[1]])], "Array specified for non-repeated field"),
    ];
    refuse_each(s, &cases).await;
}

async fn right_values_are_taken(s: &Subject<'_>) {
    s.create("t", typed_fields()).await;
    for (at, (column, value, expected)) in [
        ("i", json!(7), "7"),
        ("i", json!("-7"), "-7"),
        ("i", json!(7.0), "7"),
        ("f", json!(1), "1.0"),
        ("f", json!("-1.5e3"), "-1500.0"),
        ("f", json!("NaN"), "NaN"),
        ("f", json!("-Infinity"), "-Infinity"),
        ("b", json!("TRUE"), "true"),
        ("s", json!(1.5), "1.5"),
        ("s3", json!("äöü"), "äöü"),
        ("y", json!(""), ""),
        ("d", json!("2024-2-9"), "2024-02-09"),
        ("t", json!("1:2:3.5"), "01:02:03.500000"),
        ("dt", json!("2024-01-01 00:00:00"), "2024-01-01T00:00:00"),
        ("ts", json!("2024-01-01 00:00:00.5+01:00"), "1704063600500000"),
        ("ts", json!(1.5), "1500000"),
        ("ts", json!("9999-12-31T23:59:59.999999Z"), "253402300799999999"),
        ("n", json!("-0.000000001"), "-0.000000001"),
        ("n", json!(1.5), "1.5"),
        (
            "bn",
            json!(format!("{}.{}", "5".repeat(38), "1".repeat(38))),
            &format!("{}.{}", "5".repeat(38), "1".repeat(38)),
        ),
        ("np", json!("999.99"), "999.99"),
        ("j", json!("{\"b\": 1, \"a\": [null]}"), "{\"a\":[null],\"b\":1}"),
    ]
    .into_iter()
    .enumerate()
    {
        let row = json!({"insertId": at.to_string(), "json": {column: value}});
        let (_, body) = s.insert_body("t", json!({"rows": [row]})).await;
        assert!(body.get("insertErrors").is_none(), "{column} = {value}: {body}");
        let names = s.get("t").await["schema"]["fields"].clone();
        let names = names.as_array().unwrap();
        let index = names.iter().position(|field| field["name"] == column).unwrap();
        let rows = s.rows("t").await;
        assert_eq!(rows[at]["f"][index]["v"], expected, "{column} = {value}");
    }
}

async fn nested_and_repeated_cells_survive(s: &Subject<'_>) {
    s.create(
        "t",
        json!([
            {"name": "r", "type": "RECORD", "fields": [
                {"name": "x", "type": "STRING"},
                {"name": "l", "type": "INTEGER", "mode": "REPEATED"}
            ]},
            {"name": "m", "type": "RECORD", "mode": "REPEATED", "fields": [
                {"name": "key", "type": "STRING", "mode": "REQUIRED"},
                {"name": "value", "type": "FLOAT"}
            ]}
        ]),
    )
    .await;
    let row = json!({"r": {"l": [1, 2]}, "m": [{"value": 1.5, "key": "k"}, {"key": "n"}]});
    let answer = s.insert("t", &[row, json!({"m": []}), json!({})]).await;
    assert!(answer.get("insertErrors").is_none(), "{answer}");
    let v = |value: Value| json!({"v": value});
    let f = |cells: Vec<Value>| json!({"f": cells});
    let expected = f(vec![
        v(f(vec![v(Value::Null), v(json!([v(json!("1")), v(json!("2"))]))])),
        v(json!([
            v(f(vec![v(json!("k")), v(json!("1.5"))])),
            v(f(vec![v(json!("n")), v(Value::Null)])),
        ])),
    ]);
    let empty = f(vec![v(Value::Null), v(json!([]))]);
    assert_eq!(s.rows("t").await, [expected, empty.clone(), empty]);
    let (location, _) = s.refusal("t", json!({"m": [{"value": 1}]})).await;
    assert_eq!(location, "m[0].key", "REQUIRED inside a repeated record");
}

async fn requests_have_limits(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    let large = json!({"rows": [{"json": {"a": "x".repeat(10 << 20)}}]});
    let (status, body) = s.insert_body("t", large).await;
    assert_eq!((status, reason(&body)), (413, "requestTooLarge"));
    assert_eq!(message(&body), "Request payload size exceeds the limit: 10485760 bytes.");
    let rows = |count: usize| json!({"rows": vec![json!({"json": {}}); count]});
    let (status, body) = s.insert_body("t", rows(50_001)).await;
    assert_eq!((status, reason(&body)), (400, "invalid"));
    assert!(message(&body).starts_with("too many rows present in the request, limit: 50000"));
    let (status, body) = s.insert_body("t", rows(0)).await;
    assert_eq!((status, reason(&body)), (400, "invalid"), "{body}");
    let long = json!({"rows": [{"insertId": "i".repeat(129), "json": {}}]});
    assert_eq!(s.insert_body("t", long).await.0, 400);
    assert_eq!(s.insert_body("t", json!("rows")).await.0, 400);
    assert!(s.rows("t").await.is_empty());
    assert_eq!(s.insert_body("t", rows(50_000)).await.0, 200);
}

async fn table_updates_have_a_quota(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "STRING"}])).await;
    for n in 0..5 {
        let (status, body) = s.patch("t", json!({"description": n.to_string()})).await;
        assert_eq!(status, 200, "{body}");
    }
    let (status, body) = s.patch("t", json!({"description": "6"})).await;
    assert_eq!((status, reason(&body)), (403, "rateLimitExceeded"), "{body}");
    let words = "Exceeded rate limits: too many table update operations for this table";
    assert!(message(&body).starts_with(words), "{body}");
    assert_eq!(s.get("t").await["description"], "4");
    s.create("other", json!([{"name": "a", "type": "STRING"}])).await;
    assert_eq!(s.patch("other", json!({"description": "1"})).await.0, 200, "per table");
}

async fn types_widen_by_ddl_only(s: &Subject<'_>) {
    for (n, (from, to, allowed)) in [
        ("INT64", "NUMERIC", true),
        ("INT64", "BIGNUMERIC", true),
        ("INT64", "FLOAT64", true),
        ("NUMERIC", "BIGNUMERIC", true),
        ("NUMERIC", "FLOAT64", true),
        ("BIGNUMERIC", "FLOAT64", false),
        ("FLOAT64", "NUMERIC", false),
        ("INT64", "STRING", false),
        ("DATE", "TIMESTAMP", false),
        ("NUMERIC", "INT64", false),
        ("INT64", "NUMERIC(10, 2)", false),
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("t{n}");
        s.create(&table, json!([{"name": "c", "type": from, "description": "kept"}])).await;
        let sql = format!(
            "ALTER TABLE `{}.{}.{table}` ALTER COLUMN c SET DATA TYPE {to}",
            s.project, s.dataset
        );
        let (status, body) = s.query(&sql).await;
        assert_eq!(status == 200, allowed, "{from} to {to}: {body}");
        let field = s.get(&table).await["schema"]["fields"][0].clone();
        assert_eq!(field["description"], "kept");
        if allowed {
            assert_eq!(body["jobComplete"], true);
            assert_ne!(field["type"], from);
        } else {
            assert_eq!(status, 400);
        }
    }
    let inner = json!([{"name": "x", "type": "INTEGER", "description": "deep"}]);
    s.create(
        "nested",
        json!([{"name": "r", "type": "RECORD", "mode": "REPEATED", "fields": inner}]),
    )
    .await;
    let sql = format!(
        "ALTER TABLE {}.nested ALTER COLUMN r SET DATA TYPE ARRAY<STRUCT<x NUMERIC>>",
        s.dataset
    );
    assert_eq!(s.query(&sql).await.0, 200);
    let field = s.get("nested").await["schema"]["fields"][0]["fields"][0].clone();
    assert_eq!((&field["type"], &field["description"]), (&json!("NUMERIC"), &json!("deep")));
}

async fn other_queries_are_refused(s: &Subject<'_>) {
    let (status, body) = s.query("SELECT 1").await;
    assert_eq!((status, reason(&body)), (400, "invalidQuery"), "{body}");
    let sql = format!("ALTER TABLE {}.none ALTER COLUMN c SET DATA TYPE FLOAT64", s.dataset);
    let (status, body) = s.query(&sql).await;
    assert_eq!((status, reason(&body)), (404, "notFound"), "{body}");
    let (status, _) = s.send(Method::POST, "/queries", Some(json!({"query": sql}))).await;
    assert_eq!(status, 400, "legacy SQL is the default");
}

async fn rows_come_in_pages(s: &Subject<'_>) {
    s.create("t", json!([{"name": "a", "type": "INTEGER"}])).await;
    let rows: Vec<Value> = (0..5).map(|n| json!({"a": n})).collect();
    s.insert("t", &rows).await;
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("{}/data?maxResults=2{token}", s.table_path("t"));
        let (_, body) = s.send(Method::GET, &path, None).await;
        assert_eq!(body["totalRows"], "5");
        found.extend(body["rows"].as_array().unwrap().iter().map(|r| r["f"][0]["v"].clone()));
        match body["pageToken"].as_str() {
            Some(next) => token = format!("&pageToken={next}"),
            None => break,
        }
    }
    assert_eq!(found, [json!("0"), json!("1"), json!("2"), json!("3"), json!("4")]);
}

async fn unknown_tables_take_no_rows(s: &Subject<'_>) {
    let (status, body) = s.insert_body("none", json!({"rows": [{"json": {}}]})).await;
    assert_eq!((status, reason(&body)), (404, "notFound"), "{body}");
    assert_eq!(message(&body), format!("Not found: Table {}:{}.none", s.project, s.dataset));
    let path = "/datasets/none/tables/none/insertAll";
    let (_, body) = s.send(Method::POST, path, Some(json!({"rows": [{"json": {}}]}))).await;
    assert_eq!(message(&body), format!("Not found: Dataset {}:none", s.project));
    let (status, _) = s.try_create("no_schema", json!({})).await;
    assert_eq!(status, 200);
    let (status, body) = s.insert_body("no_schema", json!({"rows": [{"json": {}}]})).await;
    assert_eq!((status, message(&body)), (400, "The destination table has no schema."));
}
