//! How often a table may have a load job.

use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);
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

#[cfg(test)]
mod tests {
    use super::*;

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
