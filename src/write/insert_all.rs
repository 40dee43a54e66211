//! Streaming inserts: `tabledata.insertAll`.
//!
//! At least once: insertIds are deterministic, so that BigQuery drops most repetitions that come
//! within about a minute, but it promises nothing
//! (<https://docs.cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/insertAll>).

pub mod classify;
pub mod client;
pub mod framing;
pub mod service;
pub mod settings;

pub use service::InsertAll;
