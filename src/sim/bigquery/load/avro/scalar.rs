//! One scalar of Avro in the canonical text of its column's type.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::Value;

use crate::sim::bigquery::{
    civil,
    columns::Type,
    load::avro::{
        decimal,
        schema::{Logical, Schema},
    },
    value,
};

const MICROS: i64 = 1_000_000;

/// An int or a long.
pub fn integer(number: i64, schema: &Schema, ty: &Type) -> Result<String, String> {
    match (ty, schema.logical) {
        (Type::Date, _) => civil::date_of_days(number),
        (Type::Time, Some(Logical::TimeMillis)) => civil::time_of_micros(number * 1_000),
        (Type::Time, _) => civil::time_of_micros(number),
        (Type::Timestamp, Some(Logical::Timestamp(units))) => {
            civil::timestamp_of_micros(micros(number, units)?)
        }
        (Type::DateTime, Some(Logical::LocalTimestamp(units))) => {
            civil::datetime_of_micros(micros(number, units)?)
        }
        _ => Ok(number.to_string()),
    }
}

/// Units of which so many are in a second, as microseconds; finer ones are cut.
fn micros(number: i64, units: i64) -> Result<i64, String> {
    let micros = match units > MICROS {
        true => Some(number.div_euclid(units / MICROS)),
        false => number.checked_mul(MICROS / units),
    };
    micros.ok_or_else(|| format!("Timestamp field value is out of range: {number}"))
}

/// Bytes or a fixed.
pub fn bytes(bytes: &[u8], schema: &Schema, ty: &Type) -> Result<String, String> {
    match (ty, schema.logical) {
        (Type::Bytes(_), _) | (_, None) => {
            value::scalar(&Value::String(BASE64.encode(bytes)), &Type::Bytes(max_length(ty)))
        }
        (ty, Some(Logical::Decimal { scale, .. })) => {
            value::scalar(&Value::String(decimal::text(bytes, scale)?), ty)
        }
        (_, Some(_)) => Err("bytes of a logical type that is none of bytes".to_owned()),
    }
}

fn max_length(ty: &Type) -> Option<u64> {
    match ty {
        Type::Bytes(max) => *max,
        _ => None,
    }
}

/// A string or an enum's symbol.
pub fn text(text: &str, ty: &Type) -> Result<String, String> {
    value::scalar(&Value::String(text.to_owned()), ty)
}
