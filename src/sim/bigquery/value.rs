//! One scalar against its type: refused, or in canonical text (see [`super::hash`]).

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::Value;

use crate::sim::bigquery::{civil, columns::Type, decimal};

/// The canonical text of `value` in a column of type `ty`, or BigQuery's words for what is wrong.
///
/// Lenient only where BigQuery is: numbers and booleans are taken for STRING columns, numeric text
/// for numbers. A NUMERIC sent as a JSON number has already lost digits beyond a double's: senders
/// must use text.
pub fn scalar(value: &Value, ty: &Type) -> Result<String, String> {
    match ty {
        Type::Bool => boolean(value),
        Type::Int64 => integer(value),
        Type::Float64 => float(value),
        Type::Decimal { big, precision, scale } => {
            let text = plain_text(value).ok_or("Could not convert value to numeric.")?;
            decimal::canonical(&text, *big, *precision, *scale)
        }
        Type::String(max) => string(value, *max),
        Type::Bytes(max) => bytes(value, *max),
        Type::Date => text_of(value, "date").and_then(civil::date),
        Type::Time => text_of(value, "time").and_then(civil::time),
        Type::DateTime => text_of(value, "datetime").and_then(civil::datetime),
        Type::Timestamp => timestamp(value),
        Type::Json => json(value),
        Type::Opaque(_) => Ok(plain_text(value).unwrap_or_else(|| value.to_string())),
        Type::Record(_) => Err("This field is not a scalar.".to_owned()),
    }
}

fn boolean(value: &Value) -> Result<String, String> {
    let parsed = match value {
        Value::Bool(bool) => Some(*bool),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    };
    parsed.map(|bool| bool.to_string()).ok_or_else(|| "Could not convert value to boolean.".into())
}

fn integer(value: &Value) -> Result<String, String> {
    let parsed = match value {
        Value::Number(number) => number.as_i64().or_else(|| integral(number.as_f64()?)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    parsed.map(|int| int.to_string()).ok_or_else(|| "Could not convert value to integer.".into())
}

/// A float that is exactly an int64, well inside a double's integers.
fn integral(float: f64) -> Option<i64> {
    let exact = float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0;
    exact.then(|| format!("{float:.0}").parse().ok()).flatten()
}

fn float(value: &Value) -> Result<String, String> {
    let parsed = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => parse_float(text.trim()),
        _ => None,
    };
    parsed.map(float_text).ok_or_else(|| "Could not convert value to float.".into())
}

/// Numeric text, or one of the words for what JSON numbers cannot say.
fn parse_float(text: &str) -> Option<f64> {
    match text.to_ascii_lowercase().as_str() {
        "nan" => Some(f64::NAN),
        "inf" | "+inf" | "infinity" | "+infinity" => Some(f64::INFINITY),
        "-inf" | "-infinity" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok().filter(|float: &f64| float.is_finite()),
    }
}

fn string(value: &Value, max: Option<u64>) -> Result<String, String> {
    let text = plain_text(value).ok_or("Could not convert value to string.")?;
    let length = text.chars().count() as u64;
    match max {
        Some(max) if length > max => {
            Err(format!("STRING value is too long: maximum length is {max}, found {length}."))
        }
        _ => Ok(text),
    }
}

fn bytes(value: &Value, max: Option<u64>) -> Result<String, String> {
    let refused = || "Could not decode base64 string to bytes.".to_owned();
    let text = value.as_str().ok_or_else(refused)?;
    let decoded = BASE64.decode(text).map_err(|_| refused())?;
    match max {
        Some(max) if decoded.len() as u64 > max => {
            Err(format!("BYTES value is too long: maximum length is {max}."))
        }
        _ => Ok(BASE64.encode(decoded)),
    }
}

/// Text with a zone, or seconds since the epoch as a number or as numeric text.
fn timestamp(value: &Value) -> Result<String, String> {
    let micros = match value {
        Value::Number(number) => civil::seconds_to_micros(&number.to_string()),
        Value::String(text) => civil::timestamp(text),
        _ => Err("Invalid timestamp.".to_owned()),
    }?;
    Ok(micros.to_string())
}

/// A JSON column takes text that holds JSON.
fn json(value: &Value) -> Result<String, String> {
    let text = plain_text(value).ok_or("Invalid JSON value.")?;
    let parsed: Value =
        serde_json::from_str(&text).map_err(|_| "Invalid JSON value: syntax error.".to_owned())?;
    Ok(json_text(parsed))
}

/// The canonical text of a JSON column's value.
pub fn json_text(mut value: Value) -> String {
    value.sort_all_objects();
    value.to_string()
}

/// The canonical text of a float.
pub fn float_text(float: f64) -> String {
    format!("{:?}", if float == 0.0 { 0.0 } else { float })
}

fn text_of<'a>(value: &'a Value, what: &str) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("Invalid {what}."))
}

fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bool) => Some(bool.to_string()),
        _ => None,
    }
}
