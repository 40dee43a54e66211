use serde_json::json;

use super::*;
use crate::{
    record::push_header,
    transcode::{KeyPlacement, KeySource, PlanError},
};

#[test]
fn key_headers_and_metadata_stand_beside_the_value() {
    let mut spec = RowSpec::new(ValueSource::String);
    spec.key = Some(KeySource { source: ValueSource::Bytes, placement: KeyPlacement::default() });
    spec.headers = Some("headers".to_owned());
    let plan = plan::<JsonRow>(&spec, &wanted(&spec));
    let mut headers = Vec::new();
    push_header(&mut headers, "trace", Some(&[0xff]));
    push_header(&mut headers, "none", None);
    let full = Record {
        key: Some(b"k"),
        headers: Headers::from_encoded(&headers),
        ..record(Some("é\n".as_bytes()))
    };
    let metadata = json!({
        "_kafka_topic": "shop.\"orders\"", "_kafka_partition": 3, "_kafka_offset": 7,
        "_kafka_timestamp": "1969-12-31T23:59:59.999000Z",
    });
    let mut expected = metadata.clone();
    expected["value"] = json!("é\n");
    expected["_kafka_key"] = json!("aw==");
    expected["headers"] = json!([{"key": "trace", "value": "/w=="}, {"key": "none"}]);
    assert_eq!(json_row(&plan, &full).unwrap(), expected);
    // A tombstone with a null key.
    assert_eq!(json_row(&plan, &record(None)).unwrap(), metadata);
    assert!(json_row(&plan, &record(Some(b"\xff"))).is_err());
}

#[test]
fn metadata_may_be_one_record() {
    let mut spec = RowSpec::new(ValueSource::String);
    spec.metadata.record = Some("meta".to_owned());
    let plan = plan::<JsonRow>(&spec, &wanted(&spec));
    let row = json_row(&plan, &Record { timestamp_ms: None, ..record(None) }).unwrap();
    let meta =
        json!({"_kafka_topic": "shop.\"orders\"", "_kafka_partition": 3, "_kafka_offset": 7});
    assert_eq!(row, json!({"meta": meta}));
}

#[test]
fn a_field_called_like_a_metadata_column_is_refused_at_compile_time() {
    let schema =
        r#"{"type":"record","name":"R","fields":[{"name":"_Kafka_Offset","type":"long"}]}"#;
    let renamed = {
        let mut spec = RowSpec::new(ValueSource::Avro(avro(schema)));
        spec.metadata.offset = "o".to_owned();
        spec
    };
    let mut table = wanted(&renamed);
    table.columns.retain(|column| column.name != "o");
    let spec = RowSpec::new(ValueSource::Avro(avro(schema)));
    let error = RowPlan::<JsonRow>::compile(&spec, &table, Limits::default()).unwrap_err();
    assert!(matches!(error, PlanError::Clash { .. }), "{error}");
}

#[test]
fn a_record_key_goes_to_a_record_or_to_columns() {
    let schema = r#"{"type":"record","name":"K","fields":[{"name":"a","type":"long"}]}"#;
    let mut spec = bare(ValueSource::String);
    let source = ValueSource::Avro(avro(schema));
    let keyed = Record { key: Some(&[14]), ..record(Some(b"v")) };
    spec.key = Some(KeySource { source: source.clone(), placement: KeyPlacement::default() });
    let row = json_row(&plan(&spec, &wanted(&spec)), &keyed).unwrap();
    assert_eq!(row, json!({"value": "v", "_kafka_key": {"a": 7}}));
    spec.key = Some(KeySource { source, placement: KeyPlacement::Fields });
    let row = json_row(&plan(&spec, &wanted(&spec)), &keyed).unwrap();
    assert_eq!(row, json!({"value": "v", "a": 7}));
}

#[test]
fn an_avro_value_that_is_no_record_has_one_column() {
    let spec = bare(ValueSource::Avro(avro(r#"["null", "long"]"#)));
    let plan = plan::<JsonRow>(&spec, &wanted(&spec));
    assert_eq!(json_row(&plan, &record(Some(&[2, 14]))).unwrap(), json!({"value": 7}));
    assert_eq!(json_row(&plan, &record(Some(&[0]))).unwrap(), json!({}));
}
