//! How often the rows of PENDING streams are committed.

use std::time::Duration;

const HOUR: Duration = Duration::from_hours(1);

/// The time from one commit to the next of one partition, if `lanes` partitions feed the table and all of them may
/// create `streams` an hour: every `freshness`, unless that would take more than nine tenths of the streams. BigQuery
/// lets a project create 10,000 (<https://docs.cloud.google.com/bigquery/quotas#createwritestream>).
pub fn interval(freshness: Duration, lanes: u32, streams: u32) -> Duration {
    let share = f64::from(lanes) / (0.9 * f64::from(streams.max(1)));
    freshness.max(HOUR.mul_f64(share))
}

/// Until the first commit of partition `lane`, from 0, among `lanes`: those that begin together commit one after
/// the other, all of them within `freshness`.
pub fn first(freshness: Duration, lane: u32, lanes: u32) -> Duration {
    let lanes = lanes.max(1);
    freshness / lanes * (lane % lanes + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hours_quota_sets_the_pace_of_many_partitions() {
        let minute = Duration::from_mins(1);
        assert_eq!(interval(minute, 64, 10_000), minute);
        assert_eq!(interval(minute, 300, 10_000).as_secs(), 120);
        assert_eq!(interval(minute, 64, 1_000).as_secs(), 256);
    }

    #[test]
    fn first_commits_are_spread_over_the_freshness() {
        let minute = Duration::from_mins(1);
        let seconds = [0, 1, 3].map(|lane| first(minute, lane, 4).as_secs());
        assert_eq!(seconds, [15, 30, 60]);
        assert_eq!(first(minute, 0, 1), minute);
    }
}
