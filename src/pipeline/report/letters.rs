//! The log of dead letters: the first of each topic and stage at once, then a count.
//!
//! A line is written when Kafka has acknowledged the letter, not before: until then the partition says
//! that it waits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    dead_letter::{DeadLetter, Reason, Stage},
    record::Coordinates,
};

/// How often letters are summed up.
const WINDOW: Duration = Duration::from_secs(30);

/// A letter on its way.
#[derive(Debug)]
pub(super) struct Sent {
    topic: Arc<str>,
    origin: Coordinates,
    reason: Reason,
}

impl Sent {
    pub(super) fn new(letter: &DeadLetter) -> Self {
        Self {
            topic: Arc::clone(&letter.topic),
            origin: letter.origin.clone(),
            reason: letter.reason.clone(),
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.reason.stage
    }

    /// The topic of the record.
    pub(super) fn source_topic(&self) -> &Arc<str> {
        &self.origin.lane.topic
    }
}

/// Letters of one topic and stage since they were last told.
#[derive(Debug)]
struct Count {
    since: Instant,
    records: u64,
    last: Option<Sent>,
}

/// Shared by all workers, so that a flood is as many lines with many of them as with one.
#[derive(Debug, Default)]
pub struct LetterLog(Mutex<HashMap<(Arc<str>, Stage), Count>>);

impl LetterLog {
    /// A letter was acknowledged. Returns it if it is to be told at once.
    pub(super) fn note(&self, sent: Sent, now: Instant) -> Option<Sent> {
        let key = (Arc::clone(&sent.origin.lane.topic), sent.reason.stage);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = counts.get_mut(&key) else {
            counts.insert(key, Count { since: now, records: 0, last: None });
            return Some(sent);
        };
        count.records += 1;
        count.last = Some(sent);
        None
    }

    /// What is to be summed up. Where nothing came since, the next letter is a first one again.
    pub(super) fn due(&self, now: Instant) -> Vec<(u64, Sent)> {
        let mut due = Vec::new();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.retain(|_, count| {
            if now.saturating_duration_since(count.since) < WINDOW {
                return true;
            }
            let Some(last) = count.last.take() else { return false };
            due.push((std::mem::take(&mut count.records), last));
            count.since = now;
            true
        });
        due
    }
}

/// Logs an acknowledged letter.
pub(super) fn tell(sent: &Sent) {
    tracing::warn!(
        topic = %sent.origin.lane.topic,
        partition = sent.origin.lane.partition,
        offset = sent.origin.offset,
        stage = sent.reason.stage.name(),
        field = sent.reason.field.as_deref(),
        reason = %sent.reason.message,
        dead_letter = %sent.topic,
        "a record went to the dead-letter topic"
    );
}

/// Logs how many there were, and the last of them.
pub(super) fn tell_count(records: u64, last: &Sent) {
    tracing::warn!(
        topic = %last.origin.lane.topic,
        stage = last.reason.stage.name(),
        records,
        last_partition = last.origin.lane.partition,
        last_offset = last.origin.offset,
        last_field = last.reason.field.as_deref(),
        last_reason = %last.reason.message,
        dead_letter = %last.topic,
        "more records went to the dead-letter topic"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TopicPartition;

    fn sent(topic: &str, offset: i64) -> Sent {
        Sent {
            topic: "dead".into(),
            origin: Coordinates { lane: TopicPartition::new(topic, 0), offset },
            reason: Reason {
                stage: Stage::Decode,
                message: "bad".into(),
                field: None,
                schema_id: None,
            },
        }
    }

    #[test]
    fn a_flood_of_letters_is_one_line_and_then_a_count_each_half_minute() {
        let (log, now) = (LetterLog::default(), Instant::now());
        let told = (0..20_000).filter_map(|offset| log.note(sent("a", offset), now));
        assert_eq!(told.map(|sent| sent.origin.offset).collect::<Vec<_>>(), [0]);
        assert!(log.note(sent("b", 7), now).is_some(), "another topic");
        assert!(log.due(now + WINDOW / 2).is_empty());
        let due = log.due(now + WINDOW);
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].0, due[0].1.origin.offset), (19_999, 19_999));
        assert!(log.note(sent("a", 20_000), now + WINDOW).is_none());
        assert_eq!(log.due(now + WINDOW * 2)[0].0, 1);
        assert!(log.due(now + WINDOW * 3).is_empty());
        assert!(log.note(sent("a", 20_001), now + WINDOW * 3).is_some(), "a first one again");
    }
}
