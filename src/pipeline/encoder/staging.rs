//! Which rows are staged for load jobs, and for whose.

use std::sync::Arc;

use super::{TopicEncoder, origin::Origin};
use crate::{
    delivery::encoder::{ChainFacts, SlotId, Staging, TableIx},
    pipeline::settings::{TopicLoad, WriteMode},
    write::load::{
        chain::{ChainId, ChainOf},
        job::LoadFormat,
        pace,
    },
};

/// What the brokers tell of a topic.
#[derive(Clone, Debug)]
pub struct KnownTopic {
    /// Its id; a topic that was made again has another.
    pub id: Option<String>,
    /// How many partitions it has.
    pub partitions: u32,
}

impl TopicEncoder {
    /// Learns what the brokers tell of a topic, before one of its lanes is assigned.
    pub fn learn_topic(&mut self, topic: &Arc<str>, known: KnownTopic) {
        self.known.insert(Arc::clone(topic), known);
    }

    pub(super) fn staging_of(&self, slot: SlotId) -> Option<Staging> {
        let key = self.slot(slot)?.key;
        let settings = self.topics.get(key.settings as usize)?;
        let format = LoadFormat::NdjsonGz;
        let object_bytes = settings.load.settings.object_bytes;
        let staging = Staging { table: key.table, format, object_bytes };
        (settings.write == WriteMode::Load).then_some(staging)
    }

    pub(super) fn chain_of(&self, origin: &Origin, table: TableIx) -> Option<ChainFacts> {
        let table = self.tables.get(table.0 as usize)?;
        let TopicLoad { group, epoch, settings } = &origin.settings.load;
        let (lane, known) = (&origin.lane, self.known.get(&origin.lane.topic));
        let topic_id = known.and_then(|known| known.id.as_deref());
        let of = ChainOf { group, lane, topic_id, table, load_epoch: *epoch };
        let partitions = known.map_or(1, |known| known.partitions);
        let first = origin.settings.freshness;
        let interval = pace::interval(first, partitions, settings.jobs_per_table_day);
        Some(ChainFacts { id: ChainId::new(&of), table: table.clone(), first, interval })
    }
}
