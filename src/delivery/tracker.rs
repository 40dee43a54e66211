//! What of one lane may be committed: the contiguous acknowledged prefix.
//!
//! Delivered offsets are tracked, not arithmetic ranges: compaction, aborted transactions and
//! control records leave gaps. Consecutive records that go the same way share a *span*, which counts
//! how many of them are unresolved; the watermark moves over the front span when that count is zero.
//!
//! | span before it | this span | watermark |
//! |---|---|---|
//! | unresolved | any | stays |
//! | none | unresolved | stays |
//! | none | resolved | moves behind this span |
//!
//! A record that is staged for a load job is *settled* before it is resolved: its row is kept
//! elsewhere, and nothing can happen to it any more but the job. A job may be created for the records
//! below an offset once all of them are settled.

use std::collections::VecDeque;

use crate::{
    batch::SpanId,
    record::{Fingerprint, Record},
};

/// A span ends after this many records, so that the watermark follows within a large batch.
const SPAN_RECORDS_MAX: u32 = 512;

#[derive(Debug)]
struct Span {
    /// The way its records go; another way starts another span.
    group: u64,
    records: u32,
    unresolved: u32,
    /// Those of them that are not settled either.
    unsettled: u32,
    /// The offset behind its last record.
    next: i64,
    /// Its first record: one hash for all of them.
    first: Fingerprint,
}

/// The progress of one lane.
#[derive(Debug)]
pub struct Tracker {
    watermark: i64,
    next: i64,
    last: Option<Fingerprint>,
    spans: VecDeque<Span>,
    front: u64,
    /// The first span with an unsettled record.
    settled: u64,
    /// The next record begins a span, whatever its way.
    is_cut: bool,
    unresolved: u64,
}

impl Tracker {
    /// A tracker for a lane whose next record is `start` or later.
    pub fn new(start: i64) -> Self {
        Self {
            watermark: start,
            next: start,
            last: None,
            spans: VecDeque::new(),
            front: 0,
            settled: 0,
            is_cut: false,
            unresolved: 0,
        }
    }

    /// The offset to commit: everything below it is resolved.
    pub fn watermark(&self) -> i64 {
        self.watermark
    }

    /// The offset behind the last delivered record: where reading goes on.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// A record below the watermark, once the watermark has moved: the first of the last span.
    pub fn last(&self) -> Option<Fingerprint> {
        self.last
    }

    /// The timestamp of a record among the oldest (within one span) that are not resolved,
    /// milliseconds since the epoch.
    pub fn oldest_timestamp_ms(&self) -> Option<i64> {
        let stamped = |span: &&Span| span.first.timestamp_ms >= 0;
        self.spans.front().filter(stamped).map(|span| span.first.timestamp_ms)
    }

    /// Records that were delivered and are not resolved.
    pub fn unresolved(&self) -> u64 {
        self.unresolved
    }

    /// Every record below this offset is settled or resolved.
    pub fn settled(&self) -> i64 {
        let index = usize::try_from(self.settled - self.front).ok();
        let span = index.and_then(|index| self.spans.get(index));
        span.map_or(self.next, |span| span.first.offset)
    }

    /// Whether every record of `span` is resolved.
    pub fn is_resolved(&self, span: SpanId) -> bool {
        self.span(span).is_none_or(|span| span.unresolved == 0)
    }

    /// The span, unless the watermark has moved over it.
    fn span(&self, span: SpanId) -> Option<&Span> {
        self.spans.get(usize::try_from(span.0.checked_sub(self.front)?).ok()?)
    }

    /// Takes in a delivered record that goes the way `group`, and names the span that waits for it.
    /// `None` if the record was delivered before: a resumed partition is read again from a position
    /// that may lie below the last record handed over.
    pub fn deliver(&mut self, record: &Record<'_>, group: u64) -> Option<SpanId> {
        if record.offset < self.next {
            return None;
        }
        self.next = record.offset.saturating_add(1);
        self.unresolved += 1;
        let is_settled = self.settled >= self.front + self.spans.len() as u64;
        let is_closed = std::mem::take(&mut self.is_cut) || is_settled;
        match self.spans.back_mut().filter(|_| !is_closed) {
            Some(span) if span.group == group && span.records < SPAN_RECORDS_MAX => {
                span.records += 1;
                span.unresolved += 1;
                span.unsettled += 1;
                span.next = self.next;
            }
            _ => self.spans.push_back(Span {
                group,
                records: 1,
                unresolved: 1,
                unsettled: 1,
                next: self.next,
                first: Fingerprint::of(record),
            }),
        }
        Some(SpanId(self.front + self.spans.len() as u64 - 1))
    }

    /// What was delivered so far is waited for: no later record joins its last span.
    pub fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Settles `records` records of `span`: they are staged for a load job.
    pub fn settle(&mut self, span: SpanId, records: u32) {
        let Some(span) = self.span_mut(span) else { return };
        debug_assert!(span.unsettled >= records, "settled a record twice");
        span.unsettled = span.unsettled.saturating_sub(records);
        self.advance();
    }

    /// Takes a settlement back: the records go another way.
    pub fn unsettle(&mut self, span: SpanId, records: u32) {
        let index = span.0;
        let Some(span) = self.span_mut(span) else { return };
        span.unsettled += records;
        self.settled = self.settled.min(index);
    }

    /// Resolves `records` records of `span`: they are stored, dead-lettered or skipped for good.
    /// Returns whether the watermark moved.
    pub fn resolve(&mut self, span: SpanId, records: u32) -> bool {
        self.settle(span, records);
        self.resolve_settled(span, records)
    }

    /// Resolves records that were settled before. Returns whether the watermark moved.
    pub fn resolve_settled(&mut self, span: SpanId, records: u32) -> bool {
        let Some(span) = self.span_mut(span) else { return false };
        debug_assert!(span.unresolved >= records, "resolved a record twice");
        let records = records.min(span.unresolved);
        span.unresolved -= records;
        self.unresolved -= u64::from(records);
        self.advance()
    }

    fn span_mut(&mut self, span: SpanId) -> Option<&mut Span> {
        let index = span.0.checked_sub(self.front).and_then(|index| usize::try_from(index).ok());
        let found = index.and_then(|index| self.spans.get_mut(index));
        debug_assert!(found.is_some(), "resolved a span that is gone");
        found
    }

    fn advance(&mut self) -> bool {
        let before = self.watermark;
        while let Some(span) = self.spans.front().filter(|span| span.unresolved == 0) {
            self.watermark = span.next;
            self.last = Some(span.first);
            self.spans.pop_front();
            self.front += 1;
        }
        self.settled = self.settled.max(self.front);
        let index = |settled: u64| usize::try_from(settled - self.front).unwrap_or(usize::MAX);
        while self.spans.get(index(self.settled)).is_some_and(|span| span.unsettled == 0) {
            self.settled += 1;
        }
        self.watermark > before
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Headers;

    fn record(offset: i64) -> Record<'static> {
        Record {
            offset,
            timestamp_ms: Some(offset),
            key: None,
            value: Some(b"v"),
            headers: Headers::default(),
        }
    }

    #[test]
    fn the_watermark_waits_for_the_first_unresolved_record() {
        let mut tracker = Tracker::new(10);
        let first = tracker.deliver(&record(10), 1).unwrap();
        let second = tracker.deliver(&record(11), 2).unwrap();
        assert!(!tracker.resolve(second, 1));
        assert_eq!(tracker.watermark(), 10);
        assert!(tracker.resolve(first, 1));
        assert_eq!((tracker.watermark(), tracker.unresolved()), (12, 0));
    }

    #[test]
    fn gaps_are_passed_and_repeats_are_known() {
        let mut tracker = Tracker::new(0);
        let span = tracker.deliver(&record(5), 1).unwrap();
        assert_eq!(tracker.deliver(&record(5), 1), None);
        assert_eq!(tracker.deliver(&record(3), 1), None);
        assert_eq!(tracker.deliver(&record(9), 1), Some(span));
        tracker.resolve(span, 2);
        assert_eq!(tracker.watermark(), 10);
        assert_eq!(tracker.last(), Some(Fingerprint::of(&record(5))));
    }

    proptest! {
        /// Against the obvious model: a list of offsets with a flag each.
        #[test]
        fn the_watermark_is_the_contiguous_prefix(
            steps in prop::collection::vec((1i64..4, 0u64..3), 1..200),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        ) {
            let mut tracker = Tracker::new(0);
            let mut model = Vec::new();
            let mut offset = -1;
            for (gap, group) in steps {
                offset += gap;
                let span = tracker.deliver(&record(offset), group).unwrap();
                model.push((offset, span, false));
            }
            for index in order {
                let (_, span, done) = index.get(&model).to_owned();
                if !done {
                    tracker.resolve(span, 1);
                    let at = index.index(model.len());
                    model[at].2 = true;
                }
            }
            let first_open = model.iter().position(|(_, _, done)| !done);
            let limit = first_open.map_or(offset + 1, |at| model[at].0);
            prop_assert!(tracker.watermark() <= limit, "committed past an open record");
            let open = model.iter().filter(|(_, _, done)| !done).count() as u64;
            prop_assert_eq!(tracker.unresolved(), open);
            if open == 0 {
                prop_assert_eq!(tracker.watermark(), offset + 1);
            }
        }
    }
}
