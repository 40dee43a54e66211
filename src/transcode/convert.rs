//! From what a reader reads to what a writer writes: primitive value × column type, exact or
//! refused.
//!
//! Which conversion a field needs is decided once, when the plan is compiled.

use crate::transcode::{
    convert::decimal::{Decimal, Range},
    error::{RowError, Step},
    json_in::tokens,
    raw_text::RawText,
    writer::RowWriter,
};

pub mod civil;
pub mod decimal;
pub mod parse;
pub mod wide;

/// The unit of a point in time or a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds; cut to microseconds, toward the past.
    Nanos,
}

impl Unit {
    fn micros(self, value: i64) -> Option<i64> {
        match self {
            Self::Millis => value.checked_mul(1_000),
            Self::Micros => Some(value),
            Self::Nanos => Some(value.div_euclid(1_000)),
        }
    }
}

/// Whether a date or time goes into a column of its own type or into a `STRING` column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The column's type is the value's.
    Native,
    /// The column is a `STRING`; the text is the one that insertAll takes for the native type.
    Text,
}

/// What becomes of an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromInteger {
    /// `INT64`.
    Int64,
    /// `FLOAT64`, if it holds the integer exactly.
    Float64,
    /// `NUMERIC` or `BIGNUMERIC`.
    Decimal(Range),
    /// `STRING`.
    Text,
    /// Days since 1970-01-01.
    Date(Form),
    /// Time since midnight.
    Time(Unit, Form),
    /// Wall-clock time since 1970-01-01T00:00:00.
    DateTime(Unit, Form),
    /// Time since the epoch.
    Timestamp(Unit, Form),
}

/// What becomes of a float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromFloat {
    /// `FLOAT64`.
    Float64,
    /// `NUMERIC` or `BIGNUMERIC`, by the shortest text that reads back the same.
    Decimal(Range),
    /// `STRING`.
    Text,
}

/// What becomes of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromText {
    /// `STRING` or `GEOGRAPHY`.
    Text,
    /// `JSON`, checked to be JSON.
    Json,
    /// `DATE`.
    Date,
    /// `TIME`; an offset is applied, so that the result is UTC.
    Time,
    /// `DATETIME`.
    DateTime,
    /// `TIMESTAMP`; UTC where there is no offset.
    Timestamp,
    /// `NUMERIC` or `BIGNUMERIC`.
    Decimal(Range),
}

/// The column type that takes a decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecimalTarget {
    /// `NUMERIC` or `BIGNUMERIC`.
    Exact(Range),
    /// `FLOAT64`, the nearest one.
    Float64,
    /// `STRING`, all digits of the scale.
    Text,
}

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromBytes {
    /// `BYTES`.
    Bytes,
    /// `STRING` with a UUID of 16 bytes.
    Uuid,
    /// A decimal's unscaled value.
    Decimal {
        /// Digits after the point.
        scale: i32,
        /// Where it goes.
        target: DecimalTarget,
    },
}

/// Writes an integer.
///
/// # Errors
/// When the column's type cannot hold it.
#[inline(always)]
pub fn integer<W: RowWriter>(out: &mut Vec<u8>, value: i64, conversion: FromInteger) -> Step {
    match conversion {
        FromInteger::Int64 => W::int64(out, value),
        FromInteger::Timestamp(unit, Form::Native) => {
            W::timestamp(out, moment_micros(value, unit, "TIMESTAMP is out of range 0001..9999")?);
        }
        other => return rare_integer::<W>(out, value, other),
    }
    Ok(())
}

fn rare_integer<W: RowWriter>(out: &mut Vec<u8>, value: i64, conversion: FromInteger) -> Step {
    match conversion {
        FromInteger::Int64 => W::int64(out, value),
        FromInteger::Float64 => {
            // Every integer up to 2^53 is a double; beyond it only some are.
            if value.unsigned_abs() > 1 << 53 {
                return Err(RowError::transcode("the integer is no exact FLOAT64"));
            }
            W::float64(out, value as f64);
        }
        FromInteger::Decimal(range) => W::decimal(out, &Decimal::from_i64(value).fit(range)?),
        FromInteger::Text => {
            W::plain_string(out, itoa::Buffer::new().format(value).as_bytes());
        }
        FromInteger::Date(form) => return date::<W>(out, value, form),
        FromInteger::Time(unit, form) => {
            let micros = unit.micros(value).filter(|micros| civil::clock(*micros).is_some());
            let micros = micros.ok_or_else(|| RowError::transcode("TIME is not within one day"))?;
            match (form, civil::clock(micros)) {
                (Form::Text, Some(time)) => W::plain_string(out, &civil::clock_text(time)),
                _ => W::time(out, micros),
            }
        }
        FromInteger::DateTime(unit, form) => {
            let micros = moment_micros(value, unit, "DATETIME is out of range 0001..9999")?;
            match (form, civil::moment(micros)) {
                (Form::Text, Some(moment)) => W::plain_string(out, &civil::moment_text(moment)),
                _ => W::datetime(out, micros),
            }
        }
        FromInteger::Timestamp(unit, form) => {
            let micros = moment_micros(value, unit, "TIMESTAMP is out of range 0001..9999")?;
            match (form, civil::moment(micros)) {
                (Form::Text, Some(moment)) => {
                    let mut text = [b'Z'; 27];
                    let (local, _) = text.split_at_mut(26);
                    local.copy_from_slice(&civil::moment_text(moment));
                    W::plain_string(out, &text);
                }
                _ => W::timestamp(out, micros),
            }
        }
    }
    Ok(())
}

fn date<W: RowWriter>(out: &mut Vec<u8>, days: i64, form: Form) -> Step {
    let day =
        civil::day(days).ok_or_else(|| RowError::transcode("DATE is out of range 0001..9999"))?;
    match form {
        Form::Native => W::date(out, days),
        Form::Text => W::plain_string(out, &civil::date_text(day)),
    }
    Ok(())
}

#[inline]
fn moment_micros(value: i64, unit: Unit, message: &'static str) -> Step<i64> {
    match unit.micros(value) {
        Some(micros) if (civil::MOMENT_MIN..=civil::MOMENT_MAX).contains(&micros) => Ok(micros),
        _ => Err(RowError::transcode(message)),
    }
}

/// Writes a float.
///
/// # Errors
/// When the column's type cannot hold it.
#[inline(always)]
pub fn float<W: RowWriter>(out: &mut Vec<u8>, value: f64, conversion: FromFloat) -> Step {
    match conversion {
        FromFloat::Float64 => W::float64(out, value),
        other => return rare_float::<W>(out, value, other),
    }
    Ok(())
}

fn rare_float<W: RowWriter>(out: &mut Vec<u8>, value: f64, conversion: FromFloat) -> Step {
    let mut buffer = zmij::Buffer::new();
    match conversion {
        FromFloat::Float64 => W::float64(out, value),
        FromFloat::Decimal(_) if !value.is_finite() => {
            return Err(RowError::transcode(
                "NaN and infinities have no place in a decimal column",
            ));
        }
        FromFloat::Decimal(range) => {
            W::decimal(out, &Decimal::parse(buffer.format_finite(value))?.fit(range)?);
        }
        FromFloat::Text => {
            let text = match value {
                f64::INFINITY => "Infinity",
                f64::NEG_INFINITY => "-Infinity",
                value if value.is_nan() => "NaN",
                value => buffer.format_finite(value),
            };
            W::plain_string(out, text.as_bytes());
        }
    }
    Ok(())
}

/// Writes text.
///
/// # Errors
/// When the text is not UTF-8 or not of the column's type.
#[inline(always)]
pub fn text<W: RowWriter>(out: &mut Vec<u8>, value: RawText<'_>, conversion: FromText) -> Step {
    match conversion {
        FromText::Text => W::text(out, value),
        other => rare_text::<W>(out, value.bytes(), other),
    }
}

#[inline(never)]
fn rare_text<W: RowWriter>(out: &mut Vec<u8>, value: &[u8], conversion: FromText) -> Step {
    let value = RawText::whole(value);
    match conversion {
        FromText::Text => return W::text(out, value),
        FromText::Json => {
            let value = value.checked()?;
            tokens::validate(value).map_err(|_| RowError::transcode("the text is not JSON"))?;
            W::json(out, value);
        }
        FromText::Date => W::date(out, parsed(value, parse::date, "the text is no DATE")?),
        FromText::Time => W::time(out, parsed(value, parse::time, "the text is no TIME")?),
        FromText::DateTime => {
            W::datetime(out, parsed(value, parse::datetime, "the text is no DATETIME")?);
        }
        FromText::Timestamp => {
            W::timestamp(out, parsed(value, parse::timestamp, "the text is no TIMESTAMP")?);
        }
        FromText::Decimal(range) => W::decimal(out, &Decimal::parse_raw(value)?.fit(range)?),
    }
    Ok(())
}

/// What `parse`, which takes ASCII only, makes of text.
#[inline(always)]
fn parsed(
    text: RawText<'_>,
    parse: impl Fn(&[u8]) -> Option<i64>,
    message: &'static str,
) -> Step<i64> {
    parse(text.bytes()).ok_or_else(|| match text.checked() {
        Ok(_) => RowError::transcode(message),
        Err(error) => error,
    })
}

/// Writes bytes.
///
/// # Errors
/// When the column's type cannot hold them.
#[inline]
pub fn bytes<W: RowWriter>(out: &mut Vec<u8>, value: &[u8], conversion: FromBytes) -> Step {
    match conversion {
        FromBytes::Bytes => W::bytes(out, value),
        FromBytes::Uuid => W::plain_string(out, &uuid_text(value)?),
        FromBytes::Decimal { scale, target } => {
            return decimal::<W>(out, Decimal::from_be_bytes(value, scale)?, target);
        }
    }
    Ok(())
}

/// Writes a decimal.
///
/// # Errors
/// When the column's type cannot hold it.
#[inline]
pub fn decimal<W: RowWriter>(out: &mut Vec<u8>, value: Decimal, target: DecimalTarget) -> Step {
    match target {
        DecimalTarget::Exact(range) => W::decimal(out, &value.fit(range)?),
        DecimalTarget::Float64 => W::float64(out, value.to_f64()?),
        DecimalTarget::Text => {
            let mut text = Vec::new();
            value.text(&mut text)?;
            W::plain_string(out, &text);
        }
    }
    Ok(())
}

/// The usual text of a UUID's 16 bytes.
fn uuid_text(bytes: &[u8]) -> Step<[u8; 36]> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes: &[u8; 16] =
        bytes.try_into().map_err(|_| RowError::decode("a UUID of bytes must have 16 of them"))?;
    let mut text = [b'-'; 36];
    let digits = text.iter_mut().enumerate().filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23));
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    for ((_, digit), nibble) in digits.zip(nibbles) {
        *digit = HEX.get(usize::from(nibble)).copied().unwrap_or_default();
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
