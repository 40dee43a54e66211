//! Which topics an entry of the configuration means: one name, or a regular expression.

use std::fmt;

use regex::Regex;

/// One topic by name, or all topics that a regular expression matches from end to end.
///
/// Text made only of characters that a topic's name may have (`[A-Za-z0-9._-]`) is a name, so that
/// `shop.orders` does not match `shop_orders`; everything else is an expression.
#[derive(Clone)]
pub struct TopicMatch {
    text: String,
    pattern: Option<Regex>,
}

impl TopicMatch {
    /// Reads the text of `match`.
    ///
    /// # Errors
    ///
    /// The expression is malformed or compiles to more than the regex crate's limit.
    pub fn parse(text: &str) -> Result<Self, regex::Error> {
        let pattern = match is_name(text) {
            true => None,
            false => Some(Regex::new(&format!("^(?:{text})$"))?),
        };
        Ok(Self { text: text.to_owned(), pattern })
    }

    /// Whether `topic` is meant. Kafka's internal topics (`__…`) never are.
    pub fn matches(&self, topic: &str) -> bool {
        !topic.starts_with("__")
            && match &self.pattern {
                None => self.text == topic,
                Some(pattern) => pattern.is_match(topic),
            }
    }

    /// The topic's name, if this is not an expression.
    pub fn name(&self) -> Option<&str> {
        self.pattern.is_none().then_some(self.text.as_str())
    }

    /// The text as the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

impl fmt::Debug for TopicMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicMatch({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_literal_and_a_pattern_matches_from_end_to_end() {
        let name = TopicMatch::parse("shop.orders").unwrap();
        assert!(name.matches("shop.orders"));
        assert!(!name.matches("shop_orders"));
        let pattern = TopicMatch::parse(r"shop\.(orders|payments)").unwrap();
        assert!(pattern.matches("shop.payments"));
        assert!(!pattern.matches("shop.payments.old"));
        assert!(!pattern.matches("my-shop.payments"));
        assert!(!TopicMatch::parse(r"a|b").unwrap().matches("ab"));
    }

    #[test]
    fn internal_topics_never_match() {
        assert!(!TopicMatch::parse(".*").unwrap().matches("__consumer_offsets"));
        assert!(!TopicMatch::parse("__consumer_offsets").unwrap().matches("__consumer_offsets"));
    }
}
