//! Rows as `tabledata.insertAll` takes them: one JSON object.
//!
//! Cells as BigQuery documents and accepts them: `INT64` as a number, or as text beyond ±2^53,
//! where "pass it as a string to avoid data corruption" applies; `FLOAT64` as the shortest number
//! that reads back the same, `"NaN"`, `"Infinity"`, `"-Infinity"`; `NUMERIC` and `BIGNUMERIC` as
//! text; `BYTES` as standard base64; `JSON` as text; `TIMESTAMP` as RFC 3339 in UTC with
//! microseconds. The text `null` becomes a null, no JSON null: a load job knows no other.
//!
//! Every value is written with a comma after it, which the end of the record or array overwrites.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    table::ColumnKind,
    transcode::{
        convert::{civil, decimal::Fitted},
        digits,
        error::Step,
        raw_text::RawText,
        row::LaneLabel,
        scan::{clean, clean_ascii},
        writer::{Label, RowWriter, push_first},
    },
};

/// The largest integer that every JSON reader keeps exact.
const SAFE_INTEGER: u64 = (1 << 53) - 1;

/// The row form of `tabledata.insertAll`.
#[derive(Clone, Copy, Debug)]
pub struct JsonRow;

impl RowWriter for JsonRow {
    type Mark = ();

    fn label(name: &str, _number: u32, _kind: &ColumnKind) -> Label {
        let mut bytes = Vec::new();
        push_string(&mut bytes, name);
        bytes.push(b':');
        Label::new(&bytes)
    }

    #[inline]
    fn row_start(out: &mut Vec<u8>) {
        out.push(b'{');
    }

    #[inline]
    fn row_end(out: &mut Vec<u8>) {
        close(out, b'}');
    }

    #[inline(always)]
    fn cell(out: &mut Vec<u8>, label: &Label) {
        label.push(out);
    }

    #[inline]
    fn array_start(out: &mut Vec<u8>, label: &Label) {
        label.push(out);
        out.push(b'[');
    }

    #[inline(always)]
    fn element(_out: &mut Vec<u8>, _label: &Label) {}

    #[inline]
    fn array_end(out: &mut Vec<u8>) {
        close(out, b']');
        out.push(b',');
    }

    #[inline]
    fn record_start(out: &mut Vec<u8>) {
        out.push(b'{');
    }

    #[inline]
    fn record_end(out: &mut Vec<u8>, (): ()) {
        close(out, b'}');
        out.push(b',');
    }

    #[inline]
    fn bool(out: &mut Vec<u8>, value: bool) {
        out.extend_from_slice(if value { b"true," } else { b"false," });
    }

    #[inline]
    fn int64(out: &mut Vec<u8>, value: i64) {
        let magnitude = value.unsigned_abs();
        if magnitude > SAFE_INTEGER {
            return push_large_integer(out, value);
        }
        push_first(out, b"-", usize::from(value < 0));
        digits::push(out, magnitude);
        out.push(b',');
    }

    #[inline]
    fn float64(out: &mut Vec<u8>, value: f64) {
        if push_hundredths(out, value) {
            return out.push(b',');
        }
        if value.is_finite() {
            RawText::from(zmij::Buffer::new().format_finite(value)).push(out);
            return out.push(b',');
        }
        let text: &[u8] = match value {
            f64::INFINITY => b"\"Infinity\",",
            f64::NEG_INFINITY => b"\"-Infinity\",",
            _ => b"\"NaN\",",
        };
        out.extend_from_slice(text);
    }

    #[inline(always)]
    fn text(out: &mut Vec<u8>, value: RawText<'_>) -> Step {
        out.push(b'"');
        let copied = value.push_plain(out, clean_ascii);
        if copied < value.size() {
            push_checked(out, value, copied)?;
        }
        close_quote(out);
        Ok(())
    }

    #[inline]
    fn string(out: &mut Vec<u8>, value: &str) {
        out.push(b'"');
        push_escaped(out, value.into());
        out.extend_from_slice(b"\",");
    }

    #[inline(always)]
    fn clean(out: &mut Vec<u8>, value: RawText<'_>) {
        out.push(b'"');
        value.push(out);
        // As one slice of two bytes the compiler makes a call of it.
        out.push(b'"');
        out.push(b',');
    }

    #[inline]
    fn plain_string(out: &mut Vec<u8>, value: &[u8]) {
        out.push(b'"');
        out.extend_from_slice(value);
        out.extend_from_slice(b"\",");
    }

    fn bytes(out: &mut Vec<u8>, value: &[u8]) {
        out.push(b'"');
        let start = out.len();
        out.resize(start + value.len().div_ceil(3) * 4, 0);
        let room = out.get_mut(start..).unwrap_or_default();
        // The room has exactly the encoded length, so that this cannot fail.
        let written = STANDARD.encode_slice(value, room).unwrap_or(0);
        out.truncate(start + written);
        out.extend_from_slice(b"\",");
    }

    #[inline]
    fn json(out: &mut Vec<u8>, text: &str) {
        if text.trim_ascii() == "null" {
            return out.extend_from_slice(b"null,");
        }
        Self::string(out, text);
    }

    fn decimal(out: &mut Vec<u8>, value: &Fitted) {
        out.push(b'"');
        let start = out.len();
        if value.decimal.text(out).is_err() {
            // Cannot happen for a value within a range; a refused cell beats a wrong one.
            out.truncate(start);
        }
        out.extend_from_slice(b"\",");
    }

    fn date(out: &mut Vec<u8>, days: i64) {
        push_quoted(out, civil::day(days).map(civil::date_text));
    }

    fn time(out: &mut Vec<u8>, micros: i64) {
        push_quoted(out, civil::clock(micros).map(civil::clock_text));
    }

    fn datetime(out: &mut Vec<u8>, micros: i64) {
        push_quoted(out, civil::moment(micros).map(civil::moment_text));
    }

    fn timestamp(out: &mut Vec<u8>, micros: i64) {
        let Some(moment) = civil::moment(micros) else { return out.extend_from_slice(b"null,") };
        // Two halves, so that all of it is one copy of a fixed length.
        let (head, tail) = civil::moment_bytes(moment);
        let first = u128::from(b'"') | head << 8;
        let end = u128::from(u32::from_le_bytes(*b"Z\",\0"));
        let rest = head >> 120 | tail << 8 | end << 88;
        let mut text = [0; 32];
        let (low, high) = text.split_at_mut(16);
        low.copy_from_slice(&first.to_le_bytes());
        high.copy_from_slice(&rest.to_le_bytes());
        push_first(out, &text, 30);
    }

    #[inline]
    fn topic(out: &mut Vec<u8>, lane: &LaneLabel) {
        out.extend_from_slice(lane.topic_json());
        out.push(b',');
    }
}

#[inline]
fn push_quoted<const N: usize>(out: &mut Vec<u8>, text: Option<[u8; N]>) {
    let Some(text) = text else { return out.extend_from_slice(b"null,") };
    out.push(b'"');
    out.extend_from_slice(&text);
    out.extend_from_slice(b"\",");
}

#[inline(always)]
fn close_quote(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\",");
}

/// Turns the comma after the last value into the closing bracket.
#[inline]
fn close(out: &mut Vec<u8>, bracket: u8) {
    match out.last_mut() {
        Some(last) if *last == b',' => *last = bracket,
        _ => out.push(bracket),
    }
}

/// Appends a number with two digits or fewer after the point, as most amounts of money are; says
/// `false` if the number is not one.
///
/// A decimal of 15 digits that reads back as the number is the shortest one that does, because no
/// two of so few digits are one double.
#[inline]
fn push_hundredths(out: &mut Vec<u8>, value: f64) -> bool {
    let magnitude = value.abs();
    let scaled = magnitude * 100.0;
    // A cast saturates, and makes 0 of NaN.
    let whole = scaled as u64;
    if whole >= 10_u64.pow(15) || whole as f64 != scaled || scaled / 100.0 != magnitude {
        return false;
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    digits::push(out, whole / 100);
    let (tenths, hundredths) = (whole % 100 / 10, whole % 10);
    // Both are below 10.
    let fraction = [b'.', b'0' + tenths as u8, b'0' + hundredths as u8];
    push_first(out, &fraction, if hundredths == 0 { 2 } else { 3 });
    true
}

/// An integer that not every JSON reader keeps exact.
#[cold]
fn push_large_integer(out: &mut Vec<u8>, value: i64) {
    out.push(b'"');
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    out.extend_from_slice(b"\",");
}

/// Appends `value` as a JSON string, quotes included.
#[inline]
pub fn push_string(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    push_escaped(out, value.into());
    out.push(b'"');
}

/// Appends the contents of a JSON string that has not been checked, its first `copied` bytes being
/// there and ASCII. ASCII before it changes nothing about whether the rest is UTF-8.
fn push_checked(out: &mut Vec<u8>, mut text: RawText<'_>, mut copied: usize) -> Step {
    while let Some((special, after)) = text.split_special(copied) {
        if !special.is_ascii() {
            push_escaped(out, text.after(copied).check()?);
            return Ok(());
        }
        push_escape(out, special);
        text = after;
        copied = text.push_plain(out, clean_ascii);
    }
    Ok(())
}

/// Appends the contents of a JSON string; the text has been checked.
fn push_escaped(out: &mut Vec<u8>, mut rest: RawText<'_>) {
    loop {
        let copied = rest.push_plain(out, clean);
        let Some((special, after)) = rest.split_special(copied) else { return };
        push_escape(out, special);
        rest = after;
    }
}

#[inline]
fn push_escape(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        _ => push_control(out, byte),
    }
}

/// Escapes a control character.
#[cold]
fn push_control(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let hex = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
            return out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                hex(byte >> 4),
                hex(byte & 15),
            ]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cell(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(out.pop(), Some(b','));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_beyond_double_precision_are_text() {
        assert_eq!(cell(|out| JsonRow::int64(out, 9_007_199_254_740_991)), "9007199254740991");
        assert_eq!(
            cell(|out| JsonRow::int64(out, -9_007_199_254_740_992)),
            "\"-9007199254740992\""
        );
        assert_eq!(cell(|out| JsonRow::int64(out, i64::MIN)), "\"-9223372036854775808\"");
    }

    #[test]
    fn special_doubles_are_text() {
        assert_eq!(cell(|out| JsonRow::float64(out, f64::NAN)), "\"NaN\"");
        assert_eq!(cell(|out| JsonRow::float64(out, f64::INFINITY)), "\"Infinity\"");
        assert_eq!(cell(|out| JsonRow::float64(out, f64::NEG_INFINITY)), "\"-Infinity\"");
    }

    #[test]
    fn zeros_keep_their_sign() {
        assert_eq!(cell(|out| JsonRow::float64(out, 0.0)), "0.0");
        assert_eq!(cell(|out| JsonRow::float64(out, -0.0)), "-0.0");
    }

    #[test]
    fn times_are_text() {
        assert_eq!(cell(|out| JsonRow::date(out, -1)), "\"1969-12-31\"");
        assert_eq!(cell(|out| JsonRow::time(out, 1)), "\"00:00:00.000001\"");
        assert_eq!(cell(|out| JsonRow::datetime(out, 0)), "\"1970-01-01T00:00:00.000000\"");
        assert_eq!(cell(|out| JsonRow::timestamp(out, -1)), "\"1969-12-31T23:59:59.999999Z\"");
    }

    proptest! {
        #[test]
        fn strings_read_back(text in "(\\PC|[\\x00-\\x7f\"\\\\]){0,40}") {
            let written = cell(|out| JsonRow::string(out, &text));
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }

        #[test]
        fn bytes_are_text_where_they_are_utf_8(
            parts in prop::collection::vec(prop_oneof![
                8 => "[a-z\"\\\\\n]{1,9}".prop_map(String::into_bytes),
                2 => "\\PC{1,3}".prop_map(String::into_bytes),
                1 => prop::collection::vec(any::<u8>(), 1..3),
            ], 0..8),
            behind: Vec<u8>,
        ) {
            let text = parts.concat();
            let window = [&text[..], &behind].concat();
            let mut out = Vec::new();
            let written = JsonRow::text(&mut out, RawText::new(&window, text.len()).unwrap());
            prop_assert_eq!(written.is_ok(), std::str::from_utf8(&text).is_ok());
            if let Ok(text) = std::str::from_utf8(&text) {
                prop_assert_eq!(out, cell(|out| JsonRow::string(out, text)).into_bytes().into_iter().chain([b',']).collect::<Vec<_>>());
            }
        }

        #[test]
        fn doubles_read_back(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let written = cell(|out| JsonRow::float64(out, value));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&written).is_ok());
            prop_assert_eq!(written.parse::<f64>().unwrap().to_bits(), bits);
        }

        #[test]
        fn amounts_of_money_are_as_short_as_they_can_be(
            hundredths in -(1_i64 << 52)..1 << 52, cut in 0..52
        ) {
            let value = (hundredths >> cut) as f64 / 100.0;
            let mut buffer = zmij::Buffer::new();
            prop_assert_eq!(cell(|out| JsonRow::float64(out, value)), buffer.format_finite(value));
        }

        #[test]
        fn bytes_are_standard_base64(bytes: Vec<u8>) {
            let written = cell(|out| JsonRow::bytes(out, &bytes));
            prop_assert_eq!(written, format!("\"{}\"", STANDARD.encode(&bytes)));
        }
    }
}
