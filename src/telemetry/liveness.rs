//! Whether the process still does its work: heartbeats, and the judgement over them.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How long each sign of life may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// The poll thread and each worker must turn at least this often, work or no work.
    pub turn_max: Duration,
    /// With work in flight, something must move at least this often.
    pub progress_max: Duration,
}

/// Why the process does not count as alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// The poll thread has not turned for this long.
    Poll(Duration),
    /// This worker has not turned for this long.
    Worker(usize, Duration),
    /// There is work and nothing has moved for this long.
    Progress(Duration),
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poll(age) => write!(f, "the poll thread has not turned for {} s", age.as_secs()),
            Self::Worker(worker, age) => {
                write!(f, "worker {worker} has not turned for {} s", age.as_secs())
            }
            Self::Progress(age) => write!(
                f,
                "there is work in flight and nothing has moved for {} s; see /status",
                age.as_secs()
            ),
        }
    }
}

/// Heartbeats. Writing one is a relaxed atomic store.
#[derive(Debug)]
pub struct Liveness {
    start: Instant,
    poll: AtomicU64,
    progress: AtomicU64,
    workers: Box<[AtomicU64]>,
}

impl Liveness {
    /// Everything has just turned.
    pub fn new(workers: usize, now: Instant) -> Self {
        Self {
            start: now,
            poll: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            workers: (0..workers).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The poll thread has turned; also with nothing to read.
    pub fn poll_turned(&self, now: Instant) {
        self.poll.store(self.ms(now), Ordering::Relaxed);
    }

    /// Worker `worker` has turned; also with nothing to do. Unknown workers are ignored.
    pub fn worker_turned(&self, worker: usize, now: Instant) {
        if let Some(beat) = self.workers.get(worker) {
            beat.store(self.ms(now), Ordering::Relaxed);
        }
    }

    /// Something moved: a record came in while nothing was in flight, a batch was acknowledged, a
    /// dead letter or a commit landed. A refusal counts too, because a restart would not change it:
    /// what must not happen is silence.
    pub fn progressed(&self, now: Instant) {
        self.progress.store(self.ms(now), Ordering::Relaxed);
    }

    /// Time since the poll thread last turned.
    pub fn poll_age(&self, now: Instant) -> Duration {
        self.age(&self.poll, now)
    }

    /// Time since something last moved.
    pub fn progress_age(&self, now: Instant) -> Duration {
        self.age(&self.progress, now)
    }

    /// Time since each worker last turned.
    pub fn worker_ages(&self, now: Instant) -> impl Iterator<Item = Duration> + '_ {
        self.workers.iter().map(move |beat| self.age(beat, now))
    }

    /// Judges the heartbeats; `work` is whether anything is in flight that could move.
    ///
    /// # Errors
    ///
    /// The first sign of life that is missing.
    pub fn check(&self, now: Instant, limits: Thresholds, work: bool) -> Result<(), Stuck> {
        let poll = self.poll_age(now);
        if poll > limits.turn_max {
            return Err(Stuck::Poll(poll));
        }
        for (worker, age) in self.worker_ages(now).enumerate() {
            if age > limits.turn_max {
                return Err(Stuck::Worker(worker, age));
            }
        }
        let progress = self.progress_age(now);
        if work && progress > limits.progress_max {
            return Err(Stuck::Progress(progress));
        }
        Ok(())
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    fn age(&self, beat: &AtomicU64, now: Instant) -> Duration {
        Duration::from_millis(self.ms(now).saturating_sub(beat.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Thresholds =
        Thresholds { turn_max: Duration::from_secs(30), progress_max: Duration::from_secs(300) };

    #[test]
    fn each_missing_sign_of_life_is_named() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let liveness = Liveness::new(2, start);
        assert_eq!(liveness.check(at(30), LIMITS, true), Ok(()));
        assert_eq!(liveness.check(at(31), LIMITS, true), Err(Stuck::Poll(Duration::from_secs(31))));
        liveness.poll_turned(at(31));
        liveness.worker_turned(0, at(31));
        assert_eq!(
            liveness.check(at(31), LIMITS, true),
            Err(Stuck::Worker(1, Duration::from_secs(31)))
        );
        liveness.worker_turned(1, at(31));
        assert_eq!(liveness.check(at(31), LIMITS, true), Ok(()));
    }

    #[test]
    fn silence_counts_only_with_work() {
        let start = Instant::now();
        let later = start + Duration::from_secs(301);
        let liveness = Liveness::new(0, start);
        liveness.poll_turned(later);
        assert_eq!(liveness.check(later, LIMITS, false), Ok(()));
        assert_eq!(
            liveness.check(later, LIMITS, true),
            Err(Stuck::Progress(Duration::from_secs(301)))
        );
        liveness.progressed(later);
        assert_eq!(liveness.check(later, LIMITS, true), Ok(()));
    }
}
