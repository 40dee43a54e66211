//! The write paths of the tables that choose theirs: decided once a second, followed by the workers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    fault::{Fault, FaultKind},
    path::{
        self, Chooser, Path, Signals, Stream,
        price::{Prices, Volume},
    },
    pipeline::{
        now_ms,
        settings::{TopicSettings, WriteMode},
    },
    record::TopicPartition,
    table::TableRef,
    telemetry::{PathStatus, Telemetry},
    write::{
        load::{
            self,
            pace::{Clock, Turn},
        },
        storage,
    },
};

/// Before the first load job of a table that takes them only at times: the rows of a moment are one job.
const FIRST_MIN: Duration = Duration::from_secs(10);

/// What a topic asks of the path of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feed {
    /// How old a row may be when it is visible.
    pub freshness: Duration,
    /// From one load job of a partition to its next.
    pub interval: Duration,
    /// How its rows are streamed.
    pub stream: Stream,
}

impl Feed {
    /// What a topic of so many partitions asks.
    pub fn new(settings: &TopicSettings, partitions: u32) -> Self {
        let interval = interval(settings, partitions, Duration::ZERO);
        Self { freshness: settings.freshness, interval, stream: settings.stream }
    }
}

/// Until the first load job of a partition, or its first commit, and from one to the next.
pub fn pace(settings: &TopicSettings, partitions: u32) -> (Duration, Duration) {
    let wanted = match settings.write {
        WriteMode::Auto => settings.freshness.saturating_sub(path::JOB_TIME).max(FIRST_MIN),
        WriteMode::Storage | WriteMode::Streaming | WriteMode::Load | WriteMode::Pending => {
            settings.freshness
        }
    };
    (wanted, interval(settings, partitions, wanted))
}

/// From one load job of a partition to the next at the soonest: what the quotas allow.
pub fn soonest(settings: &TopicSettings, partitions: u32) -> Duration {
    interval(settings, partitions, Duration::ZERO)
}

/// Where rows are loaded only at times, each such time ends with a job beside the regular ones: these have
/// half of the quota.
fn interval(settings: &TopicSettings, partitions: u32, wanted: Duration) -> Duration {
    if settings.write == WriteMode::Pending {
        return storage::pace::interval(wanted, partitions, settings.load.streams_per_hour);
    }
    let jobs = settings.load.settings.jobs_per_table_day;
    let jobs = if settings.write == WriteMode::Auto { jobs / 2 } else { jobs };
    load::pace::interval(wanted, partitions, jobs)
}

/// The path of one table.
#[derive(Debug)]
pub struct TablePath {
    name: Arc<str>,
    is_staged: AtomicBool,
    streaming_refused: AtomicBool,
    jobs_refused: AtomicBool,
    feeds: Mutex<BTreeMap<Arc<str>, Feed>>,
    chooser: Mutex<Chooser>,
}

impl TablePath {
    /// Whether rows are staged for load jobs now.
    pub fn is_staged(&self) -> bool {
        self.is_staged.load(Ordering::Relaxed)
    }

    fn signals(&self, has_bucket: bool, prices: Prices, backlogs: &Backlogs) -> Option<Signals> {
        let feeds = lock(&self.feeds);
        let of = || feeds.keys().filter_map(|topic| backlogs.get(topic));
        let unread: Volume = of().map(|backlog| backlog.unread).sum();
        let read: Volume = of().map(|backlog| backlog.read).sum();
        let stream = feeds.values().map(|feed| feed.stream).next()?;
        Some(Signals {
            stream,
            has_bucket,
            backlog_bytes: unread.bytes,
            backlog_costs: prices.costs(unread, stream),
            million_costs: prices.costs(read.scaled(1_000_000), stream),
            freshness: feeds.values().map(|feed| feed.freshness).min()?,
            interval: feeds.values().map(|feed| feed.interval).max()?,
            streaming_refused: self.streaming_refused.swap(false, Ordering::Relaxed),
            jobs_refused: self.jobs_refused.swap(false, Ordering::Relaxed),
        })
    }
}

/// What this process has to do with a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// What Kafka holds and this process has not read, each record as large as those it has.
    pub unread: Volume,
    /// What it has read.
    pub read: Volume,
}

impl Backlog {
    /// `records` of a topic are to be read.
    pub fn new(telemetry: &Telemetry, topic: &str, records: u64) -> Self {
        let topic = telemetry.topic(topic);
        let read = Volume { rows: topic.records_read.get(), bytes: topic.read_bytes.get() };
        Self { unread: read.scaled(records), read }
    }
}

/// The backlog of each topic.
pub type Backlogs = HashMap<Arc<str>, Backlog>;

/// The paths of all tables of the process. By default there is no bucket, and all are streamed.
#[derive(Debug, Default)]
pub struct Paths {
    has_bucket: bool,
    clock: Option<Clock>,
    prices: Prices,
    tables: Mutex<BTreeMap<Arc<str>, Arc<TablePath>>>,
    switches: AtomicU64,
}

impl Paths {
    /// Nothing decided yet: rows are streamed. Without a bucket they always are. Load jobs take turns by
    /// `clock`.
    pub fn new(has_bucket: bool, clock: Clock) -> Self {
        Self { has_bucket, clock: Some(clock), ..Self::default() }
    }

    /// The same with other prices than those of the list.
    #[must_use]
    pub fn with_prices(self, prices: Prices) -> Self {
        Self { prices, ..self }
    }

    /// What the paths cost.
    pub fn prices(&self) -> Prices {
        self.prices
    }

    /// When it is a partition's turn to have a load job.
    pub fn turn(&self, lane: &TopicPartition, partitions: u32) -> Option<Turn> {
        Turn::of(u32::try_from(lane.partition).ok()?, partitions, self.clock?)
    }

    /// Whether rows can be staged.
    pub fn has_bucket(&self) -> bool {
        self.has_bucket
    }

    /// How often some table's path was changed.
    pub fn switches(&self) -> u64 {
        self.switches.load(Ordering::Acquire)
    }

    /// The path of `table`, which `topic` feeds.
    pub fn of(&self, table: &TableRef, topic: &Arc<str>, feed: Feed) -> Arc<TablePath> {
        let mut tables = lock(&self.tables);
        let name: Arc<str> = table.to_string().into();
        let path = tables.entry(Arc::clone(&name)).or_insert_with(|| {
            Arc::new(TablePath {
                name,
                is_staged: AtomicBool::new(false),
                streaming_refused: AtomicBool::new(false),
                jobs_refused: AtomicBool::new(false),
                feeds: Mutex::default(),
                chooser: Mutex::default(),
            })
        });
        lock(&path.feeds).insert(Arc::clone(topic), feed);
        Arc::clone(path)
    }

    /// A streaming insert into `table` failed.
    pub fn not_streamed(&self, table: &str, fault: &Fault) {
        if fault.kind == FaultKind::QuotaExceeded
            && let Some(path) = lock(&self.tables).get(table)
        {
            path.streaming_refused.store(true, Ordering::Relaxed);
        }
    }

    /// A load job of `table` failed.
    pub fn not_loaded(&self, table: &str, fault: &Fault) {
        if fault.kind == FaultKind::QuotaExceeded
            && let Some(path) = lock(&self.tables).get(table)
        {
            path.jobs_refused.store(true, Ordering::Relaxed);
        }
    }

    /// Decides every path, and shows it.
    pub fn decide(&self, telemetry: &Telemetry, backlogs: &Backlogs, now: Instant) {
        let tables: Vec<_> = lock(&self.tables).values().cloned().collect();
        for table in tables {
            let Some(signals) = table.signals(self.has_bucket, self.prices, backlogs) else {
                continue;
            };
            let mut chooser = lock(&table.chooser);
            let is_switched = chooser.decide(&signals, now);
            let (path, cause) = chooser.chosen();
            drop(chooser);
            if is_switched {
                table.is_staged.store(path == Path::Load, Ordering::Relaxed);
                self.switches.fetch_add(1, Ordering::Release);
                tracing::info!(table = %table.name, %path, reason = %cause, "rows take another path from now on");
                telemetry.table(&table.name).switched(path.name(), cause.name());
            }
            show(telemetry, &table.name, path, cause.to_string());
        }
    }

    /// Switches one of the tables, whatever would be decided.
    #[cfg(test)]
    pub(crate) fn toggle(&self, pick: u64) {
        let tables = lock(&self.tables);
        let index = pick.checked_rem(tables.len() as u64).unwrap_or_default();
        if let Some(path) = tables.values().nth(usize::try_from(index).unwrap_or_default()) {
            path.is_staged.fetch_xor(true, Ordering::Relaxed);
            self.switches.fetch_add(1, Ordering::Release);
        }
    }
}

fn show(telemetry: &Telemetry, table: &Arc<str>, path: Path, reason: String) {
    telemetry.table(table).takes_load_path.set(i64::from(path == Path::Load));
    let now = now_ms();
    telemetry.status.update_table(table, now, |status| {
        let before = status.path.take().filter(|before| before.path == path.name());
        let since_ms = before.map_or(now, |before| before.since_ms);
        status.path = Some(PathStatus { path: path.name(), reason, since_ms });
    });
}

/// A panic while the lock was held leaves nothing half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_far_behind_as_all_its_topics_and_as_fresh_as_the_strictest() {
        let telemetry = Telemetry::new(1, Instant::now(), 0).unwrap();
        let paths = Paths { has_bucket: true, ..Paths::default() };
        let table = TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() };
        let feed = |seconds| Feed {
            freshness: Duration::from_secs(seconds),
            interval: Duration::from_secs(100),
            stream: Stream::Inserts,
        };
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        paths.of(&table, &a, feed(60));
        let path = paths.of(&table, &b, feed(30));
        let backlogs = |bytes| {
            let unread = Volume { rows: 1_000_000, bytes };
            let backlog = Backlog { unread, ..Backlog::default() };
            Backlogs::from([(Arc::clone(&a), backlog), (Arc::clone(&b), backlog)])
        };
        let now = Instant::now();
        paths.decide(&telemetry, &backlogs(150_000_000), now);
        assert_eq!((path.is_staged(), paths.switches()), (false, 0));
        paths.decide(&telemetry, &backlogs(160_000_000), now);
        assert_eq!((path.is_staged(), paths.switches()), (true, 1));
        let shown = telemetry.status.snapshot().tables.remove(0).path.unwrap();
        assert_eq!(shown.path, "load");
        for wanted in ["320 MB", "30 s", "costs 0.10 USD; by load jobs it costs nothing"] {
            assert!(shown.reason.contains(wanted), "{wanted}: {shown:?}");
        }
    }

    #[test]
    fn a_quota_moves_the_table_that_it_is_of() {
        let telemetry = Telemetry::new(1, Instant::now(), 0).unwrap();
        let paths = Paths { has_bucket: true, ..Paths::default() };
        let table =
            |name: &str| TableRef { project: "p".into(), dataset: "d".into(), table: name.into() };
        let minute = Duration::from_secs(60);
        let feed = Feed { freshness: minute, interval: minute, stream: Stream::Appends };
        let topic: Arc<str> = "a".into();
        let [one, other] = ["one", "other"].map(|name| paths.of(&table(name), &topic, feed));
        let fault = |kind| Fault::refused(kind, "", "");
        paths.not_streamed("p.d.one", &fault(FaultKind::QuotaExceeded));
        paths.not_streamed("p.d.other", &fault(FaultKind::Transient));
        let now = Instant::now();
        paths.decide(&telemetry, &Backlogs::new(), now);
        assert_eq!((one.is_staged(), other.is_staged()), (true, false));
        paths.not_loaded("p.d.one", &fault(FaultKind::QuotaExceeded));
        paths.decide(&telemetry, &Backlogs::new(), now + minute);
        assert!(!one.is_staged());
    }

    #[test]
    fn records_are_counted_in_bytes_by_what_was_read() {
        let telemetry = Telemetry::new(1, Instant::now(), 0).unwrap();
        assert_eq!(Backlog::new(&telemetry, "a", 7).unread.bytes, 7_000);
        telemetry.topic("a").records_read.inc_by(4);
        telemetry.topic("a").read_bytes.inc_by(100);
        let backlog = Backlog::new(&telemetry, "a", 7);
        assert_eq!((backlog.unread.bytes, backlog.read.bytes), (175, 100));
    }
}
