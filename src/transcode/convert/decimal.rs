//! Decimals: exact, up to 256 bits, with BigQuery's ranges.

use super::wide::Wide;
use crate::transcode::{
    digits,
    error::{RowError, Step},
    number::PlainNumber,
    raw_text::{RawText, pad},
    writer::push_first,
};

/// Digits after the point of a `NUMERIC`.
const NUMERIC_SCALE: i32 = 9;
/// Digits after the point of a `BIGNUMERIC`.
const BIGNUMERIC_SCALE: i32 = 38;

/// The largest `NUMERIC`, scaled: 38 nines.
const NUMERIC_MAX: u128 = 10_u128.pow(38) - 1;
/// The most digits after (or zeros before) the point that are rendered as text.
const TEXT_SCALE_MAX: u32 = 1_000;

/// Numbers below this have sixteen digits at most.
const SMALL: u64 = 10_u64.pow(16);

/// BigQuery's two decimal types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// 38 digits, 9 of them after the point.
    Numeric,
    /// Signed 256 bits, 38 digits after the point.
    BigNumeric,
}

impl Range {
    /// Digits after the point.
    pub fn scale(self) -> i32 {
        match self {
            Self::Numeric => NUMERIC_SCALE,
            Self::BigNumeric => BIGNUMERIC_SCALE,
        }
    }
}

/// `±magnitude × 10^−scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    magnitude: Wide,
    scale: i32,
}

impl Decimal {
    /// A whole number.
    pub fn from_i64(value: i64) -> Self {
        let magnitude = Wide::from_u128(u128::from(value.unsigned_abs()));
        Self { negative: value < 0, magnitude, scale: 0 }
    }

    /// From Avro's `decimal`: big-endian two's complement of the unscaled value.
    ///
    /// # Errors
    /// When the value needs more than 256 bits.
    #[inline]
    pub fn from_be_bytes(bytes: &[u8], scale: i32) -> Step<Self> {
        if bytes.len() <= 16 {
            // Sign-extended by the shift; no bytes are zero.
            let shift = u32::try_from(128 - 8 * bytes.len()).unwrap_or_default();
            let value =
                pad(bytes).swap_bytes().cast_signed().checked_shr(shift).unwrap_or_default();
            let magnitude = Wide::from_u128(value.unsigned_abs());
            return Ok(Self { negative: value < 0, magnitude, scale });
        }
        Self::from_long_be_bytes(bytes, scale)
    }

    fn from_long_be_bytes(bytes: &[u8], scale: i32) -> Step<Self> {
        let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
        let filler = if negative { 0xff } else { 0 };
        let extra = bytes.len().saturating_sub(32);
        let (sign_extension, value) = bytes.split_at_checked(extra).unwrap_or((&[], bytes));
        let mut limbs = Wide(if negative { [u64::MAX; 4] } else { [0; 4] });
        for (limb, chunk) in limbs.0.iter_mut().zip(value.rchunks(8)) {
            *limb = chunk.iter().fold(*limb, |limb, byte| limb << 8 | u64::from(*byte));
        }
        if sign_extension.iter().any(|byte| *byte != filler)
            || (extra > 0 && limbs.top_bit() != negative)
        {
            return Err(out_of_range());
        }
        let magnitude = if negative { limbs.negate() } else { limbs };
        Ok(Self { negative, magnitude, scale })
    }

    /// From decimal text as JSON writes numbers, with an optional `+`; digits without end after the
    /// point are fine as long as they are zeros.
    ///
    /// # Errors
    /// When the text is no number or needs more than 256 bits.
    pub fn parse(text: &str) -> Step<Self> {
        Self::parse_raw(text.into())
    }

    /// The same from text that has not been checked yet.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse), and when the text is not UTF-8.
    #[inline]
    pub fn parse_raw(text: RawText<'_>) -> Step<Self> {
        match PlainNumber::read(text.bytes()) {
            Some((plain, len)) if len == text.size() => Ok(Self::from_plain(plain)),
            _ => Self::parse_any(text.checked()?),
        }
    }

    /// From a number in plain notation.
    #[inline]
    pub fn from_plain(plain: PlainNumber) -> Self {
        let (mut digits, mut scale) = (plain.digits, plain.scale.cast_signed());
        while scale > 0 && digits % 10 == 0 {
            (digits, scale) = (digits / 10, scale - 1);
        }
        let negative = plain.negative && digits != 0;
        Self { negative, magnitude: Wide::from_u128(u128::from(digits)), scale }
    }

    fn parse_any(text: &str) -> Step<Self> {
        let parts =
            Parts::split(text).ok_or_else(|| RowError::transcode("the text is not a number"))?;
        let fraction = parts.fraction.trim_end_matches('0');
        let mut magnitude = Wide::default();
        for digit in parts.whole.bytes().chain(fraction.bytes()) {
            magnitude = magnitude.mul_add(10, u64::from(digit - b'0')).ok_or_else(out_of_range)?;
        }
        if magnitude.is_zero() {
            return Ok(Self { negative: false, magnitude, scale: 0 });
        }
        let fraction_len = i32::try_from(fraction.len()).map_err(|_| out_of_range())?;
        Ok(Self { negative: parts.negative, magnitude, scale: fraction_len - parts.exponent })
    }

    /// The value as an `i64`, if it is whole and fits.
    pub fn as_i64(&self) -> Option<i64> {
        let whole = self.rescale(0)?.as_u128()?;
        let signed = i128::try_from(whole).ok()?;
        i64::try_from(if self.negative { -signed } else { signed }).ok()
    }

    /// Whether the value is whole.
    pub fn is_whole(&self) -> bool {
        self.scale <= 0 || self.rescale(0).is_some()
    }

    /// The same value, within `range`.
    ///
    /// # Errors
    /// When the value is too large or has more digits after the point.
    #[inline]
    pub fn fit(self, range: Range) -> Step<Fitted> {
        let scale = range.scale();
        // 64 bits have twenty digits at most: fewer than either range has before the point.
        let is_small = self.magnitude.as_u64().is_some() && (0..=scale).contains(&self.scale);
        if !is_small {
            self.check(range, scale)?;
        }
        Ok(Fitted { decimal: self, scale })
    }

    fn check(&self, range: Range, scale: i32) -> Step {
        let scaled = self.rescale(scale).ok_or_else(|| match range {
            Range::Numeric => RowError::transcode("the decimal does not fit NUMERIC exactly"),
            Range::BigNumeric => RowError::transcode("the decimal does not fit BIGNUMERIC exactly"),
        })?;
        let fits = match range {
            Range::Numeric => scaled.as_u128().is_some_and(|value| value <= NUMERIC_MAX),
            Range::BigNumeric => {
                !scaled.top_bit() || (self.negative && scaled == Wide([0, 0, 0, 1 << 63]))
            }
        };
        if fits { Ok(()) } else { Err(out_of_range()) }
    }

    /// The nearest double.
    pub fn to_f64(self) -> Step<f64> {
        let mut text = Vec::new();
        self.text(&mut text)?;
        let text = std::str::from_utf8(&text).unwrap_or_default();
        text.parse().map_err(|_| out_of_range())
    }

    /// Appends the plain decimal text, all digits of the scale included.
    ///
    /// # Errors
    /// When the scale is absurd.
    #[inline]
    pub fn text(&self, out: &mut Vec<u8>) -> Step {
        let is_negative = self.negative && !self.magnitude.is_zero();
        push_first(out, b"-", usize::from(is_negative));
        if let (Some(value @ 0..SMALL), 0..=15) = (self.magnitude.as_u64(), self.scale)
            && push_small(out, value, self.scale.unsigned_abs() as usize)
        {
            return Ok(());
        }
        self.long_text(out)
    }

    fn long_text(&self, out: &mut Vec<u8>) -> Step {
        let mut digits = Digits::default();
        let digits = digits.render(self.magnitude);
        if self.scale.unsigned_abs() > TEXT_SCALE_MAX {
            return Err(out_of_range());
        }
        let Ok(scale) = usize::try_from(self.scale) else {
            out.extend_from_slice(digits);
            let zeros = if digits == b"0" { 0 } else { self.scale.unsigned_abs() };
            out.extend((0..zeros).map(|_| b'0'));
            return Ok(());
        };
        let Some((whole, fraction)) =
            digits.len().checked_sub(scale).and_then(|at| digits.split_at_checked(at))
        else {
            out.extend_from_slice(b"0.");
            out.extend((digits.len()..scale).map(|_| b'0'));
            out.extend_from_slice(digits);
            return Ok(());
        };
        out.extend_from_slice(if whole.is_empty() { b"0" } else { whole });
        if !fraction.is_empty() {
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
        Ok(())
    }

    fn rescale(&self, scale: i32) -> Option<Wide> {
        match i64::from(scale) - i64::from(self.scale) {
            up @ 0.. => self.magnitude.scale_up(u32::try_from(up).ok()?),
            down => self.magnitude.scale_down(u32::try_from(-down).ok()?),
        }
    }
}

/// A decimal within one of BigQuery's ranges.
#[derive(Clone, Copy, Debug)]
pub struct Fitted {
    /// The value.
    pub decimal: Decimal,
    /// The range's.
    scale: i32,
}

impl Fitted {
    /// The scaled integer as 32 bytes of little-endian two's complement and how many of them carry
    /// meaning, at least one.
    pub fn le_bytes(&self) -> ([u8; 32], usize) {
        // It was checked to fit.
        let scaled = self.decimal.rescale(self.scale).unwrap_or_default();
        if let Some(Ok(magnitude)) = scaled.as_u128().map(i128::try_from) {
            return le_bytes(if self.decimal.negative { -magnitude } else { magnitude });
        }
        let signed = if self.decimal.negative { scaled.negate() } else { scaled };
        let mut bytes = [0; 32];
        for (chunk, limb) in bytes.chunks_exact_mut(8).zip(signed.0) {
            chunk.copy_from_slice(&limb.to_le_bytes());
        }
        let filler = if signed.top_bit() { 0xff } else { 0 };
        let significant = bytes.iter().rposition(|byte| *byte != filler).map_or(0, |at| at + 1);
        // The last byte kept must carry the sign.
        let sign_kept = significant
            .checked_sub(1)
            .and_then(|at| bytes.get(at))
            .is_some_and(|byte| byte & 0x80 == filler & 0x80);
        (bytes, if sign_kept { significant } else { (significant + 1).min(32) })
    }
}

/// Two's complement as in [`Fitted::le_bytes`].
fn le_bytes(value: i128) -> ([u8; 32], usize) {
    let mut bytes = [0; 32];
    let (low, _) = bytes.split_at_mut(16);
    low.copy_from_slice(&value.to_le_bytes());
    // One bit for the sign.
    let bits = i128::BITS - (value ^ value >> 127).leading_zeros();
    (bytes, (bits / 8 + 1) as usize)
}

/// Appends the text of a number below [`SMALL`] with a digit or more before the point; says `false`
/// if there is none.
#[inline]
fn push_small(out: &mut Vec<u8>, value: u64, scale: usize) -> bool {
    let (text, len) = digits::sixteen(value);
    let Some(whole @ 1..) = len.checked_sub(scale) else { return false };
    push_first(out, &text, whole);
    if scale > 0 {
        out.push(b'.');
        let fraction = u128::from_le_bytes(text) >> (8 * whole);
        push_first(out, &fraction.to_le_bytes(), scale);
    }
    true
}

#[cold]
fn out_of_range() -> Box<RowError> {
    RowError::transcode("the decimal is out of range")
}

/// Decimal text cut into its parts, all digits checked.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    exponent: i32,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
            return None;
        }
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if unsigned.is_empty() || !digits(unsigned) {
            return None;
        }
        // Anything beyond this many zeros is out of every range; zero itself keeps no exponent.
        let size = unsigned.parse::<i32>().unwrap_or(i32::MAX).min(1_000_000);
        let exponent = if exponent.starts_with('-') { -size } else { size };
        Some(Self { negative, whole, fraction, exponent })
    }
}

/// Room for the 78 digits of a 256-bit integer.
struct Digits([u8; 80]);

impl Default for Digits {
    fn default() -> Self {
        Self([b'0'; 80])
    }
}

impl Digits {
    fn render(&mut self, mut value: Wide) -> &[u8] {
        let mut buffer = itoa::Buffer::new();
        let mut end = self.0.len();
        loop {
            let chunk = match value.as_u64() {
                Some(last) => {
                    value = Wide::default();
                    buffer.format(last)
                }
                None => buffer.format(value.div_rem(10_u64.pow(19))),
            };
            let start = end - chunk.len();
            if let Some(room) = self.0.get_mut(start..end) {
                room.copy_from_slice(chunk.as_bytes());
            }
            if value.is_zero() {
                return self.0.get(start..).unwrap_or_default();
            }
            end -= 19;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(decimal: Decimal) -> String {
        let mut out = Vec::new();
        decimal.text(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn unscaled_bytes_become_text() {
        for (bytes, scale, expected) in [
            (&[][..], 2, "0.00"),
            (&[0x30, 0x39], 2, "123.45"),
            (&[0xcf, 0xc7], 2, "-123.45"),
            (&[0xff], 3, "-0.001"),
            (&[0x07], -3, "7000"),
            (&[0xff, 0xff, 0x80], 0, "-128"),
            (&[0x0f], 0, "15"),
        ] {
            assert_eq!(text(Decimal::from_be_bytes(bytes, scale).unwrap()), expected);
        }
    }

    #[test]
    fn sign_extension_beyond_256_bits_is_harmless_and_more_digits_are_not() {
        let mut bytes = [0xff; 40];
        assert_eq!(text(Decimal::from_be_bytes(&bytes, 0).unwrap()), "-1");
        bytes[0] = 0x7f;
        assert!(Decimal::from_be_bytes(&bytes, 0).is_err());
        let mut just_over = [0; 33];
        just_over[1] = 0x80;
        assert!(Decimal::from_be_bytes(&just_over, 0).is_err());
    }

    #[test]
    fn the_widest_decimal_of_both_types_fits_and_the_next_does_not() {
        let nines = "9".repeat(38);
        let bignumeric = format!("{nines}.{nines}");
        let decimal = Decimal::parse(&bignumeric).unwrap();
        assert_eq!(text(decimal), bignumeric);
        assert!(decimal.fit(Range::BigNumeric).is_ok());
        assert!(decimal.fit(Range::Numeric).is_err());
        let max = "578960446186580977117854925043439539266.34992332820282019728792003956564819967";
        assert!(Decimal::parse(max).unwrap().fit(Range::BigNumeric).is_ok());
        let over = max.replace("967", "968");
        assert!(Decimal::parse(&over).unwrap().fit(Range::BigNumeric).is_err());
        assert!(Decimal::parse(&format!("-{over}")).unwrap().fit(Range::BigNumeric).is_ok());
        let numeric = format!("-{}.{}", "9".repeat(29), "9".repeat(9));
        assert!(Decimal::parse(&numeric).unwrap().fit(Range::Numeric).is_ok());
        assert!(Decimal::parse("0.0000000001").unwrap().fit(Range::Numeric).is_err());
        assert!(Decimal::parse("1e29").unwrap().fit(Range::Numeric).is_err());
        assert!(Decimal::parse("0.10000000000000").unwrap().fit(Range::Numeric).is_ok());
    }

    #[test]
    fn whole_numbers_are_recognised_in_any_spelling() {
        for (text, expected) in [
            ("1.0", Some(1)),
            ("1e3", Some(1000)),
            ("-12.50e1", Some(-125)),
            ("0e999999999999", Some(0)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("1.5", None),
            ("1e999999999999", None),
        ] {
            assert_eq!(Decimal::parse(text).unwrap().as_i64(), expected, "{text}");
        }
        for text in ["", "-", ".", "1e", "1e+", "--1", "1_0", "0x1"] {
            assert!(Decimal::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn scaled_bytes_match_bigquerys_encoder() {
        let bytes = |text: &str, range| {
            let (bytes, len) = Decimal::parse(text).unwrap().fit(range).unwrap().le_bytes();
            bytes[..len].to_vec()
        };
        assert_eq!(bytes("0", Range::Numeric), [0]);
        assert_eq!(bytes("1", Range::Numeric), [0x00, 0xca, 0x9a, 0x3b]);
        assert_eq!(bytes("-1", Range::Numeric), [0x00, 0x36, 0x65, 0xc4]);
        assert_eq!(bytes("-0.000000001", Range::Numeric), [0xff]);
        assert_eq!(bytes("0.000000128", Range::Numeric), [0x80, 0]);
        assert_eq!(bytes("-0.000000128", Range::Numeric), [0x80]);
        assert_eq!(bytes("0.00000000000000000000000000000000000001", Range::BigNumeric), [1]);
    }

    proptest! {
        #[test]
        fn text_and_bytes_agree(value: i128, scale in 0_i32..40) {
            let from_bytes = Decimal::from_be_bytes(&value.to_be_bytes(), scale).unwrap();
            let rendered = text(from_bytes);
            let parsed = Decimal::parse(&rendered).unwrap();
            // The parser drops zeros at the end, so that its scale is at most the other's.
            prop_assert_eq!(parsed.rescale(scale), Some(from_bytes.magnitude));
            prop_assert_eq!(parsed.negative, from_bytes.negative);
            prop_assert_eq!(text(Decimal { scale: 0, ..from_bytes }), value.to_string());
        }

        #[test]
        fn small_numbers_take_the_short_way_to_the_same_text(
            value in -(SMALL as i64)..SMALL as i64, scale in 0_i32..20
        ) {
            let short = Decimal::from_be_bytes(&value.to_be_bytes(), scale).unwrap();
            // The same number with more zeros than the short way takes.
            let factor = 10_i128.pow(19);
            let long = (i128::from(value) * factor).to_be_bytes();
            let long = text(Decimal::from_be_bytes(&long, scale + 19).unwrap());
            let zeros = if scale == 0 { "." } else { "" }.to_owned() + &"0".repeat(19);
            prop_assert_eq!(text(short) + &zeros, long);
        }

        #[test]
        fn no_more_bytes_are_kept_than_carry_the_value(value: i128, bits in 0..128) {
            let value = value >> bits;
            let (bytes, len) = le_bytes(value);
            let reads_back = |len: usize| {
                let kept: Vec<u8> = bytes[..len].iter().rev().copied().collect();
                let read = Decimal::from_be_bytes(&kept, 0).unwrap();
                (read.negative, read.magnitude.as_u128()) == (value < 0, Some(value.unsigned_abs()))
            };
            prop_assert!(reads_back(len));
            prop_assert!(len == 1 || !reads_back(len - 1));
        }
    }
}
