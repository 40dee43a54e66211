//! The log of one history: hashed always, kept as text when somebody wants to read it.

use std::fmt::Write as _;

use super::coverage::{Coverage, Mark};

/// The log, the counters, and what the checkers found.
#[derive(Debug)]
pub(crate) struct History {
    hash: u64,
    events: u64,
    line: String,
    trace: Option<Vec<String>>,
    /// What was reached.
    pub(crate) coverage: Coverage,
    /// What the checkers found, with the time.
    pub(crate) violations: Vec<String>,
}

impl History {
    /// An empty log; `keep` keeps the text.
    pub(crate) fn new(keep: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            line: String::new(),
            trace: keep.then(Vec::new),
            coverage: Coverage::default(),
            violations: Vec::new(),
        }
    }

    /// Adds an event.
    pub(crate) fn log(&mut self, now_ms: u64, event: std::fmt::Arguments<'_>) {
        self.line.clear();
        write!(self.line, "{now_ms:>7} {event}").unwrap();
        for byte in self.line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        self.events += 1;
        if let Some(trace) = &mut self.trace {
            trace.push(self.line.clone());
        }
    }

    /// Counts a mark.
    pub(crate) fn mark(&mut self, mark: Mark) {
        self.coverage.mark(mark);
    }

    /// A checker's finding.
    pub(crate) fn violation(&mut self, now_ms: u64, what: String) {
        self.log(now_ms, format_args!("VIOLATION {what}"));
        self.violations.push(format!("at {now_ms} ms: {what}"));
    }

    /// The hash over all events, and their number.
    pub(crate) fn fingerprint(&self) -> (u64, u64) {
        (self.hash, self.events)
    }

    /// The text, if it was kept.
    pub(crate) fn trace(&self) -> &[String] {
        self.trace.as_deref().unwrap_or_default()
    }
}
