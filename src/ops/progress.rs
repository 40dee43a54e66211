//! A progress line on a terminal: rates, lag, what is in flight.

use std::{
    future::Future,
    io::{IsTerminal as _, Write as _},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::MissedTickBehavior;

use crate::telemetry::{Telemetry, Totals};

/// Returns to the line's start and empties it; written before each line, also of logs.
pub const CLEAR_LINE: &str = "\r\x1b[2K";
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows the line once a second on standard error until `shutdown` resolves. Does nothing where
/// standard error is no terminal.
pub async fn run(telemetry: Arc<Telemetry>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    if !std::io::stderr().is_terminal() {
        return shutdown.await;
    }
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last = (Instant::now(), telemetry.totals());
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            _ = ticks.tick() => {}
        }
        let now = (Instant::now(), telemetry.totals());
        show(&line(&last.1, &now.1, now.0 - last.0));
        last = now;
    }
    show("");
}

/// A terminal that has gone is no reason to stop.
fn show(line: &str) {
    let mut out = std::io::stderr().lock();
    let written = write!(out, "{CLEAR_LINE}{line}").and_then(|()| out.flush());
    if let Err(error) = written {
        tracing::trace!(%error, "progress line");
    }
}

/// The line for the totals `now`, which were `before` some `elapsed` ago.
pub fn line(before: &Totals, now: &Totals, elapsed: Duration) -> String {
    let rate = |before: u64, now: u64| {
        let seconds = elapsed.as_secs_f64().max(0.001);
        // Rates are far below 2^52.
        (now.saturating_sub(before) as f64 / seconds) as u64
    };
    let mut line = format!(
        "read {} ({}/s) · written {} ({}/s) · lag {} · in flight {:.1} MiB",
        grouped(now.records_read),
        grouped(rate(before.records_read, now.records_read)),
        grouped(now.rows_written),
        grouped(rate(before.rows_written, now.rows_written)),
        now.lag_records.map_or_else(|| "unknown".to_owned(), grouped),
        now.in_flight_bytes as f64 / f64::from(1 << 20),
    );
    for (count, what) in [
        (now.dead_letters, "dead letters"),
        (now.lanes_halted, "halted"),
        (now.lanes_waiting, "waiting"),
    ] {
        if count > 0 {
            line.push_str(&format!(" · {} {what}", grouped(count)));
        }
    }
    line
}

/// A number with its digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_rates_and_only_troubles_that_exist() {
        let before = Totals { records_read: 1_000, ..Totals::default() };
        let now = Totals {
            records_read: 13_345,
            rows_written: 2_000,
            lag_records: Some(1_234_567),
            in_flight_bytes: 3 << 19,
            lanes_halted: 1,
            ..Totals::default()
        };
        assert_eq!(
            line(&before, &now, Duration::from_secs(2)),
            "read 13,345 (6,172/s) · written 2,000 (1,000/s) · lag 1,234,567 · in flight 1.5 MiB \
             · 1 halted"
        );
        let unknown = line(&before, &Totals { lag_records: None, ..now }, Duration::from_secs(2));
        assert!(unknown.contains(" · lag unknown · "), "{unknown}");
    }

    #[test]
    fn digits_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
