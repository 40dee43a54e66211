//! How often a topic's load jobs or commits come, against its `freshness`: the arithmetic that `check` and `explain`
//! show.

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

/// The load jobs or commits of a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// From a job of a partition to its next.
    pub(crate) interval: Duration,
    partitions: u32,
    freshness: Duration,
    /// Load jobs a day, or streams an hour.
    quota: u32,
    write: WriteMode,
}

impl Pace {
    /// Those of a topic of so many partitions; `None` if its rows are only streamed.
    pub(crate) fn of(settings: &TopicSettings, partitions: u32, has_bucket: bool) -> Option<Self> {
        let (write, load) = (settings.write, &settings.load);
        let quota = match write {
            WriteMode::Pending => load.streams_per_hour,
            _ if write.may_load(has_bucket) => load.settings.jobs_per_table_day,
            _ => return None,
        };
        let interval = paths::pace(settings, partitions).1;
        Some(Self { interval, partitions, freshness: settings.freshness, quota, write })
    }

    /// Whether rows are committed, and not loaded.
    pub(crate) fn is_of_commits(&self) -> bool {
        self.write == WriteMode::Pending
    }

    /// What it is the pace of.
    pub(crate) fn what(&self) -> &'static str {
        if self.is_of_commits() { "commits" } else { "load jobs" }
    }

    /// What there is to know where a row may be older than the topic asks for when it is visible.
    pub(crate) fn note(&self) -> Option<String> {
        let job_time = if self.is_of_commits() { Duration::ZERO } else { JOB_TIME };
        let age = self.interval + job_time;
        let Self { freshness, interval, .. } = self;
        let (asked, way_out) = match self.write {
            WriteMode::Auto => (
                freshness.saturating_sub(JOB_TIME),
                "; once the backlog is small, rows are streamed",
            ),
            _ => (*freshness, ""),
        };
        let reason = match self.write {
            WriteMode::Pending => "the quota of streams",
            _ if *interval > asked => "the quota of the table",
            _ => "a job's own time",
        };
        (age > *freshness).then(|| {
            let (age, freshness) = (age.as_secs(), freshness.as_secs());
            let which = if self.is_of_commits() { "row" } else { "loaded row" };
            format!(
                "a {which} may be {age} s old when it is visible, more than the `freshness` of \
                 {freshness} s: {reason}{way_out}"
            )
        })
    }

    /// What to do where the quota keeps rows from being as fresh as the topic asks for, and nothing else
    /// brings them.
    pub(crate) fn remedy(&self) -> Option<String> {
        let is_only_way = matches!(self.write, WriteMode::Load | WriteMode::Pending);
        if !is_only_way || self.interval <= self.freshness {
            return None;
        }
        let minutes = self.interval.as_secs().div_ceil(60);
        if self.is_of_commits() {
            return Some(format!(
                "set `freshness: {minutes}m`, give this service more of the quota by \
                 `bigquery.storage.streams_per_hour`, or set `write: storage`"
            ));
        }
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
        let Self { partitions, quota, .. } = self;
        let seconds = self.interval.as_secs_f64().max(0.001);
        let (period, shown, unit) = match self.is_of_commits() {
            true => (3_600.0, "3,600", "streams an hour"),
            false => (DAY_SECONDS, "86,400", "a day"),
        };
        let number = f64::from(*partitions) * period / seconds;
        let spare = match self.write {
            WriteMode::Auto => {
                "; as many are kept for the last jobs before rows are streamed again"
            }
            _ => "",
        };
        write!(
            f,
            "one of each partition every {seconds:.0} s: {partitions} × {shown} / {seconds:.0} = \
             {number:.0} {unit} of {quota}{spare}"
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

    #[test]
    fn commits_count_against_the_streams_of_an_hour() {
        let many = pace("write: pending, freshness: 1m", 64);
        assert_eq!((many.note(), many.remedy()), (None, None));
        assert_eq!(
            many.to_string(),
            "one of each partition every 60 s: 64 × 3,600 / 60 = 3840 streams an hour of 10000"
        );
        let more = pace("write: pending, freshness: 1m", 600);
        assert!(more.note().unwrap().ends_with("of 60 s: the quota of streams"), "{more}");
        assert!(more.remedy().unwrap().starts_with("set `freshness: 4m`"), "{more}");
    }
}
