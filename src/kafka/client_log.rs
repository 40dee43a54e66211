//! How loud a line of librdkafka's log is. No clock: `now` is an argument.
//!
//! | line | shown |
//! |---|---|
//! | a broker does not answer (`FAIL`) | by [`Brokers`](super::brokers::Brokers), once per change; the line itself at debug |
//! | what follows from that (`REQTMOUT`, `METADATA`, `COMMITFAIL`, `GETPID`) | at debug: commits and dead letters report their own faults |
//! | other warnings and errors | as such; the same one again at debug, for a while |
//! | the rest | at debug |

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::config::RDKafkaLogLevel as Level;

/// For how long a repetition is not shown.
const REPEATED: Duration = Duration::from_secs(600);

/// Lines that are remembered.
const LINES_MAX: usize = 256;

/// What a broker that does not answer brings about.
const CONSEQUENCES: [&str; 5] = ["FAIL", "REQTMOUT", "METADATA", "COMMITFAIL", "GETPID"];

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loudness {
    /// An error.
    Error,
    /// A warning.
    Warn,
    /// For who looks for it.
    Debug,
}

/// What was shown of late.
#[derive(Debug, Default)]
pub struct Shown(BTreeMap<String, Instant>);

impl Shown {
    /// How loud to log a line.
    pub fn loudness(
        &mut self,
        level: Level,
        facility: &str,
        message: &str,
        now: Instant,
    ) -> Loudness {
        let loudness = match level {
            Level::Emerg | Level::Alert | Level::Critical | Level::Error => Loudness::Error,
            Level::Warning => Loudness::Warn,
            Level::Notice | Level::Info | Level::Debug => Loudness::Debug,
        };
        let quiet = loudness == Loudness::Debug || CONSEQUENCES.contains(&facility);
        if quiet || !self.is_news(&format!("{facility} {message}"), now) {
            return Loudness::Debug;
        }
        loudness
    }

    /// Whether `text` was not shown of late; from now on it was. Numbers make no difference: they
    /// count attempts and milliseconds.
    pub fn is_news(&mut self, text: &str, now: Instant) -> bool {
        let text: String = text.chars().filter(|char| !char.is_ascii_digit()).collect();
        let of_late = |at: &Instant| now.saturating_duration_since(*at) < REPEATED;
        if self.0.get(&text).is_some_and(of_late) {
            return false;
        }
        if self.0.len() >= LINES_MAX {
            self.0.clear();
        }
        self.0.insert(text, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_s_thousand_lines_are_for_who_looks_for_them() {
        let (mut shown, now) = (Shown::default(), Instant::now());
        for (level, facility) in [
            (Level::Error, "FAIL"),
            (Level::Warning, "REQTMOUT"),
            (Level::Warning, "METADATA"),
            (Level::Warning, "COMMITFAIL"),
            (Level::Warning, "GETPID"),
            (Level::Info, "FAIL"),
            (Level::Notice, "PARTCNT"),
        ] {
            let loudness = shown.loudness(level, facility, "b:1/1: no", now);
            assert_eq!(loudness, Loudness::Debug, "{facility}");
        }
    }

    #[test]
    fn other_warnings_are_shown_and_their_repetitions_are_not() {
        let (mut shown, start) = (Shown::default(), Instant::now());
        let mut at = |seconds, message: &str| {
            let now = start + Duration::from_secs(seconds);
            shown.loudness(Level::Warning, "MAXPOLL", message, now)
        };
        assert_eq!(at(0, "exceeded by 5ms"), Loudness::Warn);
        assert_eq!(at(1, "exceeded by 17ms"), Loudness::Debug);
        assert_eq!(at(1, "another one"), Loudness::Warn);
        assert_eq!(at(700, "exceeded by 23ms"), Loudness::Warn);
        assert_eq!(shown.loudness(Level::Error, "X", "y", start), Loudness::Error);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut shown, now) = (Shown::default(), Instant::now());
        for n in 0..10 * LINES_MAX {
            assert!(shown.is_news(&"x".repeat(n), now));
        }
        assert!(shown.0.len() <= LINES_MAX);
    }
}
