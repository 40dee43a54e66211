//! Which topic a name means: the ids of the topics whose partitions this process reads, remembered,
//! so that a topic that was deleted and made again is told from the old one.
//!
//! An id is never waited for at the cost of the partitions: it is asked for beside the questions
//! that a recovery needs anyway, and a cluster that does not answer is not asked again for a while.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::ffi::{
    Client,
    describe::{self, Question},
};

/// How long the client tries.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer is waited for when all other questions have been answered.
const GRACE: Duration = Duration::from_secs(1);

/// How long a look for replaced topics may take: jobs, and the end of the process, wait for it.
const LOOK: Duration = Duration::from_secs(3);

/// For how long a cluster is left alone that answers all other questions and not this one.
const REST: Duration = Duration::from_secs(60);

/// What an answer told.
#[derive(Debug, Default)]
pub struct Learnt {
    /// The ids.
    pub ids: describe::TopicIds,
    /// The topics that have another id than the one that was known; it is known from now on.
    pub replaced: BTreeSet<Arc<str>>,
}

/// The ids as far as they are known.
#[derive(Debug, Default)]
pub struct TopicIds {
    known: describe::TopicIds,
    rests_until: Option<Instant>,
}

impl TopicIds {
    /// Asks for the ids of `topics`; the answer is for [`learn`](Self::learn).
    pub fn ask(&self, client: &Arc<Client>, topics: &BTreeSet<Arc<str>>) -> Option<Question> {
        if topics.is_empty() || self.rests_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let topics: Vec<_> = topics.iter().cloned().collect();
        Question::ask(client, &topics, REQUEST_TIMEOUT)
    }

    /// Takes the answer, remembers it, and tells what is new in it. All other questions have been
    /// answered, so if this one is not, the cluster cannot.
    pub fn learn(&mut self, question: Option<Question>) -> Learnt {
        let asked = question.is_some();
        let Some(ids) = question.and_then(|question| question.answer(GRACE)) else {
            if asked {
                tracing::debug!("the cluster does not tell its topics' ids");
                self.rests_until = Some(Instant::now() + REST);
            }
            return Learnt::default();
        };
        Learnt { replaced: self.compare(ids.clone()), ids }
    }

    /// The topics that were replaced since they were learnt. The cluster may be away.
    pub fn look(&mut self, client: &Arc<Client>) -> BTreeSet<Arc<str>> {
        let question = self.ask(client, &self.known.keys().cloned().collect());
        let ids = question.and_then(|question| question.answer(LOOK));
        self.compare(ids.unwrap_or_default())
    }

    fn compare(&mut self, ids: describe::TopicIds) -> BTreeSet<Arc<str>> {
        let other = |(topic, id): &(&Arc<str>, &String)| {
            self.known.get(*topic).is_some_and(|known| known != *id)
        };
        let replaced = ids.iter().filter(other).map(|(topic, _)| Arc::clone(topic)).collect();
        self.known.extend(ids);
        replaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[(&str, &str)]) -> describe::TopicIds {
        ids.iter().map(|(topic, id)| ((*topic).into(), (*id).to_owned())).collect()
    }

    #[test]
    fn a_topic_is_another_one_once_its_id_changes_and_not_while_it_is_away() {
        let mut known = TopicIds { known: ids(&[("a", "1"), ("b", "2")]), rests_until: None };
        assert!(known.compare(ids(&[("a", "1")])).is_empty(), "b is deleted, or just not told");
        assert!(known.compare(ids(&[("c", "9")])).is_empty(), "not known before");
        let replaced = known.compare(ids(&[("a", "1"), ("b", "3")]));
        assert_eq!(replaced, BTreeSet::from(["b".into()]));
        assert!(known.compare(ids(&[("b", "3")])).is_empty(), "told once");
    }
}
