//! What the source says that is wrong, on the board.

use super::Dispatcher;
use crate::{
    pipeline::now_ms,
    record::TopicPartition,
    source::{Messages, MissingTopic, SourceFault},
    telemetry::{Cause, LaneState, LastError, Teller, Trouble},
};

impl<M: Messages> Dispatcher<M> {
    /// Shows what went wrong, and the state that the source holds the lane in for it.
    pub(super) fn show_fault(
        &self,
        lane: &TopicPartition,
        stage: &str,
        fault: &SourceFault,
        state: Option<LaneState>,
    ) {
        let at_ms = now_ms();
        let (stage, message) = (stage.to_owned(), fault.to_string());
        let remedy = fault.remedy().map(str::to_owned);
        self.show(lane, |status| {
            if let Some(state) = state {
                status.held_by_source = false;
                status.enter(state, Some(message.clone()), at_ms);
                status.held_by_source = true;
                let cause = match state {
                    LaneState::Halted => Cause::Offset,
                    LaneState::Recovering => Cause::Recover,
                    _ => Cause::Read,
                };
                let trouble = Trouble::new(cause, message.clone(), at_ms);
                let trouble = trouble.with_remedy(remedy.clone()).at(status.next_offset);
                status.troubles.tell(Teller::Source, Some(trouble));
            }
            status.last_error = Some(LastError { stage, field: None, message, remedy, at_ms });
        });
    }

    /// The same of a read that failed.
    pub(super) fn show_read_failure(
        &self,
        lane: &TopicPartition,
        fault: &SourceFault,
        lasts: bool,
    ) {
        self.telemetry.topic(&lane.topic).read_failures.inc();
        self.show_fault(lane, "read", fault, lasts.then_some(LaneState::Waiting));
    }

    /// Takes down that a lane cannot be read.
    pub(super) fn show_read_again(&self, lane: &TopicPartition) {
        self.show(lane, |status| {
            if status.held_by_source && status.state != LaneState::Halted {
                status.held_by_source = false;
                status.enter(LaneState::Running, None, now_ms());
                status.troubles.tell(Teller::Source, None);
            }
        });
    }

    /// Shows which configured topics are not there.
    pub(super) fn show_missing(&self, topics: Vec<MissingTopic>) {
        let status = &self.telemetry.status;
        for (what, trouble) in status.process().troubles {
            let is_there = topics.iter().all(|topic| topic.wanted != what);
            if trouble.cause == Cause::TopicMissing && is_there {
                status.process_trouble(&what, None);
            }
        }
        for MissingTopic { wanted, reason, remedy } in topics {
            let trouble = Trouble::new(Cause::TopicMissing, reason, now_ms());
            status.process_trouble(&wanted, Some(trouble.with_remedy(Some(remedy))));
        }
    }
}
