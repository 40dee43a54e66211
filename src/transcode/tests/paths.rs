//! The same record gives the same cell on every write path: a streamed row and a loaded one, as the
//! simulator keeps them.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;
use serde_json::json;

use super::{avro::datum, random::Dice, *};
use crate::{
    gcp::tables::document,
    record::push_header,
    schema::{arbitrary, columns, connect, infer},
    sim::{
        Core, SimSettings,
        bigquery::{jobs::job::Job, storage, tables::TablePath},
        message::{Request, Step},
    },
    table::{Column, ColumnKind, Mode, TableRef},
    transcode::writer::proto::ProtoRow,
    transcode::{KeyPlacement, KeySource, connect::split},
    write::{
        WriteOutcome,
        load::{
            container::{AvroCodec, Block, container},
            job::{LoadFormat, LoadJob, SchemaIx},
        },
        storage::{classify, descriptor::writer_schema, framing},
    },
};

const LINES: LoadFormat = LoadFormat::NdjsonGz;
const AVRO: LoadFormat = LoadFormat::Avro(SchemaIx(0));

/// The table that rows of the format are loaded into.
fn name(format: LoadFormat) -> &'static str {
    format.source_format().unwrap()
}

/// A BigQuery with the tables `streamed` and `appended`, and one for each format of load jobs, all of the same columns.
struct Lab(Core);

impl Lab {
    fn new(columns: &[Column]) -> Self {
        let mut lab = Self(Core::new(SimSettings::default()));
        lab.send("/datasets", &json!({"datasetReference": {"datasetId": "d"}}));
        let fields: Vec<Json> = columns.iter().map(document::field).collect();
        for table in ["streamed", "appended", name(LINES), name(AVRO)] {
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

    /// Appends a row by the Storage Write API.
    fn append(&mut self, table: &TableSchema, row: &[u8]) {
        let mut body = Vec::new();
        let start = framing::begin_row(&mut body);
        body.extend_from_slice(row);
        framing::end_row(&mut body, start);
        let stream = "projects/p/datasets/d/tables/appended/streams/_default";
        let head = framing::head(stream, Some(&writer_schema(table)), body.len());
        let now = Duration::from_secs(1);
        let connection = HeaderValue::from(self.0.connect(now));
        let headers = HeaderMap::from_iter([(storage::CONNECTION.parse().unwrap(), connection)]);
        let message = [&head[..], &body].concat().into();
        let path = format!("{}AppendRows", storage::SERVICE);
        let request = Request::new(Method::POST, &path, headers, message);
        let Step::Answer { response, .. } = self.0.step(request, now) else { panic!() };
        let outcome = classify::answered(response.body.clone(), 1).outcome;
        assert!(matches!(outcome, WriteOutcome::Acked), "{outcome:?} {response:?}");
    }

    /// Loads an object of one row into the table of the format's name.
    fn load(&mut self, format: LoadFormat, object: Vec<u8>) {
        let text = String::from_utf8_lossy(&object).into_owned();
        let name = name(format);
        self.post(&format!("/upload/storage/v1/b/b/o?uploadType=media&name={name}"), object);
        let job = LoadJob {
            id: name.to_owned(),
            table: TableRef { project: "p".into(), dataset: "d".into(), table: name.into() },
            sources: vec![format!("gs://b/{name}")],
            rows_here: Vec::new(),
            format,
            end: 1,
            rows: 1,
        };
        self.send("/jobs", &job.document(None));
        self.0.advance(Duration::from_secs(1));
        let is_this = |job: &Job| job.key.name().ends_with(name);
        let mut jobs = self.0.bigquery().jobs.all().map(|(_, job)| job);
        let job = jobs.find(|job| is_this(job)).unwrap();
        assert_eq!(job.resource(false)["status"].get("errorResult"), None, "{text}");
    }

    /// The one row of a table.
    fn row(&self, table: &str) -> Json {
        let path = TablePath { project: "p", dataset: "d", table };
        let [row] = self.0.bigquery().table(path).unwrap().store.rows() else { panic!("one row") };
        Json::Object(row.clone())
    }
}

/// Encodes a record for each path, and compares what BigQuery keeps; nothing if it is refused on all.
fn compare(spec: &RowSpec, table: &TableSchema, value: &[u8]) -> Result<bool, TestCaseError> {
    compare_record(spec, table, &record(Some(value)))
}

fn compare_record(
    spec: &RowSpec,
    table: &TableSchema,
    record: &Record<'_>,
) -> Result<bool, TestCaseError> {
    let plan = plan::<JsonRow>(spec, table);
    let lane = LaneLabel::new("shop.\"orders\"", 3);
    let (mut row, mut line, mut message) = (Vec::new(), Vec::new(), Vec::new());
    let appended = self::plan::<ProtoRow>(spec, table).encode(record, &lane, &mut message);
    let streamed = plan.encode(record, &lane, &mut row);
    let loaded = plan.encode_line(record, &lane, &mut line);
    if plan.datum_schema().is_some() {
        prop_assert_eq!(&streamed, &plan.encode_datum(record, &lane, &mut Vec::new()));
    }
    if streamed.is_err() || loaded.is_err() || appended.is_err() {
        prop_assert_eq!(&streamed, &loaded);
        prop_assert_eq!(streamed, appended);
        return Ok(false);
    }
    let mut lab = Lab::new(&table.columns);
    lab.stream(&row);
    lab.append(table, &message);
    prop_assert_eq!(lab.row("streamed"), lab.row("appended"));
    lab.load(LINES, line);
    prop_assert_eq!(lab.row("streamed"), lab.row(name(LINES)));
    if let Some(schema) = plan.datum_schema() {
        let mut datum = Vec::new();
        plan.encode_datum(record, &lane, &mut datum).unwrap();
        let block = Block { rows: 1, data: datum.into() };
        let parts = container(schema, AvroCodec::None, "o", [block]).unwrap();
        lab.load(AVRO, parts.concat());
        prop_assert_eq!(lab.row("streamed"), lab.row(name(AVRO)), "{}", schema);
    }
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

    #[test]
    fn a_json_object_is_the_same_row_streamed_and_loaded(shape in random_json::shape(), seed: u64) {
        let mut dice = Dice(seed);
        let object = random_json::json_text(&shape, &mut dice);
        let spec = bare(ValueSource::Json);
        let Some(mut table) = inferred(&object) else { return Ok(()) };
        prop_assert!(compare(&spec, &table, object.as_bytes())?, "{} refused", object);
        // Somebody has made the table with other types.
        alter(&mut table.columns, &mut dice);
        compare(&spec, &table, object.as_bytes())?;
    }

    #[test]
    fn a_connect_envelope_is_the_same_row_streamed_and_loaded(
        schema in random_json::connect_schema(), seed: u64,
    ) {
        let mut dice = Dice(seed);
        let ty = connect::parse(&schema).unwrap();
        let payload = random_json::payload(&ty, &mut dice);
        let envelope = format!("{{\"schema\": {schema}, \"payload\": {payload}}}");
        let (_, payload) = split(envelope.as_bytes()).unwrap();
        let spec = bare(ValueSource::ConnectJson(Arc::new(ty)));
        let columns = spec.columns(&ColumnRules::default()).unwrap();
        if columns.is_empty() {
            return Ok(());
        }
        let mut table = TableSchema { columns };
        compare(&spec, &table, payload)?;
        alter(&mut table.columns, &mut dice);
        if RowPlan::<JsonRow>::compile(&spec, &table, Limits::default()).is_ok() {
            compare(&spec, &table, payload)?;
        }
    }
}

/// The table that an object without schema asks for; `None` where it asks for none, its elements have no one type,
/// or two keys one column.
fn inferred(object: &str) -> Option<TableSchema> {
    let ty = infer::settle(&infer::infer(object.as_bytes()).ok()?, &[]);
    let columns = columns::derive(&ty, &ColumnRules::default()).unwrap();
    (!columns.is_empty()).then_some(TableSchema { columns })
}

/// The types of columns, without records.
const KINDS: [ColumnKind; 13] = [
    ColumnKind::Bool,
    ColumnKind::Int64,
    ColumnKind::Float64,
    ColumnKind::Numeric,
    ColumnKind::BigNumeric,
    ColumnKind::String,
    ColumnKind::Bytes,
    ColumnKind::Date,
    ColumnKind::Time,
    ColumnKind::DateTime,
    ColumnKind::Timestamp,
    ColumnKind::Json,
    ColumnKind::Geography,
];

/// Gives some columns, in records, too, another type or mode.
fn alter(columns: &mut [Column], dice: &mut Dice) {
    for column in columns {
        match (dice.below(16), &mut column.kind) {
            (0..4, kind @ (ColumnKind::Int64 | ColumnKind::Float64)) => {
                *kind = KINDS[1 + dice.below(5) as usize].clone();
            }
            (0, kind) => *kind = KINDS[dice.below(13) as usize].clone(),
            (1, _) if column.mode == Mode::Nullable => column.mode = Mode::Required,
            (2, _) if column.mode == Mode::Required => column.mode = Mode::Nullable,
            (_, ColumnKind::Record(fields)) => alter(fields, dice),
            _ => {}
        }
    }
}

/// JSON values in every spelling that some column may take.
const VALUES: [&str; 52] = [
    "true",
    "\"true\"",
    "\"TRUE\"",
    "0",
    "-0",
    "0.0",
    "-0.0",
    "7",
    "7.0",
    "-7e0",
    "1.5",
    "1e3",
    "1e29",
    "1e-400",
    "1e400",
    "0.1234567890123456789",
    "12345678901234567890.123456789",
    "123456789012345678901234567890123456789",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "1.7976931348623157e308",
    "5e-324",
    "\"7\"",
    "\" 7\"",
    "\"7.0\"",
    "\"-1.50\"",
    "\"1e3\"",
    "\"9223372036854775807\"",
    "\"0.00000000000000000000000000000000000001\"",
    "\"NaN\"",
    "\"nan\"",
    "\"Infinity\"",
    "\"+Infinity\"",
    "\"-Infinity\"",
    "\"\"",
    "\" a\\u0000\\ud83d\\ude00\\/\"",
    "\"AQI=\"",
    "\"2024-02-29\"",
    "\"2024-2-9\"",
    "\"10:15:30\"",
    "\"23:59:59.9999999\"",
    "\"2024-02-29T23:59:59.999999999\"",
    "\"2024-02-29 23:59:59.5+05:30\"",
    "\"0001-01-01T00:00:00Z\"",
    "\"9999-12-31 23:59:59.999999 UTC\"",
    "\"null\"",
    "\"{\\\"b\\\": 1, \\\"a\\\": [1, 2.50]}\"",
    "\"POINT(1 2)\"",
    "{\"b\": 1, \"a\": [null, \"x\"]}",
    "[1, [2]]",
];

#[test]
fn a_value_is_the_same_cell_streamed_and_loaded_whatever_the_column() {
    let spec = bare(ValueSource::Json);
    let mut taken = 0;
    for kind in KINDS {
        for value in VALUES {
            for repeated in [false, true] {
                let (mode, object) = match repeated {
                    false => (Mode::Nullable, format!("{{\"f\": {value}}}")),
                    true => (Mode::Repeated, format!("{{\"f\": [{value}, {value}]}}")),
                };
                let column = Column::new("f", kind.clone()).with_mode(mode);
                let table = TableSchema { columns: vec![column] };
                taken += u32::from(compare(&spec, &table, object.as_bytes()).unwrap());
            }
        }
    }
    assert!(taken > 300, "only {taken} were taken");
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

/// A field's Avro type, the column that it has if it is not the usual one, and whether it goes through.
const FIELDS: [(&str, Option<ColumnKind>, bool); 30] = [
    (r#""boolean""#, None, true),
    (r#""int""#, None, true),
    (r#""long""#, None, true),
    (r#""float""#, None, true),
    (r#""double""#, None, true),
    (r#""string""#, None, true),
    (r#""bytes""#, None, true),
    (r#"["null", "string"]"#, None, true),
    (r#"["string", "null"]"#, None, true),
    (r#"{"type": "fixed", "name": "F", "size": 3}"#, None, true),
    (r#"{"type": "enum", "name": "E", "symbols": ["A", "B"]}"#, None, true),
    (r#"{"type": "array", "items": "string"}"#, None, true),
    (r#"{"type": "map", "values": ["null", "long"]}"#, None, true),
    (r#"{"type": "int", "logicalType": "date"}"#, None, true),
    (r#"{"type": "int", "logicalType": "time-millis"}"#, None, true),
    (r#"{"type": "long", "logicalType": "time-micros"}"#, None, true),
    (r#"{"type": "long", "logicalType": "timestamp-millis"}"#, None, true),
    (r#"{"type": "long", "logicalType": "timestamp-micros"}"#, Some(ColumnKind::DateTime), true),
    (r#"{"type": "long", "logicalType": "timestamp-millis"}"#, Some(ColumnKind::Int64), true),
    (r#"{"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 4}"#, None, true),
    (r#"{"type": "bytes", "logicalType": "decimal", "precision": 58, "scale": 20}"#, None, true),
    (
        r#"{"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}"#,
        Some(ColumnKind::BigNumeric),
        true,
    ),
    // What has to be converted, and what BigQuery's documents do not promise.
    (r#"{"type": "long", "logicalType": "timestamp-nanos"}"#, Some(ColumnKind::Timestamp), false),
    (r#"["int", "string"]"#, None, false),
    (r#"["null", {"type": "array", "items": "int"}]"#, None, false),
    (r#"{"type": "array", "items": {"type": "array", "items": "int"}}"#, None, false),
    (r#"{"type": "string", "connect.name": "io.debezium.data.Json"}"#, None, false),
    (r#""long""#, Some(ColumnKind::String), false),
    (r#""long""#, Some(ColumnKind::Numeric), false),
    (
        r#"{"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}"#,
        Some(ColumnKind::Float64),
        false,
    ),
];

#[test]
fn a_datum_goes_through_where_every_field_is_read_as_its_column_has_it() {
    for (ty, kind, goes_through) in FIELDS {
        let schema = format!(
            r#"{{"type": "record", "name": "R", "fields": [{{"name": "f", "type": {ty}}}]}}"#
        );
        let ty = avro(&schema);
        let spec = RowSpec::new(ValueSource::Avro(Arc::clone(&ty)));
        let mut table = wanted(&spec);
        if let Some(kind) = kind {
            table.columns[0].kind = kind;
        }
        let plan = plan::<JsonRow>(&spec, &table);
        assert_eq!(plan.datum_schema().is_some(), goes_through, "{schema}");
        for seed in 0..8 {
            compare(&spec, &table, &datum(&ty, seed).0).unwrap();
        }
    }
}

#[test]
fn key_headers_and_metadata_go_behind_the_datum() {
    let ty = avro(r#"{"type": "record", "name": "R", "fields": [{"name": "f", "type": "long"}]}"#);
    let mut spec = RowSpec::new(ValueSource::Avro(ty));
    spec.headers = Some("headers".to_owned());
    let mut headers = Vec::new();
    push_header(&mut headers, "a", Some(b"\x00b"));
    push_header(&mut headers, "a", None);
    let sources = [ValueSource::String, ValueSource::Bytes, ValueSource::Avro(avro(r#""string""#))];
    for source in sources {
        // As text its length is a character of it.
        let key: &[u8] = b"\x06abc";
        spec.key = Some(KeySource { source, placement: KeyPlacement::default() });
        for record_column in [None, Some("kafka".to_owned())] {
            spec.metadata.record = record_column;
            let table = wanted(&spec);
            assert!(plan::<JsonRow>(&spec, &table).datum_schema().is_some());
            let full = record(Some(&[8]));
            let full = Record { key: Some(key), headers: Headers::from_encoded(&headers), ..full };
            assert!(compare_record(&spec, &table, &full).unwrap());
            let poor = Record { timestamp_ms: None, ..record(Some(&[8])) };
            assert!(compare_record(&spec, &table, &poor).unwrap());
        }
    }
}
