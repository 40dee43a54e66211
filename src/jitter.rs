//! Chance for spreading retries: seeded, so that a simulated history replays.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A source of chance. Clones share one sequence. Not for secrets.
#[derive(Clone, Debug)]
pub struct Jitter {
    state: Arc<AtomicU64>,
}

impl Jitter {
    /// The same sequence for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self { state: Arc::new(AtomicU64::new(seed)) }
    }

    /// Another sequence in every process and call, from the randomness behind the standard hasher.
    pub fn random() -> Self {
        Self::seeded(RandomState::new().build_hasher().finish())
    }

    /// The next number in `0..1`: splitmix64 (<https://prng.di.unimi.it/splitmix64.c>).
    pub fn unit(&self) -> f64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A duration in `0..max`.
    pub fn up_to(&self, max: Duration) -> Duration {
        max.mul_f64(self.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_and_numbers_spread() {
        let (one, two) = (Jitter::seeded(7), Jitter::seeded(7));
        let numbers: Vec<_> = (0..1000).map(|_| one.unit()).collect();
        assert!(numbers.iter().all(|n| (0.0..1.0).contains(n) && *n == two.unit()));
        let mean = numbers.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }
}
