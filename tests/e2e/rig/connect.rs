//! What a source's values mean, and Connect's JSON envelope read into cells.
//!
//! [`Node`] is the one model for Avro schemas (see [`super::avro`]) and Connect's. It is written
//! from the published definitions of the semantic types, not from the product.

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::Value;

use super::cell::{self, Cell};

/// A type: its encoding and its meaning.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The encoding.
    pub(crate) kind: Kind,
    /// The meaning.
    pub(crate) meaning: Meaning,
}

/// The encodings.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// No value.
    Null,
    /// True or false.
    Boolean,
    /// Any integer.
    Integer,
    /// A 32-bit float.
    Float,
    /// A 64-bit float.
    Double,
    /// Bytes.
    Bytes,
    /// Text.
    Text,
    /// That many bytes.
    Fixed(usize),
    /// One of these.
    Enum(Vec<String>),
    /// Named fields.
    Record(Vec<(String, Node)>),
    /// Many of one type.
    Array(Box<Node>),
    /// Text to one type.
    Map(Box<Node>),
    /// One of these.
    Union(Vec<Node>),
}

/// The meanings. A `u32` is how many units make a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The encoding says it all.
    Plain,
    /// Unscaled big-endian integer.
    Decimal { precision: Option<u32>, scale: i32 },
    /// A record of scale and value.
    VariableScale,
    /// Days since the epoch.
    Date,
    /// Units since midnight.
    Time(i64),
    /// Units since the epoch, UTC.
    Timestamp(i64),
    /// Units since the epoch on a wall clock.
    WallClock(i64),
    /// Text with a zone.
    ZonedTimestamp,
    /// Time text, with or without a zone.
    TimeText,
    /// Date text.
    DateText,
    /// Timestamp text without a zone.
    WallClockText,
    /// JSON text.
    Json,
}

/// A value before its meaning is applied.
#[derive(Clone, Debug)]
pub(crate) enum Raw {
    /// True or false.
    Boolean(bool),
    /// Any integer.
    Integer(i64),
    /// Any float.
    Float(f64),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Text.
    Text(String),
}

impl Meaning {
    /// The meaning that Connect and Debezium give to a schema's name.
    pub(crate) fn of_connect(name: &str, parameter: impl Fn(&str) -> Option<String>) -> Self {
        match name {
            "org.apache.kafka.connect.data.Decimal" => Self::Decimal {
                precision: parameter("connect.decimal.precision")
                    .and_then(|text| text.parse().ok()),
                scale: parameter("scale").and_then(|text| text.parse().ok()).unwrap_or(0),
            },
            "io.debezium.data.VariableScaleDecimal" => Self::VariableScale,
            "org.apache.kafka.connect.data.Date" | "io.debezium.time.Date" => Self::Date,
            "org.apache.kafka.connect.data.Time" | "io.debezium.time.Time" => Self::Time(1_000),
            "io.debezium.time.MicroTime" => Self::Time(1_000_000),
            "io.debezium.time.NanoTime" => Self::Time(1_000_000_000),
            "org.apache.kafka.connect.data.Timestamp" => Self::Timestamp(1_000),
            "io.debezium.time.Timestamp" => Self::WallClock(1_000),
            "io.debezium.time.MicroTimestamp" => Self::WallClock(1_000_000),
            "io.debezium.time.NanoTimestamp" => Self::WallClock(1_000_000_000),
            "io.debezium.time.ZonedTimestamp" => Self::ZonedTimestamp,
            "io.debezium.time.ZonedTime" | "io.debezium.time.IsoTime" => Self::TimeText,
            "io.debezium.time.IsoDate" => Self::DateText,
            "io.debezium.time.IsoTimestamp" => Self::WallClockText,
            "io.debezium.data.Json" => Self::Json,
            _ => Self::Plain,
        }
    }

    /// The cell of a raw value; [`cell::OutsideBigQuerysYears`] for a moment that has none.
    pub(crate) fn render(self, raw: Raw) -> Result<Value> {
        match (self, &raw) {
            (Self::Date, Raw::Integer(days)) => cell::check_day(*days)?,
            (Self::Timestamp(unit) | Self::WallClock(unit), Raw::Integer(time)) => {
                cell::check_micros(to_micros(*time, unit))?;
            }
            _ => {}
        }
        Ok(match (self, raw) {
            (Self::Decimal { precision, scale }, Raw::Bytes(bytes)) => {
                let plain = cell::decimal_text(&bytes, scale);
                match is_text_decimal(precision, scale) {
                    true => cell::text(plain),
                    false => cell::numeric(&plain),
                }
            }
            (Self::Date, Raw::Integer(days)) => cell::date(days),
            (Self::Time(unit), Raw::Integer(time)) => cell::time(to_micros(time, unit)),
            (Self::Timestamp(unit), Raw::Integer(time)) => cell::timestamp(to_micros(time, unit)),
            (Self::WallClock(unit), Raw::Integer(time)) => cell::datetime(to_micros(time, unit)),
            (Self::ZonedTimestamp, Raw::Text(text)) => {
                cell::timestamp(cell::parse_timestamp(&text)?)
            }
            (Self::TimeText, Raw::Text(text)) => {
                cell::time(cell::parse_time(&text)?.rem_euclid(86_400_000_000))
            }
            (Self::DateText, Raw::Text(text)) => cell::date(cell::parse_date(&text)?),
            (Self::WallClockText, Raw::Text(text)) => cell::datetime(cell::parse_timestamp(&text)?),
            (Self::Json, Raw::Text(text)) => cell::json(&text)?,
            (_, Raw::Boolean(bool)) => cell::text(bool.to_string()),
            (_, Raw::Integer(integer)) => cell::text(integer.to_string()),
            (_, Raw::Float(float)) => cell::float(float),
            (_, Raw::Bytes(bytes)) => cell::bytes(&bytes),
            (_, Raw::Text(text)) => cell::text(text),
        })
    }
}

/// Whether neither NUMERIC nor BIGNUMERIC holds every such decimal, so that it is kept as text.
fn is_text_decimal(precision: Option<u32>, scale: i32) -> bool {
    let whole_digits = precision.map_or(0, |precision| i64::from(precision) - i64::from(scale));
    scale > 38 || whole_digits > 38
}

fn to_micros(time: i64, unit: i64) -> i64 {
    match unit {
        1_000 => time * 1_000,
        1_000_000 => time,
        _ => time.div_euclid(1_000),
    }
}

impl Node {
    /// Reads a schema of Connect's JSON envelope.
    pub(crate) fn of_connect(schema: &Value) -> Result<Self> {
        let text = |key: &str| schema.get(key).and_then(Value::as_str);
        let parameter = |key: &str| schema.get("parameters")?.get(key)?.as_str().map(str::to_owned);
        let inner = |key: &str| {
            Self::of_connect(schema.get(key).context("an element type is missing")?).map(Box::new)
        };
        let kind = match text("type").context("a schema without a type")? {
            "boolean" => Kind::Boolean,
            "int8" | "int16" | "int32" | "int64" => Kind::Integer,
            "float" => Kind::Float,
            "double" => Kind::Double,
            "bytes" => Kind::Bytes,
            "string" => Kind::Text,
            "array" => Kind::Array(inner("items")?),
            "map" => Kind::Map(inner("values")?),
            "struct" => Kind::Record(connect_fields(schema)?),
            other => bail!("unknown Connect type {other}"),
        };
        let meaning = Meaning::of_connect(text("name").unwrap_or_default(), parameter);
        Ok(Self { kind, meaning })
    }

    /// The cell of a JSON value of Connect's envelope.
    pub(crate) fn read_json(&self, value: &Value) -> Result<Cell> {
        if value.is_null() {
            return Ok(None);
        }
        let raw = match &self.kind {
            Kind::Record(fields) if self.meaning == Meaning::VariableScale => {
                return Ok(Some(variable_scale(fields, value)?));
            }
            Kind::Record(fields) => {
                let cells: Result<Vec<_>> = fields
                    .iter()
                    .map(|(name, node)| {
                        let inner = value.get(name).unwrap_or(&Value::Null);
                        Ok((name.clone(), node.read_json(inner)?))
                    })
                    .collect();
                return Ok(Some(cell::record(cells?)));
            }
            Kind::Array(element) => {
                let cells = value.as_array().context("not an array")?.iter();
                let cells: Result<Vec<_>> =
                    cells.map(|value| Ok(element.read_json(value)?.unwrap_or_default())).collect();
                return Ok(cell::array(cells?));
            }
            Kind::Boolean => Raw::Boolean(value.as_bool().context("not a boolean")?),
            Kind::Integer => Raw::Integer(value.as_i64().context("not an integer")?),
            Kind::Float | Kind::Double => Raw::Float(json_float(value)?),
            Kind::Bytes => Raw::Bytes(BASE64.decode(value.as_str().context("not base64")?)?),
            Kind::Text => Raw::Text(value.as_str().context("not text")?.to_owned()),
            other => bail!("{other:?} is not used by the samples"),
        };
        Ok(Some(self.meaning.render(raw)?))
    }
}

fn connect_fields(schema: &Value) -> Result<Vec<(String, Node)>> {
    let fields =
        schema.get("fields").and_then(Value::as_array).context("a struct has no fields")?;
    fields
        .iter()
        .map(|field| {
            let name = field.get("field").and_then(Value::as_str).context("a field has no name")?;
            Ok((name.to_owned(), Node::of_connect(field)?))
        })
        .collect()
}

fn variable_scale(fields: &[(String, Node)], value: &Value) -> Result<Value> {
    anyhow::ensure!(fields.len() == 2, "a VariableScaleDecimal has two fields");
    let scale = value.get("scale").and_then(Value::as_i64).context("no scale")?;
    let unscaled = value.get("value").and_then(Value::as_str).context("no value")?;
    Ok(cell::text(cell::decimal_text(&BASE64.decode(unscaled)?, i32::try_from(scale)?)))
}

/// JsonConverter writes what JSON has no number for as text.
fn json_float(value: &Value) -> Result<f64> {
    match value {
        Value::String(text) => Ok(text.parse()?),
        _ => value.as_f64().context("not a number"),
    }
}
