//! A row's protobuf message as canonical cells.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::field_descriptor_proto::Type as Proto;
use serde_json::{Map, Value};

use crate::sim::bigquery::{
    civil,
    columns::{Mode, Type},
    load::avro::decimal,
    storage::schema::{Field, WriterSchema},
    value,
};

/// Digits behind the point of NUMERIC and BIGNUMERIC values in bytes.
const NUMERIC_SCALE: u32 = 9;
const BIGNUMERIC_SCALE: u32 = 38;

/// The cells of one message; what is wrong with it as BigQuery words it, without the row's number.
pub fn cells(bytes: &[u8], schema: &WriterSchema) -> Result<Map<String, Value>, String> {
    let mut left = bytes;
    let mut found: BTreeMap<&str, Value> = BTreeMap::new();
    while !left.is_empty() {
        let (number, wire) = decode_key(&mut left).map_err(|_| broken())?;
        let Some(field) = schema.fields.get(&number) else {
            return Err(format!("Field {number} of the row is not in the writer schema"));
        };
        let name = field.column.name.as_str();
        for cell in values(&mut left, wire, field)? {
            match found.get_mut(name) {
                Some(Value::Array(cells)) => cells.push(cell),
                _ if field.column.mode == Mode::Repeated => {
                    found.insert(name, Value::Array(vec![cell]));
                }
                // Of several values of one field the last counts, as in any protobuf message.
                _ => drop(found.insert(name, cell)),
            }
        }
    }
    match schema.required.iter().find(|name| !found.contains_key(name.as_str())) {
        Some(name) => Err(format!("Field {name} is required, but the row has no value for it")),
        None => Ok(found.into_iter().map(|(name, cell)| (name.to_owned(), cell)).collect()),
    }
}

/// The values at one place of the message: several where numbers are packed.
fn values(left: &mut &[u8], wire: WireType, field: &Field) -> Result<Vec<Value>, String> {
    let is_packed = wire == WireType::LengthDelimited
        && field.column.mode == Mode::Repeated
        && wire_type(field.proto) != WireType::LengthDelimited;
    if !is_packed {
        return Ok(vec![value(left, wire, field)?]);
    }
    let mut packed = delimited(left)?;
    let mut cells = Vec::new();
    while !packed.is_empty() {
        cells.push(value(&mut packed, wire_type(field.proto), field)?);
    }
    Ok(cells)
}

fn value(left: &mut &[u8], wire: WireType, field: &Field) -> Result<Value, String> {
    if wire != wire_type(field.proto) {
        skip_field(wire, 0, left, DecodeContext::default()).ok();
        return Err(format!("Field {} has another wire type than its type", field.column.name));
    }
    let text = match (&field.record, wire) {
        (Some(record), _) => return Ok(Value::Object(cells(delimited(left)?, record)?)),
        (None, WireType::LengthDelimited) => delimited_text(delimited(left)?, field),
        (None, WireType::Varint) => {
            integer(unzigzag(decode_varint(left).map_err(|_| broken())?, field.proto), field)
        }
        (None, WireType::SixtyFourBit) => Ok(match field.proto {
            Proto::Double => value::float_text(f64::from_le_bytes(fixed(left)?)),
            _ => i64::from_le_bytes(fixed(left)?).to_string(),
        }),
        (None, _) => Ok(match field.proto {
            Proto::Float => value::float_text(f64::from(f32::from_le_bytes(fixed(left)?))),
            _ => i32::from_le_bytes(fixed(left)?).to_string(),
        }),
    };
    let name = &field.column.name;
    text.map(Value::String).map_err(|what| format!("{what} Field: {name}"))
}

fn wire_type(proto: Proto) -> WireType {
    match proto {
        Proto::Double | Proto::Fixed64 | Proto::Sfixed64 => WireType::SixtyFourBit,
        Proto::Float | Proto::Fixed32 | Proto::Sfixed32 => WireType::ThirtyTwoBit,
        Proto::String | Proto::Bytes | Proto::Message | Proto::Group => WireType::LengthDelimited,
        _ => WireType::Varint,
    }
}

fn unzigzag(raw: u64, proto: Proto) -> i64 {
    match proto {
        Proto::Sint32 | Proto::Sint64 => (raw >> 1).cast_signed() ^ -(raw & 1).cast_signed(),
        _ => raw.cast_signed(),
    }
}

fn integer(number: i64, field: &Field) -> Result<String, String> {
    match &field.column.ty {
        Type::Bool => Ok((number != 0).to_string()),
        Type::Date => civil::date_of_days(number),
        Type::Time => civil::time_of_micros(time_of_day(number)?),
        Type::DateTime => civil::datetime_of_micros(moment(number)?),
        Type::Timestamp => civil::timestamp_of_micros(number),
        _ => Ok(number.to_string()),
    }
}

/// Hour, minute, second and microsecond in 5, 6, 6 and 20 bits
/// (<https://docs.cloud.google.com/bigquery/docs/supported-data-types>, `CivilTimeEncoder`).
fn time_of_day(packed: i64) -> Result<i64, String> {
    let micros = packed & 0xf_ffff;
    let part = |shift: u32, bits: u32| (packed >> shift) & ((1 << bits) - 1);
    let (second, minute, hour) = (part(20, 6), part(26, 6), packed >> 32);
    let is_time = micros < 1_000_000 && second < 60 && minute < 60 && (0..24).contains(&hour);
    is_time
        .then(|| ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
        .ok_or_else(|| "Invalid time value.".to_owned())
}

/// Year, month and day in 14, 4 and 5 bits above the time.
fn moment(packed: i64) -> Result<i64, String> {
    let time = time_of_day(packed & ((1 << 37) - 1))?;
    let date = packed >> 37;
    let text = format!("{:04}-{:02}-{:02}", date >> 9, (date >> 5) & 0xf, date & 0x1f);
    let days = civil::days(&text).ok_or_else(|| "Invalid datetime value.".to_owned())?;
    Ok(days * 86_400_000_000 + time)
}

fn delimited_text(bytes: &[u8], field: &Field) -> Result<String, String> {
    let ty = &field.column.ty;
    let text = match (ty, field.proto) {
        (Type::Decimal { big, .. }, Proto::Bytes) => {
            let scale = if *big { BIGNUMERIC_SCALE } else { NUMERIC_SCALE };
            let big_endian: Vec<u8> = bytes.iter().rev().copied().collect();
            decimal::text(&big_endian, scale)?
        }
        (_, Proto::Bytes) => BASE64.encode(bytes),
        _ => std::str::from_utf8(bytes).map_err(|_| "The text is not UTF-8.")?.to_owned(),
    };
    value::scalar(&Value::String(text), ty)
}

fn delimited<'a>(left: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let length = decode_varint(left).map_err(|_| broken())?;
    let length = usize::try_from(length).map_err(|_| broken())?;
    let (bytes, rest) = left.split_at_checked(length).ok_or_else(broken)?;
    *left = rest;
    Ok(bytes)
}

fn fixed<const N: usize>(left: &mut &[u8]) -> Result<[u8; N], String> {
    let (bytes, rest) = left.split_first_chunk::<N>().ok_or_else(broken)?;
    *left = rest;
    Ok(*bytes)
}

fn broken() -> String {
    "The row is no protobuf message of the writer schema".to_owned()
}
