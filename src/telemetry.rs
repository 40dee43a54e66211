//! Counters and states that every layer reports and `ops` shows.
//!
//! Metrics are labelled per topic and per table, never per lane: 19,200 lanes would be 19,200 time
//! series per metric. Lanes appear only on the [`Status`] board behind `/status`. The number of
//! label values is bounded: beyond the cap, everything is counted under the label `other`.
//!
//! The hot path resolves a [`TopicTelemetry`] or [`TableTelemetry`] once, keeps it, and touches
//! only atomics, once per batch.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use prometheus::{
    Counter, Histogram, IntCounter, IntGauge, Registry, TextEncoder, core::GenericGauge,
};

pub use self::{
    liveness::{Liveness, Stuck, Thresholds},
    metrics::{METRICS, MetricDoc, Metrics},
    status::{
        BrokerStatus, LaneState, LaneStatus, LastError, PathStatus, ProcessStatus, Snapshot,
        Status, TableState, TableStatus,
    },
    trouble::{Cause, Teller, Trouble},
};

pub mod liveness;
pub mod metrics;
pub mod status;
pub mod trouble;

/// Topics that get a label of their own.
pub const TOPIC_LABELS_MAX: usize = 500;
/// Tables that get a label of their own.
pub const TABLE_LABELS_MAX: usize = 1_000;
/// The label of every topic and table beyond the cap.
pub const OTHER: &str = "other";

/// Everything the service reports about itself. One per process, shared by reference.
pub struct Telemetry {
    /// The metric families that are not per topic or table, and all others for `ops`.
    pub metrics: Metrics,
    /// What `/status` shows.
    pub status: Status,
    /// What `/livez` judges.
    pub liveness: Liveness,
    watch: Mutex<trouble::Watch>,
    registry: Registry,
    topics: Mutex<HashMap<Box<str>, Arc<TopicTelemetry>>>,
    tables: Mutex<HashMap<Box<str>, Arc<TableTelemetry>>>,
}

impl Telemetry {
    /// Registers every metric with a registry of its own. `workers` is the number of encode workers
    /// whose heartbeat is watched; `now` and `now_ms` (milliseconds since the epoch) are the start.
    ///
    /// # Errors
    ///
    /// A metric's name is invalid or taken twice: a mistake in this module.
    pub fn new(workers: usize, now: Instant, now_ms: i64) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry)?;
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            metrics,
            status: Status::new(env!("CARGO_PKG_VERSION"), now_ms),
            liveness: Liveness::new(workers, now),
            watch: Mutex::default(),
            registry,
            topics: Mutex::default(),
            tables: Mutex::default(),
        })
    }

    /// The handles of `topic`: keep them, this call takes a lock.
    pub fn topic(&self, topic: &str) -> Arc<TopicTelemetry> {
        resolve(&self.topics, topic, TOPIC_LABELS_MAX, |label| {
            TopicTelemetry::new(&self.metrics, label)
        })
    }

    /// The handles of `table` (`project.dataset.table`): keep them, this call takes a lock.
    pub fn table(&self, table: &str) -> Arc<TableTelemetry> {
        resolve(&self.tables, table, TABLE_LABELS_MAX, |label| {
            TableTelemetry::new(&self.metrics, label)
        })
    }

    /// Tells the log which troubles have begun and which are over, and counts those that last. To be called
    /// about once a second.
    pub fn tell_troubles(&self, now_ms: i64) {
        let troubles = self.status.troubles();
        for (kind, cause) in trouble::labels() {
            let is_it = |(subject, trouble): &&(trouble::Subject, Trouble)| {
                subject.kind() == kind && trouble.cause == cause
            };
            let count = troubles.iter().filter(is_it).count();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.troubles.with_label_values(&[kind, cause.name()]).set(count);
        }
        let news = lock(&self.watch).look(troubles, |subject| self.status.has(subject), now_ms);
        news.iter().for_each(trouble::log);
    }

    /// Shows how far each topic is behind; what is unknown is absent. Of a topic that is not named nothing is known.
    pub fn lags(&self, lags: &HashMap<Arc<str>, Lag>) {
        // Beyond the cap several topics share a label.
        let mut shown: HashMap<Box<str>, Lag> = HashMap::new();
        for (topic, lag) in lags {
            let label = self.topic(topic).label.clone();
            shown.entry(label).and_modify(|both| *both = both.and(*lag)).or_insert(*lag);
        }
        let metrics = &self.metrics;
        for topic in lock(&self.topics).values() {
            let labels = &[&*topic.label];
            let Lag { records, seconds } = shown.get(&topic.label).copied().unwrap_or_default();
            // That there is nothing to remove is no error.
            match records {
                Some(records) => metrics.lag_records.with_label_values(labels).set(records),
                None => drop(metrics.lag_records.remove_label_values(labels)),
            }
            match seconds {
                Some(seconds) => metrics.lag_seconds.with_label_values(labels).set(seconds),
                None => drop(metrics.lag_seconds.remove_label_values(labels)),
            }
        }
    }

    /// Sums over all topics and tables; takes locks, for a display once a second.
    pub fn totals(&self) -> Totals {
        let positive = |gauge: i64| u64::try_from(gauge).unwrap_or(0);
        let mut totals = Totals {
            in_flight_bytes: positive(self.metrics.in_flight_bytes.get()),
            ..Totals::default()
        };
        for topic in lock(&self.topics).values() {
            totals.records_read += topic.records_read.get();
            totals.dead_letters += topic.dead_lettered.load(Ordering::Relaxed);
        }
        for table in lock(&self.tables).values() {
            totals.rows_written += table.rows_written.get();
        }
        // Unknown until it is known of every lane, and there is one.
        let lanes = self.status.snapshot().lanes;
        let lag = lanes.iter().map(|lane| lane.lag).sum::<Option<i64>>();
        totals.lag_records = lag.filter(|_| !lanes.is_empty()).map(positive);
        for (state, count) in self.status.lane_counts() {
            match state {
                LaneState::Halted => totals.lanes_halted = positive(count),
                LaneState::Waiting => totals.lanes_waiting = positive(count),
                _ => {}
            }
        }
        totals
    }

    /// Every metric in Prometheus' text format. `now` ages the gauges that hold an age.
    ///
    /// # Errors
    ///
    /// The encoder refused a family: a mistake in this module.
    pub fn encode(&self, now: Instant) -> Result<String, prometheus::Error> {
        self.metrics.poll_age_seconds.set(self.liveness.poll_age(now).as_secs_f64());
        for (state, count) in self.status.lane_counts() {
            self.metrics.lanes.with_label_values(&[state.name()]).set(count);
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

/// How far a topic is behind; what is unknown is none, never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    /// Records that are not committed.
    pub records: Option<i64>,
    /// The age of the oldest of them.
    pub seconds: Option<f64>,
}

impl Lag {
    /// That of two topics together.
    fn and(self, other: Self) -> Self {
        let seconds = self.seconds.zip(other.seconds).map(|(one, other)| one.max(other));
        Self { records: self.records.zip(other.records).map(|(one, other)| one + other), seconds }
    }
}

/// Sums over all topics, tables and lanes of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records read from Kafka.
    pub records_read: u64,
    /// Rows that BigQuery has acknowledged.
    pub rows_written: u64,
    /// Records that the dead-letter topics have acknowledged.
    pub dead_letters: u64,
    /// Records between the committed offsets and the ends of the partitions, once that is known of all.
    pub lag_records: Option<u64>,
    /// Bytes read and not acknowledged.
    pub in_flight_bytes: u64,
    /// Lanes that are halted.
    pub lanes_halted: u64,
    /// Lanes that wait for a remote.
    pub lanes_waiting: u64,
}

/// The handle under `name`, made on first use; past `max` names, the one under [`OTHER`].
fn resolve<T>(
    known: &Mutex<HashMap<Box<str>, Arc<T>>>,
    name: &str,
    max: usize,
    make: impl Fn(&str) -> T,
) -> Arc<T> {
    let mut known = lock(known);
    let label = if known.contains_key(name) || known.len() < max { name } else { OTHER };
    Arc::clone(known.entry(label.into()).or_insert_with(|| Arc::new(make(label))))
}

/// A panic while the lock was held leaves nothing half-done here: counters only.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A gauge of fractional seconds.
pub type SecondsGauge = GenericGauge<prometheus::core::AtomicF64>;

/// The metrics of one topic, resolved.
pub struct TopicTelemetry {
    /// See [`Metrics::records_read`].
    pub records_read: IntCounter,
    /// See [`Metrics::read_bytes`].
    pub read_bytes: IntCounter,
    /// See [`Metrics::null_values_skipped`].
    pub null_values_skipped: IntCounter,
    /// See [`Metrics::read_failures`].
    pub read_failures: IntCounter,
    /// See [`Metrics::config_changes`].
    pub config_changes: IntCounter,
    /// See [`Metrics::oldest_unacknowledged_seconds`].
    pub oldest_unacknowledged_seconds: SecondsGauge,
    dead_letters: prometheus::IntCounterVec,
    dead_lettered: AtomicU64,
    label: Box<str>,
}

impl TopicTelemetry {
    fn new(metrics: &Metrics, label: &str) -> Self {
        let labels = &[label];
        Self {
            records_read: metrics.records_read.with_label_values(labels),
            read_bytes: metrics.read_bytes.with_label_values(labels),
            null_values_skipped: metrics.null_values_skipped.with_label_values(labels),
            read_failures: metrics.read_failures.with_label_values(labels),
            config_changes: metrics.config_changes.with_label_values(labels),
            oldest_unacknowledged_seconds: metrics
                .oldest_unacknowledged_seconds
                .with_label_values(labels),
            dead_letters: metrics.dead_letters.clone(),
            dead_lettered: AtomicU64::new(0),
            label: label.into(),
        }
    }

    /// Counts `count` records that the dead-letter topic has acknowledged. `stage` is
    /// `dead_letter::Stage::name`.
    pub fn dead_lettered(&self, stage: &'static str, count: u64) {
        self.dead_lettered.fetch_add(count, Ordering::Relaxed);
        self.dead_letters.with_label_values(&[&*self.label, stage]).inc_by(count);
    }
}

impl fmt::Debug for TopicTelemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TopicTelemetry").field(&self.label).finish()
    }
}

/// The metrics of one table, resolved.
pub struct TableTelemetry {
    /// See [`Metrics::rows_written`].
    pub rows_written: IntCounter,
    /// See [`Metrics::written_bytes`].
    pub written_bytes: IntCounter,
    /// See [`Metrics::batches`].
    pub batches: IntCounter,
    /// See [`Metrics::write_seconds`].
    pub write_seconds: Histogram,
    /// See [`Metrics::end_to_end_seconds`].
    pub end_to_end_seconds: Histogram,
    /// See [`Metrics::waiting_rows`].
    pub waiting_rows: IntGauge,
    /// See [`Metrics::staged_bytes`].
    pub staged_bytes: IntCounter,
    /// See [`Metrics::takes_load_path`].
    pub takes_load_path: IntGauge,
    /// See [`Metrics::estimated_cost`].
    pub streaming_cost: Counter,
    /// The same by the Storage Write API.
    pub storage_cost: Counter,
    /// See [`Metrics::estimated_cost`].
    pub load_cost: Counter,
    load_jobs: prometheus::IntCounterVec,
    stream_commits: prometheus::IntCounterVec,
    path_switches: prometheus::IntCounterVec,
    schema_changes: prometheus::IntCounterVec,
    retries: prometheus::IntCounterVec,
    label: Box<str>,
}

impl TableTelemetry {
    fn new(metrics: &Metrics, label: &str) -> Self {
        let labels = &[label];
        Self {
            rows_written: metrics.rows_written.with_label_values(labels),
            written_bytes: metrics.written_bytes.with_label_values(labels),
            batches: metrics.batches.with_label_values(labels),
            write_seconds: metrics.write_seconds.with_label_values(labels),
            end_to_end_seconds: metrics.end_to_end_seconds.with_label_values(labels),
            waiting_rows: metrics.waiting_rows.with_label_values(labels),
            staged_bytes: metrics.staged_bytes.with_label_values(labels),
            takes_load_path: metrics.takes_load_path.with_label_values(labels),
            streaming_cost: metrics.estimated_cost.with_label_values(&[label, "streaming"]),
            storage_cost: metrics.estimated_cost.with_label_values(&[label, "storage"]),
            load_cost: metrics.estimated_cost.with_label_values(&[label, "load"]),
            load_jobs: metrics.load_jobs.clone(),
            stream_commits: metrics.stream_commits.clone(),
            path_switches: metrics.path_switches.clone(),
            schema_changes: metrics.schema_changes.clone(),
            retries: metrics.retries.clone(),
            label: label.into(),
        }
    }

    /// Counts one schema change that BigQuery accepted: `create`, `add_column`, `relax`, `widen`.
    pub fn schema_changed(&self, kind: &'static str) {
        self.schema_changes.with_label_values(&[&*self.label, kind]).inc();
    }

    /// Counts what became of a load job; see [`Metrics::load_jobs`].
    pub fn load_job(&self, outcome: &'static str) {
        self.load_jobs.with_label_values(&[&*self.label, outcome]).inc();
    }

    /// Counts what became of a commit; see [`Metrics::stream_commits`].
    pub fn stream_commit(&self, outcome: &'static str) {
        self.stream_commits.with_label_values(&[&*self.label, outcome]).inc();
    }

    /// Counts a switch of the write path; see [`Metrics::path_switches`].
    pub fn switched(&self, path: &'static str, cause: &'static str) {
        self.path_switches.with_label_values(&[&*self.label, path, cause]).inc();
    }

    /// Counts one request that is sent again. `cause` is `fault::FaultKind::name`.
    pub fn retried(&self, cause: &'static str) {
        self.retries.with_label_values(&[&*self.label, cause]).inc();
    }
}

impl fmt::Debug for TableTelemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TableTelemetry").field(&self.label).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telemetry() -> Telemetry {
        Telemetry::new(2, Instant::now(), 0).unwrap()
    }

    #[test]
    fn handles_of_one_topic_count_into_one_series() {
        let telemetry = telemetry();
        telemetry.topic("orders").records_read.inc_by(3);
        telemetry.topic("orders").records_read.inc_by(4);
        telemetry.topic("orders").dead_lettered("decode", 2);
        let text = telemetry.encode(Instant::now()).unwrap();
        assert!(text.contains("kcbq_records_read_total{topic=\"orders\"} 7"), "{text}");
        assert!(
            text.contains("kcbq_dead_letters_total{stage=\"decode\",topic=\"orders\"} 2"),
            "{text}"
        );
    }

    #[test]
    fn names_beyond_the_cap_share_the_label_other() {
        let telemetry = telemetry();
        for topic in 0..TOPIC_LABELS_MAX + 7 {
            telemetry.topic(&format!("topic-{topic}")).records_read.inc();
        }
        telemetry.topic("topic-0").records_read.inc();
        let text = telemetry.encode(Instant::now()).unwrap();
        assert!(text.contains("kcbq_records_read_total{topic=\"other\"} 7"), "{text}");
        assert!(text.contains("kcbq_records_read_total{topic=\"topic-0\"} 2"), "{text}");
    }

    #[test]
    fn topics_that_share_a_label_have_the_sum_of_their_lags_and_it_is_unknown_if_one_is() {
        let telemetry = telemetry();
        for topic in 0..TOPIC_LABELS_MAX {
            telemetry.topic(&format!("topic-{topic}"));
        }
        let lag = |records| Lag { records, seconds: Some(2.0) };
        let mut lags: HashMap<Arc<str>, Lag> =
            [("a".into(), lag(Some(3))), ("b".into(), lag(Some(4)))].into();
        telemetry.lags(&lags);
        let text = telemetry.encode(Instant::now()).unwrap();
        assert!(text.contains("kcbq_lag_records{topic=\"other\"} 7"), "{text}");
        assert!(!text.contains("kcbq_lag_records{topic=\"topic-0\"}"), "{text}");
        lags.insert("b".into(), lag(None));
        telemetry.lags(&lags);
        let text = telemetry.encode(Instant::now()).unwrap();
        assert!(!text.contains("kcbq_lag_records{topic=\"other\"}"), "{text}");
        assert!(text.contains("kcbq_lag_seconds{topic=\"other\"} 2"), "{text}");
    }

    #[test]
    fn every_metric_has_help_and_a_conventional_name() {
        for metric in METRICS {
            assert!(metric.name.starts_with("kcbq_"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}: {}", metric.name, metric.help);
            assert_eq!(
                metric.kind == "counter",
                metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
        }
    }
}
