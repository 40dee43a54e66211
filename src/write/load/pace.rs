//! How often a table may have a load job.

use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);

/// The time from one job to the next of one partition, if `lanes` partitions feed the table and it may
/// have `jobs` a day: every `freshness`, unless they all together would have more than nine tenths of
/// the jobs. The rest is for failed ones, and for partitions that change hands. BigQuery allows 1,500
/// (<https://docs.cloud.google.com/bigquery/quotas#load_jobs>).
pub fn interval(freshness: Duration, lanes: u32, jobs: u32) -> Duration {
    let share = f64::from(lanes) / (0.9 * f64::from(jobs.max(1)));
    freshness.max(DAY.mul_f64(share))
}

#[cfg(test)]
mod tests {
    use super::*;

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
