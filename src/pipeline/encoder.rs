//! The production encoder: topics to tables, records to rows of `insertAll`.
//!
//! A *plan key* is everything that decides how a record is encoded: the topic's settings, the table,
//! and the writer schemas of value and key. Each key has a plan, or a need that is being prepared.

mod destination;
mod needs;
pub mod origin;
pub mod payload;
mod plans;
pub mod request;
mod row;
mod schemaless;
mod slot;
pub mod staging;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use crate::{
    dead_letter::{Reason, Stage},
    delivery::encoder::{
        BadRecordPolicy, BatchLimits, ChainFacts, Encoder, NeedId, NotEncoded, Route, SlotId,
        Staging, TableIx,
    },
    pipeline::{
        paths::Paths,
        settings::{NullValue, TopicSettings},
    },
    record::{Record, TopicPartition},
    schema::diff::{self, Fit},
    table::{Column, ColumnKind, Lookup, TableRef, TableSchema},
    write::{
        RowForm,
        insert_all::framing,
        load::job::{LoadFormat, SchemaIx},
        storage::framing as append,
    },
};

pub use slot::{Appended, PlanKey, Prepared};

use needs::Need;
use origin::Origin;
use payload::{Cut, Payloads, SchemaKey};
use plans::KeptPlans;
use slot::{Plans, Slot};
use staging::Followed;

/// Names of schemas' records. What is dropped is learned again.
const RECORD_NAMES_MAX: usize = 10_000;

type Map<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// See the module.
pub struct TopicEncoder {
    project: Arc<str>,
    topics: Vec<Arc<TopicSettings>>,
    /// For a topic that matches nothing: the source subscribes to none such.
    fallback: Arc<TopicSettings>,
    tables: Vec<TableRef>,
    table_numbers: Map<TableRef, TableIx>,
    /// By the settings' numbers: how many tables records have chosen by their headers.
    chosen: Map<u32, usize>,
    plans: Map<PlanKey, SlotId>,
    /// The last answer of `plans`: most records are like the one before.
    last_plan: Option<(PlanKey, SlotId)>,
    /// By their ids; `None` where one may be used again. Every row asks for its slot more than once.
    slots: Vec<Option<Slot>>,
    kept_plans: KeptPlans,
    needs: Map<NeedId, Need>,
    needed: Map<PlanKey, NeedId>,
    record_names: Map<SchemaKey, Arc<str>>,
    /// Of Avro containers, by their numbers.
    container_schemas: Vec<Arc<str>>,
    /// What the brokers tell of topics.
    known: HashMap<Arc<str>, staging::KnownTopic>,
    paths: Arc<Paths>,
    followed: Map<TableIx, Followed>,
    switches_seen: u64,
    payloads: Payloads,
    /// The record that was routed last: its payloads are cut out once.
    cut: Cut,
    last_id: u32,
    #[cfg(test)]
    pub(crate) defect: Option<crate::delivery::defect::Defect>,
}

impl std::fmt::Debug for TopicEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicEncoder").field("tables", &self.tables.len()).finish_non_exhaustive()
    }
}

impl TopicEncoder {
    /// An encoder for these topics, the first match of each topic's name counting; `None` without
    /// any topic. Topics that choose their path follow `paths`.
    pub fn new(
        project: Arc<str>,
        topics: Vec<Arc<TopicSettings>>,
        paths: Arc<Paths>,
    ) -> Option<Self> {
        Some(Self {
            fallback: Arc::clone(topics.first()?),
            project,
            topics,
            tables: Vec::new(),
            table_numbers: Map::default(),
            chosen: Map::default(),
            plans: Map::default(),
            last_plan: None,
            slots: Vec::new(),
            kept_plans: KeptPlans::default(),
            needs: Map::default(),
            needed: Map::default(),
            record_names: Map::default(),
            container_schemas: Vec::new(),
            known: HashMap::new(),
            paths,
            followed: Map::default(),
            switches_seen: 0,
            payloads: Payloads::default(),
            cut: Cut::default(),
            last_id: 0,
            #[cfg(test)]
            defect: None,
        })
    }

    /// Takes in what was prepared. From now on records of this kind are encoded by the new plan.
    pub fn install(&mut self, need: NeedId, prepared: Prepared) {
        let Some(Need { key, .. }) = self.needs.remove(&need) else { return };
        self.needed.remove(&key);
        if let Some(name) = prepared.record_name {
            if self.record_names.len() >= RECORD_NAMES_MAX {
                self.record_names.clear();
            }
            self.record_names.insert(key.value, name);
        }
        let Prepared { plan: Some(plan), appended, schema, refused, satisfied, bytes, .. } =
            prepared
        else {
            return;
        };
        let format = self.format_of(key, &plan);
        let (writer_schema, appended) = match appended {
            Some(Appended { plan, schema }) => (Some(schema), Some(plan)),
            None => (None, None),
        };
        let plans = Some(Plans { plan, appended });
        self.put(Slot { key, plans, writer_schema, bytes, format, schema, refused, satisfied });
    }

    fn slot(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    /// What BigQuery is told of the slot's rows, where they are appended.
    fn writer_schema(&self, id: SlotId) -> Option<&Bytes> {
        self.slot(id)?.writer_schema.as_ref()
    }

    /// The table of a slot.
    pub fn table_of(&self, slot: SlotId) -> TableRef {
        let ix = self.slot(slot).map_or(TableIx(0), |slot| slot.key.table);
        self.tables.get(ix.0 as usize).cloned().unwrap_or_else(|| TableRef {
            project: Arc::clone(&self.project),
            dataset: "".into(),
            table: "".into(),
        })
    }

    fn plan_route(&mut self, key: PlanKey) -> Route {
        if let Some((last, slot)) = self.last_plan
            && last == key
        {
            return Route::Row(slot);
        }
        let Some(slot) = self.plans.get(&key).copied() else { return Route::Wait(self.need(key)) };
        self.last_plan = Some((key, slot));
        Route::Row(slot)
    }
}

impl Encoder for TopicEncoder {
    type Origin = Origin;

    fn origin(&mut self, lane: &TopicPartition) -> Origin {
        let found = self.topics.iter().position(|topic| topic.matcher.matches(&lane.topic));
        let index = found.unwrap_or_default();
        let settings = Arc::clone(self.topics.get(index).unwrap_or(&self.fallback));
        let identity: &str = &lane.topic;
        #[cfg(test)]
        let identity = match self.defect {
            Some(crate::delivery::defect::Defect::IdentityWithoutTopic) => "",
            _ => identity,
        };
        let mut origin = Origin::new(lane, settings, index, identity);
        origin.topic_id = self.known.get(&lane.topic).and_then(|known| known.id.clone());
        if !origin.settings.table.uses_record() {
            let name = origin.settings.table.resolve(&lane.topic, |_| None, None);
            origin.table = name.ok().and_then(|name| self.named_table(&origin, &name).ok());
            if let Some(table) = origin.table {
                self.follow(&origin, table);
            }
        }
        origin
    }

    fn bad_record_policy<'a>(&'a self, origin: &'a Origin) -> &'a BadRecordPolicy {
        &origin.bad_records
    }

    fn wants_headers(&self, origin: &Origin) -> bool {
        origin.settings.use_headers()
    }

    fn route(&mut self, origin: &Origin, record: &Record<'_>) -> Route {
        let route = self.find_route(origin, record);
        if let Route::Wait(need) = &route {
            self.note_first(*need, origin, record);
        }
        route
    }

    fn is_blocked(&self, need: NeedId) -> bool {
        self.obstacle(need).is_some()
    }

    fn route_again(&mut self, origin: &Origin, record: &Record<'_>) -> Route {
        match self.route(origin, record) {
            Route::Row(slot) => Route::Wait(self.look_again(slot)),
            Route::Wait(need) => {
                self.mark_outdated(need);
                Route::Wait(need)
            }
            other => other,
        }
    }

    fn encode(
        &mut self,
        slot: SlotId,
        origin: &Origin,
        record: &Record<'_>,
        body: &mut Vec<u8>,
    ) -> Result<(), NotEncoded> {
        if self.writer_schema(slot).is_some() {
            let start = append::begin_row(body);
            self.encode_row(slot, origin, record, body, Plans::append)?;
            append::end_row(body, start);
            return Ok(());
        }
        origin.prefix.begin_row(record.offset, body);
        self.encode_row(slot, origin, record, body, |plans, record, label, body| {
            plans.plan.encode(record, label, body)
        })?;
        framing::end_row(body);
        Ok(())
    }

    fn staging(&self, slot: SlotId) -> Option<Staging> {
        self.staging_of(slot)
    }

    fn is_staged(&self, slot: SlotId) -> bool {
        self.is_staged_now(slot)
    }

    fn encode_staged(
        &mut self,
        (slot, format): (SlotId, LoadFormat),
        origin: &Origin,
        record: &Record<'_>,
        body: &mut Vec<u8>,
    ) -> Result<(), NotEncoded> {
        match format {
            LoadFormat::Pending(_) => self.encode(slot, origin, record, body),
            LoadFormat::NdjsonGz => {
                self.encode_row(slot, origin, record, body, |plans, record, label, body| {
                    plans.plan.encode_line(record, label, body)
                })
            }
            LoadFormat::Avro(_) => {
                debug_assert!(
                    self.slot(slot).is_none_or(|slot| slot.format == format),
                    "another plan's container"
                );
                self.encode_row(slot, origin, record, body, |plans, record, label, body| {
                    plans.plan.encode_datum(record, label, body)
                })
            }
        }
    }

    fn container_schema(&self, schema: SchemaIx) -> Option<Arc<str>> {
        self.container_schemas.get(schema.0 as usize).cloned()
    }

    fn chain(&self, origin: &Origin, table: TableIx) -> Option<ChainFacts> {
        self.chain_of(origin, table)
    }

    fn form(&self, slot: SlotId) -> RowForm {
        let schema = self.writer_schema(slot);
        schema.map_or(RowForm::Json, |schema| RowForm::Proto(schema.clone()))
    }

    fn open_body(&self, slot: SlotId, body: &mut Vec<u8>) {
        if self.writer_schema(slot).is_none() {
            framing::begin_body(body);
        }
    }

    fn separator(&self, slot: SlotId) -> &'static [u8] {
        if self.writer_schema(slot).is_none() { b"," } else { b"" }
    }

    fn close_body(&self, slot: SlotId, body: &mut Vec<u8>) {
        if self.writer_schema(slot).is_none() {
            framing::end_body(body);
        }
    }

    fn table(&self, slot: SlotId) -> TableRef {
        self.table_of(slot)
    }

    fn limits(&self, slot: SlotId) -> BatchLimits {
        let settings = self.slot(slot).and_then(|slot| self.topics.get(slot.key.settings as usize));
        let batch = settings.map(|settings| settings.batch).unwrap_or_default();
        BatchLimits { body_bytes: batch.bytes_max, rows: batch.rows_max, linger: batch.linger() }
    }

    fn is_widened(&self, slot: SlotId, field: &str, from: &ColumnKind) -> bool {
        #[cfg(test)]
        if self.defect == Some(crate::delivery::defect::Defect::WideningTakenForBad) {
            return false;
        }
        let column = self.slot(slot).and_then(|slot| slot.schema.at(field));
        column.is_some_and(|column| diff::fit(from, &column.kind) == Fit::Widen)
    }

    fn outdated(&mut self, slot: SlotId) -> NeedId {
        // Rows of one writer schema all need the same columns, so they all wait. Schemaless records
        // differ: those that came back wait, the others go on with the plan there is.
        let key = self.slot(slot).map(|slot| slot.key);
        if let Some(key) = key.filter(|key| key.value != SchemaKey::Json)
            && self.plans.get(&key) == Some(&slot)
        {
            self.give_up(slot);
        }
        self.look_again(slot)
    }
}

impl TopicEncoder {
    fn find_route(&mut self, origin: &Origin, record: &Record<'_>) -> Route {
        if record.value.is_none() {
            match origin.settings.null_value {
                NullValue::Skip => return Route::Skip,
                NullValue::Row => {}
                NullValue::DeadLetter => return Route::Bad(null_value()),
            }
        }
        let (value, key) = match self.payloads.cut(&origin.settings, record, &mut self.cut) {
            Ok(keys) => keys,
            Err(reason) => return Route::Bad(reason),
        };
        let table = match self.destination(origin, record, value) {
            Ok(Some(table)) => table,
            // Any table serves to learn the schema's name; no row is written for this key.
            Ok(None) => return self.learn_name(origin, value, key),
            Err(reason) => return Route::Bad(reason),
        };
        let plan = PlanKey { settings: origin.settings_ix, table, value, key };
        let route = self.plan_route(plan);
        if let (Route::Wait(need), SchemaKey::Json) = (&route, value) {
            return self.first_json(*need, record);
        }
        route
    }

    /// What records wait for that the slot's plan does not serve; other records go on with it.
    fn look_again(&mut self, slot: SlotId) -> NeedId {
        let key = self.slot(slot).map(|slot| slot.key);
        let need = self.need(key.unwrap_or(PlanKey {
            settings: 0,
            table: TableIx(0),
            value: SchemaKey::None,
            key: SchemaKey::None,
        }));
        self.mark_outdated(need);
        need
    }

    fn mark_outdated(&mut self, need: NeedId) {
        if let Some(state) = self.needs.get_mut(&need) {
            state.outdated = true;
        }
    }

    fn learn_name(&mut self, origin: &Origin, value: SchemaKey, key: SchemaKey) -> Route {
        match self.named_table(origin, request::NAME_ONLY) {
            Ok(table) => {
                let settings = origin.settings_ix;
                Route::Wait(self.need(PlanKey { settings, table, value, key }))
            }
            Err(reason) => Route::Bad(reason),
        }
    }
}

/// The columns of a table that already has `schema`, and those that `wanted` adds.
pub fn with_columns(schema: &TableSchema, wanted: &[Column]) -> Vec<Column> {
    let mut columns = schema.columns.clone();
    let mut known = Lookup::new(&schema.columns);
    for column in wanted {
        if known.find(&column.name).is_none() {
            columns.push(column.clone());
        }
    }
    columns
}

fn null_value() -> Box<Reason> {
    Box::new(Reason {
        stage: Stage::NullValue,
        message: "the value is null and the topic says `null_value: dead_letter`".to_owned(),
        field: None,
        schema_id: None,
    })
}

#[cfg(test)]
mod tests;
