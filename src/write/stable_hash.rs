//! A hash that stands in names which outlive a process.

/// FNV-1a, 128 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>). It stands in every insertId and in
/// every load job's id, so it must never change from release to release, which no hasher meant for
/// tables promises.
pub(crate) fn fnv1a_128(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}
