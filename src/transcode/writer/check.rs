//! No row at all: every value is read, converted and checked as for a row, and nothing is written.

use crate::{
    table::ColumnKind,
    transcode::{
        convert::decimal::Fitted,
        error::Step,
        raw_text::RawText,
        row::LaneLabel,
        writer::{Label, RowWriter},
    },
};

/// The form of rows that are checked only, to be passed through as they are.
#[derive(Clone, Copy, Debug)]
pub struct CheckedRow;

/// What needs no more than to have been converted.
macro_rules! nothing {
    ($($name:ident($($argument:ident: $type:ty),*);)+) => {$(
        #[inline(always)]
        fn $name(_out: &mut Vec<u8>, $($argument: $type),*) {}
    )+};
}

impl RowWriter for CheckedRow {
    type Mark = ();

    fn label(_name: &str, _number: u32, _kind: &ColumnKind) -> Label {
        Label::new(b"")
    }

    #[inline(always)]
    fn text(_out: &mut Vec<u8>, value: RawText<'_>) -> Step {
        value.check().map(|_| ())
    }

    nothing! {
        row_start();
        row_end();
        cell(_label: &Label);
        array_start(_label: &Label);
        element(_label: &Label);
        array_end();
        record_start();
        record_end(_mark: ());
        bool(_value: bool);
        int64(_value: i64);
        float64(_value: f64);
        string(_value: &str);
        clean(_value: RawText<'_>);
        plain_string(_value: &[u8]);
        bytes(_value: &[u8]);
        json(_text: &str);
        decimal(_value: &Fitted);
        date(_days: i64);
        time(_micros: i64);
        datetime(_micros: i64);
        timestamp(_micros: i64);
        topic(_lane: &LaneLabel);
    }
}
