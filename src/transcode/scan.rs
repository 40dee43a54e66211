//! Scanning of text, sixteen bytes at a time: how many, from the first, can be taken as they are.

use wide::u8x16;

use crate::transcode::raw_text::pad;

/// How many bytes are looked at together, the first one the lowest of a number.
pub const CHUNK: usize = 16;

/// Bytes before the first `"`, `\` or control character: what a JSON string holds as it is.
#[inline(always)]
pub fn clean(chunk: u128) -> usize {
    before_first(specials(bytes(chunk)))
}

/// How many bytes of the first chunk of `text` are such; a text that ends within it ends them.
#[inline(always)]
pub fn clean_first(text: &[u8]) -> usize {
    before_first(specials(first(text)))
}

/// The first chunk of `text`, padded with zeros.
#[inline(always)]
fn first(text: &[u8]) -> u8x16 {
    match text.first_chunk::<CHUNK>() {
        Some(chunk) => u8x16::from(*chunk),
        None => bytes(pad(text)),
    }
}

/// As [`clean`], and before the first byte that is not ASCII.
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

/// Whether four chunks are ASCII.
#[inline(always)]
pub fn all_ascii(block: &[u8; 4 * CHUNK]) -> bool {
    let (chunks, _) = block.as_chunks::<CHUNK>();
    let union = chunks.iter().fold(u8x16::splat(0), |union, chunk| union | u8x16::from(*chunk));
    union.to_bitmask() == 0
}

/// Which bytes of the first chunk of `text` are decimal digits, the first byte's bit the lowest.
#[inline(always)]
pub fn digits(text: &[u8]) -> u32 {
    let above_zero = first(text) - u8x16::splat(b'0');
    above_zero.simd_eq(above_zero.min(u8x16::splat(9))).to_bitmask()
}

/// How far the bytes of `chunk` are above those of `least`, if none is below it or above `most`.
#[inline(always)]
pub fn above(chunk: &[u8; CHUNK], least: &[u8; CHUNK], most: &[u8; CHUNK]) -> Option<[u8; CHUNK]> {
    let least = u8x16::from(*least);
    let above = u8x16::from(*chunk) - least;
    let is_within = above.simd_eq(above.min(u8x16::from(*most) - least));
    (is_within.to_bitmask() == u32::from(u16::MAX)).then_some(above.to_array())
}

/// Whether the first bytes of both are equal, as many as `beyond` has zeros before its ones.
#[inline(always)]
pub fn is_same(one: &[u8; CHUNK], other: &[u8; CHUNK], beyond: u32) -> bool {
    let equal = u8x16::from(*one).simd_eq(u8x16::from(*other)).to_bitmask();
    equal | beyond == u32::from(u16::MAX)
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
            prop_assert_eq!(clean_first(&bytes), expected.min(CHUNK));
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

        #[test]
        fn digits_are_told_from_their_neighbours(chunk in proptest::array::uniform16(
            prop_oneof![3 => 0x30_u8..0x3a, 1 => any::<u8>(), 1 => 0x2e_u8..0x3c]
        )) {
            let mask = digits(&chunk);
            prop_assert_eq!(digits(&chunk[..9]), mask & 0x1ff);
            for (at, byte) in chunk.iter().enumerate() {
                prop_assert_eq!(mask >> at & 1 == 1, byte.is_ascii_digit());
            }
            prop_assert_eq!(mask >> CHUNK, 0);
            let mut block = [0x7f; 4 * CHUNK];
            prop_assert!(all_ascii(&block));
            block[mask as usize % (4 * CHUNK)] = 0x80;
            prop_assert!(!all_ascii(&block));
        }

        #[test]
        fn each_byte_has_its_own_bounds(chunk: [u8; CHUNK], at in 0..CHUNK, below: u8, beyond: u8) {
            let (mut least, mut most) = (chunk, chunk);
            let expected = [0; CHUNK];
            prop_assert_eq!(above(&chunk, &least, &most), Some(expected));
            least[at] = least[at].saturating_sub(below);
            most[at] = most[at].saturating_add(beyond);
            let mut expected = [0; CHUNK];
            expected[at] = chunk[at] - least[at];
            prop_assert_eq!(above(&chunk, &least, &most), Some(expected));
            let mut other = chunk;
            other[at] = most[at].wrapping_add(1);
            prop_assert_eq!(above(&other, &least, &most).is_some(), least[at] == 0 && most[at] == 0xff);
            other[at] = least[at].wrapping_sub(1);
            prop_assert_eq!(above(&other, &least, &most).is_some(), least[at] == 0 && most[at] == 0xff);
        }

        #[test]
        fn only_the_first_bytes_need_be_the_same(
            chunk: [u8; CHUNK], at in 0..CHUNK, flip in 1_u8.., len in 0..=CHUNK
        ) {
            let mut other = chunk;
            other[at] ^= flip;
            let beyond = 0xffff_u32 & 0xffff_u32 << len;
            prop_assert_eq!(is_same(&chunk, &other, beyond), at >= len);
            prop_assert!(is_same(&chunk, &chunk, beyond));
        }
    }
}
