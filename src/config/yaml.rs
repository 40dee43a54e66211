//! YAML as a tree that knows its lines.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Spanned};

use crate::config::problem::ConfigError;

/// One value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The line, from 1.
    pub line: u64,
    /// The value.
    pub value: Value,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A scalar that is not text: null, boolean, number.
    Plain(serde_json::Value),
    /// Text.
    Text {
        /// The text, expanded.
        text: String,
        /// Whether some of it came out of `${…}`: then it is never shown, and may stand for a number
        /// or a boolean.
        expanded: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in its order.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The key's line.
    pub line: u64,
    /// The value.
    pub node: Node,
}

impl Node {
    /// The node below this one at `path`, such as `topics[0].table`. Keys may hold dots.
    pub fn at(&self, path: &str) -> Option<&Self> {
        if path.is_empty() {
            return Some(self);
        }
        match &self.value {
            Value::List(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                items.get(index.parse::<usize>().ok()?)?.at(rest)
            }
            Value::Map(entries) => {
                let path = path.strip_prefix('.').unwrap_or(path);
                entries.iter().find_map(|entry| {
                    let rest = path.strip_prefix(entry.key.as_str())?;
                    let ends = rest.is_empty() || rest.starts_with(['.', '[']);
                    if ends { entry.node.at(rest) } else { None }
                })
            }
            Value::Plain(_) | Value::Text { .. } => None,
        }
    }
}

/// Parses one YAML document.
///
/// # Errors
///
/// The text is not YAML, has a key twice, or exceeds the parser's budget. The message holds a place,
/// never a piece of the text, which may be a secret.
pub fn parse(text: &str) -> Result<Node, ConfigError> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
    };
    let tree: Spanned<Value> = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| ConfigError::Syntax(words(error.without_snippet())))?;
    Ok(node(tree))
}

/// What the parser found, in words for whoever writes the file: the parser's own speak to its caller.
fn words(error: &Error) -> String {
    let place = error.location().map_or_else(String::new, |place| {
        format!("line {} column {}: ", place.line(), place.column())
    });
    match error {
        Error::DuplicateMappingKey { .. } => {
            format!("{place}this key stands there twice – remove one of the two")
        }
        Error::MultipleDocuments { .. } => {
            format!("{place}a second document begins – remove it with the `---` before it")
        }
        other => {
            let text = other.to_string();
            let remedy = match text.contains("unknown escape character") {
                true => {
                    " – write the text in single quotes: between double quotes `\\` begins an escape"
                }
                false => "",
            };
            format!("{text}{remedy}")
        }
    }
}

fn node(spanned: Spanned<Value>) -> Node {
    Node { line: spanned.referenced.line(), value: spanned.value }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Plain(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Plain(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Plain(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Plain(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Plain(serde_json::Value::Null))
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Plain(serde_json::Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text { text: text.to_owned(), expanded: false })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push(node(item));
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some((key, value)) = entries.next_entry::<Spanned<String>, Spanned<Value>>()? {
            map.push(Entry { line: key.referenced.line(), key: key.value, node: node(value) });
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_lines() {
        let tree = parse("kafka:\n  group_id: shop\n  port: 9092\nlist:\n  - a: 1\n  - b: 'no'\n")
            .unwrap();
        let group = tree.at("kafka.group_id").unwrap();
        assert_eq!(group.line, 2);
        assert_eq!(group.value, Value::Text { text: "shop".into(), expanded: false });
        assert_eq!(tree.at("kafka.port").unwrap().value, Value::Plain(9092.into()));
        let last = tree.at("list[1].b").unwrap();
        assert_eq!(
            (last.line, &last.value),
            (6, &Value::Text { text: "no".into(), expanded: false })
        );
        assert_eq!(tree.at("list[2].b"), None);
        let tree = parse("a:\n  b: {c: 1}\n  b.c:\n    d.e: 2\n").unwrap();
        assert_eq!(tree.at("a.b.c.d.e").unwrap().line, 4);
        assert_eq!(tree.at("a.b.d"), None);
    }

    #[test]
    fn an_error_shows_no_piece_of_the_text() {
        for text in ["a: [canary", "password: canary\npassword: canary\n", "a: *canary\n"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(!error.contains("canary\"") && !error.contains("[canary"), "{error}");
        }
        let error = parse("a: 1\na: canary\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("canary"), "{error}");
    }
}
