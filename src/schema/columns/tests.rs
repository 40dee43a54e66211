use std::sync::Arc;

use super::*;
use crate::schema::model::Field;

fn record(fields: Vec<(&str, Type)>) -> Type {
    named("R", fields)
}

fn named(name: &str, fields: Vec<(&str, Type)>) -> Type {
    let fields = fields
        .into_iter()
        .map(|(name, ty)| Field { name: Arc::from(name), ty, doc: None })
        .collect();
    Type::plain(Kind::Record(Arc::new(RecordType { name: Arc::from(name), fields })))
}

fn array(items: Type) -> Type {
    Type::plain(Kind::Array(Arc::new(items)))
}

fn map(values: Type) -> Type {
    Type::plain(Kind::Map(Arc::new(values)))
}

fn union(branches: Vec<Type>) -> Type {
    Type::plain(Kind::Union(Arc::from(branches)))
}

const LONG: Type = Type { kind: Kind::Long, logical: None, name: None, doc: None };
const TEXT: Type = Type { kind: Kind::String, logical: None, name: None, doc: None };
const NULL: Type = Type { kind: Kind::Null, logical: None, name: None, doc: None };

/// One line per column: name, type, mode.
fn show(columns: &[Column]) -> String {
    let show_one = |column: &Column| {
        let kind = match &column.kind {
            ColumnKind::Record(fields) => format!("{{{}}}", show(fields)),
            kind => format!("{kind:?}"),
        };
        let mode = match column.mode {
            Mode::Nullable => "?",
            Mode::Required => "!",
            Mode::Repeated => "*",
        };
        format!("{} {kind}{mode}", column.name)
    };
    columns.iter().map(show_one).collect::<Vec<_>>().join(", ")
}

fn shown(ty: Type) -> String {
    show(&derive(&ty, &ColumnRules::default()).unwrap())
}

#[test]
fn every_type_has_its_column() {
    let cases = [
        (LONG, "f Int64!"),
        (LONG.nullable(), "f Int64?"),
        (union(vec![LONG]), "f Int64!"),
        (NULL, ""),
        (union(vec![NULL]), ""),
        (Type::plain(Kind::Fixed(3)), "f Bytes!"),
        (Type::plain(Kind::Enum(Arc::from([Arc::from("A")]))), "f String!"),
        (record(vec![("x", LONG)]), "f {x Int64!}!"),
        (record(vec![("x", LONG)]).nullable(), "f {x Int64!}?"),
        (record(vec![]), ""),
        (record(vec![("x", NULL), ("y", record(vec![]))]), ""),
        (array(LONG), "f Int64*"),
        (array(LONG).nullable(), "f Int64*"),
        (array(LONG.nullable()), "f Int64*"),
        (array(NULL), ""),
        (array(array(LONG)), "f {element Int64*}*"),
        (array(array(LONG).nullable()), "f {element Int64*}*"),
        (array(array(array(TEXT))), "f {element {element String*}*}*"),
        (array(map(LONG)), "f {element {key String!, value Int64!}*}*"),
        (map(LONG), "f {key String!, value Int64!}*"),
        (map(TEXT.nullable()).nullable(), "f {key String!, value String?}*"),
        (map(array(LONG)), "f {key String!, value Int64*}*"),
        (map(NULL), "f {key String!}*"),
        (union(vec![NULL, LONG, TEXT]), "f {long Int64?, string String?}?"),
        (union(vec![LONG, array(TEXT)]), "f {long Int64?, array String*}!"),
        (array(union(vec![LONG, TEXT])), "f {long Int64?, string String?}*"),
        (
            Type::logical(Kind::Fixed(12), Logical::Duration),
            "f {months Int64?, days Int64?, milliseconds Int64?}!",
        ),
    ];
    for (ty, expected) in cases {
        assert_eq!(shown(record(vec![("f", ty.clone())])), expected, "{ty:?}");
    }
}

#[test]
fn a_record_without_name_requires_nothing() {
    let inner = named("", vec![("x", LONG)]);
    assert_eq!(shown(named("", vec![("a.b", inner)])).split("__").next(), Some("a_b"));
    assert_eq!(shown(named("", vec![("o", named("", vec![("x", LONG)]))])), "o {x Int64?}?");
}

#[test]
fn all_nullable_leaves_nothing_required() {
    let ty = record(vec![("m", map(LONG)), ("n", LONG)]);
    let rules = ColumnRules { all_nullable: true, ..ColumnRules::default() };
    let columns = derive(&ty, &rules).unwrap();
    assert_eq!(show(&columns), "m {key String?, value Int64?}*, n Int64?");
}

#[test]
fn decimals_go_where_every_value_fits() {
    use ColumnKind::{BigNumeric, Numeric, String};
    let cases = [
        ((Some(38), 9), Numeric),
        ((Some(29), 0), Numeric),
        ((Some(30), 0), BigNumeric),
        ((Some(10), 10), BigNumeric),
        ((Some(76), 38), BigNumeric),
        ((Some(38), 0), BigNumeric),
        ((Some(39), 0), String),
        ((Some(40), 39), String),
        ((Some(27), -2), Numeric),
        ((Some(28), -2), BigNumeric),
        ((Some(37), -2), String),
        ((None, 2), BigNumeric),
        ((None, -2), BigNumeric),
        ((None, 38), BigNumeric),
        ((None, 39), String),
    ];
    for ((precision, scale), kind) in cases {
        assert_eq!(decimal(precision, scale), kind, "{precision:?} {scale}");
    }
}

#[test]
fn descriptions_come_from_the_field_then_the_type() {
    let doc = |text: &str| Some(Arc::from(text));
    let long = "ü".repeat(2_000);
    let field = |name: &str, doc, ty: Type| Field { name: Arc::from(name), ty, doc };
    let fields = vec![
        field("a", doc("field"), Type { doc: doc("type"), ..LONG }),
        field("b", None, Type { doc: doc("type"), ..LONG }.nullable()),
        field("c", doc(&long), LONG),
        field("d", None, LONG),
    ];
    let ty = Type::plain(Kind::Record(Arc::new(RecordType { name: Arc::from("R"), fields })));
    let columns = derive(&ty, &ColumnRules::default()).unwrap();
    let found: Vec<_> = columns.iter().map(|column| column.description.as_deref()).collect();
    assert_eq!(found[..2], [Some("field"), Some("type")]);
    assert_eq!(found[2].unwrap().chars().count(), DESCRIPTION_MAX);
    assert_eq!(found[3], None);
    let rules = ColumnRules { no_descriptions: true, ..ColumnRules::default() };
    assert!(derive(&ty, &rules).unwrap().iter().all(|column| column.description.is_none()));
}

#[test]
fn limits_and_recursion_name_the_field() {
    let wrap = |levels: usize| (0..levels).fold(LONG, |ty, _| record(vec![("f", ty)]));
    assert!(derive(&wrap(NESTING_MAX + 1), &ColumnRules::default()).is_ok());
    let error = derive(&wrap(NESTING_MAX + 2), &ColumnRules::default()).unwrap_err();
    assert_eq!(error.path.split('.').count(), NESTING_MAX + 1);

    let arrays = |levels: usize| (0..levels).fold(LONG, |ty, _| array(ty));
    assert!(derive(&record(vec![("f", arrays(16))]), &ColumnRules::default()).is_ok());
    assert!(derive(&record(vec![("f", arrays(17))]), &ColumnRules::default()).is_err());

    let names: Vec<String> = (0..=COLUMNS_MAX).map(|index| format!("f{index}")).collect();
    let wide =
        |fields: &[String]| record(fields.iter().map(|name| (name.as_str(), LONG)).collect());
    assert!(derive(&wide(&names[1..]), &ColumnRules::default()).is_ok());
    assert!(derive(&wide(&names), &ColumnRules::default()).is_err());

    let node = Type::plain(Kind::Recursive(Arc::from("R"))).nullable();
    let error = derive(&record(vec![("o", record(vec![("next", node)]))]), &ColumnRules::default());
    assert_eq!(error.unwrap_err().path, "o.next");
}

#[test]
fn the_top_is_a_record() {
    assert_eq!(shown(record(vec![("x", LONG)]).nullable()), "x Int64!");
    for ty in [LONG, array(record(vec![])), union(vec![record(vec![]), LONG])] {
        let error = derive(&ty, &ColumnRules::default()).unwrap_err();
        assert!(matches!(error.problem, Problem::NotARecord { .. }), "{error}");
    }
}
