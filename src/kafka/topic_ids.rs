//! Which topic a name means: the ids of the topics whose partitions this process reads, remembered,
//! so that a topic that was deleted and made again is told from the old one.
//!
//! Where rows may be loaded, the id is part of every load job's id: two owners of a partition of which
//! one does not know it would load its rows twice. There a partition begins only once the brokers told
//! the id, or that there is none; then one is made up for the partition, kept in the metadata of its committed
//! offset, and gone with it when the topic is deleted. Elsewhere the id is asked for beside the questions
//! that a recovery needs anyway, and a cluster that does not answer is not asked again for a while.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use super::ffi::{
    Client,
    describe::{self, Question},
};

/// How long the client tries, and how long an answer that is needed is waited for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer that is not needed is waited for when all other questions have been answered.
const GRACE: Duration = Duration::from_secs(1);

/// How long a look for replaced topics may take: jobs, and the end of the process, wait for it.
const LOOK: Duration = Duration::from_secs(3);

/// For how long a cluster is left alone that answers all other questions and not this one.
const REST: Duration = Duration::from_secs(60);

/// What a made-up id begins with, and no other: base64url has no such character.
const MADE_UP: char = '~';

/// An id for a partition of a topic that has none.
pub fn make_up() -> String {
    // The randomness behind the standard hasher: another number every time.
    format!("{MADE_UP}{:016x}", RandomState::new().build_hasher().finish())
}

/// Whether it came from [`make_up`].
pub fn is_made_up(id: &str) -> bool {
    id.starts_with(MADE_UP)
}

/// What an answer told.
#[derive(Debug, Default)]
pub struct Learnt {
    /// The ids.
    pub ids: describe::TopicIds,
    /// The topics that have another id than the one that was known; it is known from now on.
    pub replaced: BTreeSet<Arc<str>>,
}

/// The ids as far as they are known.
#[derive(Debug)]
pub struct TopicIds {
    known: describe::TopicIds,
    is_needed: bool,
    rests_until: Option<Instant>,
}

impl TopicIds {
    /// None is known yet. `is_needed`: no partition may begin before its topic's is.
    pub fn new(is_needed: bool) -> Self {
        Self { known: describe::TopicIds::new(), is_needed, rests_until: None }
    }

    /// Whether no partition may begin without one.
    pub fn is_needed(&self) -> bool {
        self.is_needed
    }

    /// Asks for the ids of `topics`; the answer is for [`learn`](Self::learn).
    pub fn ask(&self, client: &Arc<Client>, topics: &BTreeSet<Arc<str>>) -> Option<Question> {
        let rests = self.rests_until.is_some_and(|until| Instant::now() < until);
        if topics.is_empty() || (rests && !self.is_needed) {
            return None;
        }
        Question::ask(client, topics.iter().cloned().collect(), REQUEST_TIMEOUT)
    }

    /// Takes the answer, remembers it, and tells what is new in it. All other questions have been
    /// answered, so if this one is not, the cluster most likely cannot.
    pub fn learn(&mut self, question: Option<Question>) -> Learnt {
        let asked = question.is_some();
        let patience = if self.is_needed { REQUEST_TIMEOUT } else { GRACE };
        let Some(ids) = question.and_then(|question| question.answer(patience)) else {
            if asked {
                tracing::debug!("the cluster does not tell its topics' ids");
                self.rests_until = Some(Instant::now() + REST);
            }
            return Learnt::default();
        };
        Learnt { replaced: self.compare(ids.clone()), ids }
    }

    /// A topic's id, if it has one.
    ///
    /// # Errors
    ///
    /// It was not told and is needed.
    pub fn id(&self, learnt: &Learnt, topic: &Arc<str>) -> Result<Option<String>, &'static str> {
        match learnt.ids.get(topic) {
            Some(id) => Ok(id.clone()),
            None if self.is_needed => Err(
                "the brokers do not tell the topic's id (DescribeTopics), without which load jobs might bring its rows twice",
            ),
            None => Ok(None),
        }
    }

    /// The topics that were replaced since they were learnt. The cluster may be away.
    pub fn look(&mut self, client: &Arc<Client>) -> BTreeSet<Arc<str>> {
        let question = self.ask(client, &self.known.keys().cloned().collect());
        let ids = question.and_then(|question| question.answer(LOOK));
        self.compare(ids.unwrap_or_default())
    }

    fn compare(&mut self, mut ids: describe::TopicIds) -> BTreeSet<Arc<str>> {
        ids.retain(|_, id| id.is_some());
        let other = |(topic, id): &(&Arc<str>, &Option<String>)| {
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
        ids.iter().map(|(topic, id)| ((*topic).into(), Some((*id).to_owned()))).collect()
    }

    #[test]
    fn a_topic_is_another_one_once_its_id_changes_and_not_while_it_is_away() {
        let mut known = TopicIds::new(false);
        assert!(known.compare(ids(&[("a", "1"), ("b", "2")])).is_empty());
        assert!(known.compare(ids(&[("a", "1")])).is_empty(), "b is deleted, or just not told");
        assert!(known.compare(ids(&[("c", "9")])).is_empty(), "not known before");
        assert!(known.compare([("b".into(), None)].into()).is_empty(), "asked of an old broker");
        let replaced = known.compare(ids(&[("a", "1"), ("b", "3")]));
        assert_eq!(replaced, BTreeSet::from(["b".into()]));
        assert!(known.compare(ids(&[("b", "3")])).is_empty(), "told once");
    }

    #[test]
    fn where_ids_are_needed_silence_is_no_answer() {
        let told = Learnt { ids: ids(&[("a", "1")]), replaced: BTreeSet::new() };
        let none = Learnt { ids: [("a".into(), None)].into(), replaced: BTreeSet::new() };
        for is_needed in [true, false] {
            let known = TopicIds::new(is_needed);
            assert_eq!(known.id(&told, &"a".into()), Ok(Some("1".to_owned())));
            assert_eq!(known.id(&none, &"a".into()), Ok(None), "known to have none");
            assert_eq!(known.id(&Learnt::default(), &"a".into()).is_err(), is_needed);
        }
    }
}
