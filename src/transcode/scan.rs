//! Scanning of JSON string contents, eight bytes at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Marks the bytes that a JSON string does not hold as they are: `"`, `\`, control characters.
///
/// As everywhere here, the lowest mark is exact; a borrow can only raise false ones above it.
#[inline(always)]
pub fn specials(word: u64) -> u64 {
    raised(word) & !word & HIGHS
}

/// Marks the same bytes and those that are not ASCII.
#[inline(always)]
pub fn specials_and_beyond_ascii(word: u64) -> u64 {
    (raised(word) | word) & HIGHS
}

/// Has the high bit of every special byte set, and of no other ASCII byte.
#[inline(always)]
fn raised(word: u64) -> u64 {
    let control = word.wrapping_sub(ONES * 0x20);
    let quote = (word ^ (ONES * 0x22)).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
    control | quote | backslash
}

/// Marks what is not ASCII.
#[inline(always)]
pub fn beyond_ascii(word: u64) -> u64 {
    word & HIGHS
}

/// How many bytes from the start are neither `"` nor `\` nor a control character: what a JSON
/// string holds as it is.
#[inline]
pub fn clean_prefix(bytes: &[u8]) -> usize {
    let mut clean = 0;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        let special = specials(u64::from_le_bytes(*chunk));
        if special != 0 {
            return clean + (special.trailing_zeros() / 8) as usize;
        }
        clean += 8;
    }
    let is_special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    clean + rest.iter().position(is_special).unwrap_or(rest.len())
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
            let expected = bytes
                .iter()
                .position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\')
                .unwrap_or(bytes.len());
            prop_assert_eq!(clean_prefix(&bytes), expected);
        }
    }
}
