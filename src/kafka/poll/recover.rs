//! How lanes get from their assignment to running: what the recovery thread is asked, and answers.

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc::TrySendError},
    time::{Duration, Instant},
};

use rdkafka::{
    TopicPartitionList, consumer::Consumer as _, error::KafkaResult, topic_partition_list::Offset,
};

use super::{PollLoop, RECOVERY_WAIT_MAX};
use crate::{
    kafka::{
        ffi::RawMessages,
        lanes::{Own, Recovering, Running, State},
        recovery::{Job, Outcome, Report},
        start::Start,
    },
    source::{AssignedLane, MissingTopic, OwnedLane, SourceFault, SourceHandler},
};

impl<H: SourceHandler<RawMessages>> PollLoop<'_, H> {
    /// Hands lanes to the recovery thread, or marks them due again if it is busy.
    pub(crate) fn ask(&mut self, lanes: Vec<(OwnedLane, Option<i64>)>) {
        if lanes.is_empty() {
            return;
        }
        let jobs = lanes.into_iter().map(|(lane, own)| Job { lane, own }).collect();
        if let Err(TrySendError::Full(jobs) | TrySendError::Disconnected(jobs)) =
            self.channels.jobs.try_send(jobs)
        {
            for job in jobs {
                self.recover_later(&job.lane, "the recovery thread is busy".into());
            }
        }
    }

    pub(crate) fn serve_reports(&mut self) {
        let mut assigned = Vec::new();
        while let Ok(report) = self.channels.reports.try_recv() {
            match report {
                Report::Recovered(lane, outcome) => assigned.extend(self.recovered(lane, *outcome)),
                Report::Topics(topics) if !self.stopping => {
                    self.undiscovered = false;
                    let subscribed = self.subscribe(topics);
                    self.log_failure("subscribe", subscribed);
                }
                Report::Topics(_) => {}
                Report::Missing(topics) => self.missing(topics),
                Report::Recreated(topics) => self.halt_replaced(&topics),
                Report::DiscoveryFailed(_) if self.undiscovered => {}
                Report::DiscoveryFailed(message) => {
                    self.undiscovered = true;
                    let message = format!("the topics cannot be listed: {message}");
                    self.handler.fault(SourceFault::Unavailable { message });
                }
            }
        }
        if assigned.is_empty() {
            return;
        }
        let lanes: Vec<_> = assigned.iter().map(|(lane, _)| lane.lane.clone()).collect();
        let started = self.start(&lanes);
        if started.is_err() {
            self.log_failure("assign", started);
            for lane in &lanes {
                self.recover_later(lane, "the client refused the assignment".into());
            }
            return;
        }
        let (again, new): (Vec<_>, Vec<_>) = assigned.into_iter().partition(|(_, again)| *again);
        for (lane, _) in again {
            self.handler.read_again(&lane.lane);
        }
        let new: Vec<_> = new.into_iter().map(|(lane, _)| lane).collect();
        if !new.is_empty() {
            self.handler.assigned(new);
        }
    }

    fn missing(&mut self, topics: Vec<MissingTopic>) {
        self.undiscovered = false;
        if topics != self.missing {
            self.missing.clone_from(&topics);
            self.handler.missing(topics);
        }
    }

    /// Takes one lane's recovery; returns it if it may begin, and whether the handler knows it.
    fn recovered(&mut self, owned: OwnedLane, outcome: Outcome) -> Option<(AssignedLane, bool)> {
        if self.stopping {
            return None;
        }
        match outcome {
            Outcome::Failed(message) => {
                self.recover_later(&owned, message);
                None
            }
            Outcome::Halt(fault) => {
                self.lanes.owned_mut(&owned)?.state = State::Halted;
                self.handler.fault(fault);
                None
            }
            Outcome::Start { start, low, high } => {
                let lane = self.lanes.owned_mut(&owned)?;
                let State::Recovering(Recovering { own, .. }) = lane.state else { return None };
                lane.state = State::Running(running(&start, own));
                if let Some(loss) = start.loss {
                    self.handler.fault(loss);
                }
                let again = own.is_some();
                let assigned = AssignedLane {
                    lane: owned,
                    start: start.offset,
                    genesis: start.genesis,
                    metadata: start.metadata,
                    topic_partitions: start.topic_partitions,
                    topic_id: start.topic_id,
                    low,
                    high,
                };
                Some((assigned, again))
            }
        }
    }

    /// Halts what runs of topics that are others than when it began: its next offset means nothing
    /// in them.
    fn halt_replaced(&mut self, topics: &BTreeSet<Arc<str>>) {
        for (lane, next) in self.lanes.running_of(topics) {
            self.halt_running(&lane, SourceFault::OtherTopic { lane: lane.clone(), next });
        }
    }

    /// Adds recovered lanes to librdkafka's assignment, each at its explicit offset.
    fn start(&mut self, lanes: &[OwnedLane]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(lanes.len());
        let mut paused = TopicPartitionList::new();
        for owned in lanes {
            let OwnedLane { lane, .. } = owned;
            self.queue.attach(lane);
            let Some(running) = self.lanes.running_mut(owned) else { continue };
            let from = running.verify.map_or(running.next, |record| record.offset);
            list.add_partition(&lane.topic, lane.partition).set_offset(Offset::Offset(from))?;
            if running.paused {
                paused.add_partition(&lane.topic, lane.partition);
            }
        }
        // A pause survives an unassignment inside librdkafka; it must not survive in a new life.
        self.client.resume(&list)?;
        self.client.incremental_assign(&list)?;
        if paused.count() > 0 { self.client.pause(&paused) } else { Ok(()) }
    }

    fn recover_later(&mut self, owned: &OwnedLane, message: String) {
        let Some(lane) = self.lanes.owned_mut(owned) else { return };
        let mut recovering = match &lane.state {
            State::Recovering(recovering) => recovering.clone(),
            // The client refused the assignment before the handler heard of it: all over again.
            State::Running(_) => Recovering::default(),
            State::Halted => return,
        };
        recovering.failures += 1;
        let wait = Duration::from_millis(250) * 2u32.saturating_pow(recovering.failures.min(10));
        recovering.due = Some(Instant::now() + wait.min(RECOVERY_WAIT_MAX));
        lane.state = State::Recovering(recovering);
        self.handler.fault(SourceFault::Recovering { lane: owned.lane.clone(), message });
    }
}

/// A lane that begins, or goes on where it was, paused if the handler wants it so: the client is
/// told at once, and what it fetches before is dropped.
fn running(start: &Start, own: Option<Own>) -> Running {
    let paused = own.is_some_and(|own| own.paused);
    Running { verify: start.verify, paused, ..Running::at(start.offset) }
}
