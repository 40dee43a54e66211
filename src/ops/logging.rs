//! The `log` section of the configuration, and setting logging up.

use std::io::{self, IsTerminal as _, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::ops::progress::CLEAR_LINE;

/// The environment variable that replaces `log.filter`.
pub const FILTER_VARIABLE: &str = "KCBQ_LOG";

/// How the service logs, always to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Text for people, or one JSON object per line.
    pub format: LogFormat,
    /// What is logged: a level, or `target=level` pairs separated by commas, as tracing's
    /// `EnvFilter` reads them. The environment variable `KCBQ_LOG` wins.
    pub filter: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Standard error; on a terminal, each line first clears the progress line.
struct Stderr {
    terminal: bool,
}

impl Stderr {
    fn new() -> Self {
        Self { terminal: io::stderr().is_terminal() }
    }
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut out = io::stderr().lock();
        if self.terminal {
            out.write_all(CLEAR_LINE.as_bytes())?;
        }
        out.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is malformed.
    #[error("the log filter `{filter}` is malformed: write a level or target=level pairs")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// Logging was set up before.
    #[error("logging is set up already")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl LogSettings {
    /// The filter that applies: `KCBQ_LOG`, else `filter`.
    ///
    /// # Errors
    ///
    /// The filter is malformed.
    pub fn env_filter(&self) -> Result<EnvFilter, LoggingError> {
        let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| self.filter.clone());
        EnvFilter::try_new(&filter).map_err(|source| LoggingError::Filter { filter, source })
    }

    /// Logs to standard error from now on.
    ///
    /// # Errors
    ///
    /// The filter is malformed, or logging was set up before.
    pub fn install(&self) -> Result<(), LoggingError> {
        let builder = tracing_subscriber::fmt()
            .with_env_filter(self.env_filter()?)
            .with_ansi(io::stderr().is_terminal())
            .with_writer(Stderr::new);
        match self.format {
            LogFormat::Text => builder.try_init(),
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
        }
        .map_err(LoggingError::Twice)
    }
}
