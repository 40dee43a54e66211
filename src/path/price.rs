//! What writing costs, by list prices: an estimate, since discounts and other users of the project are
//! unknown here.

use std::{fmt, iter::Sum};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Stream;

/// What a streamed row counts for at least
/// (<https://cloud.google.com/bigquery/pricing#data-ingestion-pricing>).
pub const ROW_BYTES_MIN: u64 = 1_024;
/// A record's size before any was read.
pub const RECORD_BYTES: u64 = 1_000;

const GIB: f64 = 1_073_741_824.0;

/// What BigQuery charges for writing, in USD. They are part of the choice of `write: auto` and of
/// `kcbq_estimated_cost_usd_total`; put yours in where you do not pay the list prices of the US.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Prices {
    /// USD for a GiB of rows by streaming inserts, where a row of less than 1 KiB counts as one of
    /// 1 KiB. Default: 0.0512, from 0.01 USD for 200 MiB.
    #[schemars(range(min = 0.0))]
    pub streaming_usd_per_gib: f64,
    /// USD for a GiB of rows by the Storage Write API, every byte counted. The first two TiB of a month
    /// are free, which is not accounted for. Default: 0.025.
    #[schemars(range(min = 0.0))]
    pub storage_usd_per_gib: f64,
    /// USD for a GiB of rows by load jobs. Default: 0, because they are free of charge unless a
    /// reservation of your own runs them.
    #[schemars(range(min = 0.0))]
    pub load_usd_per_gib: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self {
            streaming_usd_per_gib: 0.01 * 1_024.0 / 200.0,
            storage_usd_per_gib: 0.025,
            load_usd_per_gib: 0.0,
        }
    }
}

impl Prices {
    /// What `bytes` cost by streaming inserts, of rows that are counted as [`ROW_BYTES_MIN`] at least.
    pub fn streamed(&self, bytes: u64) -> Usd {
        Usd(bytes as f64 / GIB * self.streaming_usd_per_gib)
    }

    /// What `bytes` of rows cost by the Storage Write API.
    pub fn appended(&self, bytes: u64) -> Usd {
        Usd(bytes as f64 / GIB * self.storage_usd_per_gib)
    }

    /// What `bytes` of rows cost by load jobs.
    pub fn loaded(&self, bytes: u64) -> Usd {
        Usd(bytes as f64 / GIB * self.load_usd_per_gib)
    }

    /// What rows cost streamed and loaded, all of them taken for equally large.
    pub fn costs(&self, rows: Volume, stream: Stream) -> Costs {
        let streaming = match stream {
            Stream::Appends => self.appended(rows.bytes),
            Stream::Inserts => {
                self.streamed(rows.bytes.max(rows.rows.saturating_mul(ROW_BYTES_MIN)))
            }
        };
        Costs { streaming, load: self.loaded(rows.bytes) }
    }
}

/// What the same rows cost by each path.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Costs {
    /// Streamed, whichever way.
    pub streaming: Usd,
    /// By load jobs.
    pub load: Usd,
}

/// An amount of money.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Usd(pub f64);

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            usd if usd <= 0.0 => f.write_str("nothing"),
            usd if usd < 0.01 => f.write_str("less than 0.01 USD"),
            usd => write!(f, "{usd:.2} USD"),
        }
    }
}

/// Rows, or records that become rows, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// How many.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Volume {
    /// So many rows, as large as these are on average; a kilobyte each where there are none.
    #[must_use]
    pub fn scaled(self, rows: u64) -> Self {
        let all = u128::from(self.bytes) * u128::from(rows);
        let bytes = match all.checked_div(u128::from(self.rows)) {
            Some(bytes) => u64::try_from(bytes).unwrap_or(u64::MAX),
            None => rows.saturating_mul(RECORD_BYTES),
        };
        Self { rows, bytes }
    }
}

impl Sum for Volume {
    fn sum<I: Iterator<Item = Self>>(volumes: I) -> Self {
        volumes.fold(Self::default(), |sum, one| Self {
            rows: sum.rows.saturating_add(one.rows),
            bytes: sum.bytes.saturating_add(one.bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_rows_are_streamed_at_the_price_of_a_kibibyte_and_loaded_for_nothing() {
        let prices = Prices::default();
        let small = prices.costs(Volume { rows: 1 << 20, bytes: 200 << 20 }, Stream::Inserts);
        assert!((small.streaming.0 - 0.0512).abs() < 1e-9, "{small:?}");
        assert_eq!(
            (small.load.to_string(), small.streaming.to_string().as_str()),
            ("nothing".into(), "0.05 USD")
        );
        let large = prices.costs(Volume { rows: 1 << 10, bytes: 200 << 20 }, Stream::Inserts);
        assert!((large.streaming.0 - 0.01).abs() < 1e-9, "0.01 USD for 200 MiB: {large:?}");
        let own = Prices { load_usd_per_gib: 0.02, ..prices };
        let gib = Volume { rows: 1 << 30, bytes: 1 << 30 };
        let costs = Costs { streaming: Usd(0.025), load: Usd(0.02) };
        assert_eq!(own.costs(gib, Stream::Appends), costs, "every byte counts, and no more");
        assert_eq!(Usd(0.004).to_string(), "less than 0.01 USD");
    }

    #[test]
    fn a_volume_is_scaled_by_its_average_row() {
        let read = [Volume { rows: 3, bytes: 90 }, Volume { rows: 1, bytes: 10 }];
        let read: Volume = read.into_iter().sum();
        assert_eq!(read.scaled(7), Volume { rows: 7, bytes: 175 });
        assert_eq!(Volume::default().scaled(7).bytes, 7_000);
        assert_eq!(read.scaled(u64::MAX).bytes, u64::MAX);
    }
}
