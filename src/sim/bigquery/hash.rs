//! The value hash of the ledger, defined so that anybody can compute it.
//!
//! 1. Take the row's non-null top-level columns whose names do not start with the metadata prefix
//!    (`_kafka_` by default).
//! 2. Write each cell canonically, as JSON:
//!    - scalars are JSON strings: BOOL `true`/`false`; INT64 in decimal; FLOAT64 as Rust's shortest
//!      `{:?}` form (`1.0`, `0.1`, `1e20`, `NaN`, `inf`, `-inf`); NUMERIC and BIGNUMERIC in plain
//!      decimal without exponent, superfluous zeros, trailing point or negative zero; STRING as it
//!      is; BYTES in standard base64 with padding; DATE `YYYY-MM-DD`; TIME `HH:MM:SS[.ffffff]`;
//!      DATETIME `YYYY-MM-DDTHH:MM:SS[.ffffff]` (the fraction has six digits or is absent);
//!      TIMESTAMP as microseconds since the epoch in decimal; JSON as compact text with sorted
//!      object keys; other types as received;
//!    - a record is an object of its non-null fields, keys sorted by bytes;
//!    - an array is an array; an empty one is left out like a null.
//! 3. Serialise the whole as one compact JSON object, keys sorted by bytes, no spaces, with
//!    `serde_json`'s string escapes (only `"`, `\` and control characters are escaped).
//! 4. FNV-1a, 64 bits, of those UTF-8 bytes. The dump shows 16 lower-case hexadecimal digits.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// FNV-1a, 64 bits.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// The hash of a row whose cells are canonical already (nested keys sorted, nulls left out).
pub fn value_hash(row: &Map<String, Value>, metadata_prefix: &str) -> u64 {
    let cells: BTreeMap<&String, &Value> =
        row.iter().filter(|(name, _)| !name.starts_with(metadata_prefix)).collect();
    fnv1a(serde_json::to_string(&cells).unwrap_or_default().as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fnv1a_matches_its_published_vectors() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn metadata_and_key_order_do_not_count() {
        let row = |value: Value| value.as_object().cloned().unwrap();
        let one = row(json!({"b": "2", "a": "1", "_kafka_offset": "7"}));
        let two = row(json!({"a": "1", "_kafka_offset": "8", "b": "2"}));
        let other = row(json!({"a": "1", "b": "3"}));
        assert_eq!(value_hash(&one, "_kafka_"), value_hash(&two, "_kafka_"));
        assert_eq!(value_hash(&one, "_kafka_"), fnv1a(br#"{"a":"1","b":"2"}"#));
        assert_ne!(value_hash(&one, "_kafka_"), value_hash(&other, "_kafka_"));
    }
}
