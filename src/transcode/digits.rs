//! Decimal digits of integers, written and read without a branch per digit: how many there are, nobody can predict.

use crate::transcode::writer::push_first;

/// Eight times the digit 0.
const ZEROS: u64 = 0x3030_3030_3030_3030;

/// The ASCII digits of a number below 10^8, leading zeros included, the first in the lowest byte.
#[inline(always)]
pub fn eight(value: u32) -> u64 {
    digits(value) | ZEROS
}

/// Eight digits, one a byte: split in halves of four, two, one, all at the same time.
#[inline(always)]
fn digits(value: u32) -> u64 {
    let fours = u64::from(value / 10_000) | u64::from(value % 10_000) << 32;
    // 10486 / 2^20 and 103 / 2^10 are 1/100 and 1/10, near enough for so few digits.
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | (fours - hundreds * 100) << 16;
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | (twos - tens * 10) << 8
}

/// The ASCII digits of a number below 10^16 and how many there are; bytes after them are of no
/// meaning.
#[inline(always)]
pub fn sixteen(value: u64) -> ([u8; 16], usize) {
    // Both halves are below 10^8.
    let (high, low) = ((value / 100_000_000) as u32, (value % 100_000_000) as u32);
    let digits = u128::from(digits(high)) | u128::from(digits(low)) << 64;
    let zeros = (digits.trailing_zeros() / 8).min(15);
    let text = digits >> (8 * zeros) | u128::from_le_bytes([b'0'; 16]);
    (text.to_le_bytes(), (16 - zeros) as usize)
}

/// Appends a number below 10^16.
#[inline(always)]
pub fn push(out: &mut Vec<u8>, value: u64) {
    match u32::try_from(value) {
        Ok(short @ 0..100_000_000) => {
            let digits = digits(short);
            let zeros = (digits.trailing_zeros() / 8).min(7);
            let text = (digits | ZEROS) >> (8 * zeros);
            push_first(out, &text.to_le_bytes(), (8 - zeros) as usize);
        }
        _ => {
            let (text, len) = sixteen(value);
            push_first(out, &text, len);
        }
    }
}

/// The number that the first `len` bytes (at most 16) of `chunk` are the digits of, the first in the lowest byte.
#[inline(always)]
pub fn value(chunk: u128, len: u32) -> u64 {
    // What follows the digits is shifted out; before the first come zeros.
    if len <= 8 {
        return eight_value((chunk as u64).checked_shl(8 * (8 - len)).unwrap_or_default());
    }
    let digits = chunk.checked_shl(8 * (16 - len)).unwrap_or_default();
    let (high, low) = (digits as u64, (digits >> 64) as u64);
    eight_value(high) * 100_000_000 + eight_value(low)
}

/// The value of eight digits, the first in the lowest byte: joined to pairs, fours, one number.
#[inline(always)]
fn eight_value(text: u64) -> u64 {
    let ones = text & 0x0f0f_0f0f_0f0f_0f0f;
    let twos = (ones * 10 + (ones >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (twos * 100 + (twos >> 16)) & 0x0000_ffff_0000_ffff;
    (fours * 10_000 + (fours >> 32)) & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(value: u64) {
        let (text, len) = sixteen(value);
        assert_eq!(std::str::from_utf8(text.get(..len).unwrap()).unwrap(), value.to_string());
        let mut out = Vec::new();
        push(&mut out, value);
        assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        let behind = u128::MAX.checked_shl(8 * len as u32).unwrap_or_default();
        assert_eq!(super::value(u128::from_le_bytes(text) | behind, len as u32), value);
    }

    #[test]
    fn every_number_of_digits_is_trimmed() {
        for power in 0..=15 {
            let power = 10_u64.pow(power);
            [power - 1, power, power + 1, power * 10 - 1].into_iter().for_each(check);
        }
    }

    #[test]
    fn every_pair_of_halves_is_split() {
        for half in 0..10_000 {
            assert_eq!(
                eight(half * 10_001).to_le_bytes(),
                *format!("{half:04}{half:04}").as_bytes()
            );
        }
    }

    proptest! {
        #[test]
        fn digits_are_those_of_the_standard_library(value in 0..10_u64.pow(16)) {
            check(value);
        }
    }
}
