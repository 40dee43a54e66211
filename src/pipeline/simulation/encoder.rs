//! The encoder of the simulation: JSON in, insertAll rows out, through the production framing.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Map, Value, json};

use super::records::{Payload, table_of};
use crate::{
    dead_letter::{Reason, Stage},
    delivery::{
        defect::Defect,
        encoder::{BadRecordPolicy, BatchLimits, Encoder, NeedId, NotEncoded, Route, SlotId},
    },
    record::{Record, TopicPartition},
    table::TableRef,
    write::insert_all::framing::{self, LanePrefix},
};

/// What the encoder knows about a lane.
#[derive(Debug)]
pub(crate) struct Origin {
    lane: TopicPartition,
    prefix: LanePrefix,
}

/// What a need asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The table with at least these columns.
    Columns(&'static str, BTreeSet<String>),
    /// A column that the policy refuses.
    Forbidden(&'static str),
}

#[derive(Debug)]
struct Plan {
    table: &'static str,
    /// The slot and the columns it encodes; `None` until prepared, and once outdated.
    ready: Option<(SlotId, BTreeSet<String>)>,
    columns_need: Option<NeedId>,
    forbidden_need: Option<NeedId>,
}

/// The encoder of one worker.
#[derive(Debug)]
pub(crate) struct TestEncoder {
    plans: Vec<Plan>,
    /// The table of each slot.
    slots: Vec<&'static str>,
    needs: Vec<Need>,
    policy: BadRecordPolicy,
    limits: BatchLimits,
    defect: Option<Defect>,
}

/// The columns every table is created with.
pub(crate) const BASE: [(&str, &str); 6] = [
    ("id", "INTEGER"),
    ("v", "STRING"),
    ("pad", "STRING"),
    ("_kafka_topic", "STRING"),
    ("_kafka_partition", "INTEGER"),
    ("_kafka_offset", "INTEGER"),
];

impl TestEncoder {
    /// An encoder that knows nothing yet.
    pub(crate) fn new(plan: &super::plan::Plan, defect: Option<Defect>) -> Self {
        let plans = ["ab", "c0", "c1"].map(|table| Plan {
            table,
            ready: None,
            columns_need: None,
            forbidden_need: None,
        });
        Self {
            plans: plans.into(),
            slots: Vec::new(),
            needs: Vec::new(),
            policy: BadRecordPolicy {
                dead_letter: (!plan.letterless).then(|| "dead".into()),
                budget: plan.budget,
            },
            limits: plan.limits,
            defect,
        }
    }

    /// There is a dead-letter topic from now on.
    pub(crate) fn set_letters(&mut self) {
        self.policy.dead_letter = Some("dead".into());
    }

    /// What a need asks for.
    pub(crate) fn need(&self, id: NeedId) -> &Need {
        &self.needs[id.0 as usize]
    }

    /// Notes that a need was answered, with the table's columns if it was prepared.
    pub(crate) fn answered(&mut self, id: NeedId, columns: Option<BTreeSet<String>>) {
        for plan in &mut self.plans {
            if plan.forbidden_need == Some(id) {
                plan.forbidden_need = None;
            }
            if plan.columns_need == Some(id) {
                plan.columns_need = None;
                if let Some(columns) = &columns {
                    plan.ready = Some((SlotId(self.slots.len() as u32), columns.clone()));
                    self.slots.push(plan.table);
                }
            }
        }
    }

    fn columns_need(&mut self, table: &'static str, column: Option<&str>) -> NeedId {
        let next = NeedId(self.needs.len() as u32);
        let plan = plan(&mut self.plans, table);
        let id = *plan.columns_need.get_or_insert(next);
        if id == next {
            self.needs.push(Need::Columns(table, BTreeSet::new()));
        }
        if let (Need::Columns(_, columns), Some(column)) = (&mut self.needs[id.0 as usize], column)
        {
            columns.insert(column.to_owned());
        }
        id
    }

    fn forbidden_need(&mut self, table: &'static str) -> NeedId {
        let next = NeedId(self.needs.len() as u32);
        let id = *plan(&mut self.plans, table).forbidden_need.get_or_insert(next);
        if id == next {
            self.needs.push(Need::Forbidden(table));
        }
        id
    }
}

fn plan<'a>(plans: &'a mut [Plan], table: &str) -> &'a mut Plan {
    plans.iter_mut().find(|plan| plan.table == table).unwrap()
}

fn reason(stage: Stage, message: &str) -> Box<Reason> {
    Box::new(Reason { stage, message: message.to_owned(), field: None, schema_id: None })
}

impl Encoder for TestEncoder {
    type Origin = Origin;

    fn origin(&mut self, lane: &TopicPartition) -> Origin {
        let identity = match self.defect {
            Some(Defect::IdentityWithoutTopic) => "",
            _ => &lane.topic,
        };
        Origin { lane: lane.clone(), prefix: LanePrefix::new(identity, lane.partition) }
    }

    fn bad_record_policy<'a>(&'a self, _: &'a Origin) -> &'a BadRecordPolicy {
        &self.policy
    }

    fn route(&mut self, origin: &Origin, record: &Record<'_>) -> Route {
        let Some(value) = record.value else { return Route::Skip };
        let Ok(payload) = serde_json::from_slice::<Payload>(value) else {
            return Route::Bad(reason(Stage::Decode, "not JSON"));
        };
        let table = table_of(&origin.lane, &payload);
        if payload.forbidden {
            return Route::Wait(self.forbidden_need(table));
        }
        let column = payload.x.map(|x| format!("x{x}"));
        match &plan(&mut self.plans, table).ready {
            Some((slot, columns)) if column.as_ref().is_none_or(|x| columns.contains(x)) => {
                Route::Row(*slot)
            }
            _ => Route::Wait(self.columns_need(table, column.as_deref())),
        }
    }

    fn encode(
        &mut self,
        _: SlotId,
        origin: &Origin,
        record: &Record<'_>,
        body: &mut Vec<u8>,
    ) -> Result<(), NotEncoded> {
        let payload: Payload = serde_json::from_slice(record.value.unwrap()).unwrap();
        origin.prefix.begin_row(record.offset, body);
        serde_json::to_writer(&mut *body, &row(&origin.lane, record.offset, &payload)).unwrap();
        if payload.unfit {
            return Err(NotEncoded::Bad(reason(Stage::Transcode, "does not fit")));
        }
        framing::end_row(body);
        Ok(())
    }

    fn open_body(&self, body: &mut Vec<u8>) {
        framing::begin_body(body);
    }

    fn separator(&self) -> &'static [u8] {
        b","
    }

    fn close_body(&self, body: &mut Vec<u8>) {
        framing::end_body(body);
    }

    fn table(&self, slot: SlotId) -> TableRef {
        TableRef {
            project: Arc::from("p"),
            dataset: Arc::from("d"),
            table: Arc::from(self.slots[slot.0 as usize]),
        }
    }

    fn limits(&self, _: SlotId) -> BatchLimits {
        self.limits
    }

    fn outdated(&mut self, slot: SlotId) -> NeedId {
        let table = self.slots[slot.0 as usize];
        let plan = plan(&mut self.plans, table);
        if plan.ready.as_ref().is_some_and(|(ready, _)| *ready == slot) {
            plan.ready = None;
        }
        self.columns_need(table, None)
    }
}

/// The row of a record, as an object of cells.
fn row(lane: &TopicPartition, offset: i64, payload: &Payload) -> Value {
    let mut row = Map::new();
    let id = if payload.bad { json!("not a number") } else { json!(payload.id) };
    row.insert("id".into(), id);
    row.insert("v".into(), json!(payload.v));
    row.insert("pad".into(), json!(payload.pad));
    row.insert("_kafka_topic".into(), json!(&*lane.topic));
    row.insert("_kafka_partition".into(), json!(lane.partition));
    row.insert("_kafka_offset".into(), json!(offset));
    if let Some(x) = payload.x {
        row.insert(format!("x{x}"), json!(format!("x{}", payload.id)));
    }
    Value::Object(row)
}
