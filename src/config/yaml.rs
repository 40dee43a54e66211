//! YAML as a tree that knows its lines.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

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
    /// The node below this one at `path`, such as `topics[0].table`.
    pub fn at(&self, path: &str) -> Option<&Self> {
        let mut node = self;
        for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
            node = match (&node.value, part.strip_suffix(']')) {
                (Value::List(items), Some(index)) => items.get(index.parse::<usize>().ok()?)?,
                (Value::Map(entries), None) => {
                    &entries.iter().find(|entry| entry.key == part)?.node
                }
                _ => return None,
            };
        }
        Some(node)
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
        .map_err(|error| ConfigError::Syntax(error.to_string()))?;
    Ok(node(tree))
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
