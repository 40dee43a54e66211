//! The commit loop of a process: the production commit book, under the ownership check.

use super::{
    coverage::Mark,
    env::{CommitAnswer, CommitOnWire, Env, Event},
    group::Verdict,
    replica::Replica,
};
use crate::delivery::commit_book::{Entry, Outcome};

impl Replica {
    /// Sends what there is to commit, if anything.
    pub(crate) fn commit(&mut self, env: &mut Env) {
        let Some(member) = self.member else { return };
        self.note_progress();
        let (owned, gone): (Vec<_>, Vec<_>) = self
            .book
            .take_due()
            .into_iter()
            .partition(|entry| self.ownership.owns(&entry.lane, entry.epoch));
        for entry in gone {
            env.mark(Mark::CommitNotOwned);
            self.book.settle(&entry.lane, entry.epoch, Outcome::Gone);
        }
        if owned.is_empty() {
            return;
        }
        self.flights += 1;
        let flight = self.flights;
        let commit = CommitOnWire {
            flight,
            member,
            generation: self.generation,
            entries: owned.clone(),
            late: false,
            answered: true,
        };
        self.flight = Some((flight, owned));
        self.send(env, commit);
    }

    fn note_progress(&mut self) {
        for worker in &mut self.workers {
            for progress in worker.core.progress() {
                let (lane, epoch, offset) = (progress.lane, progress.epoch, progress.offset);
                self.book.note(Entry { lane, epoch, offset, metadata: () });
            }
        }
    }

    fn send(&self, env: &mut Env, mut commit: CommitOnWire) {
        let (who, flight, chances) = (self.who, commit.flight, env.chances());
        env.log(format_args!("commits {who:?} {flight} gen {}", commit.generation));
        let patience = env.plan.commit_timeout_ms;
        let delay = env.delay();
        if env.rng.chance(chances.commit_refused) {
            env.after(delay, Event::CommitAnswered(who, flight, CommitAnswer::NotReady));
            return;
        }
        env.after(patience, Event::CommitAnswered(who, flight, CommitAnswer::Timeout));
        if env.rng.chance(chances.commit_lost) {
            commit.answered = false;
            if env.rng.chance(500) {
                return;
            }
        } else if env.rng.chance(chances.commit_late) {
            (commit.answered, commit.late) = (false, true);
            let late = patience + env.rng.between(1, 6_000);
            return env.after(late, Event::CommitArrives(who, commit));
        }
        env.after(delay, Event::CommitArrives(who, commit));
    }

    /// The commit in flight has an outcome, or its time is up; whichever comes first counts.
    pub(crate) fn committed(&mut self, env: &mut Env, flight: u64, answer: CommitAnswer) {
        if self.flight.as_ref().is_none_or(|(current, _)| *current != flight) {
            return;
        }
        let Some((_, entries)) = self.flight.take() else { return };
        let (outcome, mark) = match answer {
            CommitAnswer::Verdict(Verdict::Accepted) => (Outcome::Landed, Mark::CommitLanded),
            CommitAnswer::Verdict(Verdict::UnknownMember) => (Outcome::Gone, Mark::CommitFenced),
            CommitAnswer::Verdict(Verdict::IllegalGeneration) | CommitAnswer::NotReady => {
                (Outcome::Refused, Mark::CommitRefused)
            }
            CommitAnswer::Timeout => (Outcome::Unknown, Mark::CommitUnknown),
        };
        env.mark(mark);
        env.log(format_args!("commit {:?} {flight} {answer:?}", self.who));
        for entry in &entries {
            self.book.settle(&entry.lane, entry.epoch, outcome);
        }
        if outcome == Outcome::Gone && !self.lost {
            self.expelled(env);
        }
    }
}
