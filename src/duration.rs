//! Spans of time as people write them: `10s`, `1h 30m`.

use std::{borrow::Cow, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// What the JSON Schema calls the form of such a text.
pub const FORMAT: &str = "time-span";

/// A span of time in the JSON Schema.
#[derive(Debug)]
pub struct SpanText;

impl JsonSchema for SpanText {
    fn schema_name() -> Cow<'static, str> {
        "SpanText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": FORMAT })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// Reads `1h 30m`, and any other way to put it that has units.
pub fn parse(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// Writes `1h 30m`.
///
/// # Errors
/// The serializer's own.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// Reads what [`serialize`] writes, and any other way to put it that has units.
///
/// # Errors
/// The text is no span of time.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = || D::Error::custom(format!("`{text}` is no span of time; write `10s` or `15m`"));
    parse(&text).ok_or_else(wrong)
}
