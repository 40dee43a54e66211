//! Which write path the rows of a table take, and why.
//!
//! Pure: signals in, a decision with its reason out. The destination of a record is not decided here.
//!
//! | cause | path |
//! |---|---|
//! | there is no bucket to stage rows in | streaming |
//! | the table has used up its load jobs | streaming |
//! | BigQuery refuses streamed rows for a quota | load jobs |
//! | load jobs are as fresh as the topic asks for, and cost no more than streaming: nothing, by list price | load jobs |
//! | streaming the backlog would take longer than `freshness` | load jobs |
//! | otherwise | streaming |
//!
//! Streaming is the Storage Write API, or streaming inserts where the topic says so, or where there is no way to
//! the other.

use std::{
    fmt,
    time::{Duration, Instant},
};

use price::Costs;

pub mod price;

/// What one process streams in a second, to tell a backlog from a busy moment: the order of magnitude
/// that `docs/results/` shows for two cores, and a small part of what a project may
/// (<https://docs.cloud.google.com/bigquery/quotas#streaming_inserts>).
const STREAMED_BYTES_PER_SECOND: u64 = 10_000_000;

/// A job takes about this long, from its creation until the rows are visible.
pub const JOB_TIME: Duration = Duration::from_secs(60);

/// Between two switches, at least.
const HOLD: Duration = Duration::from_secs(60);

/// How long streaming is left alone after a quota, at first and at most.
const QUOTA_FIRST: Duration = Duration::from_secs(60);
const QUOTA_MAX: Duration = Duration::from_mins(30);
/// How long jobs are left alone after theirs: it counts a day.
const JOBS_QUOTA: Duration = Duration::from_hours(1);

/// How rows are streamed where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stream {
    /// By the Storage Write API.
    Appends,
    /// By streaming inserts.
    #[default]
    Inserts,
}

impl Stream {
    /// The path.
    pub fn path(self) -> Path {
        match self {
            Self::Appends => Path::Storage,
            Self::Inserts => Path::Streaming,
        }
    }
}

/// A write path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// Streaming inserts.
    Streaming,
    /// The Storage Write API.
    Storage,
    /// Load jobs.
    Load,
}

impl Path {
    /// The name in metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Storage => "storage",
            Self::Load => "load",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Streaming => "streaming inserts",
            Self::Storage => "the Storage Write API",
            Self::Load => "load jobs",
        })
    }
}

/// What a decision rests on, of one table in this process.
#[derive(Clone, Copy, Debug)]
pub struct Signals {
    /// How rows are streamed.
    pub stream: Stream,
    /// Whether rows can be staged at all.
    pub has_bucket: bool,
    /// Bytes that Kafka holds for the table and this process has not read.
    pub backlog_bytes: u64,
    /// What these bytes cost by each path.
    pub backlog_costs: Costs,
    /// What a million rows cost by each path.
    pub million_costs: Costs,
    /// How old a row may be when it is visible: the strictest of the table's topics.
    pub freshness: Duration,
    /// From one load job of a partition to its next, by the quota of the table.
    pub interval: Duration,
    /// Streamed rows were refused for a quota since the last decision.
    pub streaming_refused: bool,
    /// Load jobs were refused for a quota since the last decision.
    pub jobs_refused: bool,
}

impl Signals {
    /// How long streaming takes for the backlog.
    pub fn catch_up(&self) -> Duration {
        Duration::from_secs(self.backlog_bytes / STREAMED_BYTES_PER_SECOND)
    }

    /// Whether rows that load jobs bring are as fresh as they must be.
    pub fn jobs_are_fresh(&self) -> bool {
        self.interval + JOB_TIME <= self.freshness
    }

    /// Whether streaming is cheaper than load jobs.
    pub fn jobs_are_dear(&self) -> bool {
        self.million_costs.load > self.million_costs.streaming
    }
}

/// Why a path is taken, with the figures that a person wants to see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cause {
    /// Rows cannot be staged.
    NoBucket,
    /// BigQuery refuses more load jobs.
    JobsQuota,
    /// BigQuery refuses streamed rows.
    StreamingQuota,
    /// Load jobs are fresh enough and cost no more: a job every so often against this freshness, and what
    /// a million rows cost.
    Free(Duration, Duration, Costs),
    /// So many bytes are to be read, at this cost, and streaming them takes longer than the freshness.
    Backlog(u64, Duration, Costs),
    /// Load jobs would be fresh enough, and cost more for a million rows.
    Cheaper(Costs),
    /// Load jobs would not be fresh enough: a job every so often against this freshness, and what a
    /// million rows cost.
    Fresh(Duration, Duration, Costs),
}

impl Cause {
    /// The label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoBucket => "no_bucket",
            Self::JobsQuota => "jobs_quota",
            Self::StreamingQuota => "streaming_quota",
            Self::Free(..) => "free",
            Self::Backlog(..) => "backlog",
            Self::Cheaper(..) => "cheaper",
            Self::Fresh(..) => "fresh",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: &Duration| time.as_secs();
        match self {
            Self::NoBucket => f.write_str("there is no bucket to stage rows in (`gcs.bucket`)"),
            Self::JobsQuota => f.write_str("BigQuery refuses more load jobs for a quota"),
            Self::StreamingQuota => f.write_str("BigQuery refuses streamed rows for a quota"),
            Self::Free(interval, freshness, Costs { streaming, load }) => write!(
                f,
                "load jobs are fresh enough, and a million rows cost {load} by them and {streaming} \
                 streamed: a job of a partition every {} s and about {} s for it, against a freshness of \
                 {} s",
                seconds(interval),
                JOB_TIME.as_secs(),
                seconds(freshness)
            ),
            Self::Backlog(bytes, freshness, Costs { streaming, load }) => write!(
                f,
                "{} MB are to be read, which to stream takes longer than the freshness of {} s and costs \
                 {streaming}; by load jobs it costs {load}",
                bytes / 1_000_000,
                seconds(freshness)
            ),
            Self::Cheaper(Costs { streaming, load }) => write!(
                f,
                "the backlog is small, and a million rows cost {streaming} streamed and {load} by load jobs"
            ),
            Self::Fresh(interval, freshness, Costs { streaming, load }) => write!(
                f,
                "the backlog is small, and load jobs would not be fresh enough: by the table's quota a \
                 job of a partition every {} s, against a freshness of {} s; a million rows cost \
                 {streaming} streamed and {load} by load jobs",
                seconds(interval),
                seconds(freshness)
            ),
        }
    }
}

/// The path of one table, decided again and again.
#[derive(Clone, Copy, Debug)]
pub struct Chooser {
    path: Path,
    cause: Cause,
    /// When the path was changed last.
    since: Option<Instant>,
    /// No streaming until then, and how long that was.
    streaming_out: Option<(Instant, Duration)>,
    jobs_out: Option<Instant>,
}

impl Default for Chooser {
    fn default() -> Self {
        Self {
            path: Path::Streaming,
            cause: Cause::NoBucket,
            since: None,
            streaming_out: None,
            jobs_out: None,
        }
    }
}

impl Chooser {
    /// The path, and why it is taken.
    pub fn chosen(&self) -> (Path, Cause) {
        (self.path, self.cause)
    }

    /// Decides again; whether the path is another one now.
    pub fn decide(&mut self, signals: &Signals, now: Instant) -> bool {
        self.note_quotas(signals, now);
        let (path, cause) = self.wanted(signals, now);
        // Which way rows are streamed is not chosen.
        if (path == Path::Load) == (self.path == Path::Load) {
            (self.path, self.cause) = (path, cause);
            return false;
        }
        if self.since.is_some_and(|since| now < since + self.hold(cause, signals)) {
            return false;
        }
        (self.path, self.cause, self.since) = (path, cause, Some(now));
        true
    }

    /// How long the path stays before it may change for `cause`. Every time of loading ends with a job of
    /// each partition beside the regular ones, so two such times are an interval apart.
    fn hold(&self, cause: Cause, signals: &Signals) -> Duration {
        match cause {
            Cause::Backlog(..) => HOLD.max(signals.interval),
            _ => HOLD,
        }
    }

    fn note_quotas(&mut self, signals: &Signals, now: Instant) {
        if signals.streaming_refused {
            let wait = match self.streaming_out {
                // What was on its way when the path changed is refused, too.
                Some((until, _)) if now < until => return,
                Some((until, wait)) if now < until + 2 * wait + HOLD => (2 * wait).min(QUOTA_MAX),
                _ => QUOTA_FIRST,
            };
            self.streaming_out = Some((now + wait, wait));
        }
        if signals.jobs_refused {
            self.jobs_out = Some(now + JOBS_QUOTA);
        }
    }

    fn wanted(&self, signals: &Signals, now: Instant) -> (Path, Cause) {
        let Signals { freshness, interval, backlog_bytes, stream, .. } = *signals;
        let (costs, backlog_costs) = (signals.million_costs, signals.backlog_costs);
        let is_behind = |part: u32| signals.catch_up() > freshness / part;
        if !signals.has_bucket {
            (stream.path(), Cause::NoBucket)
        } else if self.jobs_out.is_some_and(|until| now < until) {
            (stream.path(), Cause::JobsQuota)
        } else if self.streaming_out.is_some_and(|(until, _)| now < until) {
            (Path::Load, Cause::StreamingQuota)
        } else if signals.jobs_are_fresh() && !signals.jobs_are_dear() {
            (Path::Load, Cause::Free(interval, freshness, costs))
        } else if is_behind(if self.path == Path::Load { 4 } else { 1 }) {
            (Path::Load, Cause::Backlog(backlog_bytes, freshness, backlog_costs))
        } else if signals.jobs_are_fresh() {
            (stream.path(), Cause::Cheaper(costs))
        } else {
            (stream.path(), Cause::Fresh(interval, freshness, costs))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        price::{Prices, Volume},
        *,
    };

    fn signals() -> Signals {
        Signals {
            stream: Stream::Inserts,
            has_bucket: true,
            backlog_bytes: 0,
            backlog_costs: Costs::default(),
            million_costs: Prices::default()
                .costs(Volume::default().scaled(1_000_000), Stream::Inserts),
            freshness: Duration::from_secs(60),
            interval: Duration::from_secs(128),
            streaming_refused: false,
            jobs_refused: false,
        }
    }

    struct Bench {
        chooser: Chooser,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { chooser: Chooser::default(), now: Instant::now() }
        }

        /// Decides after `seconds`, and gives the path if it changed.
        fn after(&mut self, seconds: u64, signals: Signals) -> Option<(Path, &'static str)> {
            self.now += Duration::from_secs(seconds);
            let changed = self.chooser.decide(&signals, self.now);
            let (path, cause) = self.chooser.chosen();
            changed.then_some((path, cause.name()))
        }
    }

    fn behind(megabytes: u64) -> Signals {
        Signals { backlog_bytes: megabytes * 1_000_000, ..signals() }
    }

    #[test]
    fn a_backlog_is_loaded_and_what_follows_is_streamed() {
        let mut bench = Bench::new();
        assert_eq!(bench.after(0, behind(601 + 9)), Some((Path::Load, "backlog")));
        assert_eq!(bench.after(60, behind(161)), None, "not caught up yet");
        assert_eq!(bench.after(1, behind(150)), Some((Path::Streaming, "fresh")));
    }

    #[test]
    fn rows_are_streamed_as_the_topic_has_it_and_that_is_no_switch() {
        let mut bench = Bench::new();
        let appended = |megabytes| Signals { stream: Stream::Appends, ..behind(megabytes) };
        assert_eq!(bench.after(0, appended(0)), None);
        assert_eq!(bench.chooser.chosen().0, Path::Storage);
        assert_eq!(bench.after(1, appended(1_000)), Some((Path::Load, "backlog")));
        assert_eq!(bench.after(60, appended(0)), Some((Path::Storage, "fresh")));
    }

    #[test]
    fn two_switches_are_a_minute_apart_and_two_times_of_loading_an_interval() {
        let mut bench = Bench::new();
        assert_eq!(bench.after(0, behind(1_000)), Some((Path::Load, "backlog")));
        assert_eq!(bench.after(59, signals()), None);
        assert_eq!(bench.after(1, signals()), Some((Path::Streaming, "fresh")));
        assert_eq!(bench.after(127, behind(1_000)), None);
        assert_eq!(bench.after(1, behind(1_000)), Some((Path::Load, "backlog")));
    }

    #[test]
    fn a_freshness_that_load_jobs_meet_is_met_by_load_jobs() {
        let mut bench = Bench::new();
        let lax = |seconds| Signals { freshness: Duration::from_secs(seconds), ..signals() };
        assert_eq!(bench.after(0, lax(187)), None);
        assert_eq!(bench.after(60, lax(188)), Some((Path::Load, "free")));
    }

    #[test]
    fn a_freshness_that_both_paths_meet_is_met_by_the_cheaper_one() {
        let mut bench = Bench::new();
        let lax = |load_usd_per_gib, megabytes| {
            let prices = Prices { load_usd_per_gib, ..Prices::default() };
            let million_costs = prices.costs(Volume::default().scaled(1_000_000), Stream::Inserts);
            let freshness = Duration::from_secs(188);
            Signals { million_costs, freshness, ..behind(megabytes) }
        };
        // A kilobyte counts for a kibibyte when it is streamed, so 0.0525 USD are just more.
        assert_eq!(bench.after(0, lax(0.0525, 0)), None);
        let (path, cause) = bench.chooser.chosen();
        assert_eq!((path, cause.name()), (Path::Streaming, "cheaper"));
        assert!(
            cause.to_string().contains("cost 0.05 USD streamed and 0.05 USD by load"),
            "{cause}"
        );
        assert_eq!(bench.after(60, lax(0.0524, 0)), Some((Path::Load, "free")));
        assert_eq!(bench.after(60, lax(0.0525, 1_900)), None, "freshness comes before price");
        assert_eq!(bench.chooser.chosen().1.name(), "backlog");
        assert_eq!(bench.after(60, lax(0.0525, 0)), Some((Path::Streaming, "cheaper")));
    }

    #[test]
    fn a_streaming_quota_is_left_alone_for_longer_each_time_it_comes_back() {
        let mut bench = Bench::new();
        let refused = || Signals { streaming_refused: true, ..signals() };
        assert_eq!(bench.after(0, signals()), None);
        assert_eq!(bench.after(60, refused()), Some((Path::Load, "streaming_quota")));
        assert_eq!(bench.after(30, refused()), None, "an answer to what was on its way");
        assert_eq!(bench.after(29, signals()), None);
        assert_eq!(bench.after(1, signals()), Some((Path::Streaming, "fresh")));
        assert_eq!(bench.after(60, refused()), Some((Path::Load, "streaming_quota")));
        assert_eq!(bench.after(119, signals()), None);
        assert_eq!(bench.after(1, signals()), Some((Path::Streaming, "fresh")));
        assert_eq!(bench.after(3_600, refused()), Some((Path::Load, "streaming_quota")));
        assert_eq!(bench.after(60, signals()), Some((Path::Streaming, "fresh")));
    }

    #[test]
    fn without_jobs_or_without_a_bucket_rows_are_streamed_whatever_is_to_be_read() {
        let mut bench = Bench::new();
        let no_bucket = Signals { has_bucket: false, ..behind(10_000) };
        assert_eq!(bench.after(0, no_bucket), None);
        assert_eq!(bench.chooser.chosen(), (Path::Streaming, Cause::NoBucket));
        let mut bench = Bench::new();
        assert_eq!(bench.after(0, behind(10_000)), Some((Path::Load, "backlog")));
        let refused = Signals { jobs_refused: true, ..behind(10_000) };
        assert_eq!(bench.after(60, refused), Some((Path::Streaming, "jobs_quota")));
        assert_eq!(bench.after(3_599, behind(10_000)), None);
        assert_eq!(bench.after(1, behind(10_000)), Some((Path::Load, "backlog")));
    }
}
