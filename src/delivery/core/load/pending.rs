//! PENDING streams: rows are appended as they come, and a commit brings those of a whole series at once.
//!
//! At least once. What an owner has appended and not committed nobody sees, and the next owner, who reads the
//! records again, never learns of it; what it has committed without having its offsets committed is there
//! twice. So of the rules for load jobs none but the first half of the second is needed here: a commit takes
//! rows that are appended, wherever they lie in the partition.

use std::time::Instant;

use crate::{
    delivery::{
        action::{Action, BatchId, ChainKey},
        chain::{Chain, Kept, Staged},
        core::{Core, Sent, Way},
        encoder::{Encoder, SlotId},
    },
    write::{
        RowForm, WriteOutcome,
        load::job::{LoadFormat, LoadJob, SeriesIx},
        storage::pending::Append,
    },
};

impl<E: Encoder> Core<E> {
    /// The way of a row that is appended.
    pub(super) fn pending_way(&self, slot: SlotId, key: ChainKey) -> Way {
        let series = self.chains.get(&key).map(|chain| chain.series.format());
        Way::Staged(slot, key, series.unwrap_or(LoadFormat::Pending(SeriesIx::default())))
    }

    /// Hands a batch to the driver, to be appended to a stream of the series.
    pub(super) fn append_rows(&mut self, id: BatchId, key: ChainKey, series: SeriesIx) {
        let (Some(sent), Some(chain)) = (self.sent.get(&id), self.chains.get_mut(&key)) else {
            return self.forget(id);
        };
        let schema = match self.encoder.form(sent.way.slot()) {
            RowForm::Proto(schema) => schema,
            RowForm::Json => Default::default(),
        };
        let append = Append {
            number: id.0,
            table: chain.facts.table.clone(),
            schema,
            body: sent.body.clone(),
            rows: u32::try_from(sent.batch.rows().len()).unwrap_or(u32::MAX),
        };
        let series = chain.series.streams(series);
        self.actions.push_back(Action::Append { id, append, series });
    }

    /// The answer to `Action::Append`: the stream that has the rows, or why none has all of them.
    pub fn appended(&mut self, id: BatchId, result: Result<String, WriteOutcome>, now: Instant) {
        let Some(sent) = self.sent.remove(&id) else {
            debug_assert!(false, "an append was answered twice");
            return;
        };
        let Way::Staged(slot, key, format) = sent.way else {
            debug_assert!(false, "a streamed batch was answered as one that is pending");
            return;
        };
        match result {
            Ok(name) if self.chains.contains_key(&key) => {
                let rows = Staged::new(Kept::Stream(name), format, slot, &sent.batch);
                self.collect(key, rows, sent);
            }
            Ok(_) => self.release_memory(sent.batch.memory_bytes()),
            Err(outcome) => self.not_appended(id, key, sent, outcome, now),
        }
        self.flow(now);
    }

    /// Rows that leave for another plan or the dead letter are no rows of the next commit.
    fn not_appended(
        &mut self,
        id: BatchId,
        key: ChainKey,
        sent: Sent,
        outcome: WriteOutcome,
        now: Instant,
    ) {
        let before = self.under_way(key) + sent.batch.rows().len() as u64;
        self.answered(id, sent, outcome, now);
        let gone = before.saturating_sub(self.under_way(key));
        if let Some(chain) = self.chains.get_mut(&key) {
            chain.unloaded = chain.unloaded.saturating_sub(gone);
        }
    }

    /// Rows of the chain in batches that were handed to the driver.
    fn under_way(&self, key: ChainKey) -> u64 {
        let batches = self.sent.values().filter(|sent| sent.way.chain() == Some(key));
        batches.map(|sent| sent.batch.rows().len() as u64).sum()
    }

    /// The commit of what the closed series have, once no append to them is without an answer; `None` until
    /// then.
    pub(super) fn commit_of(&mut self, key: ChainKey) -> Option<Commit> {
        let chain = self.chains.get_mut(&key)?;
        let open = chain.series.format();
        let is_closed =
            |way: Way| matches!(way, Way::Staged(_, of, format) if of == key && format < open);
        if self.sent.values().any(|sent| is_closed(sent.way)) {
            return None;
        }
        chain.series.forget_closed();
        let rows = chain.take_closed();
        Some(Commit::of(chain, rows))
    }
}

/// Rows that are appended, and the commit that brings them.
pub(super) struct Commit {
    pub(super) job: LoadJob,
    pub(super) rows: Vec<Staged>,
}

impl Commit {
    fn of(chain: &Chain, rows: Vec<Staged>) -> Self {
        let mut sources: Vec<String> = rows.iter().filter_map(Staged::stream).cloned().collect();
        sources.sort_unstable();
        sources.dedup();
        let job = LoadJob {
            id: chain.facts.id.commit(chain.series.current()),
            table: chain.facts.table.clone(),
            sources,
            rows_here: Vec::new(),
            format: chain.series.format(),
            end: rows.iter().map(|rows| rows.last + 1).max().unwrap_or_default(),
            rows: rows.iter().map(Staged::rows).sum(),
        };
        Self { job, rows }
    }
}
