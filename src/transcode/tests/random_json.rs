//! Random JSON text, for property tests: objects without a schema, and Connect's envelopes.

use apache_avro::types::Value;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::random::{Dice, value};
use crate::schema::{
    connect::MAP_ENTRY,
    model::{Kind, Type},
};

/// What a value is, so that an array's elements are alike.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    Null,
    Bool,
    Integer,
    Number,
    Text,
    Array(Box<Self>),
    Object(Vec<(String, Self)>),
}

/// An object of up to six keys, at most four levels deep.
pub(crate) fn shape() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        1 => Just(Shape::Null),
        2 => Just(Shape::Bool),
        4 => Just(Shape::Integer),
        4 => Just(Shape::Number),
        5 => Just(Shape::Text),
    ];
    let inner = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            2 => inner.clone().prop_map(|items| Shape::Array(Box::new(items))),
            2 => members(inner.clone(), 0..4).prop_map(Shape::Object),
            1 => inner,
        ]
    });
    members(inner, 1..7).prop_map(Shape::Object)
}

/// Keys that are columns, that have to be cleaned, and that differ in case only.
fn members(
    inner: impl Strategy<Value = Shape>,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<(String, Shape)>> {
    let key = prop_oneof![
        12 => "[abcdef][ghi]{0,2}",
        1 => "[A-C]",
        2 => proptest::sample::select(vec!["a.b", "é", "1x", "", "\"", "_TABLE_a", "element", "key"])
            .prop_map(str::to_owned),
    ];
    proptest::collection::btree_map(key, inner, count).prop_map(|map| map.into_iter().collect())
}

/// A text of this shape, with white space and escapes as writers differ in them. A key may be missing or null,
/// an array never holds null.
pub(crate) fn json_text(shape: &Shape, dice: &mut Dice) -> String {
    let mut out = String::new();
    Writer { out: &mut out, dice }.value(shape);
    out
}

const NUMBERS: [&str; 12] = [
    "0.0",
    "-0",
    "-0.0",
    "1.0",
    "2.50",
    "1e3",
    "-1.5E-7",
    "0.1234567890123456789",
    "12345678901234567890123",
    "9223372036854775808",
    "1.7976931348623157e308",
    "5e-324",
];

const TEXTS: [&str; 12] = [
    "NaN",
    "-Infinity",
    "2024-02-29",
    "2024-02-29T23:59:59.123456789+01:00",
    "0001-01-01 00:00:00",
    "10:15:30.5",
    "AQI=",
    "-12.50",
    "7",
    "true",
    "null",
    "{\"a\": [1, null], \"A\": \"\\u00e9\"}",
];

struct Writer<'a> {
    out: &'a mut String,
    dice: &'a mut Dice,
}

impl Writer<'_> {
    fn value(&mut self, shape: &Shape) {
        self.space();
        match shape {
            Shape::Null => self.out.push_str("null"),
            Shape::Bool => self.pick(&["true", "false"]),
            Shape::Integer => {
                let number = self.dice.integer(i64::MIN, i64::MAX).to_string();
                self.out.push_str(&number);
            }
            Shape::Number => self.number(),
            Shape::Text => {
                let text = match self.dice.below(3) {
                    0 => TEXTS[self.dice.below(12) as usize].to_owned(),
                    _ => self.dice.text(),
                };
                self.string(&text);
            }
            Shape::Array(items) => self.array(items),
            Shape::Object(members) => self.object(members),
        }
        self.space();
    }

    fn array(&mut self, items: &Shape) {
        self.out.push('[');
        let count = if matches!(items, Shape::Null) { 0 } else { self.dice.below(4) };
        for position in 0..count {
            if position > 0 {
                self.out.push(',');
            }
            self.value(items);
        }
        self.out.push(']');
    }

    fn object(&mut self, members: &[(String, Shape)]) {
        self.out.push('{');
        let mut separator = "";
        for (key, shape) in members {
            let odd = self.dice.below(8);
            if odd == 0 {
                continue;
            }
            self.out.push_str(separator);
            separator = ",";
            self.space();
            self.string(key);
            self.space();
            self.out.push(':');
            self.value(if odd == 1 { &Shape::Null } else { shape });
        }
        self.out.push('}');
    }

    fn number(&mut self) {
        let any = f64::from_bits(self.dice.roll());
        match self.dice.below(3) {
            0 if any.is_finite() => self.out.push_str(&format!("{any:?}")),
            _ => self.pick(&NUMBERS),
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            let plain = !matches!(character, '"' | '\\' | '\0'..='\x1f');
            match (self.dice.below(8), character) {
                (1.., _) if plain => self.out.push(character),
                (0..4, '"' | '\\' | '/') => self.out.extend(['\\', character]),
                (0..4, '\n') => self.out.push_str("\\n"),
                _ => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                    self.out.push_str(&format!("\\u{unit:04x}"));
                }),
            }
        }
        self.out.push('"');
    }

    fn space(&mut self) {
        if self.dice.below(8) == 0 {
            self.pick(&[" ", "\n", "\r\n", "\t  "]);
        }
    }

    fn pick(&mut self, choices: &[&str]) {
        self.out.push_str(choices[self.dice.below(choices.len() as u64) as usize]);
    }
}

/// Types with a name that means something, and the names that mean it.
const NAMED: [(&str, &str); 20] = [
    ("int32", "org.apache.kafka.connect.data.Date"),
    ("int32", "org.apache.kafka.connect.data.Time"),
    ("int64", "org.apache.kafka.connect.data.Timestamp"),
    ("bytes", "org.apache.kafka.connect.data.Decimal"),
    ("int32", "io.debezium.time.Date"),
    ("int32", "io.debezium.time.Time"),
    ("int64", "io.debezium.time.MicroTime"),
    ("int64", "io.debezium.time.NanoTime"),
    ("int64", "io.debezium.time.Timestamp"),
    ("int64", "io.debezium.time.MicroTimestamp"),
    ("int64", "io.debezium.time.NanoTimestamp"),
    ("string", "io.debezium.time.ZonedTimestamp"),
    ("string", "io.debezium.time.ZonedTime"),
    ("string", "io.debezium.time.IsoDate"),
    ("string", "io.debezium.time.IsoTime"),
    ("string", "io.debezium.time.IsoTimestamp"),
    ("string", "io.debezium.data.Json"),
    ("string", "io.debezium.data.Uuid"),
    ("string", "io.debezium.data.Enum"),
    ("bytes", "io.debezium.data.Bits"),
];

const PLAIN: [&str; 11] = [
    "int8", "int16", "int32", "int64", "float", "float32", "double", "float64", "boolean",
    "string", "bytes",
];

/// A Connect schema of a struct of up to six fields, at most four levels deep.
pub(crate) fn connect_schema() -> impl Strategy<Value = Json> {
    let decimal = (-4_i32..40, proptest::option::of(1_u32..80)).prop_map(|(scale, precision)| {
        let mut parameters = json!({"scale": scale.to_string()});
        if let Some(precision) = precision {
            parameters["connect.decimal.precision"] = json!(precision.to_string());
        }
        let name = "org.apache.kafka.connect.data.Decimal";
        json!({"type": "bytes", "name": name, "parameters": parameters})
    });
    let leaf = prop_oneof![
        6 => proptest::sample::select(&PLAIN[..]).prop_map(|ty| json!({"type": ty})),
        4 => proptest::sample::select(&NAMED[..])
            .prop_map(|(ty, name)| json!({"type": ty, "name": name})),
        2 => decimal,
        1 => Just(json!({"type": "struct", "name": "io.debezium.data.VariableScaleDecimal", "fields":
            [{"field": "scale", "type": "int32"}, {"field": "value", "type": "bytes"}]})),
    ];
    let inner = optional(leaf).prop_recursive(3, 16, 4, |inner| {
        let key = proptest::sample::select(&["string", "int32", "boolean"][..]);
        optional(prop_oneof![
            2 => structure(inner.clone(), 0..4),
            2 => inner.clone().prop_map(|items| json!({"type": "array", "items": items})),
            1 => (key, inner).prop_map(|(key, values)| {
                json!({"type": "map", "keys": {"type": key}, "values": values})
            }),
        ])
    });
    structure(inner, 1..7)
}

fn optional(schema: impl Strategy<Value = Json>) -> impl Strategy<Value = Json> {
    (schema, any::<bool>()).prop_map(|(mut schema, optional)| {
        schema["optional"] = json!(optional);
        schema
    })
}

fn structure(
    inner: impl Strategy<Value = Json>,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Json> {
    let key = prop_oneof![8 => "[abAB][abc]{0,2}", 1 => "[é.1]{1,3}"];
    proptest::collection::btree_map(key, inner, count).prop_map(|map| {
        let field = |(name, mut schema): (String, Json)| {
            schema["field"] = json!(name);
            schema
        };
        let fields: Vec<Json> = map.into_iter().map(field).collect();
        json!({"type": "struct", "fields": fields})
    })
}

/// A payload of `ty` as JsonConverter writes it, and decimals now and then as numbers.
pub(crate) fn payload(ty: &Type, dice: &mut Dice) -> String {
    let value = value(ty, dice);
    let mut out = String::new();
    Writer { out: &mut out, dice }.payload(ty, &value);
    out
}

impl Writer<'_> {
    fn payload(&mut self, ty: &Type, value: &Value) {
        self.space();
        match (&ty.kind, value) {
            (Kind::Union(branches), Value::Union(index, value)) => {
                self.payload(&branches[*index as usize], value);
            }
            (Kind::Array(items), Value::Array(values)) => {
                self.list("[]", values, |writer, value| writer.payload(items, value));
            }
            (Kind::Map(values), Value::Map(map)) => {
                let entries: Vec<_> = map.iter().collect();
                self.list("{}", &entries, |writer, (key, value)| {
                    writer.string(key);
                    writer.out.push(':');
                    writer.payload(values, value);
                });
            }
            (Kind::Record(record), Value::Record(values)) => {
                let is_entry = record.name.as_ref() == MAP_ENTRY;
                let fields: Vec<_> = record.fields.iter().zip(values).collect();
                self.list(
                    if is_entry { "[]" } else { "{}" },
                    &fields,
                    |writer, (field, (_, value))| {
                        if !is_entry {
                            writer.string(&field.name);
                            writer.out.push(':');
                        }
                        writer.payload(&field.ty, value);
                    },
                );
            }
            (_, value) => self.scalar(value),
        }
        self.space();
    }

    fn list<T>(&mut self, brackets: &str, items: &[T], each: impl Fn(&mut Self, &T)) {
        let (open, close) = brackets.split_at(1);
        self.out.push_str(open);
        for (position, item) in items.iter().enumerate() {
            self.out.push_str(if position > 0 { "," } else { "" });
            each(self, item);
        }
        self.out.push_str(close);
    }

    fn scalar(&mut self, value: &Value) {
        match value {
            Value::Null => self.out.push_str("null"),
            Value::Boolean(value) => self.out.push_str(if *value { "true" } else { "false" }),
            Value::Int(value) => self.out.push_str(&value.to_string()),
            Value::Long(value) => self.out.push_str(&value.to_string()),
            Value::Float(value) => self.float(&format!("{value:?}"), value.is_finite()),
            Value::Double(value) => self.float(&format!("{value:?}"), value.is_finite()),
            Value::String(text) => self.string(text),
            Value::Bytes(bytes) => self.string(&BASE64.encode(bytes)),
            other => panic!("no Connect type has {other:?}"),
        }
    }

    /// Jackson puts the names of what JSON has no number for into quotes.
    fn float(&mut self, text: &str, is_finite: bool) {
        match is_finite {
            true => self.out.push_str(text),
            false => self.string(&text.replace("inf", "Infinity")),
        }
    }
}
