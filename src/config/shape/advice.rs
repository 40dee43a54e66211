//! What to write instead: remedies that are right when they are followed to the letter.

use std::net::SocketAddr;

use serde_json::Value as Json;

use super::{accepts, choices, expected};
use crate::{
    config::yaml::Value,
    duration,
    ops::settings::{LOCAL, SOCKET_ADDRESS},
};

/// What to do about a key that there was once.
pub(super) fn gone(path: &str) -> Option<&'static str> {
    match path {
        "bigquery.streaming.body_bytes_target" => Some(
            "remove it: nothing read it; a topic's `batch.bytes_max` says when a request is sent",
        ),
        "bigquery.streaming.rows_max" => Some(
            "remove it: nothing read it; a topic's `batch.rows_max` says when a request is sent",
        ),
        _ => None,
    }
}

/// What is wrong with a text whose form the schema asks for and JSON Schema cannot check, and what to do.
pub(super) fn wrong_form(schema: &Json, text: &str, hide: bool) -> Option<(String, String)> {
    let what = match form(schema)? {
        duration::FORMAT if duration::parse(text).is_none() => "a span of time",
        SOCKET_ADDRESS if text.parse::<SocketAddr>().is_err() => "an IP address with a port",
        _ => return None,
    };
    let shown = if hide { String::new() } else { format!("`{text}` ") };
    let remedy = formed(schema, if hide { "" } else { text })?;
    Some((format!("{shown}is not {what}"), remedy))
}

/// What to do where `value` is not of the type that `schema` asks for, which is `wanted` in words.
pub(super) fn wrong_type(schema: &Json, value: &Value, wanted: &str) -> Option<String> {
    let text = match value {
        Value::Plain(Json::Null) => {
            return Some("give it a value, or leave the key out".to_owned());
        }
        Value::Plain(plain @ (Json::Number(_) | Json::Bool(_))) => {
            let one_key = |(key, _)| format!("write `{{{key}: {plain}}}`");
            let mapping = keyed(schema, |inner| super::plain_fits(plain, inner)).map(one_key);
            let quoted = (wanted == "text").then(|| "put it in quotes".to_owned());
            return formed(schema, &plain.to_string()).or(mapping).or(quoted);
        }
        Value::Text { expanded: true, .. } => {
            return Some(format!("what `${{…}}` stands for must be {wanted}"));
        }
        Value::Text { text, .. } => text.to_lowercase(),
        Value::Plain(_) | Value::List(_) | Value::Map(_) => return None,
    };
    let remedy = match (wanted, text.as_str()) {
        ("true or false", "true" | "false") => "write it without quotes",
        ("true or false", "yes" | "y" | "on") => "write `true`",
        ("true or false", "no" | "n" | "off") => "write `false`",
        ("true or false", _) => "write `true` or `false`",
        ("a number" | "a whole number", number) if number.parse::<f64>().is_ok() => {
            "write it without quotes"
        }
        ("a number" | "a whole number", _) => "write digits only",
        _ => return None,
    };
    Some(remedy.to_owned())
}

/// What can be written for a choice, the words first; `text` is what stands there.
pub(super) fn options(alternatives: &[&Json], words: &[&str], text: &str) -> Vec<String> {
    let keyed = alternatives.iter().filter_map(|one| keyed(one, |inner| accepts(inner, "string")));
    let written = keyed.map(|(key, _)| format!("`{{{key}: {text}}}`"));
    let other = alternatives.iter().filter_map(|one| {
        let (key, inner) = keyed_any(one)?;
        (!accepts(inner, "string")).then(|| format!("`{key}: …` with {}", expected(inner)))
    });
    words.iter().map(|word| (*word).to_owned()).chain(written).chain(other).collect()
}

/// The form that a text must have.
fn form(schema: &Json) -> Option<&str> {
    schema.get("format").and_then(Json::as_str)
}

/// A text of the form that `schema` asks for, as near to `text` as can be told.
fn formed(schema: &Json, text: &str) -> Option<String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match form(schema)? {
        duration::FORMAT if digits(text) => {
            Some(format!("write it with its unit: `{text}s`, or with `ms`, `m`, `h` or `d`"))
        }
        duration::FORMAT => Some("write a number and its unit: `10s`, `15m` or `1h`".to_owned()),
        SOCKET_ADDRESS => {
            let port = text.rsplit(':').next().filter(|port| port.parse::<u16>().is_ok());
            Some(format!("write an IP address and a port: `{LOCAL}:{}`", port.unwrap_or("8080")))
        }
        _ => None,
    }
}

/// The only key of a mapping that `schema` takes, and its schema, where it is as `fits` says.
fn keyed(schema: &Json, fits: impl Fn(&Json) -> bool) -> Option<(&str, &Json)> {
    let own = keyed_any(schema);
    let mut alternatives = super::alternatives(schema).into_iter().flatten().filter_map(keyed_any);
    own.filter(|(_, inner)| fits(inner)).or_else(|| alternatives.find(|(_, inner)| fits(inner)))
}

fn keyed_any(schema: &Json) -> Option<(&str, &Json)> {
    let properties = schema.get("properties")?.as_object()?;
    let (key, inner) = properties.iter().next().filter(|_| properties.len() == 1)?;
    Some((key, inner))
}

/// A value that the schema takes, in the place of one that it does not: what stands elsewhere can then be checked
/// in the same pass. Whatever is said of the place itself was said before.
pub(super) fn stand_in(root: &Json, schema: &Json) -> Json {
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        return default.clone();
    }
    let schema = super::resolve(root, schema);
    if let Some(alternatives) = super::alternatives(schema) {
        let is_null = |one: &&Json| one.get("type").is_some_and(|ty| ty == "null");
        let one = alternatives.iter().find(|one| !is_null(one));
        return one.map_or(Json::Null, |one| stand_in(root, one));
    }
    if let Some(word) = choices(schema).and_then(|words| words.first().copied()) {
        return word.into();
    }
    let is = |ty: &str| schema.get("type").is_some() && accepts(schema, ty);
    if is("object") {
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten();
        let member = |key: &str| {
            let inner = schema.get("properties")?.get(key)?;
            Some((key.to_owned(), stand_in(root, inner)))
        };
        return Json::Object(required.filter_map(Json::as_str).filter_map(member).collect());
    }
    match form(schema) {
        Some(duration::FORMAT) => "1m".into(),
        Some(SOCKET_ADDRESS) => format!("{LOCAL}:0").into(),
        _ if is("string") => "x".into(),
        _ if is("integer") || is("number") => schema.get("minimum").cloned().unwrap_or(1.into()),
        _ if is("boolean") => false.into(),
        _ if is("array") => Json::Array(Vec::new()),
        _ => Json::Null,
    }
}
