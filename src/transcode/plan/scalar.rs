//! Which conversion a type needs for a column's type.

use crate::{
    schema::model::{Kind, Logical, Type},
    table::ColumnKind,
    transcode::{
        convert::{
            DecimalTarget, Form, FromBytes, FromFloat, FromInteger, FromText, Unit, decimal::Range,
        },
        plan::Scalar,
        raw_text::PaddedText,
    },
};

/// The conversion of values of `ty` for a column of type `kind`, or `None` if there is none.
pub fn scalar(ty: &Type, kind: &ColumnKind) -> Option<Scalar> {
    if let Some(logical) = ty.logical
        && let Some(scalar) = logical_scalar(&ty.kind, logical, kind)
    {
        return Some(scalar);
    }
    Some(match &ty.kind {
        Kind::Boolean => match kind {
            ColumnKind::Bool => Scalar::Bool,
            ColumnKind::String => Scalar::BoolText,
            _ => return None,
        },
        Kind::Int => Scalar::Int(integer(ty.logical, kind)?),
        Kind::Long => Scalar::Long(integer(ty.logical, kind)?),
        Kind::Float => Scalar::Float(float(kind)?),
        Kind::Double => Scalar::Double(float(kind)?),
        Kind::String => Scalar::Text(text(kind)?),
        Kind::Enum(symbols) => {
            let padded = || symbols.iter().map(|symbol| PaddedText::new(symbol)).collect();
            matches!(kind, ColumnKind::String).then(|| Scalar::Enum(padded()))?
        }
        Kind::Bytes if matches!(kind, ColumnKind::Bytes) => Scalar::Bytes(FromBytes::Bytes),
        Kind::Fixed(size) if matches!(kind, ColumnKind::Bytes) => {
            Scalar::Fixed(*size, FromBytes::Bytes)
        }
        _ => return None,
    })
}

fn logical_scalar(physical: &Kind, logical: Logical, kind: &ColumnKind) -> Option<Scalar> {
    let bytes = |conversion| match physical {
        Kind::Bytes => Some(Scalar::Bytes(conversion)),
        Kind::Fixed(size) => Some(Scalar::Fixed(*size, conversion)),
        _ => None,
    };
    match logical {
        Logical::Decimal { scale, .. } => {
            bytes(FromBytes::Decimal { scale, target: decimal_target(kind)? })
        }
        Logical::Uuid if *kind == ColumnKind::String => bytes(FromBytes::Uuid),
        _ => None,
    }
}

/// The column types that take a decimal.
pub fn decimal_target(kind: &ColumnKind) -> Option<DecimalTarget> {
    Some(match kind {
        ColumnKind::Numeric => DecimalTarget::Exact(Range::Numeric),
        ColumnKind::BigNumeric => DecimalTarget::Exact(Range::BigNumeric),
        ColumnKind::Float64 => DecimalTarget::Float64,
        ColumnKind::String => DecimalTarget::Text,
        _ => return None,
    })
}

fn integer(logical: Option<Logical>, kind: &ColumnKind) -> Option<FromInteger> {
    if *kind == ColumnKind::Int64 {
        // Also a date or time: the Java connector made INTEGER columns of some.
        return Some(FromInteger::Int64);
    }
    let form = if *kind == ColumnKind::String { Form::Text } else { Form::Native };
    let fits = |native: ColumnKind| form == Form::Text || *kind == native;
    // An instant in a DATETIME column is its wall clock in UTC, and the reverse.
    let moment = |unit, text: fn(Unit, Form) -> FromInteger| match kind {
        ColumnKind::Timestamp => Some(FromInteger::Timestamp(unit, Form::Native)),
        ColumnKind::DateTime => Some(FromInteger::DateTime(unit, Form::Native)),
        ColumnKind::String => Some(text(unit, Form::Text)),
        _ => None,
    };
    match logical {
        Some(Logical::Date) => fits(ColumnKind::Date).then_some(FromInteger::Date(form)),
        Some(Logical::TimeMillis) => time(Unit::Millis, form, kind),
        Some(Logical::TimeMicros) => time(Unit::Micros, form, kind),
        Some(Logical::TimeNanos) => time(Unit::Nanos, form, kind),
        Some(Logical::TimestampMillis) => moment(Unit::Millis, FromInteger::Timestamp),
        Some(Logical::TimestampMicros) => moment(Unit::Micros, FromInteger::Timestamp),
        Some(Logical::TimestampNanos) => moment(Unit::Nanos, FromInteger::Timestamp),
        Some(Logical::LocalTimestampMillis) => moment(Unit::Millis, FromInteger::DateTime),
        Some(Logical::LocalTimestampMicros) => moment(Unit::Micros, FromInteger::DateTime),
        Some(Logical::LocalTimestampNanos) => moment(Unit::Nanos, FromInteger::DateTime),
        _ => plain_integer(kind),
    }
}

fn time(unit: Unit, form: Form, kind: &ColumnKind) -> Option<FromInteger> {
    matches!(kind, ColumnKind::Time | ColumnKind::String).then_some(FromInteger::Time(unit, form))
}

fn plain_integer(kind: &ColumnKind) -> Option<FromInteger> {
    Some(match kind {
        ColumnKind::Int64 => FromInteger::Int64,
        ColumnKind::Float64 => FromInteger::Float64,
        ColumnKind::Numeric => FromInteger::Decimal(Range::Numeric),
        ColumnKind::BigNumeric => FromInteger::Decimal(Range::BigNumeric),
        ColumnKind::String => FromInteger::Text,
        _ => return None,
    })
}

fn float(kind: &ColumnKind) -> Option<FromFloat> {
    Some(match kind {
        ColumnKind::Float64 => FromFloat::Float64,
        ColumnKind::Numeric => FromFloat::Decimal(Range::Numeric),
        ColumnKind::BigNumeric => FromFloat::Decimal(Range::BigNumeric),
        ColumnKind::String => FromFloat::Text,
        _ => return None,
    })
}

fn text(kind: &ColumnKind) -> Option<FromText> {
    Some(match kind {
        ColumnKind::String | ColumnKind::Geography => FromText::Text,
        ColumnKind::Json => FromText::Json,
        ColumnKind::Date => FromText::Date,
        ColumnKind::Time => FromText::Time,
        ColumnKind::DateTime => FromText::DateTime,
        ColumnKind::Timestamp => FromText::Timestamp,
        ColumnKind::Numeric => FromText::Decimal(Range::Numeric),
        ColumnKind::BigNumeric => FromText::Decimal(Range::BigNumeric),
        _ => return None,
    })
}

/// The fewest bytes that a value of `ty` takes in Avro. Saturates, and stops looking at a depth
/// where the compiler has given up.
pub fn bytes_min(ty: &Type, depth: usize) -> usize {
    if depth > crate::transcode::limits::DEPTH_MAX {
        return 0;
    }
    match &ty.kind {
        Kind::Null => 0,
        Kind::Float => 4,
        Kind::Double => 8,
        Kind::Fixed(size) => *size,
        Kind::Record(record) => record
            .fields
            .iter()
            .fold(0, |sum: usize, field| sum.saturating_add(bytes_min(&field.ty, depth + 1))),
        Kind::Union(branches) => {
            1 + branches.iter().map(|branch| bytes_min(branch, depth + 1)).min().unwrap_or(0)
        }
        Kind::Recursive(_) => 0,
        _ => 1,
    }
}
