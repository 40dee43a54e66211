//! Scanning of text, sixteen bytes at a time: how many, from the first, can be taken as they are.

use wide::u8x16;

/// How many bytes are looked at together, the first one the lowest of a number.
pub const CHUNK: usize = 16;

/// Bytes before the first `"`, `\` or control character: what a JSON string holds as it is.
#[inline(always)]
pub fn clean(chunk: u128) -> usize {
    before_first(specials(bytes(chunk)))
}

/// The same, and before the first byte that is not ASCII.
#[inline(always)]
pub fn clean_ascii(chunk: u128) -> usize {
    let bytes = bytes(chunk);
    before_first(specials(bytes) | bytes)
}

/// Bytes before the first that is not ASCII.
#[inline(always)]
pub fn ascii(chunk: u128) -> usize {
    before_first(bytes(chunk))
}

#[inline(always)]
fn bytes(chunk: u128) -> u8x16 {
    u8x16::from(chunk.to_le_bytes())
}

#[inline(always)]
fn specials(bytes: u8x16) -> u8x16 {
    let control = bytes.simd_eq(bytes.min(u8x16::splat(0x1f)));
    control | bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\'))
}

/// Bytes before the first whose high bit is set.
#[inline(always)]
fn before_first(marked: u8x16) -> usize {
    (marked.to_bitmask() | 1 << CHUNK).trailing_zeros() as usize
}

/// How many bytes from the start are neither `"` nor `\` nor a control character: what a JSON
/// string holds as it is.
#[inline]
pub fn clean_prefix(bytes: &[u8]) -> usize {
    let mut prefix = 0;
    let (chunks, rest) = bytes.as_chunks::<CHUNK>();
    for chunk in chunks {
        let plain = clean(u128::from_le_bytes(*chunk));
        prefix += plain;
        if plain < CHUNK {
            return prefix;
        }
    }
    prefix + rest.iter().position(|byte| is_special(*byte)).unwrap_or(rest.len())
}

fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_prefix_is_the_one_a_plain_loop_finds(bytes in proptest::collection::vec(
            prop_oneof![8 => 0x20_u8..=0xff, 1 => 0_u8..0x40, 1 => Just(b'\\')], 0..40
        )) {
            let expected = bytes.iter().position(|byte| is_special(*byte)).unwrap_or(bytes.len());
            prop_assert_eq!(clean_prefix(&bytes), expected);
        }

        #[test]
        fn a_chunk_is_counted_as_a_plain_loop_counts(chunk in proptest::array::uniform16(
            prop_oneof![30 => 0x20_u8..0x7f, 1 => any::<u8>(), 1 => 0x1e_u8..0x24, 1 => 0x5b_u8..0x5e]
        )) {
            let before = |special: fn(u8) -> bool| {
                chunk.iter().position(|byte| special(*byte)).unwrap_or(CHUNK)
            };
            let number = u128::from_le_bytes(chunk);
            prop_assert_eq!(clean(number), before(is_special));
            prop_assert_eq!(clean_ascii(number), before(|byte| is_special(byte) || !byte.is_ascii()));
            prop_assert_eq!(ascii(number), before(|byte| !byte.is_ascii()));
        }
    }
}
