//! The numbers of a JSON text: kept as text, so that none passes through a double unless its column is one.

use crate::transcode::{
    convert::decimal::Decimal,
    error::{RowError, Step},
    json_in::tokens::text_of,
    number::PlainNumber,
};

/// A number as it stands in a JSON text.
#[derive(Clone, Copy, Debug)]
pub struct Number<'a> {
    /// The text from the number's first byte on.
    window: &'a [u8],
    /// How many bytes the number has, by JSON's grammar.
    size: usize,
    /// Its value, if it could be read along the way.
    plain: Option<PlainNumber>,
}

impl<'a> Number<'a> {
    /// The first `size` bytes of `window`, and what they mean if that is known.
    #[inline(always)]
    pub fn new(window: &'a [u8], size: usize, plain: Option<PlainNumber>) -> Self {
        Self { window, size, plain }
    }

    /// The number's text.
    ///
    /// # Errors
    /// When it is not UTF-8, which it is.
    pub fn text(self) -> Step<&'a str> {
        text_of(self.window.get(..self.size).unwrap_or_default())
    }

    /// Its value, if it could be read along the way.
    #[inline(always)]
    pub fn plain(self) -> Option<PlainNumber> {
        self.plain
    }

    /// How many bytes the text has.
    pub fn size(self) -> usize {
        self.size
    }
}

/// A whole number in any spelling (`1`, `1.0`, `1e3`).
///
/// # Errors
/// When the number is not whole or has more than 64 bits.
#[inline(always)]
pub fn whole(number: Number<'_>) -> Step<i64> {
    match number.plain().and_then(PlainNumber::as_i64) {
        Some(value) => Ok(value),
        None => whole_text(number.text()?),
    }
}

/// The same from text, which may have a `+`.
///
/// # Errors
/// When the text is no number, the number is not whole or has more than 64 bits.
pub fn whole_text(text: &str) -> Step<i64> {
    if let Ok(value) = text.parse() {
        return Ok(value);
    }
    let value = Decimal::parse(text)?.as_i64();
    value.ok_or_else(|| RowError::transcode("the number is no integer of 64 bits"))
}

/// A number as a decimal.
///
/// # Errors
/// When it needs more than 256 bits.
#[inline(always)]
pub fn decimal(number: Number<'_>) -> Step<Decimal> {
    match number.plain() {
        Some(plain) => Ok(Decimal::from_plain(plain)),
        None => Decimal::parse(number.text()?),
    }
}

/// The nearest double to a JSON number.
///
/// # Errors
/// When the number is larger than any double.
#[inline(always)]
pub fn finite(number: Number<'_>) -> Step<f64> {
    match number.plain().and_then(PlainNumber::as_f64) {
        Some(value) => Ok(value),
        None => finite_text(number.text()?),
    }
}

#[inline(never)]
fn finite_text(text: &str) -> Step<f64> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(RowError::transcode("the number is larger than any FLOAT64")),
    }
}
