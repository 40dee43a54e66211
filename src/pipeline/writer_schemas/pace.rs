//! How many lines the log gets.

use std::time::Duration;

use tokio::time::Instant;

/// Lines in each window.
const LINES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(30);

/// Lets a few lines through in each window, and counts the others.
#[derive(Debug, Default)]
pub(super) struct LogPace {
    since: Option<Instant>,
    told: u32,
    not_told: u64,
}

impl LogPace {
    /// Whether one more line may be written; if so, how many were not since the last.
    pub(super) fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now >= since + WINDOW) {
            (self.since, self.told) = (Some(now), 0);
        }
        if self.told >= LINES_MAX {
            self.not_told += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.not_told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_ten_lines_and_a_count() {
        let mut pace = LogPace::default();
        let now = Instant::now();
        let told = (0..20_000).filter(|_| pace.admit(now).is_some()).count();
        assert_eq!((told, pace.admit(now + WINDOW)), (10, Some(19_990)));
        assert_eq!(pace.admit(now + WINDOW), Some(0));
    }
}
