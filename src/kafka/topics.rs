//! Which topics are read: by name, or by a regular expression that must match the whole name.
//!
//! The list is resolved here, against the cluster's metadata, and subscribed to by name whenever it
//! changes. librdkafka's own `^…` patterns match anywhere in the name and know no exceptions; a
//! changed list under the cooperative protocol only moves the partitions of the topics that came or
//! went.

use std::collections::BTreeSet;

use regex::Regex;

/// A pattern that is not a regular expression.
#[derive(Clone, Debug, thiserror::Error)]
#[error("topic pattern `{pattern}` is not a regular expression")]
pub struct BadPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    #[source]
    pub source: regex::Error,
}

/// The selection of topics.
#[derive(Clone, Debug)]
pub struct Topics {
    names: BTreeSet<String>,
    patterns: Vec<Regex>,
    excluded: BTreeSet<String>,
}

impl Topics {
    /// Selects the topics named, and those whose whole name matches one of `patterns`, but never
    /// one of `excluded` (the dead-letter topics) nor an internal one (`__…`) by pattern.
    ///
    /// # Errors
    ///
    /// [`BadPattern`] if a pattern is not a regular expression.
    pub fn new<S: AsRef<str>>(
        names: impl IntoIterator<Item = S>,
        patterns: impl IntoIterator<Item = S>,
        excluded: impl IntoIterator<Item = S>,
    ) -> Result<Self, BadPattern> {
        let owned = |set: &S| set.as_ref().to_owned();
        let patterns = patterns.into_iter().map(|pattern| {
            let pattern = pattern.as_ref();
            Regex::new(&format!("^(?:{pattern})$"))
                .map_err(|source| BadPattern { pattern: pattern.to_owned(), source })
        });
        Ok(Self {
            names: names.into_iter().map(|name| owned(&name)).collect(),
            patterns: patterns.collect::<Result<_, _>>()?,
            excluded: excluded.into_iter().map(|name| owned(&name)).collect(),
        })
    }

    /// Whether the list depends on which topics there are.
    pub fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// The topics to subscribe to, given all that there are: sorted, none twice. Topics named
    /// outright are part of it whether they exist or not, so that they are read once they appear.
    pub fn matching<'a>(&self, existing: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let matched = existing.into_iter().filter(|name| self.matches(name)).map(str::to_owned);
        self.names.iter().cloned().chain(matched).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The topics that are selected by name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The patterns, as they were given, that none of the topics fits.
    pub fn idle_patterns<'a>(&self, existing: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let mut idle: Vec<&Regex> = self.patterns.iter().collect();
        for name in existing.into_iter().filter(|name| self.is_open(name)) {
            idle.retain(|pattern| !pattern.is_match(name));
        }
        let given = |pattern: &&Regex| {
            let given = pattern.as_str().strip_prefix("^(?:");
            given.and_then(|given| given.strip_suffix(")$")).unwrap_or_default().to_owned()
        };
        idle.iter().map(given).collect()
    }

    /// Whether a pattern may select the topic.
    fn is_open(&self, name: &str) -> bool {
        !name.starts_with("__") && !self.excluded.contains(name)
    }

    /// Whether a topic is selected.
    pub fn matches(&self, name: &str) -> bool {
        self.names.contains(name)
            || (self.is_open(name) && self.patterns.iter().any(|pattern| pattern.is_match(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names_only_and_never_the_excluded() {
        let topics = Topics::new(vec!["named"], vec!["a|b.*"], vec!["b-dead"]).unwrap();
        let existing = ["a", "ab", "b1", "xb", "b-dead", "__b", "__consumer_offsets", "b\n"];
        assert_eq!(topics.matching(existing), ["a", "b1", "named"]);
        let all = Topics::new(vec![], vec![".*"], vec!["dead"]).unwrap();
        assert_eq!(all.matching(["__x", "dead", "z", "a"]), ["a", "z"]);
        assert!(Topics::new(vec![], vec!["("], vec![]).is_err());
    }

    #[test]
    fn a_pattern_is_idle_while_only_topics_exist_that_it_must_not_read() {
        let topics = Topics::new(vec![], vec![r"shop\..+", "__.*", "b|c"], vec!["shop.dead"]);
        let topics = topics.unwrap();
        let existing = ["shop.dead", "__consumer_offsets", "c", "xshop.a"];
        assert_eq!(topics.idle_patterns(existing), [r"shop\..+", "__.*"]);
        assert_eq!(topics.idle_patterns(["shop.orders"]), ["__.*", "b|c"]);
    }
}
