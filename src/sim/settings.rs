//! How strict, how large and how slow the simulated BigQuery is.

use serde::{Deserialize, Serialize};

/// What the simulator keeps of the rows it accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreMode {
    /// Every cell, in canonical form. `tabledata.list` works.
    #[default]
    Rows,
    /// The record's coordinates from the metadata columns and a hash of the other cells (see
    /// [`crate::sim::bigquery::hash`]): 32 bytes or so per row. Rows are validated as in `Rows`.
    Ledger,
    /// Only numbers. Rows are counted by their keys and neither parsed nor validated nor
    /// deduplicated: the counting sink of benchmarks, and nothing else.
    Count,
}

/// Limits and delays; the defaults are BigQuery's published numbers, with visibility delays of 0.
///
/// All times are milliseconds of the `now` handed to the core, which is the time since the Unix
/// epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimSettings {
    /// What is kept of accepted rows.
    pub store: StoreMode,
    /// How long insertAll does not find a table after it was created.
    pub create_delay_ms: u64,
    /// How long insertAll goes by the old schema after a change.
    pub alter_delay_ms: u64,
    /// How long an insertId is remembered; 0 switches deduplication off.
    pub dedupe_ms: u64,
    /// Table metadata updates accepted per table and `update_window_ms`; a load job is one.
    pub updates_max: usize,
    /// The window of `updates_max`.
    pub update_window_ms: u64,
    /// Bytes of one request's body.
    pub request_bytes_max: usize,
    /// Bytes of one row's JSON.
    pub row_bytes_max: usize,
    /// Rows of one insertAll request.
    pub rows_max: usize,
    /// Columns of a table, nested ones included.
    pub columns_max: usize,
    /// Levels of nested records.
    pub nesting_max: usize,
    /// Whether values of a partitioning column must lie in the window that streaming accepts (10
    /// years back, 1 ahead).
    pub partition_window: bool,
    /// The columns that hold topic, partition and offset, as dotted paths; for the ledger.
    pub coordinates: [String; 3],
    /// Top-level columns that start with this do not count for a row's hash.
    pub metadata_prefix: String,
    /// `user:password` that the registry demands; `None` for open access.
    pub registry_basic_auth: Option<String>,
    /// The buckets that exist, beside those that a request creates; empty: all do.
    pub buckets: Vec<String>,
    /// Bytes of one upload, to Cloud Storage or with a load job; the simulator keeps them in memory.
    pub upload_bytes_max: usize,
    /// How long a resumable session lives.
    pub upload_session_ms: u64,
    /// Load jobs.
    pub load: LoadSettings,
    /// The Storage Write API.
    pub storage: StorageSettings,
}

/// Limits of the Storage Write API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageSettings {
    /// Bytes of one `AppendRows` request.
    pub request_bytes_max: usize,
    /// How long a connection may be without a request before the service ends it.
    pub idle_ms: u64,
    /// How old a connection becomes before the service ends it; `None`: any age.
    pub connection_age_ms: Option<u64>,
    /// Streams that may be created in `create_window_ms`.
    pub creates_max: usize,
    /// The window of `creates_max`.
    pub create_window_ms: u64,
    /// How long a stream lives that an application has created.
    pub stream_life_ms: u64,
    /// How long the deletion of a row by its primary key is remembered.
    pub deleted_kept_ms: u64,
}

impl Default for StorageSettings {
    fn default() -> Self {
        Self {
            request_bytes_max: 10 << 20,
            idle_ms: 600_000,
            connection_age_ms: None,
            creates_max: 10_000,
            create_window_ms: 3_600_000,
            stream_life_ms: 4 * 86_400_000,
            deleted_kept_ms: 2 * 86_400_000,
        }
    }
}

/// Limits and delays of load jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadSettings {
    /// How long a job is `PENDING`. Its objects are read when it begins to run.
    pub pending_ms: u64,
    /// How long a job is `RUNNING`. Its rows appear when it ends.
    pub running_ms: u64,
    /// Jobs of one table in `quota_window_ms`, failed ones included.
    pub per_table_max: usize,
    /// Jobs of one project in `quota_window_ms`, failed ones included.
    pub per_project_max: usize,
    /// The window of both. BigQuery refills a daily quota over the day; here a job leaves the
    /// count after this time.
    pub quota_window_ms: u64,
    /// Whether a job over a quota is created and fails, its id used up, or is refused with 403 and
    /// leaves its id free. The documentation shows both answers; issue trackers show failed jobs.
    pub quota_fails_job: bool,
    /// Source URIs of one job.
    pub uris_max: usize,
    /// Bytes of one row's JSON.
    pub row_bytes_max: usize,
    /// Bytes of one Avro block, decompressed.
    pub avro_block_bytes_max: usize,
    /// Partitions that one job may modify.
    pub partitions_max: usize,
    /// Whether Avro's `timestamp-nanos` and `local-timestamp-nanos` become TIMESTAMP and DATETIME,
    /// cut to microseconds. BigQuery documents no conversion, so by default they are INTEGER.
    pub avro_nanos: bool,
}

impl Default for LoadSettings {
    fn default() -> Self {
        Self {
            pending_ms: 0,
            running_ms: 0,
            per_table_max: 1_500,
            per_project_max: 100_000,
            quota_window_ms: 86_400_000,
            quota_fails_job: true,
            uris_max: 10_000,
            row_bytes_max: 100 << 20,
            avro_block_bytes_max: 16 << 20,
            partitions_max: 4_000,
            avro_nanos: false,
        }
    }
}

impl Default for SimSettings {
    fn default() -> Self {
        Self {
            store: StoreMode::Rows,
            create_delay_ms: 0,
            alter_delay_ms: 0,
            dedupe_ms: 60_000,
            updates_max: 5,
            update_window_ms: 10_000,
            request_bytes_max: 10 << 20,
            row_bytes_max: 10 << 20,
            rows_max: 50_000,
            columns_max: 10_000,
            nesting_max: 15,
            partition_window: true,
            coordinates: ["_kafka_topic", "_kafka_partition", "_kafka_offset"].map(String::from),
            metadata_prefix: "_kafka_".to_owned(),
            registry_basic_auth: None,
            buckets: Vec::new(),
            upload_bytes_max: 1 << 30,
            upload_session_ms: 7 * 86_400_000,
            load: LoadSettings::default(),
            storage: StorageSettings::default(),
        }
    }
}
