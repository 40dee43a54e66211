//! Which rows go by Avro containers, and what is done where that did not do.

use crate::{
    batch::LaneSlot,
    delivery::{
        action::ChainKey,
        chain::{Place, format::LINES_JOBS},
        core::{Core, Sent, Way},
        encoder::{Encoder, SlotId},
    },
    write::load::{container::Block, content::Content, job::LoadFormat},
};

/// Bytes of a container's block: far below the 16 MB that BigQuery reads
/// (<https://docs.cloud.google.com/bigquery/quotas#load_jobs>), enough for a codec to find what repeats.
const BLOCK_BYTES: usize = 1 << 20;

impl<E: Encoder> Core<E> {
    /// The way of a row that is staged and might be `wanted`.
    pub(in crate::delivery::core) fn staged_way(
        &mut self,
        slot: SlotId,
        key: ChainKey,
        wanted: LoadFormat,
    ) -> Way {
        if wanted.is_pending() {
            return self.pending_way(slot, key);
        }
        let waited = self.lanes.get(&key.lane).map_or(0, |lane| lane.waited);
        let chain = self.chains.get_mut(&key);
        let format = chain.map_or(LoadFormat::NdjsonGz, |chain| chain.formats.next(wanted, waited));
        Way::Staged(slot, key, format)
    }

    /// Notes that a record of the lane waits: its row comes late.
    pub(in crate::delivery::core) fn comes_late(&mut self, slot: LaneSlot) {
        if let Some(lane) = self.lanes.get_mut(&slot) {
            lane.waited += 1;
        }
    }

    pub(super) fn is_late(&self, slot: LaneSlot) -> bool {
        self.waiting.values().any(|waiting| waiting.batch.rows().iter().any(|row| row.lane == slot))
    }

    /// What is to stand in the object of a batch.
    pub(super) fn content(&self, sent: &Sent, format: LoadFormat) -> Content {
        let schema = match format {
            LoadFormat::NdjsonGz | LoadFormat::Pending(_) => None,
            LoadFormat::Avro(schema) => self.encoder.container_schema(schema),
        };
        let Some(schema) = schema else { return Content::Lines(sent.body.clone()) };
        let mut start = 0;
        let block = |(rows, end)| {
            let data = sent.body.slice(std::mem::replace(&mut start, end)..end);
            Block { rows, data }
        };
        Content::Datums {
            schema,
            blocks: sent.batch.cuts(BLOCK_BYTES).into_iter().map(block).collect(),
        }
    }

    /// Gives the lane up, to take it over again with lines only, if rows of several formats lie among each
    /// other.
    pub(super) fn unmix(&mut self, key: ChainKey, limit: i64) {
        let Some(chain) = self.chains.get(&key) else { return };
        if matches!(chain.place, Place::End(_)) && chain.is_mixed(limit) {
            self.only_lines(key);
            self.abandon(key, Vec::new());
        }
    }

    /// The next owner of the lane in this worker stages lines for a while.
    pub(super) fn only_lines(&mut self, key: ChainKey) {
        let Some(lane) = self.lanes.get(&key.lane) else { return };
        let suspicion = self.suspicions.entry((lane.lane.clone(), key.table)).or_default();
        suspicion.lines_jobs = LINES_JOBS;
    }
}
