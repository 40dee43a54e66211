//! The expected cell of an apache-avro value: written apart from the product's conversions, with
//! the `time` crate and plain integers.

use apache_avro::types::Value;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value as Json, json};
use time::{Duration, PrimitiveDateTime, macros::datetime};

use crate::schema::{
    columns,
    model::{Kind, Logical, RecordType, Type},
    names::{branch_names, column_names},
};

/// Null where BigQuery takes none.
#[derive(Debug)]
pub(crate) struct NullInArray;

/// The row of a record value.
pub(crate) fn row(record: &RecordType, value: &Value) -> Result<Json, NullInArray> {
    let Value::Record(fields) = value else { panic!("no record: {value:?}") };
    let mut row = Map::new();
    for ((field, (_, value)), name) in record.fields.iter().zip(fields).zip(column_names(record)) {
        if let Some(cell) = cell(&field.ty, value)? {
            row.insert(name, cell);
        }
    }
    Ok(Json::Object(row))
}

/// A cell, or `None` for null and for what has no column.
fn cell(ty: &Type, value: &Value) -> Result<Option<Json>, NullInArray> {
    if let Some(logical) = ty.logical {
        return Ok(Some(logical_cell(logical, value)));
    }
    if !has_column(ty) {
        return Ok(None);
    }
    Ok(Some(match (&ty.kind, value) {
        (_, Value::Boolean(value)) => json!(value),
        (_, Value::Int(value)) => json!(value),
        (_, Value::Long(value)) if value.unsigned_abs() < 1 << 53 => json!(value),
        (_, Value::Long(value)) => json!(value.to_string()),
        (_, Value::Float(value)) => float(f64::from(*value)),
        (_, Value::Double(value)) => float(*value),
        (_, Value::Bytes(bytes) | Value::Fixed(_, bytes)) => json!(STANDARD.encode(bytes)),
        (_, Value::String(text) | Value::Enum(_, text)) => json!(text),
        (Kind::Record(record), value) => row(record, value)?,
        (Kind::Array(items), Value::Array(values)) => {
            let cells: Result<Vec<_>, _> =
                values.iter().map(|value| element(items, value)).collect();
            json!(cells?)
        }
        (Kind::Map(values), Value::Map(entries)) => {
            let entry = |(key, value): (&String, &Value)| {
                let mut entry = json!({"key": key});
                if let Some(cell) = cell(values, value)? {
                    entry["value"] = cell;
                }
                Ok(entry)
            };
            json!(entries.iter().map(entry).collect::<Result<Vec<_>, _>>()?)
        }
        (Kind::Union(branches), Value::Union(index, value)) => {
            return union(branches, *index as usize, value);
        }
        (kind, value) => panic!("{kind:?} against {value:?}"),
    }))
}

fn union(branches: &[Type], index: usize, value: &Value) -> Result<Option<Json>, NullInArray> {
    if *value == Value::Null {
        return Ok(None);
    }
    if columns::only_branch(branches).is_some() {
        return cell(&branches[index], value);
    }
    let nulls = branches[..index].iter().filter(|branch| branch.kind == Kind::Null).count();
    let name = &branch_names(branches)[index - nulls];
    let cell = cell(&branches[index], value)?;
    Ok(Some(cell.map_or(json!({}), |cell| json!({name: cell}))))
}

fn element(items: &Type, value: &Value) -> Result<Json, NullInArray> {
    let cell = cell(items, value)?.ok_or(NullInArray)?;
    Ok(if cell.is_array() { json!({"element": cell}) } else { cell })
}

/// Whether a type has columns at all, asked of the column derivation.
fn has_column(ty: &Type) -> bool {
    let field = crate::schema::model::Field { name: "x".into(), ty: ty.clone(), doc: None };
    let record = RecordType { name: "X".into(), fields: vec![field] };
    let ty = Type::plain(Kind::Record(record.into()));
    columns::derive(&ty, &columns::ColumnRules::default()).is_ok_and(|columns| !columns.is_empty())
}

fn float(value: f64) -> Json {
    if value.is_nan() {
        json!("NaN")
    } else if value.is_infinite() {
        json!(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        json!(value)
    }
}

fn logical_cell(logical: Logical, value: &Value) -> Json {
    let number = match value {
        Value::Int(value) => i128::from(*value),
        Value::Long(value) => i128::from(*value),
        _ => 0,
    };
    let micros = |unit_nanos: i128| (number * unit_nanos).div_euclid(1_000);
    match (logical, value) {
        (Logical::Decimal { scale, .. }, Value::Bytes(bytes) | Value::Fixed(_, bytes)) => {
            json!(decimal(bytes, scale))
        }
        (Logical::VariableScaleDecimal, Value::Record(fields)) => {
            let [(_, Value::Int(scale)), (_, Value::Bytes(bytes))] = &fields[..] else { panic!() };
            json!(decimal(bytes, *scale))
        }
        (Logical::Date, _) => json!(moment(number * 86_400_000_000).split('T').next()),
        (Logical::TimeMillis, _) => json!(moment(micros(1_000_000)).split('T').nth(1)),
        (Logical::TimeMicros, _) => json!(moment(micros(1_000)).split('T').nth(1)),
        (Logical::TimeNanos, _) => json!(moment(micros(1)).split('T').nth(1)),
        (Logical::TimestampMillis, _) => json!(moment(micros(1_000_000)) + "Z"),
        (Logical::TimestampMicros, _) => json!(moment(micros(1_000)) + "Z"),
        (Logical::TimestampNanos, _) => json!(moment(micros(1)) + "Z"),
        (Logical::LocalTimestampMillis, _) => json!(moment(micros(1_000_000))),
        (Logical::LocalTimestampMicros, _) => json!(moment(micros(1_000))),
        (Logical::LocalTimestampNanos, _) => json!(moment(micros(1))),
        (Logical::Duration, Value::Fixed(_, bytes)) => {
            let part = |at| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            json!({"months": part(0), "days": part(4), "milliseconds": part(8)})
        }
        (Logical::Uuid, Value::Fixed(_, bytes)) => {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let parts: [String; 5] =
                [0..4, 4..6, 6..8, 8..10, 10..16].map(|part| hex(&bytes[part]));
            json!(parts.join("-"))
        }
        (_, Value::String(text)) => json!(iso(text).unwrap_or(text)),
        (logical, value) => panic!("{logical:?} against {value:?}"),
    }
}

/// What the few ISO texts of the generator become.
fn iso(text: &str) -> Option<&'static str> {
    Some(match text {
        "2024-02-29T23:59:59.123456789+01:00" => "2024-02-29T22:59:59.123456Z",
        "1969-01-01T00:00:00Z" => "1969-01-01T00:00:00.000000Z",
        "10:15:30+01:00" => "09:15:30.000000",
        "00:00:00.5Z" => "00:00:00.500000",
        "2024-02-29Z" => "2024-02-29",
        "10:15:30.000001Z" => "10:15:30.000001",
        "23:59:59" => "23:59:59.000000",
        "2024-02-29T23:59:59.5Z" => "2024-02-29T23:59:59.500000",
        "1969-12-31T00:00:00" => "1969-12-31T00:00:00.000000",
        _ => return None,
    })
}

fn moment(micros: i128) -> String {
    let epoch: PrimitiveDateTime = datetime!(1970-01-01 00:00);
    let moment = epoch + Duration::microseconds(i64::try_from(micros).unwrap());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}",
        moment.year(),
        u8::from(moment.month()),
        moment.day(),
        moment.hour(),
        moment.minute(),
        moment.second(),
        moment.microsecond()
    )
}

fn decimal(bytes: &[u8], scale: i32) -> String {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let start = if negative { -1_i128 } else { 0 };
    let unscaled = bytes.iter().fold(start, |value, byte| value << 8 | i128::from(*byte));
    let zeros = "0".repeat(usize::try_from(-scale).unwrap_or(0));
    let digits = if unscaled == 0 { "0".to_owned() } else { format!("{}{zeros}", unscaled.abs()) };
    let scale = usize::try_from(scale).unwrap_or(0);
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}
