//! Scanning of JSON string contents, eight bytes at a time.

/// How many bytes from the start are neither `"` nor `\` nor a control character: what a JSON
/// string holds as it is.
#[inline]
pub fn clean_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut clean = 0;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        let word = u64::from_le_bytes(*chunk);
        let equals = |byte: u64| {
            let differing = word ^ (ONES * byte);
            differing.wrapping_sub(ONES) & !differing
        };
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let special = (control | equals(0x22) | equals(0x5c)) & HIGHS;
        if special != 0 {
            // The lowest flag is exact; a borrow can only raise false flags above a true one.
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
