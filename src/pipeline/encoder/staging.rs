//! Which rows are staged for load jobs, and for whose.

use std::sync::Arc;

use super::{PlanKey, TopicEncoder, origin::Origin};
use crate::{
    delivery::encoder::{ChainFacts, SlotId, Staging, TableIx},
    pipeline::{
        paths::{self, Feed, TablePath},
        settings::{NullValue, TopicLoad, TopicSettings, WriteMode},
    },
    transcode::{RowPlan, writer::json::JsonRow},
    write::{
        load::{
            chain::{ChainId, ChainOf},
            job::{LoadFormat, SchemaIx, SeriesIx},
            settings::StagingFormat,
        },
        storage::pace,
    },
};

/// Bytes of rows in one append at most: BigQuery takes 10 MB.
const APPEND_BYTES: usize = 9_000_000;

/// Different schemas of Avro containers: the rows of further ones are staged as lines.
const CONTAINER_SCHEMAS_MAX: usize = 1_000;

/// What the brokers tell of a topic.
#[derive(Clone, Debug)]
pub struct KnownTopic {
    /// Its id, or the next lane's own; a topic that was made again has another.
    pub id: Option<String>,
    /// How many partitions it has.
    pub partitions: u32,
}

/// A table's path as this encoder follows it.
#[derive(Debug)]
pub(super) struct Followed {
    path: Arc<TablePath>,
    /// Between two calls of [`TopicEncoder::follow_paths`] it does not change.
    is_staged: bool,
}

impl TopicEncoder {
    /// Learns what the brokers tell of a topic, before one of its lanes is assigned.
    pub fn learn_topic(&mut self, topic: &Arc<str>, known: KnownTopic) {
        self.known.insert(Arc::clone(topic), known);
    }

    /// Takes over what was decided since the last call: the tables that changed their path, and whether
    /// their rows are staged from now on.
    pub fn follow_paths(&mut self) -> Vec<(TableIx, bool)> {
        let switches = self.paths.switches();
        if std::mem::replace(&mut self.switches_seen, switches) == switches {
            return Vec::new();
        }
        let mut changed = Vec::new();
        for (table, followed) in &mut self.followed {
            let is_staged = followed.path.is_staged();
            if std::mem::replace(&mut followed.is_staged, is_staged) != is_staged {
                changed.push((*table, is_staged));
            }
        }
        changed
    }

    /// Follows the path of a table that the lane's topic feeds.
    pub(super) fn follow(&mut self, origin: &Origin, table: TableIx) {
        if origin.settings.write != WriteMode::Auto {
            return;
        }
        let Some(name) = self.tables.get(table.0 as usize) else { return };
        let feed = Feed::new(&origin.settings, self.partitions(origin));
        let path = self.paths.of(name, &origin.lane.topic, feed);
        let is_staged = path.is_staged();
        self.followed.entry(table).or_insert(Followed { path, is_staged });
    }

    fn settings_of(&self, slot: SlotId) -> Option<(&TopicSettings, TableIx)> {
        let key = self.slot(slot)?.key;
        Some((self.topics.get(key.settings as usize)?, key.table))
    }

    /// How rows of a plan stand in staged objects where nothing speaks against it.
    pub(super) fn format_of(&mut self, key: PlanKey, plan: &RowPlan<JsonRow>) -> LoadFormat {
        let settings = self.topics.get(key.settings as usize);
        // A record without a value has no datum, and rows of one chain should be alike.
        let has_values = settings.is_some_and(|settings| {
            settings.null_value != NullValue::Row
                && settings.load.settings.format == StagingFormat::Auto
        });
        let Some(schema) = plan.datum_schema().filter(|_| has_values) else {
            return LoadFormat::NdjsonGz;
        };
        let schemas = &mut self.container_schemas;
        let known = schemas.iter().position(|known| known == schema);
        if known.is_none() && schemas.len() >= CONTAINER_SCHEMAS_MAX {
            return LoadFormat::NdjsonGz;
        }
        let number = known.unwrap_or_else(|| {
            schemas.push(Arc::clone(schema));
            schemas.len() - 1
        });
        LoadFormat::Avro(SchemaIx(u32::try_from(number).unwrap_or(u32::MAX)))
    }

    pub(super) fn staging_of(&self, slot: SlotId) -> Option<Staging> {
        let (settings, table) = self.settings_of(slot)?;
        if settings.write == WriteMode::Pending {
            let format = LoadFormat::Pending(SeriesIx::default());
            let object_bytes = settings.load.settings.object_bytes.min(APPEND_BYTES);
            return Some(Staging { table, format, object_bytes, is_kept_here: false });
        }
        let has_bucket = self.paths.has_bucket();
        let object_bytes = settings.load.settings.object_bytes;
        let format = self.slot(slot)?.format;
        let is_kept_here = !has_bucket;
        settings.write.may_load(has_bucket).then_some(Staging {
            table,
            format,
            object_bytes,
            is_kept_here,
        })
    }

    pub(super) fn is_staged_now(&self, slot: SlotId) -> bool {
        let Some((settings, table)) = self.settings_of(slot) else { return false };
        match settings.write {
            WriteMode::Storage | WriteMode::Streaming => false,
            WriteMode::Load | WriteMode::Pending => true,
            WriteMode::Auto => self.followed.get(&table).is_some_and(|table| table.is_staged),
        }
    }

    fn partitions(&self, origin: &Origin) -> u32 {
        self.known.get(&origin.lane.topic).map_or(1, |known| known.partitions)
    }

    pub(super) fn chain_of(&self, origin: &Origin, table: TableIx) -> Option<ChainFacts> {
        let table = self.tables.get(table.0 as usize)?;
        let settings = &origin.settings;
        let is_pending = settings.write == WriteMode::Pending;
        let TopicLoad { group, epoch, .. } = &settings.load;
        let (lane, topic_id) = (&origin.lane, origin.topic_id.as_deref());
        let of = ChainOf { group, lane, topic_id, table, load_epoch: *epoch };
        let partitions = self.partitions(origin);
        let (mut first, interval) = paths::pace(settings, partitions);
        let soonest = paths::soonest(settings, partitions);
        let mut turn = self.paths.turn(lane, partitions);
        if is_pending {
            // A commit is no change of the table: none need wait for another.
            turn = None;
            first = pace::first(first, u32::try_from(lane.partition).unwrap_or(0), partitions);
        }
        let id = ChainId::new(&of);
        let table = table.clone();
        Some(ChainFacts { id, table, is_pending, first, interval, soonest, turn })
    }
}
