//! Rows as protobuf messages, as the Storage Write API takes them.
//!
//! Field numbers are the columns' positions from 1, in each record. Types as in
//! <https://cloud.google.com/bigquery/docs/supported-data-types>: `INT64` and `BOOL` as varint,
//! `FLOAT64` as `double`, `DATE` as `int32` days, `TIMESTAMP` as `int64` microseconds, `TIME` and
//! `DATETIME` in Google's packed civil encoding, `NUMERIC` and `BIGNUMERIC` as little-endian two's
//! complement bytes scaled by 9 and 38 digits, `JSON` and `GEOGRAPHY` as text; the JSON text `null` is a null. Repeated fields are
//! written unpacked.

use crate::{
    table::ColumnKind,
    transcode::{
        convert::{civil, decimal::Fitted},
        error::Step,
        raw_text::RawText,
        row::LaneLabel,
        scan::ascii,
        writer::{Label, RowWriter, push_first},
    },
};

/// The row form of the Storage Write API.
#[derive(Clone, Copy, Debug)]
pub struct ProtoRow;

/// Stands before the tag of a `JSON` column until its value is known: the text `null` is a null, whose cell is
/// not written at all, and where a tag begins cannot be told from its end alone.
const BEFORE_JSON: u8 = 0;

const WIRE_VARINT: u64 = 0;
const WIRE_FIXED64: u64 = 1;
const WIRE_LEN: u64 = 2;

impl RowWriter for ProtoRow {
    /// Where the length byte is reserved.
    type Mark = usize;

    fn label(_name: &str, number: u32, kind: &ColumnKind) -> Label {
        let wire = match kind {
            ColumnKind::Bool
            | ColumnKind::Int64
            | ColumnKind::Date
            | ColumnKind::Time
            | ColumnKind::DateTime
            | ColumnKind::Timestamp => WIRE_VARINT,
            ColumnKind::Float64 => WIRE_FIXED64,
            ColumnKind::Numeric
            | ColumnKind::BigNumeric
            | ColumnKind::String
            | ColumnKind::Bytes
            | ColumnKind::Json
            | ColumnKind::Geography
            | ColumnKind::Record(_)
            | ColumnKind::Other(_) => WIRE_LEN,
        };
        let mut bytes = Vec::new();
        if matches!(kind, ColumnKind::Json) {
            bytes.push(BEFORE_JSON);
        }
        push_varint(&mut bytes, u64::from(number) << 3 | wire);
        Label::new(&bytes)
    }

    fn row_start(_out: &mut Vec<u8>) {}

    fn row_end(_out: &mut Vec<u8>) {}

    #[inline]
    fn cell(out: &mut Vec<u8>, label: &Label) {
        label.push(out);
    }

    fn array_start(_out: &mut Vec<u8>, _label: &Label) {}

    #[inline]
    fn element(out: &mut Vec<u8>, label: &Label) {
        label.push(out);
    }

    fn array_end(_out: &mut Vec<u8>) {}

    #[inline]
    fn record_start(out: &mut Vec<u8>) -> usize {
        out.push(0);
        out.len()
    }

    fn record_end(out: &mut Vec<u8>, start: usize) {
        let len = out.len().saturating_sub(start);
        if let Ok(short) = u8::try_from(len)
            && short < 0x80
        {
            if let Some(byte) = start.checked_sub(1).and_then(|at| out.get_mut(at)) {
                *byte = short;
            }
            return;
        }
        let (prefix, prefix_len) = any_varint(len as u64);
        out.splice(start.saturating_sub(1)..start, prefix.into_iter().take(prefix_len));
    }

    #[inline]
    fn bool(out: &mut Vec<u8>, value: bool) {
        out.push(u8::from(value));
    }

    #[inline]
    fn int64(out: &mut Vec<u8>, value: i64) {
        push_varint(out, value.cast_unsigned());
    }

    #[inline]
    fn float64(out: &mut Vec<u8>, value: f64) {
        out.extend_from_slice(&value.to_le_bytes());
    }

    #[inline(always)]
    fn text(out: &mut Vec<u8>, value: RawText<'_>) -> Step {
        push_len(out, value.size());
        let copied = value.push_plain(out, ascii);
        if copied < value.size() {
            out.extend_from_slice(value.after(copied).check()?.bytes());
        }
        Ok(())
    }

    #[inline]
    fn string(out: &mut Vec<u8>, value: &str) {
        Self::bytes(out, value.as_bytes());
    }

    #[inline(always)]
    fn clean(out: &mut Vec<u8>, value: RawText<'_>) {
        push_len(out, value.size());
        value.push(out);
    }

    #[inline]
    fn plain_string(out: &mut Vec<u8>, value: &[u8]) {
        Self::bytes(out, value);
    }

    #[inline]
    fn bytes(out: &mut Vec<u8>, value: &[u8]) {
        push_len(out, value.len());
        out.extend_from_slice(value);
    }

    fn json(out: &mut Vec<u8>, text: &str) {
        let tag = begin_of_tag(out);
        if text.trim_ascii() == "null" {
            return out.truncate(tag.saturating_sub(1));
        }
        out.remove(tag.saturating_sub(1));
        Self::string(out, text);
    }

    fn decimal(out: &mut Vec<u8>, value: &Fitted) {
        let (bytes, len) = value.le_bytes();
        push_len(out, len);
        push_first(out, &bytes, len);
    }

    #[inline]
    fn date(out: &mut Vec<u8>, days: i64) {
        Self::int64(out, days);
    }

    fn time(out: &mut Vec<u8>, micros: i64) {
        Self::int64(out, civil::clock(micros).map_or(0, packed_time));
    }

    fn datetime(out: &mut Vec<u8>, micros: i64) {
        let packed = civil::moment(micros).map_or(0, |moment| {
            let day = moment.day;
            let date = i64::from(day.year) << 9 | i64::from(day.month) << 5 | i64::from(day.day);
            date << 37 | packed_time(moment.time)
        });
        Self::int64(out, packed);
    }

    #[inline]
    fn timestamp(out: &mut Vec<u8>, micros: i64) {
        Self::int64(out, micros);
    }

    fn topic(out: &mut Vec<u8>, lane: &LaneLabel) {
        Self::string(out, lane.topic());
    }
}

/// Where the tag begins that `out` ends with: all its bytes but the last are continued, and that before it is
/// [`BEFORE_JSON`].
fn begin_of_tag(out: &[u8]) -> usize {
    let before = out.len().saturating_sub(1);
    let continued = out.iter().take(before).rev().take_while(|byte| **byte >= 0x80).count();
    before - continued
}

/// Hour, minute, second and microsecond in 5, 6, 6 and 20 bits.
fn packed_time(time: civil::Clock) -> i64 {
    let seconds = time.hour << 12 | time.minute << 6 | time.second;
    i64::from(seconds) << 20 | i64::from(time.micros)
}

/// Appends a varint: without a branch per byte, because nobody can predict how many there are.
#[inline(always)]
fn push_varint(out: &mut Vec<u8>, value: u64) {
    if value >= 1 << 56 {
        let (bytes, len) = any_varint(value);
        return push_first(out, &bytes, len);
    }
    let fours = (value & 0x0fff_ffff) | (value & 0x00ff_ffff_f000_0000) << 4;
    let pairs = (fours & 0x0000_3fff_0000_3fff) | (fours & 0x0fff_c000_0fff_c000) << 2;
    let sevens = (pairs & 0x007f_007f_007f_007f) | (pairs & 0x3f80_3f80_3f80_3f80) << 1;
    let last = sevens.checked_ilog2().unwrap_or_default() / 8;
    let continued = 0x0080_8080_8080_8080 & !(u64::MAX << (8 * last));
    push_first(out, &(sevens | continued).to_le_bytes(), last as usize + 1);
}

/// Appends a length: a varint that is likely to take one byte.
#[inline(always)]
fn push_len(out: &mut Vec<u8>, len: usize) {
    match u8::try_from(len) {
        Ok(short @ 0..0x80) => out.push(short),
        _ => push_varint(out, len as u64),
    }
}

/// A varint and how many of the bytes it takes.
fn any_varint(mut value: u64) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let mut len = 0;
    for byte in &mut bytes {
        len += 1;
        *byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            break;
        }
        *byte |= 0x80;
    }
    (bytes, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcode::convert::decimal::{Decimal, Range};

    fn bytes(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    fn label(number: u32, kind: &ColumnKind) -> Vec<u8> {
        bytes(|out| ProtoRow::label("ignored", number, kind).push(out))
    }

    #[test]
    fn tags_carry_number_and_wire_type() {
        assert_eq!(label(1, &ColumnKind::Int64), [0x08]);
        assert_eq!(label(2, &ColumnKind::String), [0x12]);
        assert_eq!(label(3, &ColumnKind::Float64), [0x19]);
        assert_eq!(label(16, &ColumnKind::Record(Vec::new())), [0x82, 0x01]);
    }

    #[test]
    fn scalars_follow_the_wire_format() {
        assert_eq!(bytes(|out| ProtoRow::int64(out, 300)), [0xac, 0x02]);
        let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(bytes(|out| ProtoRow::int64(out, -1)), minus_one);
        assert_eq!(bytes(|out| ProtoRow::string(out, "ab")), [2, b'a', b'b']);
        assert_eq!(bytes(|out| ProtoRow::float64(out, 1.0)), [0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
    }

    #[test]
    fn varints_of_every_length_end_where_they_should() {
        let powers = (0..64).flat_map(|power| [1 << power, (1 << power) - 1, u64::MAX >> power]);
        for value in powers {
            let (expected, len) = any_varint(value);
            assert_eq!(bytes(|out| push_varint(out, value)), expected[..len], "{value:#x}");
        }
        for len in [0, 127, 128, 16_384] {
            assert_eq!(bytes(|out| push_len(out, len)), bytes(|out| push_varint(out, len as u64)));
        }
    }

    #[test]
    fn civil_times_are_packed_as_google_packs_them() {
        let varint = |value: i64| bytes(|out| ProtoRow::int64(out, value));
        // 01:02:03.000004
        let time = ((1 << 12 | 2 << 6 | 3) << 20) | 4;
        assert_eq!(bytes(|out| ProtoRow::time(out, 3_723_000_004)), varint(time));
        // 1970-01-02T01:02:03.000004
        let date = 1970_i64 << 26 | 1 << 22 | 2 << 17;
        let micros = civil::DAY_MICROS + 3_723_000_004;
        assert_eq!(bytes(|out| ProtoRow::datetime(out, micros)), varint(date << 20 | time));
    }

    #[test]
    fn decimals_are_length_prefixed_little_endian() {
        let fitted = Decimal::parse("-1").unwrap().fit(Range::Numeric).unwrap();
        assert_eq!(bytes(|out| ProtoRow::decimal(out, &fitted)), [4, 0x00, 0x36, 0x65, 0xc4]);
    }

    #[test]
    fn lengths_of_nested_messages_are_patched_in() {
        for len in [0, 1, 127, 128, 300, 20_000] {
            let message = bytes(|out| {
                let mark = ProtoRow::record_start(out);
                out.extend(std::iter::repeat_n(7, len));
                ProtoRow::record_end(out, mark);
            });
            let mut expected = Vec::new();
            push_varint(&mut expected, len as u64);
            expected.extend(std::iter::repeat_n(7, len));
            assert_eq!(message, expected);
        }
    }

    #[test]
    fn the_json_text_null_is_no_cell_whatever_stands_before_it() {
        for number in [1, 16, 9_999] {
            let json = |text: &str| {
                bytes(|out| {
                    out.extend_from_slice(&[0xff, 0xff]);
                    ProtoRow::label("ignored", number, &ColumnKind::Json).push(out);
                    ProtoRow::json(out, text);
                })
            };
            let string = bytes(|out| {
                out.extend_from_slice(&[0xff, 0xff]);
                ProtoRow::label("ignored", number, &ColumnKind::String).push(out);
                ProtoRow::string(out, "{}");
            });
            assert_eq!((json(" null"), json("{}")), (vec![0xff, 0xff], string));
        }
    }
}
