//! How long to wait before the next attempt: exponential, with jitter that needs no clock and no
//! global randomness, so that a simulation replays.

use std::time::Duration;

/// A growing wait.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Backoff {
    /// The wait before attempt `attempt` (1 is the first repetition), between half and all of
    /// `first × 2^(attempt − 1)`, at most `max`. `salt` spreads those that failed together.
    pub fn wait(&self, attempt: u32, salt: u64) -> Duration {
        let doubled = self.first.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        let whole = doubled.min(self.max);
        let spread = whole / 2;
        whole - spread.mul_f64(unit(salt, attempt))
    }
}

/// A number in `0..1` that depends on both arguments (SplitMix64's finaliser).
fn unit(salt: u64, attempt: u32) -> f64 {
    let mut mixed = salt.wrapping_add(u64::from(attempt).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^= mixed >> 31;
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_spread() {
        let backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(60) };
        for attempt in 1..40 {
            let whole = Duration::from_millis(100).saturating_mul(1 << (attempt - 1).min(20));
            let whole = whole.min(backoff.max);
            for salt in 0..50 {
                let wait = backoff.wait(attempt, salt);
                assert!(wait <= whole && wait >= whole / 2, "{attempt} {salt} {wait:?}");
            }
        }
        assert_ne!(backoff.wait(3, 1), backoff.wait(3, 2));
        assert_eq!(backoff.wait(3, 1), backoff.wait(3, 1));
    }
}
