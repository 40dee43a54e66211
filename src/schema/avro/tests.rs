use proptest::prelude::*;

use super::*;
use crate::schema::{arbitrary, model::Logical};

const NONE: [&str; 0] = [];

fn parsed(text: &str) -> Type {
    parse(text, &NONE).unwrap()
}

fn refused(text: &str) -> SchemaError {
    parse(text, &NONE).unwrap_err()
}

fn fields(ty: &Type) -> &[Field] {
    match &ty.kind {
        Kind::Record(record) => &record.fields,
        kind => panic!("not a record: {kind:?}"),
    }
}

/// The record's full name.
fn name(ty: &Type) -> &str {
    match &ty.kind {
        Kind::Record(record) => &record.name,
        Kind::Recursive(name) => name,
        _ => ty.name.as_deref().unwrap(),
    }
}

/// The logical type that `attributes`, such as `"type":"int","logicalType":"date"`, give.
fn logical(attributes: &str) -> Option<Logical> {
    parsed(&format!("{{{attributes}}}")).logical
}

#[test]
fn names_resolve_in_their_namespaces() {
    let ty = parsed(
        r#"{"type":"record","name":"Top","namespace":"a-b.c","fields":[
            {"name":"x","type":{"type":"enum","name":"E","symbols":["P","Q"]}},
            {"name":"y","type":"E"},
            {"name":"z","type":"a-b.c.E"},
            {"name":"o","type":{"type":"record","name":"other.R","fields":[
                {"name":"f","type":{"type":"fixed","name":"F","size":4}}]}},
            {"name":"p","type":["null","other.F"]},
            {"name":"q","type":{"type":"fixed","name":"Bare","namespace":"","size":1}},
            {"name":"r","type":"Bare"}]}"#,
    );
    assert_eq!(name(&ty), "a-b.c.Top");
    let fields_of_top = fields(&ty);
    assert_eq!(name(&fields_of_top[0].ty), "a-b.c.E");
    assert_eq!(fields_of_top[0].ty, fields_of_top[1].ty);
    assert_eq!(fields_of_top[0].ty, fields_of_top[2].ty);
    let fixed = &fields(&fields_of_top[3].ty)[0].ty;
    assert_eq!((name(fixed), &fixed.kind), ("other.F", &Kind::Fixed(4)));
    assert_eq!(fields_of_top[4].ty, fixed.clone().nullable());
    assert_eq!(name(&fields_of_top[6].ty), "Bare");
}

#[test]
fn references_define_names_in_any_order() {
    let text = r#"{"type":"record","name":"T","namespace":"n","fields":[
        {"name":"a","type":"n.A"},{"name":"b","type":{"type":"array","items":"B"}}]}"#;
    let a = r#"{"type":"record","name":"A","namespace":"n","fields":[{"name":"b","type":"B"}]}"#;
    let b = r#"{"type":"record","name":"n.B","fields":[{"name":"x","type":"long"}]}"#;
    let forward = parse(text, &[a, b]).unwrap();
    assert_eq!(forward, parse(text, &[b, a]).unwrap());
    assert_eq!(fields(&fields(&fields(&forward)[0].ty)[0].ty)[0].ty, Type::plain(Kind::Long));
    assert_eq!(parse(text, &[a, b, b]).unwrap(), forward);

    let error = parse(text, &[a]).unwrap_err();
    let name = "n.B".to_owned();
    assert_eq!(
        error,
        SchemaError::new("reference[0]/fields/0/type", Problem::UnknownType { name })
    );
    let other_b = r#"{"type":"record","name":"n.B","fields":[]}"#;
    let error = parse(text, &[a, b, other_b]).unwrap_err();
    assert!(matches!(error.problem, Problem::Redefined { .. }), "{error}");
}

#[test]
fn recursion_is_marked_where_it_closes() {
    let ty = parsed(
        r#"{"type":"record","name":"Node","fields":[{"name":"next","type":["null","Node"]}]}"#,
    );
    let next = Type::plain(Kind::Recursive(Arc::from("Node"))).nullable();
    assert_eq!(fields(&ty)[0].ty, next);
}

#[test]
fn logical_types_are_read_and_invalid_ones_ignored() {
    let decimal = |precision, scale| Some(Logical::Decimal { precision: Some(precision), scale });
    let cases = [
        (r#""type":"int","logicalType":"date""#, Some(Logical::Date)),
        (r#""type":"long","logicalType":"date""#, None),
        (r#""type":"int","logicalType":"no-such""#, None),
        (r#""type":"long","logicalType":"timestamp-nanos""#, Some(Logical::TimestampNanos)),
        (r#""type":"int","logicalType":"timestamp-millis""#, None),
        (r#""type":"string","logicalType":"uuid""#, Some(Logical::Uuid)),
        (r#""type":"fixed","name":"F","size":16,"logicalType":"uuid""#, Some(Logical::Uuid)),
        (r#""type":"fixed","name":"F","size":15,"logicalType":"uuid""#, None),
        (
            r#""type":"fixed","name":"F","size":12,"logicalType":"duration""#,
            Some(Logical::Duration),
        ),
        (r#""type":"bytes","logicalType":"decimal","precision":5,"scale":2"#, decimal(5, 2)),
        (r#""type":"bytes","logicalType":"decimal","precision":5"#, decimal(5, 0)),
        (r#""type":"bytes","logicalType":"decimal""#, None),
        (r#""type":"bytes","logicalType":"decimal","precision":0"#, None),
        (r#""type":"bytes","logicalType":"decimal","precision":2,"scale":3"#, None),
        (r#""type":"bytes","logicalType":"decimal","precision":2,"scale":-1"#, None),
        (
            r#""type":"fixed","name":"F","size":4,"logicalType":"decimal","precision":9"#,
            decimal(9, 0),
        ),
        (r#""type":"fixed","name":"F","size":4,"logicalType":"decimal","precision":10"#, None),
    ];
    for (attributes, expected) in cases {
        assert_eq!(logical(attributes), expected, "{attributes}");
    }
}

#[test]
fn semantic_names_win_over_logical_types() {
    let cases = [
        (
            r#""type":"bytes","scale":2,"precision":64,"logicalType":"decimal",
               "connect.parameters":{"scale":"2"},
               "connect.name":"org.apache.kafka.connect.data.Decimal""#,
            Some(Logical::Decimal { precision: None, scale: 2 }),
        ),
        (
            r#""type":"bytes","connect.parameters":{"scale":"-2","connect.decimal.precision":"9"},
               "connect.name":"org.apache.kafka.connect.data.Decimal""#,
            Some(Logical::Decimal { precision: Some(9), scale: -2 }),
        ),
        (
            r#""type":"long","logicalType":"timestamp-millis",
               "connect.name":"io.debezium.time.Timestamp""#,
            Some(Logical::LocalTimestampMillis),
        ),
        (r#""type":"long","connect.name":"io.debezium.time.MicroTime""#, Some(Logical::TimeMicros)),
        (r#""type":"string","connect.name":"io.debezium.data.Json""#, Some(Logical::Json)),
        (r#""type":"bytes","connect.name":"io.debezium.data.Json""#, None),
        (r#""type":"string","connect.name":"io.debezium.data.Enum""#, None),
        (r#""type":"int","logicalType":"date","connect.name":"my.own.Name""#, Some(Logical::Date)),
        (r#""type":{"type":"int"},"logicalType":"date""#, Some(Logical::Date)),
    ];
    for (attributes, expected) in cases {
        assert_eq!(logical(attributes), expected, "{attributes}");
    }
}

#[test]
fn a_fixed_decimal_holds_its_digits() {
    for size in 1..=16_usize {
        let largest = i128::MAX >> (128 - 8 * size);
        // Any number of that many nines must fit; one more must not.
        let nines = |count: u64| 10_i128.checked_pow(count as u32).map(|power| power - 1);
        let digits = logical::digits(size);
        assert!(nines(digits).unwrap() <= largest, "{size}");
        assert!(nines(digits + 1).is_none_or(|more| more > largest), "{size}");
    }
}

#[test]
fn docs_are_kept() {
    let ty = parsed(
        r#"{"type":"record","name":"R","doc":"the record","fields":[
            {"name":"a","doc":"the field","type":{"type":"long","connect.doc":"the type"}}]}"#,
    );
    let field = &fields(&ty)[0];
    assert_eq!(ty.doc.as_deref(), Some("the record"));
    assert_eq!(field.doc.as_deref(), Some("the field"));
    assert_eq!(field.ty.doc.as_deref(), Some("the type"));
}

#[test]
fn errors_point_at_the_place() {
    let cases = [
        (r#"{"type":"record","name":"R","fields":[{"name":"a","type":"lnog"}]}"#, "/fields/0/type"),
        (r#"{"type":"record","name":"R","fields":[{"name":"a"}]}"#, "/fields/0"),
        (r#"{"type":"record","name":"R","fields":[{"type":"int"}]}"#, "/fields/0"),
        (r#"{"type":"record","fields":[]}"#, ""),
        (r#"{"type":"record","name":"R"}"#, ""),
        (r#"{"type":"array"}"#, ""),
        (r#"["null",["int"]]"#, "/1"),
        (r#"["null",{"type":"map","values":7}]"#, "/1/values"),
        (r#"{"type":"enum","name":"E","symbols":[1]}"#, ""),
        (r#"{"type":"fixed","name":"F","size":-1}"#, ""),
        ("nope", ""),
        (
            r#"{"type":"record","name":"R","fields":[
                {"name":"a","type":"int"},{"name":"a","type":"int"}]}"#,
            "/fields/1",
        ),
    ];
    for (text, path) in cases {
        assert_eq!(refused(text).path, path, "{text}");
    }
    assert_eq!(
        refused(r#"{"type":"record","name":"R","fields":[{"name":"a","type":"lnog"}]}"#)
            .to_string(),
        "schema at /fields/0/type: unknown type `lnog`; is a schema reference missing?"
    );
}

/// A schema of `count` records in a union, each with the fields that `field` writes.
fn chain(count: usize, width: usize) -> String {
    let record = |index: usize| {
        let inner = if index == 0 { "int".to_owned() } else { format!("R{}", index - 1) };
        let field = |at: usize| format!(r#"{{"name":"f{at}","type":"{inner}"}}"#);
        let fields: Vec<String> = (0..width).map(field).collect();
        format!(r#"{{"type":"record","name":"R{index}","fields":[{}]}}"#, fields.join(","))
    };
    format!("[{}]", (0..count).map(record).collect::<Vec<_>>().join(","))
}

#[test]
fn small_texts_cannot_expand_without_bounds() {
    // 10 to the power of 20 fields, were they written out.
    let limit = |error: SchemaError| match error.problem {
        Problem::Limit { what, .. } => what,
        other => panic!("{other}"),
    };
    assert_eq!(limit(refused(&chain(20, 10))), "fields");
    assert_eq!(limit(refused(&chain(5_000, 1))), "levels");
    // The same the other way round: each record names one that is defined later.
    let Value::Array(mut records) = serde_json::from_str(&chain(5_000, 1)).unwrap() else {
        panic!()
    };
    records.reverse();
    assert_eq!(limit(refused(&Value::Array(records).to_string())), "levels");
    assert!(parse(&chain(10, 2), &NONE).is_ok());
    assert_eq!(
        limit(refused(&format!("\"{}\"", "x".repeat(TEXT_BYTES_MAX)))),
        "bytes of schema text"
    );
    assert!(matches!(refused(&"[".repeat(10_000)).problem, Problem::NotJson { .. }));
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(ty in arbitrary::record_type()) {
        let text = arbitrary::avro_text(&ty);
        prop_assert_eq!(&parse(&text, &NONE).unwrap(), &ty, "{}", text);
    }

    #[test]
    fn the_generated_text_is_avro(ty in arbitrary::record_type()) {
        let text = arbitrary::avro_text(&ty);
        let oracle = apache_avro::Schema::parse_str(&text);
        prop_assert!(oracle.is_ok(), "{:?} {}", oracle, text);
    }

    #[test]
    fn no_text_panics(text in "[\\[\\]{}:,\"a-z]{0,40}") {
        drop(parse(&text, &[&text]));
    }
}
