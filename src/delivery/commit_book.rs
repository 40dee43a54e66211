//! What to commit next, lane by lane: one commit in flight, never backwards, and nothing new for a
//! lane whose last commit's outcome is unknown.
//!
//! | a commit's outcome | what follows for the lane |
//! |---|---|
//! | landed | newer progress may be committed |
//! | refused, retryable | the newest progress is committed next time |
//! | unknown | the same record is sent again until its outcome is known |
//! | not owned, lost | the lane is forgotten |
//!
//! Sans-IO and generic over what a commit carries, so that the simulation runs the same book.

use std::collections::BTreeMap;

use crate::record::TopicPartition;

/// What is to be committed for a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<M> {
    /// The lane.
    pub lane: TopicPartition,
    /// The assignment under which it was earned.
    pub epoch: u64,
    /// The offset of the next record to read.
    pub offset: i64,
    /// What goes with it.
    pub metadata: M,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Landed,
    /// It is certainly not committed and may be tried again.
    Refused,
    /// It may be committed.
    Unknown,
    /// The lane is not owned any more.
    Gone,
}

#[derive(Debug)]
struct Lane<M> {
    epoch: u64,
    /// The highest offset known to be committed in this assignment.
    committed: Option<i64>,
    /// Progress that was not sent yet.
    wanted: Option<(i64, M)>,
    /// The record that is in flight, or whose outcome is unknown.
    sent: Option<(i64, M)>,
}

/// The book of one process.
#[derive(Debug)]
pub struct CommitBook<M> {
    lanes: BTreeMap<TopicPartition, Lane<M>>,
}

impl<M> Default for CommitBook<M> {
    fn default() -> Self {
        Self { lanes: BTreeMap::new() }
    }
}

impl<M: Clone> CommitBook<M> {
    /// Notes progress. Older than what is noted or committed already, or of an older assignment, it
    /// is ignored; of a newer assignment, it replaces the lane.
    pub fn note(&mut self, entry: Entry<M>) {
        let Entry { lane, epoch, offset, metadata } = entry;
        let fresh = || Lane { epoch, committed: None, wanted: None, sent: None };
        let lane = self.lanes.entry(lane).or_insert_with(fresh);
        if epoch < lane.epoch {
            return;
        }
        if epoch > lane.epoch {
            *lane = fresh();
        }
        let known = [&lane.wanted, &lane.sent];
        let highest = known.into_iter().flatten().map(|(offset, _)| *offset).max();
        if highest.max(lane.committed).is_none_or(|highest| offset > highest) {
            lane.wanted = Some((offset, metadata));
        }
    }

    /// The entries of the next commit, at most one per lane. They count as in flight until
    /// [`settle`](Self::settle).
    pub fn take_due(&mut self) -> Vec<Entry<M>> {
        let due = self.lanes.iter_mut().filter_map(|(lane, state)| {
            if state.sent.is_none() {
                state.sent = state.wanted.take();
            }
            let (offset, metadata) = state.sent.clone()?;
            Some(Entry { lane: lane.clone(), epoch: state.epoch, offset, metadata })
        });
        due.collect()
    }

    /// Notes the outcome of an entry that [`take_due`](Self::take_due) gave.
    pub fn settle(&mut self, lane: &TopicPartition, epoch: u64, outcome: Outcome) {
        let Some(state) = self.lanes.get_mut(lane).filter(|state| state.epoch == epoch) else {
            return;
        };
        match outcome {
            Outcome::Unknown => {}
            Outcome::Gone => {
                self.lanes.remove(lane);
            }
            Outcome::Landed => {
                let landed = state.sent.take().map(|(offset, _)| offset);
                state.committed = state.committed.max(landed);
            }
            // Newer progress, if there is any, says the same and more.
            Outcome::Refused => {
                let refused = state.sent.take();
                state.wanted = state.wanted.take().or(refused);
            }
        }
    }

    /// Forgets a lane, unless a newer assignment has taken its place, and returns what is still to be
    /// committed for it: the record whose outcome is unknown, then newer progress.
    pub fn give_up(&mut self, lane: &TopicPartition, epoch: u64) -> Vec<Entry<M>> {
        if self.lanes.get(lane).is_none_or(|state| state.epoch > epoch) {
            return Vec::new();
        }
        let Some(state) = self.lanes.remove(lane).filter(|state| state.epoch == epoch) else {
            return Vec::new();
        };
        let left = [state.sent, state.wanted].into_iter().flatten();
        left.map(|(offset, metadata)| Entry { lane: lane.clone(), epoch, offset, metadata })
            .collect()
    }

    /// The highest offset known to be committed in the lane's present assignment.
    pub fn committed(&self, lane: &TopicPartition) -> Option<i64> {
        self.lanes.get(lane)?.committed
    }

    /// Lanes with something to commit, in flight or not.
    #[cfg(test)]
    pub fn pending(&self) -> usize {
        self.lanes.values().filter(|lane| lane.sent.is_some() || lane.wanted.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(epoch: u64, offset: i64) -> Entry<()> {
        Entry { lane: TopicPartition::new("t", 0), epoch, offset, metadata: () }
    }

    fn offsets(book: &mut CommitBook<()>) -> Vec<i64> {
        book.take_due().into_iter().map(|entry| entry.offset).collect()
    }

    #[test]
    fn an_unknown_outcome_repeats_the_same_record_before_anything_newer() {
        let lane = TopicPartition::new("t", 0);
        let mut book = CommitBook::default();
        book.note(entry(1, 10));
        assert_eq!(offsets(&mut book), [10]);
        book.note(entry(1, 20));
        book.settle(&lane, 1, Outcome::Unknown);
        assert_eq!(offsets(&mut book), [10]);
        book.settle(&lane, 1, Outcome::Landed);
        assert_eq!(offsets(&mut book), [20]);
        book.settle(&lane, 1, Outcome::Refused);
        book.note(entry(1, 30));
        assert_eq!(offsets(&mut book), [30]);
        book.settle(&lane, 1, Outcome::Landed);
        assert_eq!((offsets(&mut book), book.committed(&lane)), (Vec::new(), Some(30)));
    }

    #[test]
    fn a_lane_never_goes_backwards_nor_back_to_an_older_assignment() {
        let lane = TopicPartition::new("t", 0);
        let mut book = CommitBook::default();
        book.note(entry(1, 10));
        book.take_due();
        book.settle(&lane, 1, Outcome::Landed);
        book.note(entry(1, 9));
        book.note(entry(1, 10));
        assert_eq!(offsets(&mut book), Vec::<i64>::new());
        book.note(entry(2, 5));
        book.note(entry(1, 50));
        assert_eq!(offsets(&mut book), [5]);
        book.settle(&lane, 1, Outcome::Landed);
        assert_eq!(book.committed(&lane), None);
        assert_eq!(book.give_up(&lane, 1), []);
        assert_eq!(book.pending(), 1);
        book.settle(&lane, 2, Outcome::Gone);
        assert_eq!(book.pending(), 0);
    }

    #[test]
    fn a_lane_is_given_up_with_what_is_in_doubt_and_what_is_newer() {
        let lane = TopicPartition::new("t", 0);
        let mut book = CommitBook::default();
        book.note(entry(1, 10));
        book.take_due();
        book.note(entry(1, 20));
        book.settle(&lane, 1, Outcome::Unknown);
        assert_eq!(book.give_up(&lane, 1), [entry(1, 10), entry(1, 20)]);
        assert_eq!(book.pending(), 0);
        // Progress of an assignment that is over is nobody's.
        book.note(entry(2, 30));
        assert_eq!(book.give_up(&lane, 3), []);
        assert_eq!(book.pending(), 0);
    }
}
