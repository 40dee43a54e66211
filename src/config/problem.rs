//! Mistakes in a configuration, collected and told at once.

use std::{fmt, io, path::PathBuf};

use crate::secret::REDACTED;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where in the file, such as `topics[0].table`; empty for the file as a whole.
    pub path: String,
    /// The line, from 1, where known.
    pub line: Option<u64>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, " – {remedy}"),
            None => Ok(()),
        }
    }
}

/// Mistakes as they are found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds a mistake.
    pub fn push(
        &mut self,
        path: impl Into<String>,
        line: Option<u64>,
        message: impl Into<String>,
        remedy: Option<&str>,
    ) {
        self.0.push(Problem {
            path: path.into(),
            line,
            message: message.into(),
            remedy: remedy.map(str::to_owned),
        });
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one was told of `path`, or of what it stands in.
    pub fn is_told(&self, path: &str) -> bool {
        self.0.iter().any(|told| is_within(path, &told.path))
    }

    /// Whether one was told of `path`, or of something in it.
    pub fn is_told_within(&self, path: &str) -> bool {
        self.0.iter().any(|told| is_within(&told.path, path))
    }

    /// The mistakes in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// The same, by line, with everything redacted that came out of `${…}`.
    pub fn finish(mut self, secrets: &[String]) -> Self {
        for problem in &mut self.0 {
            for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
                problem.message = problem.message.replace(secret.as_str(), REDACTED);
            }
        }
        self.0.sort_by_key(|problem| problem.line.unwrap_or(u64::MAX));
        self
    }
}

/// Whether `path` is `outer` or a place in it.
fn is_within(path: &str, outer: &str) -> bool {
    let rest = path.strip_prefix(outer);
    rest.is_some_and(|rest| rest.is_empty() || (!outer.is_empty() && rest.starts_with(['.', '['])))
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The text is not YAML.
    #[error("the configuration is not YAML: {0}")]
    Syntax(String),
    /// The configuration has mistakes.
    #[error("the configuration has mistakes:\n{0}")]
    Invalid(Problems),
}
