//! What keeps a partition, a table or the process from moving, and what a person can do about it.
//!
//! A trouble is put up by whoever meets it and taken down by the same. `/status` shows it at once. [`Watch`]
//! tells the log when one has lasted for three seconds and when it has been over for three, so that a
//! passing wait is not told, and one that comes and goes is told once.

use std::collections::HashMap;

use serde::Serialize;

/// How long a trouble lasts before the log tells it, and how long it has to be over.
const TELL_AFTER_MS: i64 = 3_000;
/// Lines of one look; what is left is told by the next one.
const LINES_MAX: usize = 50;

/// The kind of a trouble: few, stable words for dashboards and alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The topic is not there, or a pattern matches none.
    TopicMissing,
    /// Kafka's answers do not bring the records.
    Read,
    /// Where to go on cannot be found out.
    Recover,
    /// The committed offset does not fit what the partition holds.
    Offset,
    /// The offset cannot be committed.
    Commit,
    /// The schema registry is away or refuses.
    Registry,
    /// A schema is not known, or not usable.
    Schema,
    /// A record is refused and may not be diverted.
    Record,
    /// More records are refused than the dead-letter budget allows.
    DeadLetterBudget,
    /// The dead-letter topic does not take a letter.
    DeadLetter,
    /// The table or its dataset is not there.
    TableMissing,
    /// The table is not as its rows need it.
    TableSchema,
    /// A permission or the project's billing is missing.
    Denied,
    /// The credentials are missing, wrong or expired.
    Credentials,
    /// BigQuery asks to slow down.
    Throttled,
    /// A quota is used up.
    Quota,
    /// A remote has a passing fault, or does not answer.
    Remote,
    /// A remote refuses a request as a whole.
    Refused,
    /// What a load job has done cannot be told, or contradicts what is known.
    LoadJob,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 19] = [
        Self::TopicMissing,
        Self::Read,
        Self::Recover,
        Self::Offset,
        Self::Commit,
        Self::Registry,
        Self::Schema,
        Self::Record,
        Self::DeadLetterBudget,
        Self::DeadLetter,
        Self::TableMissing,
        Self::TableSchema,
        Self::Denied,
        Self::Credentials,
        Self::Throttled,
        Self::Quota,
        Self::Remote,
        Self::Refused,
        Self::LoadJob,
    ];

    /// The name used in metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::TopicMissing => "topic_missing",
            Self::Read => "read",
            Self::Recover => "recover",
            Self::Offset => "offset",
            Self::Commit => "commit",
            Self::Registry => "registry",
            Self::Schema => "schema",
            Self::Record => "record",
            Self::DeadLetterBudget => "dead_letter_budget",
            Self::DeadLetter => "dead_letter",
            Self::TableMissing => "table_missing",
            Self::TableSchema => "table_schema",
            Self::Denied => "denied",
            Self::Credentials => "credentials",
            Self::Throttled => "throttled",
            Self::Quota => "quota",
            Self::Remote => "remote",
            Self::Refused => "refused",
            Self::LoadJob => "load_job",
        }
    }
}

/// Why something does not move. Holds no value of any record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// The kind.
    pub cause: Cause,
    /// One sentence.
    pub message: String,
    /// What a person can do about it; `None` where only time helps.
    pub remedy: Option<String>,
    /// The offset of the first record that it keeps back, where it is a record's.
    pub offset: Option<i64>,
    /// Since when, in milliseconds since the epoch. A trouble of the same cause goes on.
    pub since_ms: i64,
}

impl Trouble {
    /// A trouble that begins now.
    pub fn new(cause: Cause, message: impl Into<String>, now_ms: i64) -> Self {
        Self { cause, message: message.into(), remedy: None, offset: None, since_ms: now_ms }
    }

    /// The same with what a person can do about it.
    #[must_use]
    pub fn with_remedy(self, remedy: Option<impl Into<String>>) -> Self {
        Self { remedy: remedy.map(Into::into), ..self }
    }

    /// The same with the first offset that it keeps back.
    #[must_use]
    pub fn at(self, offset: Option<i64>) -> Self {
        Self { offset, ..self }
    }
}

/// Who puts a trouble up and takes it down: each has a place of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Teller {
    /// Whoever reads the partition.
    Source,
    /// Whoever prepares the table and its schema.
    Gate,
    /// Whoever writes the rows.
    Worker,
    /// Whoever commits the offsets.
    Commit,
}

/// The troubles of one partition or table, one for each teller at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Troubles(Vec<(Teller, Trouble)>);

impl Troubles {
    /// Puts up, replaces or takes down the trouble of `teller`. One of the same cause keeps its beginning.
    pub fn tell(&mut self, teller: Teller, trouble: Option<Trouble>) {
        let known = self.0.iter().position(|(who, _)| *who == teller);
        match (known.and_then(|at| self.0.get_mut(at)), trouble) {
            (Some((_, known)), Some(trouble)) => {
                let since_ms = match known.cause == trouble.cause {
                    true => known.since_ms,
                    false => trouble.since_ms,
                };
                *known = Trouble { since_ms, ..trouble };
            }
            (None, Some(trouble)) => self.0.push((teller, trouble)),
            (_, None) => self.0.retain(|(who, _)| *who != teller),
        }
    }

    /// The trouble of one teller.
    pub fn of(&self, teller: Teller) -> Option<&Trouble> {
        self.0.iter().find(|(who, _)| *who == teller).map(|(_, trouble)| trouble)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Trouble> {
        self.0.iter().map(|(_, trouble)| trouble)
    }
}

impl Serialize for Troubles {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// What a trouble is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A partition.
    Partition {
        /// Its topic.
        topic: String,
        /// Its number.
        partition: i32,
    },
    /// A table, `project.dataset.table`.
    Table(String),
    /// The process as a whole: an entry of the configuration, say.
    Process(String),
}

impl Subject {
    /// The kinds, as the gauge calls them.
    pub const KINDS: [&'static str; 3] = ["partition", "table", "process"];

    /// The label of the gauge.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Partition { .. } => "partition",
            Self::Table(_) => "table",
            Self::Process(_) => "process",
        }
    }
}

/// Every pair of labels of the gauge.
pub fn labels() -> impl Iterator<Item = (&'static str, Cause)> {
    Subject::KINDS.into_iter().flat_map(|kind| Cause::ALL.map(|cause| (kind, cause)))
}

/// Something for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A trouble has lasted long enough to be told.
    Begins(Subject, Trouble),
    /// It is over.
    Ends {
        /// Whose it was.
        subject: Subject,
        /// What it was.
        cause: Cause,
        /// How long it lasted, in milliseconds.
        lasted_ms: i64,
    },
}

/// What was told, and is not over.
#[derive(Debug, Clone, Copy)]
struct Told {
    since_ms: i64,
    seen_ms: i64,
}

/// Notices which troubles begin and end. Holds what lasts, and nothing of what is over.
#[derive(Debug, Default)]
pub struct Watch(HashMap<(Subject, Cause), Told>);

impl Watch {
    /// Compares what there is now with what was told. What belongs to a subject that `is_there` denies is
    /// forgotten without a word: a partition that was given away has not been mended.
    pub fn look(
        &mut self,
        now: impl IntoIterator<Item = (Subject, Trouble)>,
        is_there: impl Fn(&Subject) -> bool,
        now_ms: i64,
    ) -> Vec<News> {
        let mut news = Vec::new();
        for (subject, trouble) in now {
            let key = (subject, trouble.cause);
            if let Some(told) = self.0.get_mut(&key) {
                told.seen_ms = now_ms;
            } else if now_ms - trouble.since_ms >= TELL_AFTER_MS && news.len() < LINES_MAX {
                let told = Told { since_ms: trouble.since_ms, seen_ms: now_ms };
                news.push(News::Begins(key.0.clone(), trouble));
                self.0.insert(key, told);
            }
        }
        self.0.retain(|(subject, cause), told| {
            let is_over = now_ms - told.seen_ms >= TELL_AFTER_MS;
            if is_over && is_there(subject) {
                let (subject, cause) = (subject.clone(), *cause);
                news.push(News::Ends { subject, cause, lasted_ms: told.seen_ms - told.since_ms });
            }
            !is_over && is_there(subject)
        });
        news
    }
}

/// Writes one line.
pub fn log(news: &News) {
    match news {
        News::Begins(subject, Trouble { cause, message, remedy, offset, .. }) => {
            let (cause, remedy) = (cause.name(), remedy.as_deref());
            match subject {
                Subject::Partition { topic, partition } => tracing::warn!(
                    topic,
                    partition,
                    offset,
                    cause,
                    reason = message,
                    remedy,
                    "the partition does not move"
                ),
                Subject::Table(table) => tracing::warn!(
                    table,
                    cause,
                    reason = message,
                    remedy,
                    "the table takes no rows"
                ),
                Subject::Process(what) => {
                    tracing::warn!(what, cause, reason = message, remedy, "something is missing");
                }
            }
        }
        News::Ends { subject, cause, lasted_ms } => {
            let (cause, seconds) = (cause.name(), lasted_ms / 1_000);
            match subject {
                Subject::Partition { topic, partition } => {
                    tracing::info!(topic, partition, cause, seconds, "the partition moves again");
                }
                Subject::Table(table) => {
                    tracing::info!(table, cause, seconds, "the table takes rows again");
                }
                Subject::Process(what) => {
                    tracing::info!(what, cause, seconds, "what was missing is there");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(partition: i32) -> Subject {
        Subject::Partition { topic: "orders".to_owned(), partition }
    }

    fn denied(since_ms: i64) -> Trouble {
        Trouble::new(Cause::Denied, "no", since_ms).with_remedy(Some("grant it")).at(Some(7))
    }

    #[test]
    fn a_trouble_of_the_same_cause_keeps_its_beginning_and_each_teller_has_its_own() {
        let mut troubles = Troubles::default();
        troubles.tell(Teller::Worker, Some(denied(5)));
        troubles.tell(Teller::Worker, Some(denied(9)));
        troubles.tell(Teller::Commit, Some(Trouble::new(Cause::Commit, "c", 8)));
        let seen: Vec<_> = troubles.iter().map(|t| (t.cause, t.since_ms)).collect();
        assert_eq!(seen, [(Cause::Denied, 5), (Cause::Commit, 8)]);
        troubles.tell(Teller::Worker, Some(Trouble::new(Cause::Quota, "q", 12)));
        assert_eq!(troubles.iter().next().unwrap().since_ms, 12);
        troubles.tell(Teller::Worker, None);
        assert_eq!(troubles.iter().count(), 1);
    }

    #[test]
    fn a_trouble_is_told_once_when_it_lasts_and_once_when_it_is_over() {
        let mut watch = Watch::default();
        let there = |_: &Subject| true;
        let now = || [(partition(0), denied(1_000))];
        assert!(watch.look(now(), there, 3_999).is_empty(), "it may pass");
        assert_eq!(watch.look(now(), there, 4_000), [News::Begins(partition(0), denied(1_000))]);
        for at in 5..60 {
            assert!(watch.look(now(), there, at * 1_000).is_empty());
        }
        assert!(watch.look([], there, 60_000).is_empty(), "it may come back");
        assert!(watch.look(now(), there, 61_000).is_empty(), "and does");
        assert!(watch.look([], there, 62_000).is_empty());
        let ends = News::Ends { subject: partition(0), cause: Cause::Denied, lasted_ms: 60_000 };
        assert_eq!(watch.look([], there, 64_000), [ends]);
        assert!(watch.0.is_empty());
    }

    #[test]
    fn a_subject_that_is_gone_is_forgotten_in_silence() {
        let mut watch = Watch::default();
        assert_eq!(watch.look([(partition(0), denied(0))], |_| true, 9_000).len(), 1);
        assert!(watch.look([], |_| false, 9_250).is_empty());
        assert!(watch.0.is_empty());
    }

    #[test]
    fn a_fault_of_a_thousand_partitions_is_told_in_portions() {
        let mut watch = Watch::default();
        let all = || (0..1_000).map(|n| (partition(n), denied(0)));
        let mut told = 0;
        for look in 0..20 {
            let lines = watch.look(all(), |_| true, 9_000 + look * 1_000).len();
            assert!(lines <= LINES_MAX);
            told += lines;
        }
        assert_eq!(told, 1_000);
    }

    #[test]
    fn names_agree_with_the_serialised_form() {
        for cause in Cause::ALL {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.name());
        }
    }
}
