//! A batch: encoded rows of many lanes on their way to one table, with the original payload of
//! every row.
//!
//! The payload is kept as one compact copy (an arena) until the acknowledgement, because a row may
//! have to be dead-lettered with its original bytes or encoded again for a newer table version. Only
//! rows that are staged for a load job go without: what a job refuses is read again from Kafka. The
//! alternatives cost more: a kept librdkafka message pins its whole fetch buffer (tens of MB for one
//! record), and reading again by offset turns one refused row into a second fetch path. Copying
//! 300 bytes takes about 40 ns (`shared design: performance`).

use std::mem::size_of;

use bytes::Bytes;

use crate::record::{Headers, Record};

pub mod spares;

/// A lane's number inside one worker: one assignment of a topic-partition. Never used twice, so
/// that whatever is still under way for a lost assignment can be told from the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneSlot(pub u32);

/// Which span of a lane's tracker answers for a row (see `delivery::tracker`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub u64);

/// One row's entry: who it belongs to and where its bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The lane it came from.
    pub lane: LaneSlot,
    /// The span that waits for it.
    pub span: SpanId,
    /// Its Kafka offset.
    pub offset: i64,
    timestamp_ms: i64,
    payload_start: u32,
    headers_len: u32,
    key_len: i32,
    value_len: i32,
    body_start: u32,
    body_end: u32,
}

const NO_TIMESTAMP: i64 = i64::MIN;

impl Row {
    /// Payload bytes of the record, kept or not.
    pub fn payload_bytes(&self) -> usize {
        length(self.key_len) + length(self.value_len) + self.headers_len as usize
    }
}

fn length(signed: i32) -> usize {
    usize::try_from(signed).unwrap_or(0)
}

fn signed(bytes: Option<&[u8]>) -> i32 {
    bytes.map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap_or(i32::MAX))
}

/// How much a batch holds: rows, and bytes of payloads and of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    rows: usize,
    payload: usize,
    body: usize,
}

/// Rows, their payloads, and their encoded form. Buffers start empty and grow.
#[derive(Debug, Default)]
pub struct Batch {
    rows: Vec<Row>,
    payload: Vec<u8>,
    body: Vec<u8>,
    /// What the body holds in memory once it was taken out.
    taken_bytes: usize,
    /// Whether payloads are not kept.
    forgets: bool,
}

impl Batch {
    /// A batch that keeps encoded rows only: nobody will ask for [`record`](Self::record).
    pub fn of_rows_only() -> Self {
        Self { forgets: true, ..Self::default() }
    }

    /// The rows in order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of encoded rows, framing included.
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// Bytes of encoded rows where each counts for `least` at least.
    pub fn counted_bytes(&self, least: u64) -> u64 {
        let bytes = |row: &Row| u64::from(row.body_end.saturating_sub(row.body_start)).max(least);
        self.rows.iter().map(bytes).sum()
    }

    /// The earliest timestamp among the rows, milliseconds since the epoch.
    pub fn oldest_timestamp_ms(&self) -> Option<i64> {
        let stamped = self.rows.iter().filter(|row| row.timestamp_ms != NO_TIMESTAMP);
        stamped.map(|row| row.timestamp_ms).min()
    }

    /// Memory held by the buffers, as allocated, the body's also after it was taken out.
    pub fn memory_bytes(&self) -> usize {
        self.payload.capacity() + self.body_memory_bytes() + self.rows.capacity() * size_of::<Row>()
    }

    /// Bytes of the records' payloads, kept or not.
    pub fn payload_bytes(&self) -> usize {
        self.rows.iter().map(Row::payload_bytes).sum()
    }

    /// Memory held by the body alone, also after it was taken out.
    pub fn body_memory_bytes(&self) -> usize {
        self.body.capacity() + self.taken_bytes
    }

    /// The body buffer, to write framing into.
    pub fn body_mut(&mut self) -> &mut Vec<u8> {
        &mut self.body
    }

    /// Appends a row: `encode` writes its encoded form to the end of the body. If it fails, the
    /// body is cut back and the batch is as before.
    ///
    /// # Errors
    /// Whatever `encode` returns.
    pub fn push<E>(
        &mut self,
        lane: LaneSlot,
        span: SpanId,
        record: &Record<'_>,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.body.len();
        if let Err(error) = encode(&mut self.body) {
            self.body.truncate(start);
            return Err(error);
        }
        self.append(lane, span, record, start);
        Ok(())
    }

    /// Appends a row that is not encoded yet: only its payload is kept.
    pub fn push_unencoded(&mut self, lane: LaneSlot, span: SpanId, record: &Record<'_>) {
        self.append(lane, span, record, self.body.len());
    }

    fn append(&mut self, lane: LaneSlot, span: SpanId, record: &Record<'_>, body_start: usize) {
        let row = Row {
            lane,
            span,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms.unwrap_or(NO_TIMESTAMP),
            payload_start: position(self.payload.len()),
            headers_len: position(record.headers.encoded().len()),
            key_len: signed(record.key),
            value_len: signed(record.value),
            body_start: position(body_start),
            body_end: position(self.body.len()),
        };
        if !self.forgets {
            self.payload.extend_from_slice(record.key.unwrap_or_default());
            self.payload.extend_from_slice(record.value.unwrap_or_default());
            self.payload.extend_from_slice(record.headers.encoded());
        }
        self.rows.push(row);
    }

    /// The original record of `row`, which must be one of this batch's rows, if it keeps them.
    pub fn record(&self, row: &Row) -> Record<'_> {
        debug_assert!(!self.forgets, "a record that was not kept is asked for");
        let bytes = self.payload.get(row.payload_start as usize..).unwrap_or_default();
        let (key, bytes) = split(bytes, row.key_len);
        let (value, bytes) = split(bytes, row.value_len);
        let headers = bytes.get(..row.headers_len as usize).unwrap_or_default();
        Record {
            offset: row.offset,
            timestamp_ms: (row.timestamp_ms != NO_TIMESTAMP).then_some(row.timestamp_ms),
            key,
            value,
            headers: Headers::from_encoded(headers),
        }
    }

    /// Takes the finished body out, leaving the rows and payloads.
    pub fn take_body(&mut self) -> Bytes {
        self.taken_bytes = self.body.capacity();
        Bytes::from(std::mem::take(&mut self.body))
    }

    /// Empties the batch and takes its body's buffer back; `None` while somebody else still holds
    /// the body.
    pub fn reclaim(mut self, body: Bytes) -> Option<Self> {
        let mut body = body.try_into_mut().ok()?;
        body.clear();
        self.body = body.into();
        self.taken_bytes = 0;
        self.forgets = false;
        self.rows.clear();
        self.payload.clear();
        Some(self)
    }

    /// Cuts the body between rows into parts of at most `bytes_max` where a row is not larger by itself:
    /// how many rows each holds, and where it ends.
    pub fn cuts(&self, bytes_max: usize) -> Vec<(u32, usize)> {
        let mut cuts = Vec::new();
        let (mut rows, mut start, mut end) = (0, 0, 0);
        for row in &self.rows {
            let next = row.body_end as usize;
            if rows > 0 && next - start > bytes_max {
                cuts.push((rows, end));
                (rows, start) = (0, end);
            }
            (rows, end) = (rows + 1, next);
        }
        if rows > 0 {
            cuts.push((rows, end));
        }
        cuts
    }

    /// How much there is of each part.
    pub fn size(&self) -> Size {
        Size { rows: self.rows.len(), payload: self.payload.len(), body: self.body.len() }
    }

    /// Makes room for a batch of `body_bytes` at once: doubling would copy what there is several
    /// times, and end at up to twice the memory. The other parts are taken to be in proportion as
    /// `like` has them; an eighth more where they are not.
    pub fn make_room(&mut self, body_bytes: usize, like: Size) {
        let more = |len: usize| len.saturating_mul(body_bytes) / like.body.max(1) * 9 / 8;
        let body = body_bytes + body_bytes / 16;
        self.body.reserve_exact(body.saturating_sub(self.body.len()));
        let (payload, rows) = (more(like.payload), more(like.rows));
        self.payload.reserve_exact(payload.saturating_sub(self.payload.len()));
        self.rows.reserve_exact(rows.saturating_sub(self.rows.len()));
    }

    /// Goes on in the buffers of `spare`, which is empty; its own, emptied, are dropped.
    pub fn move_into(&mut self, mut spare: Self) {
        spare.rows.extend_from_slice(&self.rows);
        spare.payload.extend_from_slice(&self.payload);
        spare.body.extend_from_slice(&self.body);
        spare.forgets = self.forgets;
        *self = spare;
    }

    /// A new batch with copies of the rows that `keep` chooses by index, their encoded bytes taken
    /// from `body`, the whole body as it was sent. `open` writes the framing before the first row.
    /// Every row but a body's first begins with `separator`; another row is the first now.
    pub fn subset(
        &self,
        body: &[u8],
        separator: &[u8],
        open: impl FnOnce(&mut Vec<u8>),
        keep: impl Fn(usize) -> bool,
    ) -> Self {
        let mut subset = Self::default();
        open(&mut subset.body);
        for (_, row) in self.rows.iter().enumerate().filter(|(index, _)| keep(*index)) {
            let start = subset.body.len();
            let encoded = body.get(row.body_start as usize..row.body_end as usize);
            let encoded = encoded.unwrap_or_default();
            if !subset.rows.is_empty() {
                subset.body.extend_from_slice(separator);
            }
            subset.body.extend_from_slice(encoded.strip_prefix(separator).unwrap_or(encoded));
            subset.append(row.lane, row.span, &self.record(row), start);
        }
        subset
    }
}

/// Batches are far below 4 GiB (a request is at most 10 MB); a position beyond would be a bug that
/// the range checks above turn into an empty row, which BigQuery refuses.
fn position(bytes: usize) -> u32 {
    debug_assert!(u32::try_from(bytes).is_ok(), "batch beyond 4 GiB");
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn split(bytes: &[u8], len: i32) -> (Option<&[u8]>, &[u8]) {
    match usize::try_from(len).ok().and_then(|len| bytes.split_at_checked(len)) {
        Some((part, rest)) => (Some(part), rest),
        None => (None, bytes),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::push_header;

    fn record<'a>(offset: i64, key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Record<'a> {
        Record { offset, timestamp_ms: None, key, value, headers: Headers::default() }
    }

    fn write(text: &str) -> impl FnOnce(&mut Vec<u8>) -> Result<(), ()> {
        move |body| {
            body.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }

    #[test]
    fn the_original_record_comes_back_null_and_empty_told_apart() {
        let mut headers = Vec::new();
        push_header(&mut headers, "h", None);
        let with_headers = Record {
            timestamp_ms: Some(-1),
            headers: Headers::from_encoded(&headers),
            ..record(7, Some(b""), None)
        };
        let mut batch = Batch::default();
        batch.push_unencoded(LaneSlot(0), SpanId(0), &record(6, None, Some(b"v")));
        batch.push_unencoded(LaneSlot(0), SpanId(0), &with_headers);
        let [first, second] = batch.rows() else { panic!("two rows") };
        let back = batch.record(first);
        assert_eq!(
            (back.offset, back.timestamp_ms, back.key, back.value),
            (6, None, None, Some(&b"v"[..]))
        );
        let back = batch.record(second);
        assert_eq!((back.timestamp_ms, back.key, back.value), (Some(-1), Some(&b""[..]), None));
        assert_eq!(back.headers.iter().collect::<Vec<_>>(), [("h", None)]);
    }

    #[test]
    fn rows_only_are_sized_by_their_records_and_keep_none() {
        let mut batch = Batch::of_rows_only();
        let written =
            batch.push(LaneSlot(0), SpanId(0), &record(6, None, Some(b"abc")), write("A"));
        written.unwrap();
        assert_eq!((batch.rows()[0].payload_bytes(), batch.size().payload), (3, 0));
        batch.move_into(Batch::default());
        batch.push(LaneSlot(0), SpanId(0), &record(7, None, Some(b"d")), write("B")).unwrap();
        assert_eq!(batch.size().payload, 0);
        // The buffers serve any batch afterwards.
        let body = batch.take_body();
        let mut batch = batch.reclaim(body).unwrap();
        batch.push(LaneSlot(0), SpanId(0), &record(8, None, Some(b"e")), write("C")).unwrap();
        assert_eq!(batch.record(&batch.rows()[0]).value, Some(&b"e"[..]));
    }

    #[test]
    fn a_failed_row_leaves_the_batch_as_it_was() {
        let mut batch = Batch::default();
        batch.push(LaneSlot(0), SpanId(0), &record(1, None, Some(b"a")), write("A,")).unwrap();
        let failed = batch.push(LaneSlot(0), SpanId(0), &record(2, None, Some(b"b")), |body| {
            body.extend_from_slice(b"half");
            Err("bad")
        });
        assert_eq!(failed, Err("bad"));
        batch.push(LaneSlot(0), SpanId(0), &record(3, None, Some(b"c")), write("C,")).unwrap();
        assert_eq!(batch.rows().len(), 2);
        assert_eq!(&batch.take_body()[..], b"A,C,");
    }

    #[test]
    fn a_subset_carries_its_own_bytes() {
        let mut batch = Batch::default();
        batch.body_mut().extend_from_slice(b"[");
        for (offset, text) in [(1, "A"), (2, ",BB"), (3, ",C")] {
            batch
                .push(
                    LaneSlot(4),
                    SpanId(9),
                    &record(offset, None, Some(text.as_bytes())),
                    write(text),
                )
                .unwrap();
        }
        batch.body_mut().extend_from_slice(b"]");
        let body = batch.take_body();
        let part = |keep: &[usize]| {
            let open = |body: &mut Vec<u8>| body.push(b'[');
            batch.subset(&body, b",", open, |index| keep.contains(&index))
        };
        let mut ends = part(&[0, 2]);
        assert_eq!(ends.rows().iter().map(|row| row.offset).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(ends.record(&ends.rows()[1]).value, Some(&b",C"[..]));
        assert_eq!(&ends.take_body()[..], b"[A,C");
        // A body that begins with another row than before.
        let mut rest = part(&[1, 2]);
        let body = rest.take_body();
        assert_eq!(&body[..], b"[BB,C");
        assert_eq!(&rest.subset(&body, b",", |_| {}, |index| index == 1).take_body()[..], b"C");
    }

    #[test]
    fn a_body_is_cut_between_rows() {
        let mut batch = Batch::default();
        for (offset, text) in [(1, "aa"), (2, "bb"), (3, "cccccc"), (4, "d")] {
            let record = record(offset, None, None);
            batch.push(LaneSlot(0), SpanId(0), &record, write(text)).unwrap();
        }
        assert_eq!(batch.cuts(4), [(2, 4), (1, 10), (1, 11)]);
        assert_eq!(batch.cuts(100), [(4, 11)]);
        assert_eq!(Batch::default().cuts(4), []);
    }

    /// A batch of these rows, framed as `[row,row`, and its body.
    fn framed(rows: &[(i64, String)]) -> (Batch, Bytes) {
        let mut batch = Batch::default();
        batch.body_mut().push(b'[');
        for (index, (offset, text)) in rows.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let (record, row) =
                (record(*offset, None, Some(text.as_bytes())), separator.to_owned());
            batch.push(LaneSlot(4), SpanId(9), &record, write(&(row + text))).unwrap();
        }
        let body = batch.take_body();
        (batch, body)
    }

    proptest! {
        #[test]
        fn a_subset_is_the_batch_of_those_rows(
            rows in prop::collection::vec((any::<i64>(), "[a-z]{0,9}"), 0..20),
            keep in prop::collection::vec(any::<bool>(), 20),
        ) {
            let (whole, body) = framed(&rows);
            let open = |body: &mut Vec<u8>| body.push(b'[');
            let mut subset = whole.subset(&body, b",", open, |index| keep[index]);
            let kept = rows.iter().zip(&keep).filter(|(_, keep)| **keep);
            let kept: Vec<_> = kept.map(|(row, _)| row.clone()).collect();
            let (expected, expected_body) = framed(&kept);
            prop_assert_eq!(subset.take_body(), expected_body);
            prop_assert_eq!(subset.rows(), expected.rows());
            for (row, (_, text)) in subset.rows().iter().zip(&kept) {
                prop_assert_eq!(subset.record(row).value, Some(text.as_bytes()));
            }
        }
    }
}
