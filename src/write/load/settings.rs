//! The `load` section of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::write::load::container::AvroCodec;

/// How rows are staged and loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoadSettings {
    /// Load jobs that this service may make for one table in a day, all its replicas together.
    /// BigQuery allows 1,500, failed ones included, and does not raise it: give this service its share.
    /// One tenth is kept for failed jobs. Default: 1,500.
    #[schemars(range(min = 1))]
    pub jobs_per_table_day: u32,
    /// Bytes of rows in one staged object, before compression. It waits in memory until it is full, or
    /// its job is due, or the memory is short. With `write: pending`, in one append, of 9 MB at most.
    /// Default: 4 MiB.
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub object_bytes: usize,
    /// How rows stand in staged objects. Default: `auto`.
    pub format: StagingFormat,
    /// How the blocks of Avro containers are compressed: `none`, `snappy`, `zstandard` or `deflate`. Loading
    /// is free of charge whatever the size; compress where the way to the bucket is narrow. Default: `none`.
    pub avro_codec: AvroCodec,
}

/// How rows stand in staged objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StagingFormat {
    /// Avro records go through as they are, in Avro containers, where BigQuery reads every field as its
    /// column has it; all else is gzipped JSON.
    #[default]
    Auto,
    /// Always gzipped JSON.
    Ndjson,
}

impl Default for LoadSettings {
    fn default() -> Self {
        Self {
            jobs_per_table_day: 1_500,
            object_bytes: 4 << 20,
            format: StagingFormat::Auto,
            avro_codec: AvroCodec::None,
        }
    }
}
