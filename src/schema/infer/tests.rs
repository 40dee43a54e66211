use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    schema::{
        columns::{ColumnRules, derive},
        diff::diff,
    },
    table::{Column, ColumnKind, Mode, TableSchema},
};

fn inferred(json: &Value) -> Type {
    infer(json.to_string().as_bytes()).unwrap()
}

fn merge(one: Type, other: Type) -> Result<Type, SchemaError> {
    merge_at(one, other, &mut Vec::new())
}

fn columns(ty: &Type) -> Vec<Column> {
    derive(ty, &ColumnRules::default()).unwrap()
}

#[test]
fn every_value_has_its_type() {
    let cases = [
        ("null", Kind::Null),
        ("true", Kind::Boolean),
        ("\"2024-01-01\"", Kind::String),
        ("-9223372036854775808", Kind::Long),
        ("9223372036854775807", Kind::Long),
        ("9223372036854775808", Kind::Double),
        ("-9223372036854775809", Kind::Double),
        ("1.0", Kind::Double),
        ("1e3", Kind::Double),
        ("[\"NaN\",1]", Kind::Array(Arc::new(Type::plain(Kind::Double)))),
        ("[1.5,null,\"-Infinity\"]", Kind::Array(Arc::new(Type::plain(Kind::Double)))),
        ("[\"NaN\",\"x\"]", Kind::Array(Arc::new(Type::plain(Kind::String)))),
        ("[\"x\",\"NaN\"]", Kind::Array(Arc::new(Type::plain(Kind::String)))),
        ("\"nan\"", Kind::String),
        ("\"+Infinity\"", Kind::String),
        ("[]", Kind::Array(Arc::new(Type::plain(Kind::Null)))),
        ("[null,1,2.5]", Kind::Array(Arc::new(Type::plain(Kind::Double)))),
    ];
    for (json, kind) in cases {
        assert_eq!(infer(json.as_bytes()).unwrap(), Type::plain(kind), "{json}");
    }
}

#[test]
fn nothing_seen_makes_no_column_and_nothing_is_required() {
    let ty = inferred(&json!({
        "id": 1, "nothing": null, "none": [], "nulls": [null], "empty": {}, "deep": {"x": {}},
        "o": {"x": true}, "list": [{"a": 1}, {"b": "t"}],
    }));
    let nullable = |name: &str, kind| Column::new(name, kind);
    let expected = vec![
        nullable("id", ColumnKind::Int64),
        nullable("o", ColumnKind::Record(vec![nullable("x", ColumnKind::Bool)])),
        nullable(
            "list",
            ColumnKind::Record(vec![
                nullable("a", ColumnKind::Int64),
                nullable("b", ColumnKind::String),
            ]),
        )
        .with_mode(Mode::Repeated),
    ];
    assert_eq!(columns(&ty), expected);
}

#[test]
fn a_name_of_a_float_is_neither_number_nor_text_until_it_is_settled() {
    for text in ["\"NaN\"", "\"Infinity\"", "\"-Infinity\"", "\"Na\\u004e\""] {
        let ty = infer(text.as_bytes()).unwrap();
        assert_eq!(ty, Type::logical(Kind::String, Logical::FloatName), "{text}");
    }
    let ty = inferred(&json!({"a": "NaN", "b": ["NaN"], "c": {"x": "NaN"}, "d": [["NaN"]]}));
    assert!(columns(&without_float_names(&ty)).is_empty());
    assert_eq!(columns(&settle(&ty, &[])), columns(&ty));
    let text = inferred(&json!({"a": "t", "b": ["t"], "c": {"x": "t"}, "d": [["t"]]}));
    assert_eq!(settle(&ty, &columns(&text)), text);
    let number = inferred(&json!({"a": 1, "b": [1], "c": {"x": 1}, "d": [[1]]}));
    let float = inferred(&json!({"a": 0.5, "b": [0.5], "c": {"x": 0.5}, "d": [[0.5]]}));
    assert_eq!(settle(&ty, &columns(&number)), float);
}

#[test]
fn merging_covers_both() {
    let one = inferred(&json!({"a": 1, "b": null, "o": {"x": 1}, "l": []}));
    let other = inferred(&json!({"c": "t", "A": 2.5, "b": true, "o": {"y": 2}, "l": [1]}));
    let merged = inferred(&json!({
        "a": 2.5, "b": true, "o": {"x": 1, "y": 2}, "l": [1], "c": "t",
    }));
    assert_eq!(merge(one, other).unwrap(), merged);
}

#[test]
fn conflicts_name_the_place() {
    let cases = [
        (json!({"a": {"b": [{"c": 1}, {"c": "t"}]}}), "a.b[].c"),
        (json!([1, {"a": 1}]), "[]"),
        (json!({"x": {"Id": 1, "id": 2}}), "x.id"),
    ];
    for (json, path) in cases {
        assert_eq!(infer(json.to_string().as_bytes()).unwrap_err().path, path, "{json}");
    }
    assert_eq!(infer(br#"{"a":1,"a":2}"#).unwrap_err().path, "a");
    let error = merge(inferred(&json!({"a": {"b": "t"}})), inferred(&json!({"a": {"b": {}}})));
    assert_eq!(
        error.unwrap_err().to_string(),
        "schema at a.b: a string in one place and an object in another: no one column type holds both"
    );
    for text in ["", "{", "{}{}", "nul", r#"{"a":1e999}"#] {
        let problem = infer(text.as_bytes()).unwrap_err().problem;
        assert!(matches!(problem, Problem::ValueNotJson { .. }), "{text}");
    }
}

#[test]
fn inner_arrays_are_looked_at_beside_the_columns_that_they_go_into() {
    let json = Column::new("j", ColumnKind::Json);
    let inner = |column: Column| {
        let element = Column { name: "element".into(), mode: Mode::Repeated, ..column };
        Column::new("a", ColumnKind::Record(vec![element])).with_mode(Mode::Repeated)
    };
    let records = inner(Column::new("", ColumnKind::Record(vec![json.clone()])));
    let text = br#"{"a": [[{"j": {"x": 1, "X": 2}}], [{"j": 5}]]}"#;
    let ty = infer_beside(text, std::slice::from_ref(&records)).unwrap();
    assert_eq!(diff_of(vec![records], &ty), vec![]);
    let anything = inner(json);
    let text = br#"{"a": [[1, "t", {"x": 1, "X": 2}], [[2]], []]}"#;
    let ty = infer_beside(text, std::slice::from_ref(&anything)).unwrap();
    assert_eq!(diff_of(vec![anything], &ty), vec![]);
}

fn diff_of(current: Vec<Column>, ty: &Type) -> Vec<Change> {
    let difference = diff(&TableSchema { columns: current }, &columns(ty));
    assert!(difference.conflicts.is_empty(), "{difference:?}");
    difference.changes
}

#[test]
fn what_goes_into_json_columns_is_not_looked_into() {
    let json = Column::new("Attrs", ColumnKind::Json);
    let nested = Column::new("o", ColumnKind::Record(vec![json.clone()]));
    let known = [json, nested.clone()];
    let text = br#"{"attrs": [1, "a", {"x": 1, "X": 2}], "o": {"attrs": 7}, "new": 1}"#;
    let ty = infer_beside(text, &known).unwrap();
    let current = TableSchema { columns: known.to_vec() };
    let difference = diff(&current, &columns(&ty));
    let parent = Vec::new();
    let column = Column::new("new", ColumnKind::Int64);
    assert_eq!(difference.changes, [Change::AddColumn { parent, column }]);
    assert_eq!(difference.conflicts, []);
    let list = known[0].clone().with_mode(Mode::Repeated);
    let ty =
        infer_beside(br#"{"attrs": [1, "a"], "os": null}"#, std::slice::from_ref(&list)).unwrap();
    assert!(diff(&TableSchema { columns: vec![list] }, &columns(&ty)).is_empty());
}

#[test]
fn only_what_is_left_out_is_relaxed() {
    let required = |name: &str, kind| Column::new(name, kind).with_mode(Mode::Required);
    let inner = vec![required("a", ColumnKind::Int64), required("b", ColumnKind::Int64)];
    let current = TableSchema {
        columns: vec![
            required("Id", ColumnKind::Int64),
            required("gone", ColumnKind::Int64),
            required("void", ColumnKind::Int64),
            required("o", ColumnKind::Record(inner.clone())),
            Column::new("l", ColumnKind::Record(inner)).with_mode(Mode::Repeated),
        ],
    };
    let json = json!({"id": 1, "void": null, "o": {"a": 1}, "l": [{"a": 1, "b": 2}, {"b": 2}]});
    let ty = inferred(&json);
    let mut difference = diff(&current, &columns(&ty));
    spare_filled(&mut difference, &ty);
    let relaxed: Vec<String> = difference
        .changes
        .iter()
        .map(|change| match change {
            Change::Relax { path } => path.join("."),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(relaxed, ["o.b", "l.a", "l.b", "gone", "void"]);
}

#[test]
fn hostile_texts_are_bounded() {
    let limit = |text: &str| match infer(text.as_bytes()).unwrap_err().problem {
        Problem::Limit { what, .. } => what,
        other => panic!("{other}"),
    };
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(infer(deep(DEPTH_MAX).as_bytes()).is_ok());
    assert_eq!(limit(&deep(DEPTH_MAX + 1)), "levels");
    let keys: Vec<String> = (0..=FIELDS_MAX).map(|key| format!("\"k{key}\":1")).collect();
    assert_eq!(limit(&format!("{{{}}}", keys.join(","))), "fields");
    assert_eq!(limit(&" ".repeat(BYTES_MAX + 1)), "bytes");
    // Many elements with few fields are not many fields.
    let elements = vec![r#"{"a":1,"b":{"c":2}}"#; FIELDS_MAX].join(",");
    assert!(infer(format!("[{elements}]").as_bytes()).is_ok());
}

/// JSON that never mixes types: each key's value is of the kind that the key says.
fn tame_object() -> impl Strategy<Value = Value> {
    let nullable =
        |value: BoxedStrategy<Value>| prop_oneof![4 => value, 1 => Just(Value::Null)].boxed();
    let number =
        prop_oneof![any::<i32>().prop_map(Value::from), Just(json!(0.5)), Just(json!("NaN"))]
            .boxed();
    let text = "[a-z]{0,3}".prop_map(Value::from).boxed();
    let list =
        proptest::collection::vec(nullable(number.clone()), 0..3).prop_map(Value::from).boxed();
    let flat = (nullable(number), nullable(text), nullable(list))
        .prop_map(|(n, t, l)| json!({"n": n, "t.x": t, "l": l}))
        .boxed();
    let objects = proptest::collection::vec(nullable(flat.clone()), 0..3).prop_map(Value::from);
    (nullable(flat), nullable(objects.boxed())).prop_map(|(o, os)| json!({"o": o, "os": os}))
}

proptest! {
    #[test]
    fn the_order_of_merging_does_not_matter(
        a in tame_object(), b in tame_object(), c in tame_object(),
    ) {
        let [a, b, c] = [a, b, c].map(|json| inferred(&json));
        let sorted = |ty: &Type| {
            let mut columns = columns(ty);
            columns.sort_by(|one, other| one.name.cmp(&other.name));
            columns
        };
        let left = merge(merge(a.clone(), b.clone()).unwrap(), c.clone()).unwrap();
        let right = merge(a.clone(), merge(b.clone(), c.clone()).unwrap()).unwrap();
        prop_assert_eq!(&left, &right);
        let turned = merge(b, merge(c, a.clone()).unwrap()).unwrap();
        prop_assert_eq!(sorted(&turned), sorted(&left));
        prop_assert_eq!(merge(left.clone(), a).unwrap(), left);
    }

    #[test]
    fn no_text_panics(text in "[\\[\\]{}:,\"a-c0-9.e-]{0,40}") {
        let is_json = serde_json::from_str::<Value>(&text).is_ok();
        let problem = infer(text.as_bytes()).err().map(|error| error.problem);
        // Only what is not JSON is called so; what is not JSON may be refused earlier for something
        // else, such as `[0,""`, but it is refused.
        let called_so = matches!(problem, Some(Problem::ValueNotJson { .. }));
        prop_assert!(!(called_so && is_json), "{}", text);
        prop_assert!(is_json || problem.is_some(), "{}", text);
    }
}
