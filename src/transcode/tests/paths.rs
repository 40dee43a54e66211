//! The same record gives the same cell on every write path: a streamed row and a loaded one, as the
//! simulator keeps them.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use proptest::prelude::*;
use serde_json::json;

use super::{avro::datum, *};
use crate::{
    gcp::tables::document,
    schema::arbitrary,
    sim::{
        Core, SimSettings,
        bigquery::tables::TablePath,
        message::{Request, Step},
    },
    table::{Column, ColumnKind},
};

/// A BigQuery with the tables `streamed` and `loaded`, both of the same columns.
struct Lab(Core);

impl Lab {
    fn new(columns: &[Column]) -> Self {
        let mut lab = Self(Core::new(SimSettings::default()));
        lab.send("/datasets", &json!({"datasetReference": {"datasetId": "d"}}));
        let fields: Vec<Json> = columns.iter().map(document::field).collect();
        for table in ["streamed", "loaded"] {
            let reference = json!({"projectId": "p", "datasetId": "d", "tableId": table});
            let body = json!({"tableReference": reference, "schema": {"fields": fields}});
            lab.send("/datasets/d/tables", &body);
        }
        lab
    }

    fn send(&mut self, path: &str, body: &Json) -> Json {
        self.post(&format!("/bigquery/v2/projects/p{path}"), body.to_string())
    }

    fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Json {
        let request = Request::new(Method::POST, path, HeaderMap::new(), body.into());
        let Step::Answer { response, .. } = self.0.step(request, Duration::from_secs(1)) else {
            panic!("no answer to {path}");
        };
        let body = String::from_utf8_lossy(&response.body).into_owned();
        assert!(response.is_success(), "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    fn stream(&mut self, row: &[u8]) {
        let body = [&b"{\"rows\":[{\"json\":"[..], row, b"}]}"].concat();
        let answer =
            self.post("/bigquery/v2/projects/p/datasets/d/tables/streamed/insertAll", body);
        assert_eq!(answer.get("insertErrors"), None, "{}", String::from_utf8_lossy(row));
    }

    fn load(&mut self, line: Vec<u8>) {
        let text = String::from_utf8_lossy(&line).into_owned();
        self.post("/upload/storage/v1/b/b/o?uploadType=media&name=o", line);
        let table = json!({"projectId": "p", "datasetId": "d", "tableId": "loaded"});
        let load = json!({
            "destinationTable": table,
            "sourceFormat": "NEWLINE_DELIMITED_JSON",
            "sourceUris": ["gs://b/o"],
            "writeDisposition": "WRITE_APPEND",
        });
        self.send("/jobs", &json!({"configuration": {"load": load}}));
        self.0.advance(Duration::from_secs(1));
        let (_, job) = self.0.bigquery().jobs.all().next().unwrap();
        assert_eq!(job.resource(false)["status"].get("errorResult"), None, "{text}");
    }

    /// The one row of a table.
    fn row(&self, table: &str) -> Json {
        let path = TablePath { project: "p", dataset: "d", table };
        let [row] = self.0.bigquery().table(path).unwrap().store.rows() else { panic!("one row") };
        Json::Object(row.clone())
    }
}

/// Encodes a record for both paths, and compares what BigQuery keeps; nothing if it is refused on both.
fn compare(spec: &RowSpec, table: &TableSchema, value: &[u8]) -> Result<bool, TestCaseError> {
    let plan = plan::<JsonRow>(spec, table);
    let (lane, record) = (LaneLabel::new("shop.\"orders\"", 3), record(Some(value)));
    let (mut row, mut line) = (Vec::new(), Vec::new());
    let streamed = plan.encode(&record, &lane, &mut row);
    let loaded = plan.encode_line(&record, &lane, &mut line);
    if streamed.is_err() || loaded.is_err() {
        prop_assert_eq!(streamed, loaded);
        return Ok(false);
    }
    let mut lab = Lab::new(&table.columns);
    lab.stream(&row);
    lab.load(line);
    prop_assert_eq!(lab.row("streamed"), lab.row("loaded"));
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn an_avro_record_is_the_same_row_streamed_and_loaded(
        ty in arbitrary::record_type(), seed: u64,
    ) {
        let spec = RowSpec::new(ValueSource::Avro(Arc::new(ty.clone())));
        let Ok(columns) = spec.columns(&ColumnRules::default()) else { return Ok(()) };
        compare(&spec, &TableSchema { columns }, &datum(&ty, seed).0)?;
    }
}

/// JSON text as producers write it.
const JSON_TEXTS: [&str; 14] = [
    "null",
    " null\n",
    "true",
    "\"null\"",
    "\"a \\\"b\\\" \\u00e9\\n\"",
    "0",
    "-0.0",
    "1e3",
    "12345678901234567890123",
    "0.1234567890123456789",
    "[]",
    "[null, {\"a\": null}]",
    "{\n  \"b\": 1,\r\n  \"a\": [1, 2.50]\n}",
    "{\"a\": 1, \"a\": 2}",
];

#[test]
fn a_json_cell_is_the_same_streamed_and_loaded() {
    let column = Column::new("j", ColumnKind::Json);
    let logical = r#"{"type": "record", "name": "R", "fields": [{"name": "j", "type":
        {"type": "string", "connect.name": "io.debezium.data.Json"}}]}"#;
    for text in JSON_TEXTS {
        let table = TableSchema { columns: vec![column.clone()] };
        let object = format!("{{\"j\": {text}}}");
        assert!(compare(&bare(ValueSource::Json), &table, object.as_bytes()).unwrap(), "{text}");
        let spec = bare(ValueSource::Avro(avro(logical)));
        let datum = [&[text.len() as u8 * 2][..], text.as_bytes()].concat();
        assert!(compare(&spec, &table, &datum).unwrap(), "{text}");
    }
}
