use super::*;

fn names(spec: &RowSpec) -> Vec<String> {
    let columns = spec.columns(&ColumnRules::default()).unwrap();
    columns.into_iter().map(|column| column.name).collect()
}

fn record(names: &[&str]) -> Arc<Type> {
    let field =
        |name: &&str| Field { name: Arc::from(*name), ty: Type::plain(Kind::Long), doc: None };
    let fields = names.iter().map(field).collect();
    Arc::new(Type::plain(Kind::Record(Arc::new(RecordType { name: Arc::from("R"), fields }))))
}

#[test]
fn value_key_headers_and_metadata_have_columns() {
    let mut spec = RowSpec::new(ValueSource::Avro(record(&["id"])));
    spec.key = Some(KeySource { source: ValueSource::String, placement: KeyPlacement::default() });
    spec.headers = Some("headers".to_owned());
    let expected = [
        "id",
        "_kafka_key",
        "headers",
        "_kafka_topic",
        "_kafka_partition",
        "_kafka_offset",
        "_kafka_timestamp",
    ];
    assert_eq!(names(&spec), expected);
    spec.metadata.record = Some("meta".to_owned());
    assert_eq!(names(&spec), ["id", "_kafka_key", "headers", "meta"]);
    spec.metadata.enabled = false;
    assert_eq!(names(&spec), ["id", "_kafka_key", "headers"]);
}

#[test]
fn a_record_key_becomes_a_record_or_columns_and_is_never_required() {
    let mut spec = RowSpec::new(ValueSource::String);
    spec.metadata.enabled = false;
    let source = ValueSource::Avro(record(&["a", "b"]));
    spec.key = Some(KeySource { source: source.clone(), placement: KeyPlacement::default() });
    assert_eq!(names(&spec), ["value", "_kafka_key"]);
    spec.key = Some(KeySource { source, placement: KeyPlacement::Fields });
    assert_eq!(names(&spec), ["value", "a", "b"]);
    let columns = spec.columns(&ColumnRules::default()).unwrap();
    assert!(columns.iter().all(|column| column.mode == Mode::Nullable));
}

#[test]
fn two_sources_of_one_column_clash_whatever_their_case() {
    let mut spec = RowSpec::new(ValueSource::Avro(record(&["_KAFKA_offset"])));
    let error = spec.columns(&ColumnRules::default()).unwrap_err();
    assert!(matches!(error, PlanError::Clash { second: "the metadata", .. }), "{error}");
    spec.metadata.offset = "o".to_owned();
    assert!(spec.columns(&ColumnRules::default()).is_ok());
}
