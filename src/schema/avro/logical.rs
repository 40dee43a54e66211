//! Logical types: from a schema object's attributes.

use serde_json::{Map, Value};

use crate::schema::{
    model::{Kind, Logical},
    semantic,
};

/// What the attributes of `object` mean for a type of this kind.
///
/// A semantic type of Connect or Debezium goes first: it knows more than the logical type beside
/// it. (Confluent's converter writes precision 64 where Connect has none.)
pub(crate) fn of(object: &Map<String, Value>, kind: &Kind) -> Option<Logical> {
    connect(object, kind).or_else(|| avro(object, kind))
}

/// The meaning of `connect.name`.
fn connect(object: &Map<String, Value>, kind: &Kind) -> Option<Logical> {
    let name = object.get("connect.name")?.as_str()?;
    let parameters = object.get("connect.parameters");
    semantic::by_name(name, kind, |key| parameters?.get(key)?.as_str())
}

/// The meaning of `logicalType` (Avro 1.12, "Logical Types"); invalid ones are ignored.
fn avro(object: &Map<String, Value>, kind: &Kind) -> Option<Logical> {
    let name = object.get("logicalType")?.as_str()?;
    Some(match (name, kind) {
        ("decimal", Kind::Bytes) => decimal(object, None)?,
        ("decimal", Kind::Fixed(size)) => decimal(object, Some(*size))?,
        ("date", Kind::Int) => Logical::Date,
        ("time-millis", Kind::Int) => Logical::TimeMillis,
        ("time-micros", Kind::Long) => Logical::TimeMicros,
        ("timestamp-millis", Kind::Long) => Logical::TimestampMillis,
        ("timestamp-micros", Kind::Long) => Logical::TimestampMicros,
        ("timestamp-nanos", Kind::Long) => Logical::TimestampNanos,
        ("local-timestamp-millis", Kind::Long) => Logical::LocalTimestampMillis,
        ("local-timestamp-micros", Kind::Long) => Logical::LocalTimestampMicros,
        ("local-timestamp-nanos", Kind::Long) => Logical::LocalTimestampNanos,
        ("uuid", Kind::String | Kind::Fixed(16)) => Logical::Uuid,
        ("duration", Kind::Fixed(12)) => Logical::Duration,
        _ => return None,
    })
}

/// A valid decimal: 0 ≤ scale ≤ precision, and a fixed large enough for the precision.
fn decimal(object: &Map<String, Value>, size: Option<usize>) -> Option<Logical> {
    let precision = u32::try_from(object.get("precision")?.as_u64()?).ok()?;
    let scale = object.get("scale").map_or(Some(0), Value::as_u64)?;
    let scale = i32::try_from(scale).ok()?;
    let fits = size.is_none_or(|size| u64::from(precision) <= digits(size));
    let valid = precision > 0 && scale.unsigned_abs() <= precision && fits;
    valid.then_some(Logical::Decimal { precision: Some(precision), scale })
}

/// How many decimal digits any two's-complement integer of `size` bytes can hold.
pub(crate) fn digits(size: usize) -> u64 {
    // log10(2) as a fraction from below; exact for every size that memory could hold a value of.
    let bits = (size as u128 * 8).saturating_sub(1);
    u64::try_from(bits * 30_102_999_566 / 100_000_000_000).unwrap_or(u64::MAX)
}
