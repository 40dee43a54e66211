//! Random Avro values of a type, for apache-avro to encode: physical values, the logical types'
//! ranges kept, now and then broken on purpose.

use apache_avro::types::Value;
use serde_json::json;

use crate::schema::model::{Field, Kind, Logical, RecordType, Type};

/// A small deterministic generator.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = (high.wrapping_sub(low) as u64).wrapping_add(1);
        if span == 0 { self.roll() as i64 } else { low.wrapping_add(self.below(span) as i64) }
    }

    /// Small, large and extreme integers.
    pub(crate) fn integer(&mut self, low: i64, high: i64) -> i64 {
        match self.below(8) {
            0 => low,
            1 => high,
            2 => 0_i64.clamp(low, high),
            3 => (-1_i64).clamp(low, high),
            4 | 5 => self.between(low.max(-200), high.min(200)),
            _ => self.between(low, high),
        }
    }

    pub(crate) fn text(&mut self) -> String {
        const PARTS: [&str; 12] = [
            "a",
            "Zz",
            " ",
            "\"",
            "\\",
            "\n",
            "\u{1}",
            "é",
            "😀",
            "0123456789abcdef",
            "/",
            "\u{7f}",
        ];
        (0..self.below(6)).map(|_| PARTS[self.below(12) as usize]).collect()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.roll() as u8).collect()
    }
}

const DAY_MS: i64 = 86_400_000;
const YEARS: (i64, i64) = (-719_162 * DAY_MS, (2_932_897 * DAY_MS) - 1);

/// A value of `ty`.
pub(crate) fn value(ty: &Type, dice: &mut Dice) -> Value {
    if let Some(logical) = ty.logical
        && let Some(value) = logical_value(&ty.kind, logical, dice)
    {
        return value;
    }
    match &ty.kind {
        Kind::Null => Value::Null,
        Kind::Boolean => Value::Boolean(dice.below(2) == 1),
        Kind::Int => Value::Int(dice.integer(i32::MIN.into(), i32::MAX.into()) as i32),
        Kind::Long => Value::Long(dice.integer(i64::MIN, i64::MAX)),
        Kind::Float => Value::Float(float(dice) as f32),
        Kind::Double => Value::Double(float(dice)),
        Kind::Bytes => {
            let len = dice.below(20) as usize;
            Value::Bytes(dice.bytes(len))
        }
        Kind::String => Value::String(dice.text()),
        Kind::Fixed(size) => Value::Fixed(*size, dice.bytes(*size)),
        Kind::Enum(symbols) => {
            let index = dice.below(symbols.len() as u64) as usize;
            Value::Enum(index as u32, symbols[index].to_string())
        }
        Kind::Record(record) => {
            let fields = record.fields.iter();
            Value::Record(fields.map(|f| (f.name.to_string(), value(&f.ty, dice))).collect())
        }
        Kind::Array(items) => {
            Value::Array((0..dice.below(4)).map(|_| value(items, dice)).collect())
        }
        // One entry at most: apache-avro's maps have no order to compare.
        Kind::Map(values) => {
            Value::Map((0..dice.below(2)).map(|_| (dice.text(), value(values, dice))).collect())
        }
        Kind::Union(branches) => {
            let index = dice.below(branches.len() as u64) as usize;
            Value::Union(index as u32, Box::new(value(&branches[index], dice)))
        }
        Kind::Recursive(_) => unreachable!("the generator makes none"),
    }
}

fn float(dice: &mut Dice) -> f64 {
    match dice.below(8) {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => f64::NEG_INFINITY,
        3 => -0.0,
        4 => dice.between(-1_000, 1_000) as f64 / 8.0,
        _ => f64::from_bits(dice.roll()),
    }
}

fn logical_value(kind: &Kind, logical: Logical, dice: &mut Dice) -> Option<Value> {
    let (low, high) = YEARS;
    let days = |dice: &mut Dice| dice.integer(low / DAY_MS, high / DAY_MS);
    let nanos = |dice: &mut Dice| dice.integer(i64::MIN, i64::MAX);
    let long = match logical {
        Logical::Date => return Some(Value::Int(days(dice) as i32)),
        Logical::TimeMillis => return Some(Value::Int(dice.integer(0, DAY_MS - 1) as i32)),
        Logical::TimeMicros => dice.integer(0, DAY_MS * 1_000 - 1),
        Logical::TimeNanos => dice.integer(0, DAY_MS * 1_000_000 - 1),
        Logical::TimestampMillis | Logical::LocalTimestampMillis => dice.integer(low, high),
        Logical::TimestampMicros | Logical::LocalTimestampMicros => {
            dice.integer(low * 1_000, high * 1_000)
        }
        Logical::TimestampNanos | Logical::LocalTimestampNanos => nanos(dice),
        Logical::Decimal { .. } => return Some(decimal(kind, dice)),
        Logical::VariableScaleDecimal => {
            let scale = Value::Int(dice.integer(-5, 40) as i32);
            let value = decimal(&Kind::Bytes, dice);
            return Some(Value::Record(vec![("scale".into(), scale), ("value".into(), value)]));
        }
        Logical::ZonedTimestamp => {
            return text(&["2024-02-29T23:59:59.123456789+01:00", "1969-01-01T00:00:00Z"], dice);
        }
        Logical::ZonedTime => return text(&["10:15:30+01:00", "00:00:00.5Z"], dice),
        Logical::IsoDate => return text(&["2024-02-29Z", "0001-01-01"], dice),
        Logical::IsoTime => return text(&["10:15:30.000001Z", "23:59:59"], dice),
        Logical::IsoTimestamp => {
            return text(&["2024-02-29T23:59:59.5Z", "1969-12-31T00:00:00"], dice);
        }
        Logical::Json => {
            return Some(Value::String(json!({"a": [1, dice.text()], "b": null}).to_string()));
        }
        Logical::Uuid | Logical::Duration | Logical::FloatName => return None,
    };
    Some(Value::Long(long))
}

fn text(choices: &[&str], dice: &mut Dice) -> Option<Value> {
    let choice = choices[dice.below(choices.len() as u64) as usize];
    Some(Value::String(choice.to_owned()))
}

/// An unscaled value of up to 64 bits, sign-extended or cut to the fixed's size.
fn decimal(kind: &Kind, dice: &mut Dice) -> Value {
    let value = dice.integer(i64::MIN, i64::MAX);
    match kind {
        Kind::Fixed(size) => {
            let mut bytes = vec![if value < 0 { 0xff } else { 0 }; size.saturating_sub(8)];
            bytes.extend_from_slice(&value.to_be_bytes()[8 - (*size).min(8)..]);
            Value::Fixed(*size, bytes)
        }
        _ => Value::Bytes(value.to_be_bytes()[dice.below(9) as usize..].to_vec()),
    }
}

/// The same type without any meaning: what apache-avro is given, so that its values are physical.
pub(crate) fn physical(ty: &Type) -> Type {
    let kind = match &ty.kind {
        Kind::Record(record) => {
            let field = |field: &Field| Field { ty: physical(&field.ty), ..field.clone() };
            let fields = record.fields.iter().map(field).collect();
            Kind::Record(RecordType { name: std::sync::Arc::clone(&record.name), fields }.into())
        }
        Kind::Array(items) => Kind::Array(physical(items).into()),
        Kind::Map(values) => Kind::Map(physical(values).into()),
        Kind::Union(branches) => Kind::Union(branches.iter().map(physical).collect()),
        kind => kind.clone(),
    };
    Type { kind, logical: None, ..ty.clone() }
}
