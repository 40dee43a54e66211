//! Numbers in plain notation, as nearly all are: a few digits, perhaps a point among them.

use crate::transcode::{
    digits,
    raw_text::split_chunk,
    scan::{self, CHUNK},
};

/// The largest integer up to which every one is a double.
const DOUBLE_WHOLE_MAX: u64 = 1 << 53;

/// The powers of ten that are doubles.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// `±digits × 10^−scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainNumber {
    /// Whether a minus sign stands before it, zero included.
    pub negative: bool,
    /// All digits, those after the point included.
    pub digits: u64,
    /// How many digits come after the point.
    pub scale: u32,
}

impl PlainNumber {
    /// The number that `bytes` begin with, by JSON's grammar, and its length. `None` says only that it must be
    /// read in another way: it may have an exponent, or more digits than fit.
    #[inline(always)]
    pub fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let negative = bytes.first() == Some(&b'-');
        let sign = usize::from(negative);
        let unsigned = bytes.get(sign..)?;
        let (chunk, after) = split_chunk(unsigned);
        let mask = scan::digits(unsigned);
        let whole = mask.trailing_ones();
        let has_point = unsigned.get(whole as usize) == Some(&b'.');
        let (text, scale) = if has_point { without_point(chunk, mask, whole) } else { (chunk, 0) };
        let digits = digits::value(text, whole + scale);
        let len = (whole + scale) as usize + usize::from(has_point);
        let (digits, more) = if len < CHUNK { (digits, 0) } else { continued(digits, after)? };
        let (len, scale) = (len + more as usize, if has_point { scale + more } else { scale });
        let has_odd_start = whole != 1 && (whole == 0 || chunk as u8 == b'0');
        let goes_on = match unsigned.get(len) {
            Some(b'e' | b'E') => true,
            Some(b'.') => !has_point,
            _ => false,
        };
        if has_odd_start || goes_on || (has_point && scale == 0) {
            return None;
        }
        Some((Self { negative, digits, scale }, sign + len))
    }

    /// The value as an `i64`, if there is no point in it and it fits.
    #[inline(always)]
    pub fn as_i64(self) -> Option<i64> {
        let magnitude = i64::try_from(self.digits).ok().filter(|_| self.scale == 0)?;
        Some(if self.negative { -magnitude } else { magnitude })
    }

    /// The nearest double, where one operation on two exact ones yields it (W. D. Clinger, "How to read floating
    /// point numbers accurately", 1990).
    #[inline(always)]
    pub fn as_f64(self) -> Option<f64> {
        let power = POWERS.get(self.scale as usize)?;
        if self.digits > DOUBLE_WHOLE_MAX {
            return None;
        }
        let magnitude = self.digits as f64 / power;
        Some(if self.negative { -magnitude } else { magnitude })
    }
}

/// The number of which `digits` are the first chunk's, and how many follow.
#[inline(never)]
fn continued(mut digits: u64, after: &[u8]) -> Option<(u64, u32)> {
    let mut more = 0;
    for digit in after.iter().take_while(|byte| byte.is_ascii_digit()) {
        digits = digits.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        more += 1;
    }
    Some((digits, more))
}

/// The chunk with the byte after the first `whole` ones cut out, and how many digits come after that.
#[inline(always)]
fn without_point(chunk: u128, mask: u32, whole: u32) -> (u128, u32) {
    let before = !(u128::MAX.checked_shl(8 * whole).unwrap_or_default());
    let text = (chunk & before) | (chunk >> 8 & !before);
    (text, mask.checked_shr(whole + 1).unwrap_or_default().trailing_ones())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<(PlainNumber, usize)> {
        PlainNumber::read(text.as_bytes())
    }

    #[test]
    fn what_is_not_plain_is_left_to_others() {
        for text in [
            "",
            "-",
            "x",
            "01",
            "-00",
            "1.",
            "1.x",
            "1e5",
            "1.5E5",
            ".5",
            "+1",
            "99999999999999999999",
            "123456789012345.",
            "1234567890123456.5",
            "1234567890123456e1",
            "123456789.012345e1",
            "0123456789012345678",
            "1234567890.123456789012",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_number_ends_before_what_follows_it() {
        for (text, number, len) in [
            ("0", (false, 0, 0), 1),
            ("-0.0,", (true, 0, 1), 4),
            ("12}", (false, 12, 0), 2),
            ("1.5.5", (false, 15, 1), 3),
            ("-9223372036854775808]", (true, 1 << 63, 0), 20),
            ("18446744073709551615", (false, u64::MAX, 0), 20),
            ("123456789012345.6 ", (false, 1_234_567_890_123_456, 1), 17),
            ("0.00000000000000000001", (false, 1, 20), 22),
        ] {
            let (negative, digits, scale) = number;
            assert_eq!(read(text), Some((PlainNumber { negative, digits, scale }, len)), "{text}");
        }
    }

    #[test]
    fn only_what_a_type_holds_is_taken_for_it() {
        let number = |text| read(text).unwrap().0;
        assert_eq!(number("9223372036854775807").as_i64(), Some(i64::MAX));
        assert_eq!(number("-9223372036854775807").as_i64(), Some(-i64::MAX));
        assert_eq!(number("9223372036854775808").as_i64(), None);
        assert_eq!(number("1.0").as_i64(), None);
        assert_eq!(number("9007199254740992").as_f64(), Some(9_007_199_254_740_992.0));
        assert_eq!(number("9007199254740993").as_f64(), None);
        assert_eq!(number("-0").as_f64().map(f64::to_bits), Some((-0.0_f64).to_bits()));
    }

    proptest! {
        #[test]
        fn values_are_those_of_the_standard_library(
            text in "-?(0|[1-9][0-9]{0,18})(\\.[0-9]{1,18})?", behind in "([,}\\] \n][0-9e.]{0,20})?"
        ) {
            let Some((number, len)) = read(&format!("{text}{behind}")) else { return Ok(()) };
            prop_assert_eq!(len, text.len());
            prop_assert_eq!(number.scale as usize, text.split_once('.').map_or(0, |(_, after)| after.len()));
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            prop_assert_eq!(number.digits, digits.parse::<u64>().unwrap());
            if let Some(value) = number.as_i64() {
                prop_assert_eq!(value, text.parse::<i64>().unwrap());
            }
            if let Some(value) = number.as_f64() {
                prop_assert_eq!(value.to_bits(), text.parse::<f64>().unwrap().to_bits());
            }
        }

        #[test]
        fn up_to_nineteen_digits_are_plain(text in "-?(0|[1-9][0-9]{0,9})(\\.[0-9]{1,8})?") {
            prop_assert_eq!(read(&text).map(|(_, len)| len), Some(text.len()));
        }
    }
}
