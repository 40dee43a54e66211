//! The Storage Write API: rows appended to a table's `_default` stream, or to PENDING streams.
//!
//! `_default` is at least once: a request whose answer was lost is sent again, and the stream knows no offsets
//! (<https://docs.cloud.google.com/bigquery/docs/write-api#default_stream>). Others know them: see [`pending`].

pub mod classify;
pub mod connection;
pub mod descriptor;
pub mod framing;
pub mod names;
pub mod news;
pub mod pace;
pub mod pending;
pub mod pool;
pub mod service;
pub mod settings;

#[cfg(test)]
mod bench;

pub use service::StorageWrite;
