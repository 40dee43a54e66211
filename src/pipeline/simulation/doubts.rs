//! Appends whose outcome their process did not learn, by its own word: a request has no id that it could be
//! followed by, and an answer that reaches its connection may find nobody waiting.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::time::Instant;

use super::{bigquery::StoredRow, env::Who};
use crate::{
    fault::{Certainty, Fault},
    record::TopicPartition,
    table::TableRef,
};

/// When which process gave up on a request to which table.
type Noted = BTreeMap<(Who, String), Vec<u64>>;

/// What all processes noted.
#[derive(Clone, Debug)]
pub(crate) struct Doubts {
    base: Instant,
    noted: Arc<Mutex<Noted>>,
}

/// The last request that appended each record: whose, and when it was sent.
#[derive(Debug, Default)]
pub(crate) struct Appends(BTreeMap<(TopicPartition, i64), (Who, u64)>);

impl Doubts {
    /// None yet.
    pub(crate) fn new(base: Instant) -> Self {
        Self { base, noted: Arc::default() }
    }

    /// The process has met this fault, and tries again or gives up.
    pub(crate) fn note(&self, who: Who, table: &TableRef, fault: &Fault) {
        if fault.certainty == Certainty::Unknown {
            let now = self.base.elapsed().as_millis() as u64;
            let mut noted = self.noted.lock().unwrap();
            noted.entry((who, table.table.to_string())).or_default().push(now);
        }
    }

    fn is_any(&self, who: Who, table: &str, (from, to): (u64, u64)) -> bool {
        let noted = self.noted.lock().unwrap();
        let of_table = noted.get(&(who, table.to_owned()));
        of_table.is_some_and(|at| at.iter().any(|at| (from..=to).contains(at)))
    }
}

impl Appends {
    /// A request that `who` sent at `sent` appended the row. Whether it was there already, and the process that
    /// had sent it before did not learn so within its patience.
    pub(crate) fn is_again_in_doubt(
        &mut self,
        row: &StoredRow,
        (who, sent): (Who, u64),
        patience_ms: u64,
        doubts: &Doubts,
    ) -> bool {
        let before = self.0.insert((row.lane.clone(), row.offset), (who, sent));
        before.is_some_and(|(who, sent)| doubts.is_any(who, &row.table, (sent, sent + patience_ms)))
    }
}
