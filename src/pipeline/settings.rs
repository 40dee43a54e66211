//! What the pipeline is told: which topics go where, how, and within which limits.
//!
//! The user writes `config::topic::TopicConfig`; these are its validated forms. Only settings that
//! need no validation beyond a range are read from the file directly.

use std::{path::PathBuf, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    header_tables::{AllowanceError, AllowedTables, HeaderTables},
    matcher::TopicMatch,
    template::{Missing, TableTemplate, TemplateError},
};
use crate::{
    delivery::budget::BudgetSettings,
    path::Stream,
    schema::{columns::ColumnRules, policy::Policy},
    table::TableLayout,
    transcode::settings::{Format, RowSettings},
    write::load::settings::LoadSettings,
};

pub mod header_tables;
pub mod matcher;
pub mod template;

/// What becomes of a record whose value is null (a tombstone on a compacted topic).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NullValue {
    /// It is counted and otherwise ignored.
    #[default]
    Skip,
    /// It becomes a row with its key and metadata columns, all others null.
    Row,
    /// It goes to the dead-letter topic.
    DeadLetter,
}

/// How rows reach BigQuery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// Load jobs while they are fresh enough, while the topic is far behind, or while streaming is
    /// refused for a quota; otherwise, and always without `gcs.bucket`, the Storage Write API
    /// (streaming inserts where `bigquery.endpoint` is an emulator and `bigquery.storage_endpoint` is
    /// none). Each table of each process decides for itself, and `/status` says why. At least once.
    #[default]
    Auto,
    /// The Storage Write API, to each table's `_default` stream: rows are visible within seconds, at least
    /// once, at half the price of streaming inserts (`bigquery.storage`).
    Storage,
    /// Streaming inserts (`tabledata.insertAll`): rows are visible within seconds, at least once, and rows
    /// that are sent again within a minute are mostly recognised.
    #[serde(alias = "insert_all")]
    Streaming,
    /// Load jobs: rows are staged in the bucket of `gcs` (in memory without one) and brought by a job per partition when
    /// `freshness` and the quota of the table allow, exactly once, and free of charge.
    Load,
    /// The Storage Write API, to PENDING streams: the rows of a partition become visible all at once, by a commit
    /// every `freshness`, at least once, at the price of `storage`. For batches of minutes of topics with more
    /// partitions than a table has load jobs for, and without a bucket.
    Pending,
}

impl WriteMode {
    /// How rows are streamed where they are; `has_storage`: the Storage Write API can be reached.
    pub fn stream(self, has_storage: bool) -> Stream {
        match self {
            Self::Storage | Self::Pending => Stream::Appends,
            Self::Auto if has_storage => Stream::Appends,
            Self::Auto | Self::Streaming | Self::Load => Stream::Inserts,
        }
    }

    /// Whether rows may come by load jobs. Without a bucket only those that never stream do.
    pub fn may_load(self, has_bucket: bool) -> bool {
        match self {
            Self::Storage | Self::Streaming | Self::Pending => false,
            Self::Load => true,
            Self::Auto => has_bucket,
        }
    }
}

/// When an open batch is sent: as soon as one of these is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchSettings {
    /// Bytes of encoded rows in one request. BigQuery takes requests of 10 MB; much smaller ones
    /// cost more per row.
    #[schemars(range(min = 1024, max = 9_500_000))]
    pub bytes_max: usize,
    /// Rows in one request. BigQuery takes 50,000 and recommends 500; larger requests raise the
    /// throughput where rows are small.
    #[schemars(range(min = 1, max = 50_000))]
    pub rows_max: usize,
    /// Milliseconds that a row may wait in an open batch: the price of larger requests in freshness.
    #[schemars(range(min = 1, max = 600_000))]
    pub linger_ms: u64,
}

impl BatchSettings {
    /// How long a row may wait in an open batch.
    pub fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self { bytes_max: 1_000_000, rows_max: 5_000, linger_ms: 1_000 }
    }
}

/// What the process may use, shared by all its topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Bytes that may be read and not yet acknowledged, original payloads and encoded rows
    /// together. At half of it reading is held back; the other half is for what is stuck meanwhile.
    #[schemars(range(min = 1_048_576, max = 68_719_476_736_u64))]
    pub bytes_in_flight: usize,
    /// Threads that turn records into rows. 0 is one per CPU that the process may use.
    #[schemars(range(min = 0, max = 256))]
    pub workers: usize,
    /// Milliseconds between two offset commits.
    #[schemars(range(min = 100, max = 60_000))]
    pub commit_interval_ms: u64,
    /// Milliseconds that partitions which are taken away, or a stopping process, may take to settle
    /// what is in flight; the rest is read again by the next owner. Never more than three quarters of
    /// Kafka's `session.timeout.ms`, after which the group goes on without a member that leaves.
    #[schemars(range(min = 0, max = 240_000))]
    pub drain_timeout_ms: u64,
    /// Milliseconds until a halted partition tries again by itself, where the cause can pass: a record
    /// was refused and there is no dead-letter topic. A dead-letter budget that is used up waits for a
    /// release.
    #[schemars(range(min = 1_000, max = 3_600_000))]
    pub halt_retry_ms: u64,
}

impl LimitSettings {
    /// The number of workers, with 0 resolved.
    pub fn workers(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }

    /// The time between two commits.
    pub fn commit_interval(&self) -> Duration {
        Duration::from_millis(self.commit_interval_ms)
    }

    /// The time to settle what is in flight.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }

    /// The time until a halted lane tries again.
    pub fn halt_retry(&self) -> Duration {
        Duration::from_millis(self.halt_retry_ms)
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            bytes_in_flight: 256 << 20,
            workers: 0,
            commit_interval_ms: 1_000,
            drain_timeout_ms: 30_000,
            halt_retry_ms: 60_000,
        }
    }
}

/// How a value or a key is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadSettings {
    /// Its encoding.
    pub format: Format,
    /// A local Avro schema in place of the registry.
    pub schema: Option<PathBuf>,
}

/// How load jobs are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicLoad {
    /// The consumer group.
    pub group: Arc<str>,
    /// Counted up to have records loaded once more.
    pub epoch: u32,
    /// Sizes and quota.
    pub settings: LoadSettings,
    /// PENDING streams that this service may create in an hour.
    pub streams_per_hour: u32,
}

/// The topics that match one entry of the configuration, and where they go. Validated.
#[derive(Clone, Debug)]
pub struct TopicSettings {
    /// Which topics.
    pub matcher: TopicMatch,
    /// How values are read.
    pub value: PayloadSettings,
    /// How keys are read; `None` ignores them.
    pub key: Option<PayloadSettings>,
    /// The table's name.
    pub table: TableTemplate,
    /// Which tables headers may choose.
    pub header_tables: AllowedTables,
    /// The dataset, literal: the template's, or `bigquery.dataset`.
    pub dataset: Arc<str>,
    /// How rows reach BigQuery.
    pub write: WriteMode,
    /// How they are streamed where they are.
    pub stream: Stream,
    /// How old a row may be when it is visible in the table.
    pub freshness: Duration,
    /// How load jobs are made.
    pub load: TopicLoad,
    /// The topic for records that cannot be written; `None` halts the lane at the first one.
    pub dead_letter: Option<Arc<str>>,
    /// When to halt instead of diverting.
    pub dead_letter_budget: BudgetSettings,
    /// What becomes of a null value.
    pub null_value: NullValue,
    /// When a batch is sent.
    pub batch: BatchSettings,
    /// What a row is made of beside the value.
    pub row: RowSettings,
    /// How columns are derived from a schema.
    pub columns: ColumnRules,
    /// Which changes the service may make to tables.
    pub policy: Policy,
    /// What a new table is created with.
    pub layout: TableLayout,
}

impl TopicSettings {
    /// Whether anything looks at a record's headers.
    pub fn use_headers(&self) -> bool {
        let written = self.row.headers_column.is_some() || self.dead_letter.is_some();
        written || self.table.uses_headers()
    }
}
