//! The `log` section of the configuration, and setting logging up.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{
    Event, Metadata,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::ParseError,
    fmt,
    layer::{Context, Filter, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

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
///
/// An event is one line, whatever its fields hold: what escapes [`printable`](crate::printable) where a
/// fault is made ends here.
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
        out.write_all(&one_line(line, self.terminal))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// An event's text with its control characters escaped, but for the end of the line and, on a terminal, what
/// colours it.
fn one_line(event: &[u8], terminal: bool) -> Cow<'_, [u8]> {
    let is_plain = |byte: u8| !byte.is_ascii_control() || (terminal && byte == b'\x1b');
    let text = event.strip_suffix(b"\n").unwrap_or(event);
    if text.iter().copied().all(is_plain) {
        return Cow::Borrowed(event);
    }
    let mut line = Vec::with_capacity(event.len() + 16);
    for byte in text {
        match is_plain(*byte) {
            true => line.push(*byte),
            false => line.extend(byte.escape_ascii()),
        }
    }
    line.push(b'\n');
    Cow::Owned(line)
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is malformed.
    #[error("the log filter `{filter}` is malformed")]
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
        let lines = fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(Stderr::new);
        let lines = match self.format {
            LogFormat::Text => lines.with_filter(SecondClose).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).with_filter(SecondClose).boxed(),
        };
        let subscriber = tracing_subscriber::registry().with(self.env_filter()?).with(lines);
        subscriber.try_init().map_err(|source| LoggingError::Twice(Box::new(source)))
    }
}

/// Hides one line: what rdkafka's consumer says when it is dropped after it was closed.
///
/// Its `Drop` closes the consumer whether or not that was done, and logs librdkafka's "already
/// closed" as an error. `kafka::consumer` has to close it before, because `Drop` waits without a
/// deadline, on whichever thread lets go of the client last. Whatever goes wrong in closing, it
/// logs itself.
struct SecondClose;

impl SecondClose {
    const LINE: &str = "Failed to close consumer queue on drop: ";

    fn is(message: &str) -> bool {
        message.starts_with(Self::LINE)
    }
}

impl<S> Filter<S> for SecondClose {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        // Lines of the `log` crate come with this one target.
        let mut message = Message::default();
        if event.metadata().target() == "log" {
            event.record(&mut message);
        }
        !Self::is(&message.0)
    }
}

/// The text of an event.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_it_holds() {
        let shown = |text: &str, terminal| {
            String::from_utf8(one_line(text.as_bytes(), terminal).into_owned()).unwrap()
        };
        assert_eq!(shown("INFO größe\n", false), "INFO größe\n");
        assert_eq!(shown("a\nERROR \x1b[2Jb\r\n", false), "a\\nERROR \\x1b[2Jb\\r\n");
        assert_eq!(shown("\x1b[32mINFO\x1b[0m a\nb\n", true), "\x1b[32mINFO\x1b[0m a\\nb\n");
    }

    #[test]
    fn only_the_second_close_of_a_consumer_is_hidden() {
        let written = Lines::default();
        let writer = written.clone();
        let lines = fmt::layer().with_writer(move || writer.clone()).with_filter(SecondClose);
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, || {
            let closed = "Failed to close consumer queue on drop: Already closed";
            tracing::error!(target: "log", "{closed}");
            tracing::error!(target: "log", "something else");
            tracing::error!("{closed}");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("something else"), "{text}");
    }
}
