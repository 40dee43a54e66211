//! How often a table may have a load job, and when each of its partitions.

use std::time::{Duration, Instant};

const DAY: Duration = Duration::from_hours(24);
/// How long an object is needed for its job, from the job's creation on: it may take six hours
/// (<https://docs.cloud.google.com/bigquery/quotas#load_jobs>) and be tried again.
pub const JOB_TIME_MAX: Duration = Duration::from_hours(24);
/// A table takes five changes of its metadata in ten seconds, loads among them
/// (<https://docs.cloud.google.com/bigquery/quotas#standard_tables>); one of them is for its columns.
const CHANGE: Duration = Duration::from_millis(2_500);

/// The time from one job to the next of one partition, if `lanes` partitions feed the table and it may
/// have `jobs` a day: every `freshness`, unless they all together would have more than nine tenths of
/// the jobs, or more at a time than the table takes. The rest is for failed ones, and for partitions that change hands. BigQuery allows 1,500
/// (<https://docs.cloud.google.com/bigquery/quotas#load_jobs>).
pub fn interval(freshness: Duration, lanes: u32, jobs: u32) -> Duration {
    let share = f64::from(lanes) / (0.9 * f64::from(jobs.max(1)));
    freshness.max(DAY.mul_f64(share)).max(CHANGE * lanes)
}

/// What the wall clock says at one moment of the process's own.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The moment.
    pub at: Instant,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// When a partition may have a job: the wall clock deals the partitions of a table a turn each, whichever
/// processes have them. Without that, partitions that begin together, after a start or a rebalance, would
/// have their jobs together from then on, and the table would refuse most of them, again and again.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    lane: u32,
    lanes: u32,
    clock: Clock,
}

impl Turn {
    /// The turn of partition `lane`, from 0, among `lanes`; `None` for one that is alone.
    pub fn of(lane: u32, lanes: u32, clock: Clock) -> Option<Self> {
        (lanes > 1).then_some(Self { lane, lanes, clock })
    }

    /// How long a round of all partitions takes: about as long as a first job may wait, so that jobs are
    /// far from each other, and a whole part of the time from one job to the next.
    pub fn round(&self, first: Duration, interval: Duration) -> Duration {
        let least = first.max(CHANGE * self.lanes).max(Duration::from_micros(1));
        let rounds = interval.as_micros() / least.as_micros();
        interval / u32::try_from(rounds.max(1)).unwrap_or(u32::MAX)
    }

    /// The last turn up to `until`, where a round of all partitions takes `round`, or as long as the table
    /// asks for if that is more.
    pub fn last(&self, round: Duration, until: Instant) -> Instant {
        self.turn(round, until, 0)
    }

    /// The first turn from `from` on.
    pub fn next(&self, round: Duration, from: Instant) -> Instant {
        self.turn(round, from, 1)
    }

    /// The last turn before or at `near`, or the first one at or behind it.
    fn turn(&self, round: Duration, near: Instant, up: u64) -> Instant {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let every = micros(round.max(CHANGE * self.lanes)).max(1);
        let slot = every / u64::from(self.lanes) * u64::from(self.lane);
        // Everything by the wall clock, rounds counted from the epoch.
        let start = self.clock.unix_ms.saturating_mul(1_000);
        let near = start.saturating_add(micros(near.saturating_duration_since(self.clock.at)));
        let rounds = match near.saturating_sub(slot) {
            behind if up == 0 => behind / every,
            behind => behind.div_ceil(every),
        };
        let turn = rounds.saturating_mul(every).saturating_add(slot);
        match turn.checked_sub(start) {
            Some(later) => self.clock.at + Duration::from_micros(later),
            None => {
                let earlier = self.clock.at.checked_sub(Duration::from_micros(start - turn));
                earlier.unwrap_or(self.clock.at)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn clock(at: Instant) -> Clock {
        Clock { at, unix_ms: 1_767_225_601_000 }
    }

    #[test]
    fn partitions_take_turns_by_the_wall_clock_wherever_they_are() {
        let start = Instant::now();
        let later =
            Clock { at: start + Duration::from_millis(777), unix_ms: clock(start).unix_ms + 777 };
        for (round, every) in [(Duration::ZERO, 10_000), (120 * SECOND, 120_000)] {
            for lane in 0..4 {
                let from = start + 900 * SECOND;
                let next = |clock| Turn::of(lane, 4, clock).unwrap().next(round, from);
                let at = next(clock(start));
                assert_eq!(at, next(later));
                let unix = clock(start).unix_ms + (at - start).as_millis() as u64;
                assert_eq!(unix % every, every / 4 * u64::from(lane));
                assert!(at >= from && at - from < Duration::from_millis(every));
            }
        }
        assert!(Turn::of(0, 1, clock(start)).is_none());
    }

    #[test]
    fn a_turn_is_the_last_one_until_the_next() {
        let start = Instant::now() + 100 * SECOND;
        let turn = Turn::of(1, 4, clock(start)).unwrap();
        let first = turn.next(Duration::ZERO, start);
        for (after, last, next) in [(0, 0, 0), (1, 0, 10), (9, 0, 10), (10, 10, 10), (25, 20, 30)] {
            let near = first + after * SECOND;
            assert_eq!(turn.last(Duration::ZERO, near), first + last * SECOND, "{after}");
            assert_eq!(turn.next(Duration::ZERO, near), first + next * SECOND, "{after}");
        }
        let before = turn.last(Duration::ZERO, start);
        assert!(before <= start && before + 10 * SECOND == first, "the process was not there yet");
    }

    #[test]
    fn a_table_has_no_more_than_four_jobs_in_ten_seconds() {
        let second = Duration::from_secs(1);
        assert_eq!(interval(second, 4, u32::MAX), 10 * second);
        assert_eq!(interval(second, 1, u32::MAX), Duration::from_millis(2_500));
    }

    #[test]
    fn the_daily_quota_of_a_table_sets_the_pace_of_many_partitions() {
        let minutes = |minutes| Duration::from_mins(minutes);
        assert_eq!(interval(minutes(15), 4, 1_500), minutes(15));
        let wide = interval(minutes(15), 64, 1_500);
        assert_eq!(wide.as_secs(), 4_096);
        let jobs = 64.0 * DAY.as_secs_f64() / wide.as_secs_f64();
        assert!(jobs <= 0.9 * 1_500.0 + 1.0, "{jobs}");
    }
}
