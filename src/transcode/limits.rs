//! Bounds against hostile or broken payloads.
//!
//! Apache Avro's own readers had to learn these (CVE-2022-36124 and AVRO-4302): a length field
//! must never decide how much memory is taken.

/// How deep arrays, maps, records and unions may nest, in a schema or in a JSON document.
pub const DEPTH_MAX: usize = 64;

/// How many elements of an encoding that takes no bytes (an array of `null`) are read.
pub const EMPTY_ELEMENTS_MAX: u64 = 1_000;

/// Limits of one plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest encoded row, in bytes. BigQuery takes 10 MB.
    pub row_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { row_bytes_max: 10_000_000 }
    }
}
