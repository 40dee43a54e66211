//! What load jobs must do, as far as the service relies on it, on both fronts of the simulator.

use std::{io::Write, time::Duration};

use bytes::Bytes;
use http::{Method, header};
use kcbq::{
    rest::Rest,
    sim::{SimOptions, SimRest, SimSettings, Simulator, serve},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    sim_contract::{HttpRest, Subject, message, parsed, reason},
    sim_contract_gcs::{Bucket, session},
};

/// A dataset and a bucket.
pub(crate) struct Lab<'a> {
    pub(crate) subject: Subject<'a>,
    pub(crate) bucket: Bucket<'a>,
}

impl<'a> Lab<'a> {
    pub(crate) async fn new(rest: &'a dyn Rest, name: &'a str) -> Self {
        let subject = Subject { rest, project: "p", dataset: name.to_owned() };
        let body = json!({"datasetReference": {"datasetId": name}});
        assert_eq!(subject.send(Method::POST, "/datasets", Some(body)).await.0, 200);
        Self { subject, bucket: Bucket { rest, name } }
    }

    /// A job's body; `load` on top of a JSON load of `object` into `t`.
    pub(crate) fn job(&self, id: &str, object: &str, load: Value) -> Value {
        let mut all = json!({
            "sourceUris": [format!("gs://{}/{object}", self.bucket.name)],
            "sourceFormat": "NEWLINE_DELIMITED_JSON",
            "createDisposition": "CREATE_NEVER",
            "destinationTable":
                {"projectId": "p", "datasetId": self.subject.dataset, "tableId": "t"},
        });
        for (key, value) in load.as_object().unwrap() {
            all[key] = value.clone();
        }
        let reference = json!({"projectId": "p", "jobId": id, "location": "US"});
        let labels = json!({"kcbq_end": "42"});
        json!({"jobReference": reference, "configuration": {"load": all, "labels": labels}})
    }

    pub(crate) async fn insert(&self, job: Value) -> (u16, Value) {
        self.subject.send(Method::POST, "/jobs", Some(job)).await
    }

    pub(crate) async fn get(&self, id: &str) -> Value {
        let path = format!("/jobs/{id}?location=US");
        let (status, body) = self.subject.send(Method::GET, &path, None).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The job once it is done.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        loop {
            let job = self.get(id).await;
            if job["status"]["state"] == "DONE" {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Inserts a job, which must be taken, and answers how it ended.
    pub(crate) async fn run(&self, id: &str, object: &str, load: Value) -> Value {
        self.begin(id, object, load).await;
        self.ended(id).await
    }

    /// Inserts a job, which must be taken, and answers how it is now.
    pub(crate) async fn begin(&self, id: &str, object: &str, load: Value) -> Value {
        let (status, body) = self.insert(self.job(id, object, load)).await;
        assert_eq!((status, &body["status"]["state"]), (200, &json!("PENDING")), "{body}");
        self.get(id).await
    }

    pub(crate) async fn put(&self, object: &str, body: impl Into<Bytes>) {
        self.bucket.put(object, "", body).await.expect("an object");
    }

    pub(crate) async fn rows(&self) -> Vec<Value> {
        self.subject.rows("t").await
    }
}

pub(crate) fn error(job: &Value) -> (&str, &str) {
    let part = |key: &str| job["status"]["errorResult"][key].as_str().unwrap_or_default();
    (part("reason"), part("message"))
}

pub(crate) fn succeeded(job: &Value, rows: u64) {
    assert_eq!(job["status"], json!({"state": "DONE"}), "{job}");
    assert_eq!(job["statistics"]["load"]["outputRows"], rows.to_string(), "{job}");
}

pub(crate) fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn cell(row: &Value) -> &Value {
    &row["f"][0]["v"]
}

async fn jobs_load_all_their_files(rest: &dyn Rest) {
    let lab = Lab::new(rest, "load_files").await;
    lab.subject.create("t", json!([{"name": "a", "type": "INTEGER"}])).await;
    lab.put("x%2F1.json", "{\"a\":1}\n{\"a\":\"2\"}\n").await;
    lab.put("x%2F2.json", "\n{\"a\":3}").await;
    lab.put("x%2F3.txt", "{\"a\":4}").await;
    let job = lab.run("one", "x/*.json", json!({})).await;
    succeeded(&job, 3);
    let load = &job["statistics"]["load"];
    assert_eq!((&load["inputFiles"], &load["inputFileBytes"]), (&json!("2"), &json!("26")));
    assert_eq!(job["configuration"]["labels"], json!({"kcbq_end": "42"}));
    assert_eq!(job["configuration"]["load"]["sourceFormat"], "NEWLINE_DELIMITED_JSON");
    for time in ["creationTime", "startTime", "endTime"] {
        assert!(job["statistics"][time].is_string(), "{job}");
    }
    let cells: Vec<Value> = lab.rows().await.iter().map(|row| cell(row).clone()).collect();
    assert_eq!(cells, [json!("1"), json!("2"), json!("3")]);
    lab.put("gz", gzip("{\"a\":4}\n{\"a\":5}")).await;
    succeeded(&lab.run("two", "gz", json!({})).await, 2);
    let mixed = json!({"sourceUris": ["gs://load_files/gz", "gs://load_files/x/2.json"]});
    let job = lab.run("three", "", mixed).await;
    assert_eq!(error(&job).0, "invalid");
    assert_eq!(lab.rows().await.len(), 5);
}

async fn an_id_is_used_once_whatever_becomes_of_its_job(rest: &dyn Rest) {
    let lab = Lab::new(rest, "load_ids").await;
    lab.subject.create("t", json!([{"name": "a", "type": "INTEGER"}])).await;
    lab.put("good", "{\"a\":1}").await;
    lab.put("bad", "{\"a\":\"x\"}").await;
    succeeded(&lab.run("ids-good", "good", json!({})).await, 1);
    assert_eq!(error(&lab.run("ids-bad", "bad", json!({})).await).0, "invalid");
    for id in ["ids-good", "ids-bad"] {
        let (status, body) = lab.insert(lab.job(id, "good", json!({}))).await;
        assert_eq!((status, reason(&body)), (409, "duplicate"));
        assert_eq!(message(&body), format!("Already Exists: Job p:US.{id}"));
    }
    assert_eq!(lab.rows().await.len(), 1);
    let mut job = lab.job("", "good", json!({}));
    job["jobReference"] = json!({});
    let (status, body) = lab.insert(job).await;
    assert_eq!(status, 200, "{body}");
    let id = body["jobReference"]["jobId"].as_str().unwrap();
    succeeded(&lab.ended(id).await, 1);
    let (status, body) = lab.insert(lab.job("not.an.id", "good", json!({}))).await;
    assert_eq!((status, reason(&body)), (400, "invalid"));
}

async fn jobs_have_a_location(rest: &dyn Rest) {
    let lab = Lab::new(rest, "load_places").await;
    let body = json!({"datasetReference": {"datasetId": "load_eu"}, "location": "europe-west1"});
    lab.subject.send(Method::POST, "/datasets", Some(body)).await;
    lab.put("x", "{}").await;
    let mut job = lab.job("there", "x", json!({}));
    job["configuration"]["load"]["destinationTable"]["datasetId"] = json!("load_eu");
    let (status, body) = lab.insert(job.clone()).await;
    assert_eq!((status, reason(&body)), (404, "notFound"), "the dataset is not in US");
    job["jobReference"]["location"] = json!("europe-west1");
    assert_eq!(lab.insert(job).await.0, 200);
    for (query, expected) in [
        ("?location=europe-west1", 200),
        ("?location=EUROPE-WEST1", 200),
        ("?location=US", 404),
        ("", 404),
    ] {
        let path = format!("/jobs/there{query}");
        let (status, body) = lab.subject.send(Method::GET, &path, None).await;
        assert_eq!(status, expected, "{query}: {body}");
    }
    let mut nowhere = lab.job("nowhere", "x", json!({}));
    nowhere["configuration"]["load"]["destinationTable"]["datasetId"] = json!("none");
    assert_eq!(lab.insert(nowhere).await.0, 404);
    let mut unplaced = lab.job("unplaced", "x", json!({}));
    unplaced["jobReference"] = json!({"jobId": "unplaced"});
    assert_eq!(lab.insert(unplaced).await.1["jobReference"]["location"], "US");
    let (status, _) = lab.subject.send(Method::GET, "/jobs/unplaced", None).await;
    assert_eq!(status, 200, "the multi-regions are looked in");
}

async fn a_failed_job_leaves_nothing(rest: &dyn Rest) {
    let lab = Lab::new(rest, "load_failed").await;
    lab.subject.create("t", json!([{"name": "a", "type": "INTEGER", "mode": "REQUIRED"}])).await;
    lab.put("1", "{\"a\":1}\n{\"a\":2}").await;
    lab.put("2", "{\"a\":3}\n{\"b\":4}\n{\"a\":\n{}").await;
    let both = json!({"sourceUris": ["gs://load_failed/1", "gs://load_failed/2"]});
    let job = lab.run("failed", "", both.clone()).await;
    let (reason, message) = error(&job);
    assert_eq!(reason, "invalid");
    assert!(message.contains("JSON table encountered too many errors"), "{message}");
    assert_eq!(job["status"]["errorResult"]["location"], "gs://load_failed/2");
    let errors = job["status"]["errors"].as_array().unwrap();
    let detail = errors[2]["message"].as_str().unwrap();
    assert!(detail.ends_with("row starting at position 8: No such field: b."), "{detail}");
    assert_eq!(job["statistics"]["load"], json!({}));
    assert!(lab.rows().await.is_empty());

    let mut tolerant = both;
    tolerant["maxBadRecords"] = json!(3);
    let job = lab.run("tolerant", "", tolerant).await;
    assert_eq!(job["status"]["errorResult"], Value::Null, "{job}");
    assert_eq!(job["statistics"]["load"]["badRecords"], "3");
    assert_eq!(
        (lab.rows().await.len(), job["statistics"]["load"]["outputRows"].clone()),
        (3, json!("3"))
    );
    assert!(!job["status"]["errors"].as_array().unwrap().is_empty(), "warnings");
}

async fn unknown_fields_may_be_ignored_and_json_is_taken_as_it_is(rest: &dyn Rest) {
    let lab = Lab::new(rest, "load_values").await;
    let fields = json!([{"name": "j", "type": "JSON"}, {"name": "at", "type": "TIMESTAMP"}]);
    lab.subject.create("t", fields).await;
    lab.put("x", "{\"j\":{\"b\":[1],\"a\":\"é\"},\"at\":\"2024-02-29T00:00:00Z\",\"z\":1}").await;
    assert_eq!(error(&lab.run("values-strict", "x", json!({})).await).0, "invalid");
    let ignore = json!({"ignoreUnknownValues": true});
    succeeded(&lab.run("values", "x", ignore.clone()).await, 1);
    lab.put("text", "{\"j\":\"{\\\"a\\\":1}\"}").await;
    succeeded(&lab.run("values-text", "text", ignore).await, 1);
    lab.subject.insert("t", &[json!({"j": "{\"a\":\"é\",\"b\":[1]}", "at": 1_709_164_800})]).await;
    let rows = lab.rows().await;
    assert_eq!(rows[0], rows[2], "loaded and streamed");
    assert_eq!(cell(&rows[1]), "\"{\\\"a\\\":1}\"", "text stays text in a load");
}

async fn missing_objects_and_tables_fail_the_job(rest: &dyn Rest) {
    let lab = Lab::new(rest, "load_missing").await;
    lab.put("x", "{\"a\":1}").await;
    let job = lab.run("no-table", "x", json!({})).await;
    assert_eq!(error(&job), ("notFound", "Not found: Table p:load_missing.t"));
    lab.subject.create("t", json!([{"name": "a", "type": "INTEGER"}])).await;
    assert_eq!(lab.bucket.delete("x", "").await.status, 204);
    for (id, object) in [("no-object", "x"), ("no-match", "x/*")] {
        let job = lab.run(id, object, json!({})).await;
        let expected = format!("Not found: URI gs://load_missing/{object}");
        assert_eq!(error(&job), ("notFound", expected.as_str()));
    }
}

async fn tables_are_created_and_schemas_updated(rest: &dyn Rest) {
    let lab = Lab::new(rest, "load_schemas").await;
    lab.put("x", "{\"a\":\"1\",\"b\":2}").await;
    let create = json!({"createDisposition": "CREATE_IF_NEEDED"});
    assert_eq!(error(&lab.run("no-schema", "x", create).await).0, "invalid");
    let column = |name: &str, ty: &str, mode: &str| json!({"name": name, "type": ty, "mode": mode});
    let create = json!({"createDisposition": "CREATE_IF_NEEDED",
        "schema": {"fields": [column("a", "STRING", "REQUIRED"), column("b", "INT64", "NULLABLE")]},
        "timePartitioning": {"type": "DAY"}});
    succeeded(&lab.run("created", "x", create.clone()).await, 1);
    let table = lab.subject.get("t").await;
    assert_eq!(table["schema"]["fields"][1]["type"], "INTEGER");
    assert_eq!(table["timePartitioning"]["type"], "DAY");

    let wider = json!({"fields": [column("a", "STRING", "NULLABLE"), column("b", "INTEGER", ""),
        column("c", "FLOAT", "NULLABLE")]});
    lab.put("y", "{\"c\":1.5}").await;
    let job = lab.run("refused", "y", json!({"schema": wider})).await;
    assert_eq!(
        error(&job).1,
        "Provided Schema does not match Table p:load_schemas.t. Field a has changed mode from \
         REQUIRED to NULLABLE"
    );
    let options = json!(["ALLOW_FIELD_ADDITION", "ALLOW_FIELD_RELAXATION"]);
    let update = json!({"schema": wider, "schemaUpdateOptions": options});
    succeeded(&lab.run("widened", "y", update).await, 1);
    let fields = lab.subject.get("t").await["schema"]["fields"].clone();
    assert_eq!((&fields[0]["mode"], &fields[2]["name"]), (&json!("NULLABLE"), &json!("c")));
    let other = json!({"timePartitioning": {"type": "HOUR"}});
    assert_eq!(error(&lab.run("other-layout", "y", other).await).0, "invalid");
    let empty = json!({"writeDisposition": "WRITE_EMPTY"});
    assert_eq!(error(&lab.run("not-empty", "y", empty).await).0, "duplicate");
}

async fn partitions_are_named_by_a_decorator(rest: &dyn Rest) {
    let lab = Lab::new(rest, "load_partitions").await;
    let partitioning = json!({"type": "DAY", "field": "at"});
    let fields = json!([{"name": "at", "type": "DATE"}]);
    lab.subject
        .try_create("t", json!({"schema": {"fields": fields}, "timePartitioning": partitioning}))
        .await;
    lab.put("x", "{\"at\":\"1970-01-02\"}").await;
    let into = |table: &str| {
        json!({"destinationTable":
        {"projectId": "p", "datasetId": "load_partitions", "tableId": table}})
    };
    succeeded(&lab.run("old", "x", json!({})).await, 1);
    succeeded(&lab.run("same", "x", into("t$19700102")).await, 1);
    for (id, table) in [("another", "t$19700103"), ("malformed", "t$1970")] {
        assert_eq!(error(&lab.run(id, "x", into(table)).await).0, "invalid", "{table}");
    }
    assert_eq!(lab.rows().await.len(), 2);
}

async fn data_may_come_with_the_job(rest: &dyn Rest) {
    let lab = Lab::new(rest, "load_media").await;
    lab.subject.create("t", json!([{"name": "a", "type": "INTEGER"}])).await;
    let job = |id: &str| {
        let mut job = lab.job(id, "", json!({}));
        job["configuration"]["load"].as_object_mut().unwrap().remove("sourceUris");
        job.to_string()
    };
    let path = "/upload/bigquery/v2/projects/p/jobs?uploadType=multipart";
    let data = gzip("{\"a\":1}\n{\"a\":2}");
    let mut body =
        format!("--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\n\r\n", job("m1"))
            .into_bytes();
    body.extend(data);
    body.extend(b"\r\n--b--");
    let related = [(header::CONTENT_TYPE, "multipart/related; boundary=b")];
    let answer = lab.bucket.send(Method::POST, path, &related, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    succeeded(&lab.ended("m1").await, 2);

    let path = "/resumable/upload/bigquery/v2/projects/p/jobs?uploadType=resumable";
    let answer = lab.bucket.send(Method::POST, path, &[], job("m2")).await;
    let session = session(&answer);
    let row = "{\"a\":3}\n";
    let data = row.repeat((256 << 10) / row.len() + 1).into_bytes();
    let chunk = async |first: usize, end: usize| {
        let range = format!("bytes {first}-{}/{}", end - 1, data.len());
        let headers = [(header::CONTENT_RANGE, range.as_str())];
        let body = data[first..end].to_vec();
        lab.bucket.send(Method::PUT, &session, &headers, body).await
    };
    assert_eq!(chunk(0, 256 << 10).await.status, 308);
    let end = chunk(256 << 10, data.len()).await;
    assert_eq!((end.status, &parsed(&end)["jobReference"]["jobId"]), (200, &json!("m2")));
    let again = chunk(256 << 10, data.len()).await;
    assert_eq!(parsed(&again), parsed(&end), "a lost answer is given again");
    succeeded(&lab.ended("m2").await, (data.len() / row.len()) as u64);
    let with_uris = lab.job("m3", "x", json!({})).to_string();
    assert_eq!(lab.bucket.send(Method::POST, path, &[], with_uris).await.status, 400);
}

async fn jobs_are_listed_newest_first(rest: &dyn Rest) {
    let lab = Lab::new(rest, "load_list").await;
    let subject = Subject { rest, project: "lister", dataset: "d".into() };
    let body = json!({"datasetReference": {"datasetId": "d"}});
    subject.send(Method::POST, "/datasets", Some(body)).await;
    lab.put("x", "{}").await;
    for id in ["l1", "l2", "l3"] {
        let mut job = lab.job(id, "x", json!({}));
        job["jobReference"]["projectId"] = json!("lister");
        job["configuration"]["load"]["destinationTable"]["projectId"] = json!("lister");
        job["configuration"]["load"]["destinationTable"]["datasetId"] = json!("d");
        assert_eq!(subject.send(Method::POST, "/jobs", Some(job)).await.0, 200);
    }
    let list =
        async |query: &str| subject.send(Method::GET, &format!("/jobs?{query}"), None).await.1;
    let ids = |list: &Value| {
        let jobs = list["jobs"].as_array().unwrap().iter();
        jobs.map(|job| job["jobReference"]["jobId"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    while !ids(&list("stateFilter=running&stateFilter=pending").await).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let all = list("projection=full&stateFilter=done").await;
    assert_eq!(ids(&all), ["l3", "l2", "l1"]);
    assert_eq!(all["jobs"][0]["configuration"]["labels"], json!({"kcbq_end": "42"}));
    assert_eq!(list("").await["jobs"][0]["configuration"], Value::Null, "minimal by default");
    assert!(ids(&list("stateFilter=running").await).is_empty());
    let page = list("maxResults=2").await;
    assert_eq!(ids(&page), ["l3", "l2"]);
    let next = format!("maxResults=2&pageToken={}", page["nextPageToken"].as_str().unwrap());
    let last = list(&next).await;
    assert_eq!((ids(&last), &last["nextPageToken"]), (vec!["l1".to_owned()], &Value::Null));
}

async fn check_all(rest: &dyn Rest) {
    jobs_load_all_their_files(rest).await;
    an_id_is_used_once_whatever_becomes_of_its_job(rest).await;
    jobs_have_a_location(rest).await;
    a_failed_job_leaves_nothing(rest).await;
    unknown_fields_may_be_ignored_and_json_is_taken_as_it_is(rest).await;
    missing_objects_and_tables_fail_the_job(rest).await;
    tables_are_created_and_schemas_updated(rest).await;
    partitions_are_named_by_a_decorator(rest).await;
    data_may_come_with_the_job(rest).await;
    jobs_are_listed_newest_first(rest).await;
    crate::sim_contract_avro::check_all(rest).await;
}

#[tokio::test]
async fn load_jobs_in_memory() {
    let settings = SimSettings { updates_max: 1_000, ..SimSettings::default() };
    check_all(&SimRest(Simulator::with_system_clock(settings))).await;
}

#[tokio::test]
async fn load_jobs_over_http() {
    let stop = CancellationToken::new();
    let settings = SimSettings { updates_max: 1_000, ..SimSettings::default() };
    let running =
        serve(SimOptions { settings, ..SimOptions::default() }, stop.clone()).await.unwrap();
    check_all(&HttpRest::new(format!("http://{}", running.rest_addr))).await;
    stop.cancel();
    running.stopped().await;
}
