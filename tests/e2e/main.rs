//! End-to-end tests against real parts: Apache Kafka, a public BigQuery emulator, and the product's
//! own processes. See `tests/e2e/README.md`.
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]
#![expect(clippy::indexing_slicing, reason = "the rig indexes what it has just made")]

mod kill;
mod rig;
mod selftest;

use anyhow::Result;

fn main() -> Result<()> {
    selftest::run()
}
