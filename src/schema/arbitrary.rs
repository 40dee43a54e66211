//! Random record types and their Avro schema text, for property tests.
//!
//! [`record_type`] is the strategy, [`avro_text`] the writer; `avro::parse` must bring back the same
//! type, and apache-avro must accept the text.

use std::{collections::HashSet, sync::Arc};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::schema::{
    avro::logical::digits,
    model::{Field, Kind, Logical, RecordType, Type},
};

/// A record of up to six fields, at most four levels deep, without recursion.
///
/// Covers every kind, every logical type, unions of null and one (both orders), other unions, field
/// names that differ in case only, reserved names, documentation, and a named type used twice.
pub fn record_type() -> BoxedStrategy<Type> {
    let inner = leaf().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            2 => record(inner.clone(), 0..4),
            2 => inner.clone().prop_map(|items| Type::plain(Kind::Array(Arc::new(items)))),
            1 => inner.clone().prop_map(|values| Type::plain(Kind::Map(Arc::new(values)))),
            3 => (inner.clone(), any::<bool>()).prop_map(nullable),
            1 => proptest::collection::vec(inner, 1..5).prop_map(union),
        ]
    });
    let top = record(inner, 1..7);
    (top, any::<bool>()).prop_map(|(ty, reuse)| finish(&ty, reuse)).boxed()
}

/// The Avro schema of a type, as JSON text.
pub fn avro_text(ty: &Type) -> String {
    schema(ty, &mut HashSet::new()).to_string()
}

fn leaf() -> impl Strategy<Value = Type> {
    prop_oneof![
        1 => Just(Type::plain(Kind::Null)),
        12 => prop_oneof![
            Just(Kind::Boolean),
            Just(Kind::Int),
            Just(Kind::Long),
            Just(Kind::Float),
            Just(Kind::Double),
            Just(Kind::Bytes),
            Just(Kind::String),
            (1_usize..20).prop_map(Kind::Fixed),
            proptest::collection::btree_set("[A-Z][A-Z0-9_]{0,5}", 1..5)
                .prop_map(|symbols| Kind::Enum(symbols.into_iter().map(Arc::from).collect())),
        ].prop_map(Type::plain),
        4 => proptest::sample::select(SCALARS.to_vec())
            .prop_map(|(kind, logical)| Type::logical(kind, logical)),
        2 => decimal(),
        1 => Just(variable_scale_decimal()),
    ]
}

/// Logical types without attributes, each on a kind that it is valid for.
const SCALARS: [(Kind, Logical); 20] = [
    (Kind::Int, Logical::Date),
    (Kind::Int, Logical::TimeMillis),
    (Kind::Long, Logical::TimeMicros),
    (Kind::Long, Logical::TimeNanos),
    (Kind::Long, Logical::TimestampMillis),
    (Kind::Long, Logical::TimestampMicros),
    (Kind::Long, Logical::TimestampNanos),
    (Kind::Long, Logical::LocalTimestampMillis),
    (Kind::Long, Logical::LocalTimestampMicros),
    (Kind::Long, Logical::LocalTimestampNanos),
    (Kind::String, Logical::ZonedTimestamp),
    (Kind::String, Logical::ZonedTime),
    (Kind::String, Logical::IsoDate),
    (Kind::String, Logical::IsoTime),
    (Kind::String, Logical::IsoTimestamp),
    (Kind::String, Logical::Uuid),
    (Kind::Fixed(16), Logical::Uuid),
    (Kind::Fixed(12), Logical::Duration),
    (Kind::String, Logical::Json),
    (Kind::Long, Logical::TimestampMillis),
];

/// Avro decimals on bytes and fixed, and Connect's with an unknown precision.
fn decimal() -> impl Strategy<Value = Type> {
    let of = |kind: Kind, precision: Option<u32>, scale: i32| {
        Type::logical(kind, Logical::Decimal { precision, scale })
    };
    let scaled = |max: u32| (1..=max).prop_flat_map(|precision| (Just(precision), 0..=precision));
    let as_i32 = |scale: u32| i32::try_from(scale).unwrap();
    prop_oneof![
        scaled(80).prop_map(move |(precision, scale)| {
            of(Kind::Bytes, Some(precision), as_i32(scale))
        }),
        (1_usize..34)
            .prop_flat_map(move |size| {
                let max = u32::try_from(digits(size)).unwrap();
                (Just(size), scaled(max))
            })
            .prop_map(move |(size, (precision, scale))| {
                of(Kind::Fixed(size), Some(precision), as_i32(scale))
            }),
        (-4_i32..40).prop_map(move |scale| of(Kind::Bytes, None, scale)),
    ]
}

fn variable_scale_decimal() -> Type {
    let field =
        |name: &str, kind| Field { name: Arc::from(name), ty: Type::plain(kind), doc: None };
    let fields = vec![field("scale", Kind::Int), field("value", Kind::Bytes)];
    let record = RecordType { name: Arc::from("x"), fields };
    Type::logical(Kind::Record(Arc::new(record)), Logical::VariableScaleDecimal)
}

fn record(
    fields: impl Strategy<Value = Type>,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Type> {
    let name = prop_oneof![8 => "[aAbB_][aAbB0-9_]{0,3}", 1 => Just("_TABLE_a".to_owned())];
    let doc = || proptest::option::weighted(0.2, "[a-z\"é ]{0,12}");
    let field = (name, fields, doc());
    (proptest::collection::vec(field, count), doc()).prop_map(|(fields, doc)| {
        let mut seen = HashSet::new();
        let fields = fields.into_iter().filter(|(name, ..)| seen.insert(name.clone()));
        let fields = fields.map(|(name, ty, doc)| Field {
            name: Arc::from(name),
            ty,
            doc: doc.map(Arc::from),
        });
        let record = RecordType { name: Arc::from("x"), fields: fields.collect() };
        Type { doc: doc.map(Arc::from), ..Type::plain(Kind::Record(Arc::new(record))) }
    })
}

/// A union of null and the type, in either order; the type itself where Avro forbids that.
fn nullable((ty, null_first): (Type, bool)) -> Type {
    if matches!(ty.kind, Kind::Null | Kind::Union(_)) {
        return ty;
    }
    let null = Type::plain(Kind::Null);
    let branches = if null_first { [null, ty] } else { [ty, null] };
    Type::plain(Kind::Union(Arc::from(branches)))
}

/// A union of those types that Avro allows beside each other.
fn union(types: Vec<Type>) -> Type {
    let mut seen = HashSet::new();
    let mut branches: Vec<Type> = Vec::new();
    for ty in types {
        let is_named = matches!(ty.kind, Kind::Record(_) | Kind::Enum(_) | Kind::Fixed(_));
        let is_union = matches!(ty.kind, Kind::Union(_));
        if !is_union && (is_named || seen.insert(ty.kind.name())) {
            branches.push(ty);
        }
    }
    if branches.is_empty() {
        return Type::plain(Kind::Long);
    }
    Type::plain(Kind::Union(branches.into()))
}

/// Gives every named type a name of its own, and perhaps uses one of them again.
fn finish(ty: &Type, reuse: bool) -> Type {
    let mut named = Vec::new();
    let ty = rename(ty, &mut named);
    let Kind::Record(record) = &ty.kind else { return ty };
    let mut record = RecordType::clone(record);
    // The last one named is the top itself.
    named.pop();
    if let (true, Some(again)) = (reuse, named.pop()) {
        record.fields.push(Field { name: Arc::from("again"), ty: again, doc: None });
    }
    Type { kind: Kind::Record(Arc::new(record)), ..ty }
}

fn rename(ty: &Type, named: &mut Vec<Type>) -> Type {
    let kind = match &ty.kind {
        Kind::Record(record) => {
            let fields = record.fields.iter();
            let fields = fields
                .map(|field| Field { ty: rename(&field.ty, named), ..field.clone() })
                .collect();
            let name = next_name(named);
            Kind::Record(Arc::new(RecordType { name, fields }))
        }
        Kind::Array(items) => Kind::Array(Arc::new(rename(items, named))),
        Kind::Map(values) => Kind::Map(Arc::new(rename(values, named))),
        Kind::Union(branches) => {
            Kind::Union(branches.iter().map(|branch| rename(branch, named)).collect())
        }
        kind => kind.clone(),
    };
    let mut renamed = Type { kind, ..ty.clone() };
    if matches!(renamed.kind, Kind::Enum(_) | Kind::Fixed(_)) {
        renamed.name = Some(next_name(named));
    }
    if matches!(renamed.kind, Kind::Enum(_) | Kind::Fixed(_) | Kind::Record(_)) {
        named.push(renamed.clone());
    }
    renamed
}

fn next_name(named: &[Type]) -> Arc<str> {
    // Two names without namespace are alike now and then, so that branch names collide.
    let number = named.len();
    let namespace = ["shop", "com.acme"].get(number % 2).unwrap();
    Arc::from(format!("{namespace}{number}.N{}", number / 2))
}

fn schema(ty: &Type, seen: &mut HashSet<Arc<str>>) -> Value {
    let mut object = match &ty.kind {
        Kind::Union(branches) => {
            return branches.iter().map(|branch| schema(branch, seen)).collect();
        }
        Kind::Record(record) => {
            if !seen.insert(Arc::clone(&record.name)) {
                return json!(record.name.as_ref());
            }
            let fields: Vec<Value> =
                record.fields.iter().map(|field| field_schema(field, seen)).collect();
            attributes(&json!({"type": "record", "name": record.name.as_ref(), "fields": fields}))
        }
        Kind::Enum(_) | Kind::Fixed(_) => {
            let name = ty.name.as_ref().unwrap();
            if !seen.insert(Arc::clone(name)) {
                return json!(name.as_ref());
            }
            let symbols = |symbols: &[Arc<str>]| -> Value {
                symbols.iter().map(|symbol| json!(symbol.as_ref())).collect()
            };
            attributes(&match &ty.kind {
                Kind::Fixed(size) => json!({"type": "fixed", "name": name.as_ref(), "size": size}),
                Kind::Enum(all) => {
                    json!({"type": "enum", "name": name.as_ref(), "symbols": symbols(all)})
                }
                _ => unreachable!(),
            })
        }
        Kind::Array(items) => attributes(&json!({"type": "array", "items": schema(items, seen)})),
        Kind::Map(values) => attributes(&json!({"type": "map", "values": schema(values, seen)})),
        kind => attributes(&json!({"type": kind.name()})),
    };
    if let Some(doc) = &ty.doc {
        object.insert("doc".to_owned(), json!(doc.as_ref()));
    }
    if let Some(logical) = ty.logical {
        object.extend(attributes(&logical_attributes(logical, &ty.kind)));
    }
    match object.get("type") {
        Some(name) if object.len() == 1 => name.clone(),
        _ => Value::Object(object),
    }
}

fn field_schema(field: &Field, seen: &mut HashSet<Arc<str>>) -> Value {
    let mut object =
        attributes(&json!({"name": field.name.as_ref(), "type": schema(&field.ty, seen)}));
    if let Some(doc) = &field.doc {
        object.insert("doc".to_owned(), json!(doc.as_ref()));
    }
    Value::Object(object)
}

fn attributes(object: &Value) -> Map<String, Value> {
    object.as_object().unwrap().clone()
}

fn logical_attributes(logical: Logical, kind: &Kind) -> Value {
    let avro = |name: &str| json!({"logicalType": name});
    let connect = |name: &str| json!({"connect.version": 1, "connect.name": name});
    match logical {
        Logical::Decimal { precision: Some(precision), scale } => {
            json!({"logicalType": "decimal", "precision": precision, "scale": scale})
        }
        Logical::Decimal { precision: None, scale } => unknown_precision(scale),
        Logical::VariableScaleDecimal => connect("io.debezium.data.VariableScaleDecimal"),
        Logical::Date => avro("date"),
        Logical::TimeMillis => avro("time-millis"),
        Logical::TimeMicros => avro("time-micros"),
        Logical::TimeNanos => connect("io.debezium.time.NanoTime"),
        Logical::TimestampMillis => avro("timestamp-millis"),
        Logical::TimestampMicros => avro("timestamp-micros"),
        Logical::TimestampNanos => avro("timestamp-nanos"),
        Logical::LocalTimestampMillis => connect("io.debezium.time.Timestamp"),
        Logical::LocalTimestampMicros => avro("local-timestamp-micros"),
        Logical::LocalTimestampNanos => connect("io.debezium.time.NanoTimestamp"),
        Logical::ZonedTimestamp => connect("io.debezium.time.ZonedTimestamp"),
        Logical::ZonedTime => connect("io.debezium.time.ZonedTime"),
        Logical::IsoDate => connect("io.debezium.time.IsoDate"),
        Logical::IsoTime => connect("io.debezium.time.IsoTime"),
        Logical::IsoTimestamp => connect("io.debezium.time.IsoTimestamp"),
        Logical::Uuid if *kind == Kind::String => connect("io.debezium.data.Uuid"),
        Logical::Uuid => avro("uuid"),
        Logical::Duration => avro("duration"),
        Logical::Json => connect("io.debezium.data.Json"),
        Logical::FloatName => unreachable!("no schema declares it"),
    }
}

/// A Connect decimal as Confluent's converter writes it: precision 64 stands for "unknown".
fn unknown_precision(scale: i32) -> Value {
    let mut object = json!({
        "connect.name": "org.apache.kafka.connect.data.Decimal",
        "connect.parameters": {"scale": scale.to_string()},
    });
    if scale >= 0 {
        object["logicalType"] = json!("decimal");
        object["precision"] = json!(64);
        object["scale"] = json!(scale);
    }
    object
}
