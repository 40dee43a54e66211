use proptest::prelude::*;
use serde_json::json;

use super::{random::Dice, *};
use crate::{
    table::{Column, ColumnKind, Mode},
    transcode::{KeyPlacement, KeySource, RowErrorKind, connect, writer::proto::ProtoRow},
};

fn table() -> TableSchema {
    let column = |name: &str, kind| Column::new(name, kind);
    let inner = vec![column("x", ColumnKind::Int64), column("a_b__cf525a7c", ColumnKind::String)];
    TableSchema {
        columns: vec![
            column("id", ColumnKind::Int64).with_mode(Mode::Required),
            column("f", ColumnKind::Float64),
            column("n", ColumnKind::Numeric),
            column("s", ColumnKind::String),
            column("b", ColumnKind::Bool),
            column("at", ColumnKind::Timestamp),
            column("j", ColumnKind::Json),
            column("raw", ColumnKind::Bytes),
            column("r", ColumnKind::Record(inner.clone())),
            column("many", ColumnKind::Record(inner)).with_mode(Mode::Repeated),
            column("tags", ColumnKind::String).with_mode(Mode::Repeated),
        ],
    }
}

fn untyped(text: &str) -> Result<Json, RowError> {
    json_row(&plan(&bare(ValueSource::Json), &table()), &record(Some(text.as_bytes())))
}

#[test]
fn objects_go_where_the_columns_are() {
    let row = untyped(
        r#" { "tags": ["a", "\u00e9\"", ""], "ID": 9007199254740993, "f": 1, "n": 0.1000000000000,
            "s": 12.50, "b": true, "at": "2024-01-01T00:00:00+01:00", "j": {"k": [1, null]},
            "raw": "AQI=", "r": {"x": 1.0, "a.b": "dotted"}, "many": [{"x": "5"}, {}] } "#,
    );
    let expected = json!({
        "id": "9007199254740993", "f": 1.0, "n": "0.1", "s": "12.50", "b": true,
        "at": "2023-12-31T23:00:00.000000Z", "j": r#"{"k": [1, null]}"#, "raw": "AQI=",
        "r": {"x": 1, "a_b__cf525a7c": "dotted"}, "many": [{"x": 5}, {}],
        "tags": ["a", "é\"", ""],
    });
    assert_eq!(row.unwrap(), expected);
}

#[test]
fn nothing_is_dropped_silently_but_what_carries_nothing() {
    for text in [
        r#"{"id":1,"new":1}"#,
        r#"{"id":1,"r":{"new":{"deep":""}}}"#,
        r#"{"id":1.5}"#,
        r#"{"id":"NaN"}"#,
        r#"{"id":1,"many":[{"x":"-Infinity"}]}"#,
        r#"{"id":1,"new":[null]}"#,
        r#"{"id":1,"new":[{"a":[null]}]}"#,
        r#"{"id":1,"new":[{"a":0}]}"#,
        r#"{"id":1,"r":{"a_b__cf525a7c":"x"}}"#,
    ] {
        assert_eq!(untyped(text).unwrap_err().kind, RowErrorKind::UnknownColumns, "{text}");
    }
    for text in [
        r#"{"id":1,"new":null}"#,
        r#"{"id":1,"new":[]}"#,
        r#"{"id":1,"new":{"a":{"b":null}}}"#,
        r#"{"id":1,"new":[{}, {"a":null}, [{"b":[]}]]}"#,
    ] {
        assert_eq!(untyped(text).unwrap(), json!({"id": 1}), "{text}");
    }
}

/// What `text` asks a new table for.
fn inferred(text: &str) -> TableSchema {
    let ty = crate::schema::infer::infer(text.as_bytes()).unwrap();
    TableSchema { columns: crate::schema::columns::derive(&ty, &ColumnRules::default()).unwrap() }
}

#[test]
fn arrays_of_arrays_become_records_with_one_repeated_field_in_both_row_forms() {
    let text = r#"{"m": [[1, 2], [], [3]]}"#;
    let (table, spec) = (inferred(text), bare(ValueSource::Json));
    let json = json_row(&plan(&spec, &table), &record(Some(text.as_bytes()))).unwrap();
    let expected = json!({"m": [{"element": [1, 2]}, {"element": []}, {"element": [3]}]});
    assert_eq!(json, expected);
    let proto = encode::<ProtoRow>(&plan(&spec, &table), &record(Some(text.as_bytes()))).unwrap();
    assert_eq!(proto, [0x0a, 4, 0x08, 1, 0x08, 2, 0x0a, 0, 0x0a, 2, 0x08, 3]);

    let text = r#"{"deep": [[[{"x": "a"}], []]], "nothing": [[], [[]]], "plain": [{"x": 1}]}"#;
    let plan = plan(&spec, &inferred(text));
    let expected = json!({
        "deep": [{"element": [{"element": [{"x": "a"}]}, {"element": []}]}],
        "plain": [{"x": 1}],
    });
    assert_eq!(json_row(&plan, &record(Some(text.as_bytes()))).unwrap(), expected);
    for (text, path, kind) in [
        (r#"{"deep": [[[{"y": 1}]]]}"#, "deep.[].[].[].y", RowErrorKind::UnknownColumns),
        (r#"{"deep": [[[{"x": "a"}], null]]}"#, "deep.[].[]", RowErrorKind::Transcode),
        (r#"{"plain": [[1]]}"#, "plain.[]", RowErrorKind::Transcode),
    ] {
        let error = json_row(&plan, &record(Some(text.as_bytes()))).unwrap_err();
        assert_eq!((error.path.as_str(), error.kind), (path, kind), "{text}");
    }
}

#[test]
fn values_that_do_not_fit_are_refused_with_their_path() {
    for (text, path) in [
        (r#"{"id":9223372036854775808}"#, "id"),
        (r#"{"id":1,"f":0.75e252527}"#, "f"),
        (r#"{"id":1,"f":"soon"}"#, "f"),
        (r#"{"id":1,"j":{"a":[0, -1e309]}}"#, "j"),
        (r#"{"id":1,"n":1e30}"#, "n"),
        (r#"{"id":1,"n":"NaN"}"#, "n"),
        (r#"{"id":1,"tags":["a",null]}"#, "tags.[]"),
        (r#"{"id":1,"tags":"a"}"#, "tags"),
        (r#"{"id":1,"many":[{"x":{}}]}"#, "many.[].x"),
        (r#"{"id":1,"s":{}}"#, "s"),
        (r#"{"f":1}"#, "id"),
        (r#"{"id":null}"#, "id"),
        (r#"{"id":1,"at":"soon"}"#, "at"),
    ] {
        let error = untyped(text).unwrap_err();
        assert_eq!((error.path.as_str(), error.kind), (path, RowErrorKind::Transcode), "{text}");
    }
}

#[test]
fn malformed_objects_are_refused() {
    for text in [
        "",
        "[]",
        "1",
        r#"{"id":1"#,
        r#"{"id":1}}"#,
        r#"{"id":1,"ID":2}"#,
        r#"{"id":1,"id":1}"#,
        r#"{"id":1,"s":"\ud800"}"#,
    ] {
        assert_eq!(untyped(text).unwrap_err().kind, RowErrorKind::Decode, "{text}");
    }
}

#[test]
fn a_key_called_like_a_metadata_column_is_refused() {
    let spec = RowSpec::new(ValueSource::Json);
    let plan = plan::<JsonRow>(&spec, &wanted(&spec));
    let error = json_row(&plan, &record(Some(br#"{"_kafka_offset": 1}"#))).unwrap_err();
    assert!(error.message.contains("metadata column"), "{error}");
}

#[test]
fn a_json_key_is_any_json() {
    let mut spec = bare(ValueSource::String);
    spec.key = Some(KeySource { source: ValueSource::Json, placement: KeyPlacement::default() });
    let keyed = Record { key: Some(b"{\"a\": 1}"), ..record(Some(b"v")) };
    let row = json_row(&plan(&spec, &wanted(&spec)), &keyed).unwrap();
    assert_eq!(row, json!({"value": "v", "_kafka_key": "{\"a\": 1}"}));
}

const ENVELOPE: &str = r#"{"schema":{"type":"struct","fields":[
    {"field":"id","type":"int64"},
    {"field":"small","type":"int8","optional":true},
    {"field":"d","type":"double","optional":true},
    {"field":"price","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"},"optional":true},
    {"field":"day","type":"int32","name":"org.apache.kafka.connect.data.Date","optional":true},
    {"field":"at","type":"int64","name":"io.debezium.time.MicroTimestamp","optional":true},
    {"field":"v","type":"struct","name":"io.debezium.data.VariableScaleDecimal","optional":true,"fields":[
        {"field":"scale","type":"int32"},{"field":"value","type":"bytes"}]},
    {"field":"m","type":"map","keys":{"type":"string"},"values":{"type":"int32"},"optional":true},
    {"field":"im","type":"map","keys":{"type":"int32"},"values":{"type":"string"},"optional":true},
    {"field":"a","type":"array","items":{"type":"string","optional":true},"optional":true}
    ]},"payload":PAYLOAD}"#;

fn typed(payload: &str) -> Result<Json, RowError> {
    let envelope = ENVELOPE.replace("PAYLOAD", payload);
    let (schema, payload) = connect::split(envelope.as_bytes()).unwrap();
    let schema = std::str::from_utf8(schema).unwrap();
    let ty = crate::schema::connect::parse_text(schema).unwrap();
    let spec = bare(ValueSource::ConnectJson(Arc::new(ty)));
    json_row(&plan(&spec, &wanted(&spec)), &record(Some(payload)))
}

#[test]
fn connect_payloads_follow_their_schema() {
    let row = typed(
        r#"{"id": 9223372036854775807, "small": -128, "d": "NaN", "price": "MDk=", "day": -1,
            "at": -1, "v": {"scale": 3, "value": "Bw=="}, "m": {"k": 1}, "im": [[1, "x"]],
            "a": ["é"]}"#,
    );
    let expected = json!({
        "id": "9223372036854775807", "small": -128, "d": "NaN", "price": "123.45",
        "day": "1969-12-31", "at": "1969-12-31T23:59:59.999999", "v": "0.007",
        "m": [{"key": "k", "value": 1}], "im": [{"key": 1, "value": "x"}], "a": ["é"],
    });
    assert_eq!(row.unwrap(), expected);
    assert_eq!(
        typed(r#"{"id":1,"d":null,"price":123.45}"#).unwrap(),
        json!({"id": 1, "price": "123.45"})
    );
}

#[test]
fn connect_payloads_against_their_schema_are_refused() {
    for (payload, path) in [
        (r#"{"d":1}"#, "id"),
        (r#"{"id":null}"#, "id"),
        (r#"{"id":9223372036854775808}"#, "id"),
        (r#"{"id":1,"small":2147483648}"#, "small"),
        (r#"{"id":1,"new":1}"#, "new"),
        (r#"{"id":1,"id":1}"#, "id"),
        (r#"{"id":1,"a":["x",null]}"#, "a.[]"),
        (r#"{"id":1,"im":[[1]]}"#, "im.[]"),
        (r#"{"id":1,"d":1e400}"#, "d"),
        (r#"{"id":1,"price":"?"}"#, "price"),
    ] {
        assert_eq!(typed(payload).unwrap_err().path, path, "{payload}");
    }
}

proptest! {
    #[test]
    fn broken_json_never_panics(seed: u64) {
        let whole = r#"{"tags":["a\u00e9"],"id":12e0,"r":{"x":1},"j":{"k":[1]},"many":[{"x":1}]}"#;
        let plan = plan::<JsonRow>(&bare(ValueSource::Json), &table());
        let mut dice = Dice(seed);
        let mut bytes = whole.as_bytes().to_vec();
        for _ in 0..=dice.below(3) {
            let at = dice.below(bytes.len() as u64) as usize;
            match dice.below(3) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes[at] = whole.as_bytes()[dice.below(whole.len() as u64) as usize],
                _ => bytes.insert(at, dice.roll() as u8),
            }
        }
        let row = json_row(&plan, &record(Some(&bytes)));
        // What is accepted is JSON for another reader too.
        prop_assert!(row.is_err() || serde_json::from_slice::<Json>(&bytes).is_ok());
    }
}

#[test]
fn names_out_of_a_record_are_escaped_cut_and_hidden() {
    let path = |text: &str| untyped(text).unwrap_err().path;
    assert_eq!(path(r#"{"id": 1, "no\nsuch\u001b": 1}"#), "(key)");
    assert_eq!(path(r#"{"id": 1, "r": {"alice@example.com": 1}}"#), "r.(key)");
    assert_eq!(path(r#"{"id": 1, "r": {"+49 151 1234567": 1}}"#), "r.(key)");
    assert_eq!(path(r#"{"id": 1, "r": {"price": 1}}"#), "r.price");
    assert_eq!(path(&format!(r#"{{"id": 1, "{}": 1}}"#, "x".repeat(100_000))), "(key)");
}
