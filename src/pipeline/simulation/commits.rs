//! The commit thread of a process and its last commits: the production commit loop, under the production
//! ownership check. A flight stands for the ownership lock: it is held until the commit is answered.

use rdkafka::error::RDKafkaErrorCode as Code;

use super::{
    coverage::Mark,
    env::{CommitAnswer, CommitOnWire, Env, Event},
    group::Verdict,
    replica::Replica,
};
use crate::{
    committer::{CommitOutcome, LaneCommit, LaneOutcome},
    kafka::commit::classify,
};

/// A commit without an answer.
#[derive(Debug)]
pub(crate) struct Flight {
    number: u64,
    commits: Vec<LaneCommit>,
    /// Which of them were sent.
    owned: Vec<bool>,
    /// Whether they are the last ones of lanes that are given up.
    last: bool,
}

impl Replica {
    /// One round of the commit thread.
    pub(crate) fn commit(&mut self, env: &mut Env) {
        for worker in &mut self.workers {
            worker.note_progress();
        }
        let commits = self.process.commits.begin();
        if !commits.is_empty() {
            self.send(env, commits, false);
        }
    }

    /// Sends what is owned of a commit.
    pub(crate) fn send(&mut self, env: &mut Env, commits: Vec<LaneCommit>, last: bool) {
        let owned = self.process.ownership.lock().admit(&commits);
        let sent = commits.iter().zip(&owned).filter(|(_, owned)| **owned);
        let entries: Vec<_> = sent.map(|(commit, _)| commit.clone()).collect();
        if entries.len() < commits.len() {
            env.mark(Mark::CommitNotOwned);
        }
        self.flights += 1;
        let flight = Flight { number: self.flights, commits, owned, last };
        let Some(member) = self.member.filter(|_| !entries.is_empty()) else {
            return self.settle(env, flight, CommitAnswer::Timeout);
        };
        let commit = CommitOnWire {
            flight: flight.number,
            member,
            generation: self.generation,
            entries,
            late: false,
            answered: true,
        };
        self.flight = Some(flight);
        self.to_the_wire(env, commit);
    }

    fn to_the_wire(&self, env: &mut Env, mut commit: CommitOnWire) {
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
        if self.flight.as_ref().is_none_or(|current| current.number != flight) {
            return;
        }
        let Some(flight) = self.flight.take() else { return };
        env.log(format_args!("commit {:?} {} {answer:?}", self.who, flight.number));
        self.settle(env, flight, answer);
    }

    fn settle(&mut self, env: &mut Env, flight: Flight, answer: CommitAnswer) {
        let Flight { commits, owned, last, .. } = flight;
        let outcome = |owned: &bool| if *owned { read(answer) } else { LaneOutcome::NotOwned };
        let lanes: Vec<_> = owned.iter().map(outcome).collect();
        let mut held = self.process.ownership.lock();
        lanes.iter().for_each(|outcome| held.answered(outcome));
        drop(held);
        let is_lost = lanes.iter().any(|outcome| matches!(outcome, LaneOutcome::Lost(_)));
        for (commit, outcome) in commits.iter().zip(&lanes) {
            env.mark(mark(outcome));
            if matches!(outcome, LaneOutcome::Landed) {
                self.landed.insert((commit.lane.clone(), commit.epoch), commit.offset);
            }
        }
        match (last, &mut self.revoking) {
            (true, Some(revoking)) => revoking.answered(&commits, &lanes),
            (true, None) => {}
            (false, _) => self.process.commits.finish(&commits, &CommitOutcome { lanes }),
        }
        if is_lost && !self.lost {
            self.expelled(env);
        }
    }
}

/// What the production committer makes of the coordinator's answer.
fn read(answer: CommitAnswer) -> LaneOutcome {
    classify(match answer {
        CommitAnswer::Verdict(Verdict::Accepted) => return LaneOutcome::Landed,
        CommitAnswer::Verdict(Verdict::UnknownMember) => Code::UnknownMemberId,
        CommitAnswer::Verdict(Verdict::IllegalGeneration) => Code::IllegalGeneration,
        CommitAnswer::NotReady => Code::CoordinatorLoadInProgress,
        CommitAnswer::Timeout => Code::OperationTimedOut,
    })
}

fn mark(outcome: &LaneOutcome) -> Mark {
    match outcome {
        LaneOutcome::Landed => Mark::CommitLanded,
        LaneOutcome::Lost(_) => Mark::CommitFenced,
        LaneOutcome::Refused { .. } => Mark::CommitRefused,
        LaneOutcome::Unknown(_) => Mark::CommitUnknown,
        LaneOutcome::NotOwned => Mark::CommitNotOwned,
    }
}
