//! Loads of Avro: containers that apache-avro wrote, read by the simulator, compared cell by cell with
//! the same record streamed.

use apache_avro::{
    Codec, Days, Decimal, DeflateSettings, Duration, Millis, Months, Schema, Writer,
    ZstandardSettings, types::Value as Avro,
};
use kcbq::rest::Rest;
use serde_json::{Value, json};

use crate::sim_contract_load::{Lab, error, succeeded};

const RECORD: &str = r#"{"type":"record","name":"R","namespace":"n","fields":[
    {"name":"i","type":"int"},
    {"name":"l","type":["null","long"]},
    {"name":"f","type":"float"},
    {"name":"d","type":"double"},
    {"name":"b","type":["boolean","null"]},
    {"name":"s","type":"string"},
    {"name":"raw","type":"bytes"},
    {"name":"e","type":{"type":"enum","name":"E","symbols":["P","Q"]}},
    {"name":"fx","type":{"type":"fixed","name":"F","size":3}},
    {"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"tms","type":{"type":"int","logicalType":"time-millis"}},
    {"name":"tus","type":{"type":"long","logicalType":"time-micros"}},
    {"name":"ms","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"us","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},
    {"name":"lms","type":{"type":"long","logicalType":"local-timestamp-millis"}},
    {"name":"lus","type":{"type":"long","logicalType":"local-timestamp-micros"}},
    {"name":"num","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":4}},
    {"name":"u","type":{"type":"string","logicalType":"uuid"}},
    {"name":"j","type":{"type":"string","sqlType":"JSON"}},
    {"name":"arr","type":{"type":"array","items":"long"}},
    {"name":"none","type":["null",{"type":"array","items":"string"}]},
    {"name":"m","type":{"type":"map","values":"int"}},
    {"name":"r","type":["null",{"type":"record","name":"S","fields":[
        {"name":"y","type":"string"},{"name":"x","type":["null","int"]}]}]},
    {"name":"again","type":{"type":"array","items":"S"}}
]}"#;

fn columns() -> Value {
    let column = |name: &str, ty: &str| json!({"name": name, "type": ty});
    let repeated = |name: &str, ty: &str| json!({"name": name, "type": ty, "mode": "REPEATED"});
    let inner = json!([column("y", "STRING"), column("x", "INTEGER")]);
    let pair = json!([column("key", "STRING"), column("value", "INTEGER")]);
    json!([
        {"name": "i", "type": "INTEGER", "mode": "REQUIRED"}, column("l", "INTEGER"),
        column("f", "FLOAT"), column("d", "FLOAT"), column("b", "BOOLEAN"), column("s", "STRING"),
        column("raw", "BYTES"), column("e", "STRING"), column("fx", "BYTES"), column("day", "DATE"),
        column("tms", "TIME"), column("tus", "TIME"), column("ms", "TIMESTAMP"),
        column("us", "TIMESTAMP"), column("lms", "DATETIME"), column("lus", "DATETIME"),
        column("num", "NUMERIC"), column("u", "STRING"), column("j", "JSON"),
        repeated("arr", "INTEGER"), repeated("none", "STRING"),
        {"name": "m", "type": "RECORD", "mode": "REPEATED", "fields": pair},
        {"name": "r", "type": "RECORD", "fields": inner},
        {"name": "again", "type": "RECORD", "mode": "REPEATED", "fields": inner},
    ])
}

fn some(branch: u32, value: Avro) -> Avro {
    Avro::Union(branch, Box::new(value))
}

fn record() -> Vec<(&'static str, Avro)> {
    let inner =
        |x: Avro| Avro::Record(vec![("y".into(), Avro::String("é".into())), ("x".into(), x)]);
    vec![
        ("i", Avro::Int(-7)),
        ("l", some(1, Avro::Long(i64::MIN))),
        ("f", Avro::Float(0.1)),
        ("d", Avro::Double(1e20)),
        ("b", some(0, Avro::Boolean(true))),
        ("s", Avro::String("a\u{1F600}".into())),
        ("raw", Avro::Bytes(vec![0, 255])),
        ("e", Avro::Enum(1, "Q".into())),
        ("fx", Avro::Fixed(3, vec![1, 2, 3])),
        ("day", Avro::Date(19_782)),
        ("tms", Avro::TimeMillis(1_500)),
        ("tus", Avro::TimeMicros(86_399_999_999)),
        ("ms", Avro::TimestampMillis(-1)),
        ("us", some(1, Avro::TimestampMicros(1_709_164_800_000_001))),
        ("lms", Avro::LocalTimestampMillis(1_000)),
        ("lus", Avro::LocalTimestampMicros(-1)),
        ("num", Avro::Decimal(Decimal::from((-12_345_i64).to_be_bytes()))),
        ("u", Avro::Uuid("936da01f-9abd-4d9d-80c7-02af85c822a8".parse().expect("a UUID"))),
        ("j", Avro::String(r#"{"b":1,"a":[]}"#.into())),
        ("arr", Avro::Array(vec![Avro::Long(1), Avro::Long(-2)])),
        ("none", some(0, Avro::Null)),
        ("m", Avro::Map([("k".to_owned(), Avro::Int(5))].into())),
        ("r", some(1, inner(some(0, Avro::Null)))),
        ("again", Avro::Array(vec![inner(some(1, Avro::Int(1)))])),
    ]
}

/// The record as insertAll takes it.
fn streamed() -> Value {
    json!({
        "i": -7, "l": i64::MIN.to_string(), "f": f64::from(0.1_f32), "d": 1e20, "b": true,
        "s": "a\u{1F600}", "raw": "AP8=", "e": "Q", "fx": "AQID", "day": "2024-02-29",
        "tms": "00:00:01.5", "tus": "23:59:59.999999", "ms": "1969-12-31T23:59:59.999Z",
        "us": "2024-02-29T00:00:00.000001Z", "lms": "1970-01-01T00:00:01",
        "lus": "1969-12-31T23:59:59.999999", "num": "-1.2345",
        "u": "936da01f-9abd-4d9d-80c7-02af85c822a8", "j": r#"{"a":[],"b":1}"#, "arr": [1, -2],
        "m": [{"key": "k", "value": 5}], "r": {"y": "é"}, "again": [{"x": 1, "y": "é"}],
    })
}

/// A container with one block for each record. The header is written here: apache-avro would drop
/// `sqlType` from the schema.
fn container(text: &str, codec: Codec, records: &[Vec<(&'static str, Avro)>]) -> Vec<u8> {
    let schema = Schema::parse_str(text).expect("a schema");
    let marker = *b"0123456789abcdef";
    let mut bytes = b"Obj\x01\x04".to_vec();
    for part in ["avro.schema", text, "avro.codec", <&str>::from(codec)] {
        // A zig-zag length of at most two bytes.
        let length = 2 * part.len();
        assert!(length < 1 << 14);
        bytes.extend([(length & 0x7f | 0x80) as u8, (length >> 7) as u8]);
        bytes.extend(part.as_bytes());
    }
    bytes.push(0);
    bytes.extend(marker);
    let mut writer = Writer::append_to_with_codec(&schema, bytes, codec, marker).expect("a writer");
    for record in records {
        let fields = record.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        writer.append_value(Avro::Record(fields.collect())).expect("a record");
        writer.flush().expect("a block");
    }
    writer.into_inner().expect("a container")
}

fn avro(load: Value) -> Value {
    let mut all = json!({"sourceFormat": "AVRO", "useAvroLogicalTypes": true});
    for (key, value) in load.as_object().expect("an object") {
        all[key] = value.clone();
    }
    all
}

async fn every_codec_and_type_gives_the_streamed_cells(rest: &dyn Rest) {
    let lab = Lab::new(rest, "avro_types").await;
    lab.subject.create("t", columns()).await;
    let codecs = [
        ("null", Codec::Null),
        ("deflate", Codec::Deflate(DeflateSettings::default())),
        ("snappy", Codec::Snappy),
        ("zstandard", Codec::Zstandard(ZstandardSettings::default())),
    ];
    for (name, codec) in codecs {
        lab.put(name, container(RECORD, codec, &[record(), record()])).await;
        succeeded(&lab.run(&format!("avro-{name}"), name, avro(json!({}))).await, 2);
    }
    let answer = lab.subject.insert("t", &[streamed()]).await;
    assert!(answer.get("insertErrors").is_none(), "{answer}");
    let rows = lab.rows().await;
    assert_eq!(rows.len(), 9);
    for row in &rows {
        assert_eq!(row, &rows[8], "loaded and streamed");
    }
}

async fn tables_are_made_from_a_files_schema(rest: &dyn Rest) {
    let lab = Lab::new(rest, "avro_create").await;
    lab.put("x", container(RECORD, Codec::Null, &[record()])).await;
    let create = json!({"createDisposition": "CREATE_IF_NEEDED"});
    succeeded(&lab.run("avro-create", "x", avro(create)).await, 1);
    let fields = lab.subject.get("t").await["schema"]["fields"].clone();
    let types = |fields: &Value| {
        let fields = fields.as_array().expect("fields").iter();
        fields.map(|field| (field["name"].clone(), field["type"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(types(&fields), types(&columns()));
    assert_eq!((&fields[0]["mode"], &fields[1]["mode"]), (&json!("REQUIRED"), &json!("NULLABLE")));
}

async fn schemas_have_to_match(rest: &dyn Rest) {
    let lab = Lab::new(rest, "avro_match").await;
    let columns = json!([{"name": "a", "type": "INTEGER", "mode": "REQUIRED"},
        {"name": "at", "type": "TIMESTAMP"}]);
    lab.subject.create("t", columns).await;
    let schema = |fields: &str| format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
    let long = r#"{"name":"a","type":"long"}"#;
    let at = r#"{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}"#;
    let a = ("a", Avro::Long(1));
    let (plain, more) = (
        schema(&format!("{long},{at}")),
        schema(&format!(r#"{long},{{"name":"z","type":["null","int"]}}"#)),
    );
    lab.put(
        "plain",
        container(&plain, Codec::Null, &[vec![a.clone(), ("at", Avro::TimestampMicros(1))]]),
    )
    .await;
    lab.put(
        "more",
        container(&more, Codec::Null, &[vec![a.clone(), ("z", some(1, Avro::Int(2)))]]),
    )
    .await;
    let optional = schema(r#"{"name":"a","type":["null","long"]}"#);
    lab.put("optional", container(&optional, Codec::Null, &[vec![("a", some(1, Avro::Long(1)))]]))
        .await;
    let without = schema(at);
    lab.put("without", container(&without, Codec::Null, &[vec![("at", Avro::TimestampMicros(1))]]))
        .await;

    let mismatch = "Provided Schema does not match Table p:avro_match.t. ";
    for (id, object, load, expected) in [
        (
            "raw-types",
            "plain",
            json!({"useAvroLogicalTypes": false}),
            format!("{mismatch}Field at has changed type from TIMESTAMP to INTEGER"),
        ),
        ("added", "more", json!({}), format!("{mismatch}Cannot add fields (field: z)")),
        (
            "relaxed",
            "optional",
            json!({}),
            format!("{mismatch}Field a has changed mode from REQUIRED to NULLABLE"),
        ),
    ] {
        let job = lab.run(id, object, avro(load)).await;
        assert_eq!(error(&job), ("invalid", expected.as_str()));
    }
    let job = lab.run("without", "without", avro(json!({}))).await;
    assert!(error(&job).1.ends_with("Missing required field: a."), "{job}");
    assert!(lab.rows().await.is_empty());

    succeeded(&lab.run("plain", "plain", avro(json!({}))).await, 1);
    let ignore = json!({"ignoreUnknownValues": true});
    succeeded(&lab.run("ignored", "more", avro(ignore)).await, 1);
    let add = json!({"schemaUpdateOptions": ["ALLOW_FIELD_ADDITION"]});
    succeeded(&lab.run("add", "more", avro(add)).await, 1);
    let relax = json!({"schemaUpdateOptions": ["ALLOW_FIELD_RELAXATION"]});
    succeeded(&lab.run("relax", "optional", avro(relax)).await, 1);
    let fields = lab.subject.get("t").await["schema"]["fields"].clone();
    assert_eq!((&fields[0]["mode"], &fields[2]["type"]), (&json!("NULLABLE"), &json!("INTEGER")));
}

async fn broken_files_fail_the_whole_job(rest: &dyn Rest) {
    let lab = Lab::new(rest, "avro_broken").await;
    lab.subject.create("t", json!([{"name": "a", "type": "INTEGER"}])).await;
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}"#;
    let good =
        container(schema, Codec::Null, &[vec![("a", Avro::Long(1))], vec![("a", Avro::Long(2))]]);
    let end = good.len();
    let mut marker = good.clone();
    marker[end - 1] ^= 1;
    // A block is count, size, data, marker: one datum more than is there, and one less.
    let (mut count, mut left) = (good.clone(), good.clone());
    count[end - 19] = 4;
    left[end - 19] = 0;
    for (object, body, expected) in [
        ("magic", b"PAR1".to_vec(), "Magic does not match"),
        ("short", good[..end - 20].to_vec(), "EOF reached"),
        ("marker", marker, "Sync markers do not match"),
        ("count", count, "2 items in 1 bytes"),
        ("left", left, "1 bytes are left over in a block"),
    ] {
        lab.put(object, body).await;
        let uris =
            json!({"sourceUris": ["gs://avro_broken/good", format!("gs://avro_broken/{object}")]});
        lab.put("good", good.clone()).await;
        let job = lab.run(&format!("avro-{object}"), "", avro(uris)).await;
        let (reason, message) = error(&job);
        assert!(reason == "invalid" && message.contains(expected), "{object}: {message}");
        assert_eq!(job["status"]["errorResult"]["location"], format!("gs://avro_broken/{object}"));
    }
    assert!(lab.rows().await.is_empty(), "nor the good file's rows");
}

async fn values_out_of_range_fail_the_job(rest: &dyn Rest) {
    let lab = Lab::new(rest, "avro_range").await;
    let columns = json!([{"name": "n", "type": "NUMERIC", "precision": "5", "scale": "2"},
        {"name": "at", "type": "TIMESTAMP"}, {"name": "p", "type": "BYTES"}]);
    lab.subject.create("t", columns).await;
    let schema = r#"{"type":"record","name":"R","fields":[
        {"name":"n","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"p","type":{"type":"fixed","name":"D","size":12,"logicalType":"duration"}}]}"#;
    let row = |n: i32, at: i64| {
        let period = Duration::new(Months::new(1), Days::new(2), Millis::new(3));
        vec![
            ("n", Avro::Decimal(Decimal::from(n.to_be_bytes()))),
            ("at", Avro::TimestampMillis(at)),
            ("p", Avro::Duration(period)),
        ]
    };
    for (id, n, at, taken) in [
        ("range-good", 12_345, 0, true),
        ("range-digits", 1_234_567, 0, false),
        ("range-year", 0, 253_402_300_800_000, false),
        ("range-overflow", 0, i64::MAX, false),
    ] {
        lab.put(id, container(schema, Codec::Null, &[row(n, at)])).await;
        let job = lab.run(id, id, avro(json!({}))).await;
        assert_eq!(error(&job).0.is_empty(), taken, "{id}: {job}");
    }
    assert_eq!(lab.rows().await[0]["f"][0]["v"], "123.45");
}

async fn no_broken_byte_brings_a_row_or_the_simulator_down(rest: &dyn Rest) {
    let lab = Lab::new(rest, "avro_bytes").await;
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"array","items":"string"}}]}"#;
    lab.subject.create("t", json!([{"name": "a", "type": "STRING", "mode": "REPEATED"}])).await;
    let items = || Avro::Array(vec![Avro::String("x".into()), Avro::String("yz".into())]);
    let good = container(schema, Codec::Null, &[vec![("a", items())]]);
    let mut loaded = 0;
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        lab.put("x", bytes).await;
        let job = lab.run(&format!("byte-{at}"), "x", avro(json!({}))).await;
        loaded += usize::from(error(&job).0.is_empty());
    }
    assert_eq!(lab.rows().await.len(), loaded);
    assert!(loaded < 4, "{loaded} of {} broken files were taken", good.len());
}

pub(crate) async fn check_all(rest: &dyn Rest) {
    every_codec_and_type_gives_the_streamed_cells(rest).await;
    tables_are_made_from_a_files_schema(rest).await;
    schemas_have_to_match(rest).await;
    broken_files_fail_the_whole_job(rest).await;
    values_out_of_range_fail_the_job(rest).await;
    no_broken_byte_brings_a_row_or_the_simulator_down(rest).await;
}
