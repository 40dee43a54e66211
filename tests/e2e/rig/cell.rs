//! Canonical cells: one spelling per value, so that a source and a stored row can be compared as
//! text. The spelling is the one that the simulator's ledger documents.
//!
//! Scalars are JSON strings, a record is an object of its non-null fields, an array is an array;
//! null and the empty array are `None`.

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Map, Value};

/// A cell, or nothing.
pub(crate) type Cell = Option<Value>;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// A record's cells without the empty ones.
pub(crate) fn record(fields: impl IntoIterator<Item = (String, Cell)>) -> Value {
    let filled = fields.into_iter().filter_map(|(name, cell)| Some((name, cell?)));
    Value::Object(filled.collect::<Map<_, _>>())
}

/// An array's cells; an empty one is nothing.
pub(crate) fn array(cells: Vec<Value>) -> Cell {
    (!cells.is_empty()).then_some(Value::Array(cells))
}

/// Any text.
pub(crate) fn text(text: impl Into<String>) -> Value {
    Value::String(text.into())
}

/// BYTES.
pub(crate) fn bytes(bytes: &[u8]) -> Value {
    text(BASE64.encode(bytes))
}

/// FLOAT64: the shortest text that reads back as the same number.
pub(crate) fn float(float: f64) -> Value {
    text(format!("{:?}", if float == 0.0 { 0.0 } else { float }))
}

/// NUMERIC and BIGNUMERIC: no exponent, no superfluous zeros, no negative zero.
pub(crate) fn numeric(plain: &str) -> Value {
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", plain),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = Some(whole.trim_start_matches('0')).filter(|text| !text.is_empty()).unwrap_or("0");
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let sign = if whole == "0" && fraction.is_empty() { "" } else { sign };
    text(format!("{sign}{whole}{point}{fraction}"))
}

/// A two's-complement big-endian integer with `scale` digits after the point, in plain decimal.
pub(crate) fn decimal_text(unscaled: &[u8], scale: i32) -> String {
    let negative = unscaled.first().is_some_and(|byte| byte & 0x80 != 0);
    let magnitude = if negative { negated(unscaled) } else { unscaled.to_vec() };
    let mut digits = decimal_digits(&magnitude);
    let scale_digits = usize::try_from(scale).unwrap_or(0);
    if scale < 0 {
        digits.push_str(&"0".repeat(scale.unsigned_abs() as usize));
    }
    if digits.len() <= scale_digits {
        digits.insert_str(0, &"0".repeat(scale_digits + 1 - digits.len()));
    }
    if scale_digits > 0 {
        digits.insert(digits.len() - scale_digits, '.');
    }
    if negative { format!("-{digits}") } else { digits }
}

fn negated(bytes: &[u8]) -> Vec<u8> {
    let mut negated: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
    for byte in negated.iter_mut().rev() {
        let (sum, carry) = byte.overflowing_add(1);
        *byte = sum;
        if !carry {
            return negated;
        }
    }
    negated.insert(0, 1);
    negated
}

/// Schoolbook conversion from base 256 to base 10.
fn decimal_digits(magnitude: &[u8]) -> String {
    let mut digits: Vec<u8> = vec![0];
    for byte in magnitude {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            let value = u32::from(*digit) * 256 + carry;
            *digit = (value % 10) as u8;
            carry = value / 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    }
    digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect()
}

/// A moment that BigQuery cannot hold: its years are 1 to 9999.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutsideBigQuerysYears;

impl std::fmt::Display for OutsideBigQuerysYears {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("before year 1 or after 9999")
    }
}

impl std::error::Error for OutsideBigQuerysYears {}

/// Refuses a day since the epoch that is outside BigQuery's years.
pub(crate) fn check_day(days: i64) -> Result<(), OutsideBigQuerysYears> {
    let inside = (days_of(1, 1, 1)..=days_of(9999, 12, 31)).contains(&days);
    if inside { Ok(()) } else { Err(OutsideBigQuerysYears) }
}

/// Refuses a microsecond since the epoch that is outside BigQuery's years.
pub(crate) fn check_micros(micros: i64) -> Result<(), OutsideBigQuerysYears> {
    check_day(micros.div_euclid(MICROS_PER_DAY))
}

/// DATE from days since the epoch.
pub(crate) fn date(days: i64) -> Value {
    let (year, month, day) = civil(days);
    text(format!("{year:04}-{month:02}-{day:02}"))
}

/// TIME from microseconds since midnight.
pub(crate) fn time(micros: i64) -> Value {
    text(clock(micros))
}

/// DATETIME from microseconds since the epoch on a wall clock.
pub(crate) fn datetime(micros: i64) -> Value {
    let (year, month, day) = civil(micros.div_euclid(MICROS_PER_DAY));
    let clock = clock(micros.rem_euclid(MICROS_PER_DAY));
    text(format!("{year:04}-{month:02}-{day:02}T{clock}"))
}

/// TIMESTAMP from microseconds since the epoch.
pub(crate) fn timestamp(micros: i64) -> Value {
    text(micros.to_string())
}

/// JSON: compact, keys sorted.
pub(crate) fn json(source: &str) -> Result<Value> {
    let mut value: Value = serde_json::from_str(source).context("not JSON")?;
    value.sort_all_objects();
    Ok(text(value.to_string()))
}

fn clock(micros: i64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match fraction {
        0 => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        _ => format!("{hours:02}:{minutes:02}:{seconds:02}.{fraction:06}"),
    }
}

/// Year, month, day of a day since the epoch (the era algorithm of Howard Hinnant).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = (month + 9) % 12;
    let of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

/// Days since the epoch of `YYYY-MM-DD`; a zone after it is ignored.
pub(crate) fn parse_date(source: &str) -> Result<i64> {
    let mut parts = source.trim_end_matches('Z').split('-').map(str::parse::<i64>);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Ok(year)), Some(Ok(month)), Some(Ok(day))) => Ok(days_of(year, month, day)),
        _ => bail!("{source:?} is not a date"),
    }
}

/// Microseconds since midnight of `HH:MM[:SS[.fraction]]`, UTC where it has an offset.
pub(crate) fn parse_time(source: &str) -> Result<i64> {
    let (clock, offset) = split_offset(source)?;
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut seconds = 0;
    for part in whole.split(':').chain(["0"].into_iter().take(usize::from(whole.len() == 5))) {
        seconds = seconds * 60 + part.parse::<i64>().with_context(|| format!("{source:?}"))?;
    }
    let micros: i64 = format!("{fraction:0<6}").get(..6).unwrap_or("0").parse()?;
    Ok(seconds * 1_000_000 + micros - offset)
}

/// Microseconds since the epoch of `date T time`, UTC where it has an offset.
pub(crate) fn parse_timestamp(source: &str) -> Result<i64> {
    let (day, clock) =
        source.split_once(['T', ' ']).with_context(|| format!("{source:?} is not a timestamp"))?;
    Ok(parse_date(day)? * MICROS_PER_DAY + parse_time(clock.trim_end_matches(" UTC"))?)
}

/// The offset from UTC at the end of a time, in microseconds.
fn split_offset(source: &str) -> Result<(&str, i64)> {
    if let Some(clock) = source.strip_suffix('Z') {
        return Ok((clock, 0));
    }
    let Some(at) = source.rfind(['+', '-']) else { return Ok((source, 0)) };
    let (clock, zone) = source.split_at(at);
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let digits: String = zone.chars().filter(char::is_ascii_digit).collect();
    let number: i64 = digits.parse()?;
    let minutes = if digits.len() > 2 { number / 100 * 60 + number % 100 } else { number * 60 };
    Ok((clock, sign * minutes * 60_000_000))
}

/// The ledger's hash of a row: FNV-1a over its compact JSON, keys sorted, metadata left out.
pub(crate) fn row_hash(row: &Value) -> u64 {
    let mut row = row.clone();
    if let Value::Object(cells) = &mut row {
        cells.retain(|name, _| !name.starts_with("_kafka_"));
    }
    row.sort_all_objects();
    row.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
