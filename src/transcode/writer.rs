//! The seam between reading a record and the form of its row.

use std::fmt;

use crate::{
    table::ColumnKind,
    transcode::{convert::decimal::Fitted, error::Step, raw_text::RawText, row::LaneLabel},
};

pub mod check;
pub mod json;
pub mod ndjson;
pub mod proto;

/// How much of a label is kept inline.
const INLINE: usize = 32;

/// Appends the first `len` of `bytes`: a copy of a fixed length and a cut, which is cheaper than a
/// copy of just so many.
#[inline(always)]
pub fn push_first<const N: usize>(out: &mut Vec<u8>, bytes: &[u8; N], len: usize) {
    out.extend_from_slice(bytes);
    out.truncate(out.len() - N.saturating_sub(len));
}

/// The bytes that come before a cell's value in one row form: a quoted JSON key with its colon, or
/// a protobuf tag. Rendered once, when the plan is compiled.
pub struct Label {
    /// The label padded to a fixed length, so that it can be copied without a call to `memcpy`.
    inline: [u8; INLINE],
    padding: usize,
    /// The whole label where it is longer.
    long: Option<Box<[u8]>>,
}

impl Label {
    /// Keeps `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let mut inline = [0; INLINE];
        match inline.get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                Self { inline, padding: INLINE - bytes.len(), long: None }
            }
            None => Self { inline, padding: INLINE, long: Some(Box::from(bytes)) },
        }
    }

    /// Appends the label.
    #[inline(always)]
    pub fn push(&self, out: &mut Vec<u8>) {
        if let Some(long) = &self.long {
            return out.extend_from_slice(long);
        }
        push_first(out, &self.inline, INLINE - self.padding);
    }

    /// How many bytes the label has.
    pub fn bytes(&self) -> usize {
        self.long.as_ref().map_or(INLINE - self.padding, |long| long.len())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::new();
        self.push(&mut bytes);
        write!(f, "Label({})", String::from_utf8_lossy(&bytes))
    }
}

/// One form of row bytes.
///
/// A row is `row_start`, cells, `row_end`. A cell is `cell`, then one value; or `array_start`, then
/// for each element `element` and one value, then `array_end`. A record value is `record_start`,
/// cells, `record_end`. Values are written after their range has been checked: `date` takes days
/// within the years 0001 to 9999, and so on. A null cell is not written at all.
pub trait RowWriter: fmt::Debug + Send + Sync + 'static {
    /// What `record_end` needs from `record_start`.
    type Mark;

    /// Renders what comes before the value of the column `name`, which is the `number`-th of its
    /// record, from 1.
    fn label(name: &str, number: u32, kind: &ColumnKind) -> Label;

    /// Begins a row; returns nothing, because the caller knows where it began.
    fn row_start(out: &mut Vec<u8>);
    /// Ends a row.
    fn row_end(out: &mut Vec<u8>);
    /// Begins a cell that holds one value.
    fn cell(out: &mut Vec<u8>, label: &Label);
    /// Begins a cell that holds an array.
    fn array_start(out: &mut Vec<u8>, label: &Label);
    /// Begins an element of the array that `label` began.
    fn element(out: &mut Vec<u8>, label: &Label);
    /// Ends an array.
    fn array_end(out: &mut Vec<u8>);
    /// Begins a record value.
    fn record_start(out: &mut Vec<u8>) -> Self::Mark;
    /// Ends a record value.
    fn record_end(out: &mut Vec<u8>, mark: Self::Mark);

    /// A `BOOL`.
    fn bool(out: &mut Vec<u8>, value: bool);
    /// An `INT64`.
    fn int64(out: &mut Vec<u8>, value: i64);
    /// A `FLOAT64`; NaN and the infinities are values.
    fn float64(out: &mut Vec<u8>, value: f64);
    /// A `STRING` or `GEOGRAPHY` that has not been checked yet.
    ///
    /// # Errors
    /// When it is not UTF-8.
    fn text(out: &mut Vec<u8>, value: RawText<'_>) -> Step;
    /// A `STRING` or `GEOGRAPHY`.
    fn string(out: &mut Vec<u8>, value: &str);
    /// A `STRING` or `GEOGRAPHY` that has been checked, and is without `"`, `\` and control characters.
    fn clean(out: &mut Vec<u8>, value: RawText<'_>);
    /// A `STRING` of ASCII without `"`, `\` and control characters.
    fn plain_string(out: &mut Vec<u8>, value: &[u8]);
    /// A `BYTES`.
    fn bytes(out: &mut Vec<u8>, value: &[u8]);
    /// A `JSON` by its text.
    fn json(out: &mut Vec<u8>, text: &str);
    /// A `NUMERIC` or `BIGNUMERIC`.
    fn decimal(out: &mut Vec<u8>, value: &Fitted);
    /// A `DATE`, as days since 1970-01-01.
    fn date(out: &mut Vec<u8>, days: i64);
    /// A `TIME`, as microseconds since midnight.
    fn time(out: &mut Vec<u8>, micros: i64);
    /// A `DATETIME`, as wall-clock microseconds since 1970-01-01T00:00:00.
    fn datetime(out: &mut Vec<u8>, micros: i64);
    /// A `TIMESTAMP`, as microseconds since the epoch.
    fn timestamp(out: &mut Vec<u8>, micros: i64);
    /// The lane's topic as a `STRING`.
    fn topic(out: &mut Vec<u8>, lane: &LaneLabel);
}
