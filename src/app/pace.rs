//! How often a topic's load jobs come, against its `freshness`: the arithmetic that `check` and `explain` show.

use std::{fmt, time::Duration};

use crate::{
    path::JOB_TIME,
    pipeline::{
        paths,
        settings::{TopicSettings, WriteMode},
    },
};

/// Load jobs that BigQuery allows a table in a day
/// (<https://docs.cloud.google.com/bigquery/quotas#load_jobs>).
const JOBS_MAX: f64 = 1_500.0;
const DAY_SECONDS: f64 = 86_400.0;

/// The load jobs of a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// From a job of a partition to its next.
    pub(crate) interval: Duration,
    partitions: u32,
    freshness: Duration,
    jobs_per_day: u32,
    write: WriteMode,
}

impl Pace {
    /// Those of a topic of so many partitions; `None` if its rows are never loaded.
    pub(crate) fn of(settings: &TopicSettings, partitions: u32, has_bucket: bool) -> Option<Self> {
        settings.write.may_load(has_bucket).then(|| Self {
            interval: paths::pace(settings, partitions).1,
            partitions,
            freshness: settings.freshness,
            jobs_per_day: settings.load.settings.jobs_per_table_day,
            write: settings.write,
        })
    }

    /// What there is to know where a row that a job brings may be older than the topic asks for.
    pub(crate) fn note(&self) -> Option<String> {
        let age = self.interval + JOB_TIME;
        let Self { freshness, interval, .. } = self;
        let asked = match self.write {
            WriteMode::Auto => freshness.saturating_sub(JOB_TIME),
            WriteMode::Load | WriteMode::Storage | WriteMode::Streaming => *freshness,
        };
        let reason = if *interval > asked { "the quota of the table" } else { "a job's own time" };
        let way_out = match self.write {
            WriteMode::Auto => "; once the backlog is small, rows are streamed",
            WriteMode::Load | WriteMode::Storage | WriteMode::Streaming => "",
        };
        (age > *freshness).then(|| {
            let (age, freshness) = (age.as_secs(), freshness.as_secs());
            format!(
                "a loaded row may be {age} s old when it is visible, more than the `freshness` of \
                 {freshness} s: {reason}{way_out}"
            )
        })
    }

    /// What to do where the quota keeps rows from being as fresh as the topic asks for, and nothing else
    /// brings them.
    pub(crate) fn remedy(&self) -> Option<String> {
        if self.write != WriteMode::Load || self.interval <= self.freshness {
            return None;
        }
        let minutes = self.interval.as_secs().div_ceil(60);
        let jobs = f64::from(self.partitions) * DAY_SECONDS / self.freshness.as_secs_f64() / 0.9;
        let jobs = match jobs.ceil() {
            jobs if jobs <= JOBS_MAX => format!(", `bigquery.load.jobs_per_table_day: {jobs}`"),
            _ => String::new(),
        };
        Some(format!(
            "set `freshness: {minutes}m`{jobs}, or `write: auto`, which streams rows that jobs bring too late"
        ))
    }
}

/// The arithmetic of the quota.
impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partitions, jobs_per_day, .. } = self;
        let seconds = self.interval.as_secs_f64().max(0.001);
        let jobs = f64::from(*partitions) * DAY_SECONDS / seconds;
        let spare = match self.write {
            WriteMode::Auto => {
                "; as many are kept for the last jobs before rows are streamed again"
            }
            WriteMode::Storage | WriteMode::Streaming | WriteMode::Load => "",
        };
        write!(
            f,
            "one of each partition every {seconds:.0} s: {partitions} × 86,400 / {seconds:.0} = \
             {jobs:.0} a day of {jobs_per_day}{spare}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Process, parse};

    fn pace(lines: &str, partitions: u32) -> Pace {
        let text = format!(
            "kafka: {{bootstrap_servers: a, group_id: g}}\n\
             bigquery: {{project: p, dataset: d, load: {{jobs_per_table_day: 500}}}}\n\
             gcs: {{bucket: staging}}\n\
             topics: [{{match: orders, value_format: json, {lines}}}]\n"
        );
        Pace::of(&parse(&text, &Process).unwrap().topics[0], partitions, true).unwrap()
    }

    #[test]
    fn a_freshness_that_the_quota_does_not_allow_has_a_remedy_in_numbers() {
        let four = pace("write: load, freshness: 10m", 4);
        let wanted =
            "set `freshness: 13m`, `bigquery.load.jobs_per_table_day: 640`, or `write: auto`";
        assert!(four.remedy().unwrap().starts_with(wanted), "{:?}", four.remedy());
        assert!(four.note().unwrap().contains("may be 828 s old"), "{:?}", four.note());
        let many = pace("write: load, freshness: 10m", 64).remedy().unwrap();
        assert!(many.starts_with("set `freshness: 205m`, or `write: auto`"), "{many}");
    }

    #[test]
    fn only_the_quota_needs_a_remedy_and_what_is_streamed_needs_none() {
        let lax = pace("write: load, freshness: 13m", 4);
        assert_eq!(lax.remedy(), None);
        assert!(lax.note().unwrap().ends_with("a job's own time"), "{:?}", lax.note());
        let auto = pace("write: auto, freshness: 1m", 4);
        assert_eq!(auto.remedy(), None);
        let note = auto.note().unwrap();
        assert!(
            note.ends_with("the quota of the table; once the backlog is small, rows are streamed")
        );
        assert_eq!(pace("write: auto, freshness: 1h", 4).note(), None);
    }
}
