//! The metric families. A field's documentation is the metric's help text.

use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};

/// What the reference says about one metric.
#[derive(Clone, Copy, Debug)]
pub struct MetricDoc {
    /// The full name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The labels, in order.
    pub labels: &'static [&'static str],
    /// The help text.
    pub help: &'static str,
}

/// Upper bounds of the histograms' buckets, in seconds: from a quick answer to ten minutes of
/// waiting for a schema change.
const BUCKETS_SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0];

/// A kind of metric that can be built from options and label names.
trait Family: Collector + Clone + Sized + 'static {
    const KIND: &'static str;
    fn build(opts: Opts, labels: &[&str]) -> Result<Self, prometheus::Error>;
}

macro_rules! family {
    ($($metric:ident: $kind:literal, |$opts:ident, $labels:pat_param| $build:expr;)+) => {$(
        impl Family for $metric {
            const KIND: &'static str = $kind;
            fn build($opts: Opts, $labels: &[&str]) -> Result<Self, prometheus::Error> {
                $build
            }
        }
    )+};
}

family! {
    IntCounter: "counter", |opts, _| Self::with_opts(opts);
    CounterVec: "counter", |opts, labels| Self::new(opts, labels);
    IntCounterVec: "counter", |opts, labels| Self::new(opts, labels);
    IntGauge: "gauge", |opts, _| Self::with_opts(opts);
    IntGaugeVec: "gauge", |opts, labels| Self::new(opts, labels);
    Gauge: "gauge", |opts, _| Self::with_opts(opts);
    GaugeVec: "gauge", |opts, labels| Self::new(opts, labels);
    Histogram: "histogram", |opts, _| Self::with_opts(seconds(opts));
    HistogramVec: "histogram", |opts, labels| Self::new(seconds(opts), labels);
}

fn seconds(opts: Opts) -> HistogramOpts {
    HistogramOpts::from(opts).buckets(BUCKETS_SECONDS.to_vec())
}

macro_rules! metrics {
    ($(#[$meta:meta])* pub struct $name:ident {$(
        $(#[doc = $help:literal])+
        pub $field:ident: $kind:ident = $metric:literal [$($label:literal),*],
    )+}) => {
        $(#[$meta])*
        pub struct $name {$(
            $(#[doc = $help])+
            pub $field: $kind,
        )+}

        impl $name {
            /// Builds every family and registers it.
            pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
                Ok(Self {$(
                    $field: {
                        let help = concat!($($help),+).trim();
                        let family = <$kind as Family>::build(Opts::new($metric, help), &[$($label),*])?;
                        registry.register(Box::new(family.clone()))?;
                        family
                    },
                )+})
            }
        }

        /// Every metric, for the reference and the test that keeps it complete.
        pub const METRICS: &[MetricDoc] = &[$(
            MetricDoc {
                name: $metric,
                kind: <$kind as Family>::KIND,
                labels: &[$($label),*],
                help: concat!($($help),+).trim_ascii(),
            },
        )+];
    };
}

metrics! {
    /// The metric families of the process.
    #[derive(Debug)]
    pub struct Metrics {
        /// Records read from Kafka.
        pub records_read: IntCounterVec = "kcbq_records_read_total" ["topic"],
        /// Bytes of keys, values and headers read from Kafka.
        pub read_bytes: IntCounterVec = "kcbq_read_bytes_total" ["topic"],
        /// Records without a value that were skipped because the topic says `null_value: skip`.
        pub null_values_skipped: IntCounterVec = "kcbq_null_values_skipped_total" ["topic"],
        /// Times that records were deleted by retention before they were read.
        pub retention_losses: IntCounterVec = "kcbq_retention_losses_total" ["topic"],
        /// Times that records of a partition could not be read: a batch that cannot be decompressed or is
        /// damaged, a right that is missing.
        pub read_failures: IntCounterVec = "kcbq_read_failures_total" ["topic"],
        /// Partitions taken over whose last commit was made under another configuration of the
        /// topic.
        pub config_changes: IntCounterVec = "kcbq_config_changes_total" ["topic"],
        /// Records that the dead-letter topic has acknowledged, by the stage that refused them.
        pub dead_letters: IntCounterVec = "kcbq_dead_letters_total" ["topic", "stage"],
        /// Records between the committed offset and the end of the partition, summed over the
        /// partitions that this process owns; absent until it is known of all of them.
        pub lag_records: IntGaugeVec = "kcbq_lag_records" ["topic"],
        /// Age of the oldest record that is not committed yet, the greatest among the partitions
        /// that this process owns; 0 when everything is committed. Absent while it is unknown; where
        /// nothing can be read, the time since then.
        pub lag_seconds: GaugeVec = "kcbq_lag_seconds" ["topic"],
        /// Time since the oldest record was read that neither BigQuery nor the dead-letter topic has
        /// acknowledged; 0 when there is none.
        pub oldest_unacknowledged_seconds: GaugeVec = "kcbq_oldest_unacknowledged_seconds" ["topic"],
        /// Rows that BigQuery has acknowledged.
        pub rows_written: IntCounterVec = "kcbq_rows_written_total" ["table"],
        /// Bytes of encoded rows that BigQuery has acknowledged, before compression.
        pub written_bytes: IntCounterVec = "kcbq_written_bytes_total" ["table"],
        /// Batches that are settled: every row acknowledged or refused for good.
        pub batches: IntCounterVec = "kcbq_batches_total" ["table"],
        /// Time of one write request from sending to its answer, retries not included.
        pub write_seconds: HistogramVec = "kcbq_write_seconds" ["table"],
        /// Time from a record's timestamp to its acknowledgement, of the oldest record in each
        /// batch.
        pub end_to_end_seconds: HistogramVec = "kcbq_end_to_end_seconds" ["table"],
        /// Load jobs, by what became of them: `loaded`, `failed`, or `unknown` where a call about the
        /// job failed, which is made again.
        pub load_jobs: IntCounterVec = "kcbq_load_jobs_total" ["table", "outcome"],
        /// Commits of PENDING streams, by what became of them: `committed`, `failed`, or `unknown` where a
        /// call failed, which is made again.
        pub stream_commits: IntCounterVec = "kcbq_stream_commits_total" ["table", "outcome"],
        /// Bytes of rows that were staged for load jobs, before compression, or appended to PENDING streams.
        pub staged_bytes: IntCounterVec = "kcbq_staged_bytes_total" ["table"],
        /// What the rows cost that BigQuery has acknowledged, or that were staged for load jobs, in USD by
        /// `prices`, by write path: `streaming`, `storage` or `load`. An estimate: discounts are unknown.
        pub estimated_cost: CounterVec = "kcbq_estimated_cost_usd_total" ["table", "path"],
        /// Staged objects that were deleted because they were older than `gcs.orphan_age`: what owners
        /// that crashed have left behind.
        pub orphans_deleted: IntCounter = "kcbq_orphans_deleted_total" [],
        /// Whether a table that chooses its write path (`write: auto`) takes load jobs (1) or streams
        /// its rows (0); 0 for other tables.
        pub takes_load_path: IntGaugeVec = "kcbq_takes_load_path" ["table"],
        /// Times that a table took another write path, by the new path and the cause: `backlog`,
        /// `fresh`, `free`, `cheaper`, `streaming_quota`, `jobs_quota`.
        pub path_switches: IntCounterVec = "kcbq_path_switches_total" ["table", "path", "cause"],
        /// Changes to tables that BigQuery accepted: `create`, `add_column`, `relax`, `widen`.
        pub schema_changes: IntCounterVec = "kcbq_schema_changes_total" ["table", "kind"],
        /// Look-ups of schema ids in the registry, by what came of them: `found`, `unknown`, `unusable`
        /// (beyond a limit) or `failed`, which is tried again.
        pub registry_lookups: IntCounterVec = "kcbq_registry_lookups_total" ["outcome"],
        /// Schema ids that records wait for because the registry does not know them, or does not answer.
        pub waiting_schema_ids: IntGaugeVec = "kcbq_waiting_schema_ids" ["cause"],
        /// Requests sent again, by the fault that made it necessary.
        pub retries: IntCounterVec = "kcbq_retries_total" ["table", "cause"],
        /// Rows that wait for a column, a table or a permission.
        pub waiting_rows: IntGaugeVec = "kcbq_waiting_rows" ["table"],
        /// Bytes that were read and are not acknowledged: rows, original payloads and requests.
        pub in_flight_bytes: IntGauge = "kcbq_in_flight_bytes" [],
        /// The budget of `limits.bytes_in_flight`.
        pub in_flight_limit_bytes: IntGauge = "kcbq_in_flight_limit_bytes" [],
        /// Times that reading was held back for a moment because half of a worker's memory was in
        /// flight: while this grows, BigQuery sets the pace, not Kafka.
        pub holds: IntCounter = "kcbq_holds_total" [],
        /// Times that all partitions of a worker were paused because three quarters of its memory
        /// were in flight: what had been fetched is read again. Rare in good health.
        pub stops: IntCounter = "kcbq_stops_total" [],
        /// Partitions that are paused because what they hold does not become acknowledged while
        /// others wait for the memory.
        pub stuck_lanes: IntGauge = "kcbq_stuck_partitions" [],
        /// Records that were read and are not acknowledged.
        pub in_flight_records: IntGauge = "kcbq_in_flight_records" [],
        /// Offset commits that Kafka accepted.
        pub commits: IntCounter = "kcbq_commits_total" [],
        /// Offset commits that Kafka refused or did not answer, by class.
        pub commit_failures: IntCounterVec = "kcbq_commit_failures_total" ["cause"],
        /// Time of one offset commit from sending to its answer.
        pub commit_seconds: Histogram = "kcbq_commit_seconds" [],
        /// Changes of the partitions that this process owns: `assign`, `revoke`, `lost`.
        pub rebalances: IntCounterVec = "kcbq_rebalances_total" ["kind"],
        /// Partitions that this process owns, by state.
        pub lanes: IntGaugeVec = "kcbq_lanes" ["state"],
        /// Partitions, tables and parts of the process that do not move, by what they are and why: what, since
        /// when and what to do stands in `/status`.
        pub troubles: IntGaugeVec = "kcbq_troubles" ["subject", "cause"],
        /// Time since the poll thread last turned.
        pub poll_age_seconds: Gauge = "kcbq_poll_age_seconds" [],
        /// Always 1; the version is a label.
        pub build_info: IntGaugeVec = "kcbq_build_info" ["version"],
    }
}
