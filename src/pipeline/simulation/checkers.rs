//! What must hold in every history (`lost`, `duplicate`, `twice`, `early`, `both`, `phantom`, `corrupt`, `regress`,
//! `zombie commit`; `stuck`, `memory` and `pause` are looked at where they show).
//!
//! A row may be stored twice only if a hand-over explains it: the lane's owner was killed, lost its
//! lane, or had to give it up undrained or uncommitted, and the offset lies between what was
//! committed and what was delivered then. Or if BigQuery had forgotten the insertId when a request of
//! unknown outcome was repeated.
//!
//! A row that comes by a load job is never there twice, whatever happens; and its object is not deleted
//! before its offset is committed (`early`).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    bigquery::StoredRow,
    cells,
    coverage::Mark,
    history::History,
    records::{Contents, Fate, LogRecord},
};
use crate::{dead_letter::DeadLetter, record::TopicPartition};

/// A lane was given up in good order, with rows for a job that was not due: the next owner reads them
/// again, and that explains no row that is there twice.
pub(crate) const STAGED: &str = "staged";

#[derive(Debug, Default)]
struct Lane {
    /// Behind the last record that any core took in.
    delivered: i64,
    /// Why the next owner may read again from below `delivered`.
    unclean: Option<&'static str>,
    /// Offsets that were read again for a reason.
    exposed: Vec<(i64, i64)>,
    committed: i64,
    committed_max: i64,
}

#[derive(Debug, Default)]
struct Outcome {
    /// When it was stored.
    rows: Vec<u64>,
    letters: u32,
}

/// What is known of the whole history.
#[derive(Debug)]
pub(crate) struct Checkers {
    contents: Contents,
    lanes: BTreeMap<TopicPartition, Lane>,
    logs: BTreeMap<TopicPartition, BTreeMap<i64, LogRecord>>,
    outcomes: BTreeMap<(TopicPartition, i64), Outcome>,
    /// Records that were in a request whose outcome the client did not learn.
    ambiguous: BTreeSet<(TopicPartition, i64)>,
}

impl Checkers {
    /// Nothing is known yet.
    pub(crate) fn new(contents: Contents) -> Self {
        Self {
            contents,
            lanes: BTreeMap::new(),
            logs: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            ambiguous: BTreeSet::new(),
        }
    }

    /// A producer wrote a record.
    pub(crate) fn produced(&mut self, lane: &TopicPartition, offset: i64, record: LogRecord) {
        self.logs.entry(lane.clone()).or_default().insert(offset, record);
    }

    /// The log of a lane.
    pub(crate) fn log(&self, lane: &TopicPartition) -> Option<&BTreeMap<i64, LogRecord>> {
        self.logs.get(lane)
    }

    /// Every lane.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = &TopicPartition> {
        self.logs.keys()
    }

    /// The offset behind a lane's last record.
    pub(crate) fn end(&self, lane: &TopicPartition) -> i64 {
        let last = self.logs.get(lane).and_then(|log| log.last_key_value());
        last.map_or(0, |(offset, _)| offset + 1)
    }

    /// A core took in the records from `from` on, below `next`. A core that does not hold the lane
    /// any more (it does not know yet) exposes what it takes in.
    pub(crate) fn delivered(&mut self, lane: &TopicPartition, from: i64, next: i64, holds: bool) {
        let lane = self.lanes.entry(lane.clone()).or_default();
        if holds {
            lane.delivered = lane.delivered.max(next);
        } else {
            lane.exposed.push((from, next));
        }
    }

    /// An owner did not end its assignment in good order. That it left rows staged takes no other reason
    /// away: a late commit may have put the offset back before.
    pub(crate) fn unclean(&mut self, lane: &TopicPartition, why: &'static str) {
        let state = self.lanes.entry(lane.clone()).or_default();
        if why != STAGED || state.unclean.is_none() {
            state.unclean = Some(why);
        }
    }

    /// A new owner reads from `start` on.
    pub(crate) fn assigned(
        &mut self,
        lane: &TopicPartition,
        start: i64,
        history: &mut History,
        now: u64,
    ) {
        let state = self.lanes.entry(lane.clone()).or_default();
        if start < state.delivered {
            history.mark(Mark::ReadAgain);
            match state.unclean {
                // Nothing of it is in the table.
                Some(STAGED) => {}
                Some(_) => state.exposed.push((start, state.delivered)),
                None => history.violation(
                    now,
                    format!("unclean: {lane} reads {start}..{} again", state.delivered),
                ),
            }
        }
        // What earlier owners took in beyond that is accounted for.
        (state.delivered, state.unclean) = (start, None);
    }

    /// The highest offset that was ever committed for a lane.
    pub(crate) fn committed_max(&self, lane: &TopicPartition) -> i64 {
        self.lanes.get(lane).map_or(0, |state| state.committed_max)
    }

    /// The coordinator took a commit.
    pub(crate) fn committed(
        &mut self,
        lane: &TopicPartition,
        offset: i64,
        late: bool,
        history: &mut History,
        now: u64,
    ) {
        let state = self.lanes.entry(lane.clone()).or_default();
        if offset < state.committed {
            if late {
                state.unclean = Some("late commit");
            } else {
                let before = state.committed;
                history.violation(now, format!("regress: {lane} from {before} to {offset}"));
            }
        }
        let before = state.committed;
        state.committed = offset;
        state.committed_max = state.committed_max.max(offset);
        let Some(log) = self.logs.get(lane).filter(|_| before < offset) else { return };
        for (at, _) in log.range(before..offset) {
            if !self.is_settled(lane, *at) {
                let fate = self.contents.fate(lane, *at);
                history.violation(now, format!("lost: {lane}@{at} is committed and {fate:?}"));
            }
        }
    }

    fn is_settled(&self, lane: &TopicPartition, offset: i64) -> bool {
        let outcome = self.outcomes.get(&(lane.clone(), offset));
        match self.contents.fate(lane, offset) {
            Fate::Skip => true,
            Fate::Row(_) => outcome.is_some_and(|o| !o.rows.is_empty() || o.letters > 0),
            Fate::Letter => outcome.is_some_and(|o| o.letters > 0),
        }
    }

    /// An object of a job that did not fail was deleted; its rows are these.
    pub(crate) fn deleted(&self, rows: &[(TopicPartition, i64)], history: &mut History, now: u64) {
        if let Some((lane, offset)) =
            rows.iter().find(|(lane, offset)| self.committed_max(lane) <= *offset)
        {
            history.violation(now, format!("early: the object of {lane}@{offset} was deleted"));
        }
    }

    /// Whether a lane's rows are appended.
    pub(crate) fn is_appended(&self, lane: &TopicPartition) -> bool {
        self.contents.is_appended(lane)
    }

    /// A client gave up on a request with this record.
    pub(crate) fn ambiguous(&mut self, lane: &TopicPartition, offset: i64) {
        self.ambiguous.insert((lane.clone(), offset));
    }

    /// BigQuery stored a row.
    pub(crate) fn stored(&mut self, row: &StoredRow, history: &mut History, now: u64) {
        let at = (row.lane.clone(), row.offset);
        let is_known = self.logs.get(&row.lane).is_some_and(|log| log.contains_key(&row.offset));
        if !is_known || self.contents.fate(&row.lane, row.offset) == Fate::Skip {
            history.violation(now, format!("phantom: {}@{}", at.0, at.1));
        } else if let Some(fault) = cells::fault(&self.contents, row) {
            history.violation(now, format!("corrupt: {}@{}: {fault}", at.0, at.1));
        }
        self.outcomes.entry(at).or_default().rows.push(now);
    }

    /// The dead-letter topic has a record.
    pub(crate) fn lettered(&mut self, letter: &DeadLetter, history: &mut History, now: u64) {
        let (lane, offset) = (&letter.origin.lane, letter.origin.offset);
        let record = self.logs.get(lane).and_then(|log| log.get(&offset));
        let same = record.is_some_and(|record| {
            record.key == letter.key
                && record.value == letter.value
                && record.headers == letter.headers
                && Some(record.timestamp_ms) == letter.timestamp_ms
        });
        if !same {
            history.violation(now, format!("corrupt letter: {lane}@{offset}"));
        }
        self.outcomes.entry((lane.clone(), offset)).or_default().letters += 1;
    }

    /// Everything has settled: every record has become what it should, and nothing else.
    pub(crate) fn finish(&self, dedupe_ms: u64, history: &mut History, now: u64) {
        for (lane, log) in &self.logs {
            for offset in log.keys() {
                let none = Outcome::default();
                let outcome = self.outcomes.get(&(lane.clone(), *offset)).unwrap_or(&none);
                let fate = self.contents.fate(lane, *offset);
                if !self.is_settled(lane, *offset) {
                    history.violation(now, format!("lost: {lane}@{offset} {fate:?}"));
                }
                let wrong = match fate {
                    Fate::Row(_) => outcome.letters > 0,
                    Fate::Letter => !outcome.rows.is_empty(),
                    Fate::Skip => outcome.letters > 0,
                };
                if wrong && !outcome.rows.is_empty() && outcome.letters > 0 {
                    history.violation(now, format!("both: {lane}@{offset} stored and lettered"));
                } else if wrong {
                    history.violation(now, format!("fate: {lane}@{offset} {fate:?}"));
                }
                if outcome.rows.len() > 1 {
                    self.duplicate((lane, *offset), outcome, dedupe_ms, history, now);
                }
            }
        }
    }

    fn duplicate(
        &self,
        (lane, offset): (&TopicPartition, i64),
        outcome: &Outcome,
        dedupe_ms: u64,
        history: &mut History,
        now: u64,
    ) {
        history.mark(Mark::Duplicate);
        if self.contents.is_loaded(lane) {
            let rows = &outcome.rows;
            return history.violation(now, format!("twice: {lane}@{offset} loaded at {rows:?}"));
        }
        let exposed = self.lanes.get(lane).is_some_and(|state| {
            state.exposed.iter().any(|(from, to)| (*from..*to).contains(&offset))
        });
        // A load job knows nothing of insertIds.
        let far_apart = self.contents.is_switched(lane)
            || self.contents.is_appended(lane)
            || self.contents.is_pending(lane)
            || outcome.rows.windows(2).all(|two| two[1] - two[0] >= dedupe_ms);
        let repeated = self.ambiguous.contains(&(lane.clone(), offset));
        if !(far_apart && (exposed || repeated)) {
            let rows = &outcome.rows;
            history.violation(now, format!("duplicate: {lane}@{offset} stored at {rows:?}"));
        }
    }
}
