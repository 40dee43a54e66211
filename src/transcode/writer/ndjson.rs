//! Rows as load jobs take them: one JSON object a line.
//!
//! Cells as in `tabledata.insertAll`, but for the `JSON` type: a load takes the value itself, where
//! insertAll takes its text (<https://github.com/apache/beam/issues/23025>); a text would be loaded as a
//! JSON string.

use crate::{
    table::ColumnKind,
    transcode::{
        convert::decimal::Fitted,
        error::Step,
        raw_text::RawText,
        row::LaneLabel,
        writer::{Label, RowWriter, json::JsonRow},
    },
};

/// The row form of load jobs, without the line's end.
#[derive(Clone, Copy, Debug)]
pub struct NdjsonRow;

/// What is written as in [`JsonRow`].
macro_rules! as_json_row {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)+) => {$(
        #[inline]
        fn $name(out: &mut Vec<u8>, $($argument: $type),*) $(-> $result)? {
            JsonRow::$name(out, $($argument),*)
        }
    )+};
}

impl RowWriter for NdjsonRow {
    type Mark = ();

    fn label(name: &str, number: u32, kind: &ColumnKind) -> Label {
        JsonRow::label(name, number, kind)
    }

    /// A line holds no line break: between tokens it means what a space does, and within a string no
    /// JSON has one.
    fn json(out: &mut Vec<u8>, text: &str) {
        let start = out.len();
        out.extend_from_slice(text.as_bytes());
        let written = out.iter_mut().skip(start);
        written.filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        out.push(b',');
    }

    as_json_row! {
        row_start();
        row_end();
        cell(label: &Label);
        array_start(label: &Label);
        element(label: &Label);
        array_end();
        record_start();
        record_end(mark: ());
        bool(value: bool);
        int64(value: i64);
        float64(value: f64);
        text(value: RawText<'_>) -> Step;
        string(value: &str);
        clean(value: RawText<'_>);
        plain_string(value: &[u8]);
        bytes(value: &[u8]);
        decimal(value: &Fitted);
        date(days: i64);
        time(micros: i64);
        datetime(micros: i64);
        timestamp(micros: i64);
        topic(lane: &LaneLabel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_a_value_on_one_line() {
        let mut out = Vec::new();
        NdjsonRow::json(&mut out, "{\n \"a\":\r\n \"x\\n\"}");
        assert_eq!(String::from_utf8(out).unwrap(), "{  \"a\":   \"x\\n\"},");
    }

    #[test]
    fn a_text_is_a_text() {
        let (mut own, mut json) = (Vec::new(), Vec::new());
        NdjsonRow::string(&mut own, "a \"b\"\n");
        JsonRow::string(&mut json, "a \"b\"\n");
        assert_eq!(own, json);
    }
}
