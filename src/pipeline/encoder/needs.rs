//! What is to be prepared before records of some kind can be encoded.

use std::sync::Arc;

use super::{
    PlanKey, TopicEncoder,
    origin::Origin,
    request::{First, Request, Samples},
};
use crate::{
    delivery::encoder::NeedId,
    pipeline::obstacle::{Obstacle, Way},
    record::{Coordinates, Record},
    table::TableRef,
};

/// One of them.
pub(super) struct Need {
    pub(super) key: PlanKey,
    pub(super) samples: Samples,
    /// The table is not what was believed: look again.
    pub(super) outdated: bool,
    pub(super) first: Option<First>,
    pub(super) way: Way,
}

impl TopicEncoder {
    /// What is to be prepared for `need`; `None` if it was answered.
    pub fn request(&mut self, need: NeedId) -> Option<Request> {
        let state = self.needs.get_mut(&need)?;
        let settings = Arc::clone(self.topics.get(state.key.settings as usize)?);
        let table = self.tables.get(state.key.table.0 as usize)?.clone();
        let known =
            self.plans.get(&state.key).and_then(|slot| self.slots.get(slot.0 as usize)?.as_ref());
        Some(Request {
            value: self.payloads.source(state.key.value),
            key: self.payloads.source(state.key.key),
            settings,
            table,
            samples: std::mem::take(&mut state.samples),
            outdated: std::mem::take(&mut state.outdated),
            known: known.map(|slot| Arc::clone(&slot.schema)),
            first: state.first.clone(),
            way: state.way.clone(),
        })
    }

    /// Forgets a need that can never be met; the next record of its kind asks again.
    pub fn dismiss(&mut self, need: NeedId) {
        if let Some(need) = self.needs.remove(&need) {
            self.needed.remove(&need.key);
        }
    }

    /// The table of a need, for the status page.
    pub fn table_of_need(&self, need: NeedId) -> Option<TableRef> {
        self.tables.get(self.needs.get(&need)?.key.table.0 as usize).cloned()
    }

    /// What is in the way of a need.
    pub fn obstacle(&self, need: NeedId) -> Option<Arc<Obstacle>> {
        self.needs.get(&need)?.way.obstacle()
    }

    pub(super) fn note_first(&mut self, need: NeedId, origin: &Origin, record: &Record<'_>) {
        let Some(need) = self.needs.get_mut(&need).filter(|need| need.first.is_none()) else {
            return;
        };
        let at = Coordinates { lane: origin.lane.clone(), offset: record.offset };
        need.first = Some(First { at, timestamp_ms: record.timestamp_ms });
    }

    pub(super) fn need(&mut self, key: PlanKey) -> NeedId {
        let last_id = &mut self.last_id;
        let id = *self.needed.entry(key).or_insert_with(|| {
            *last_id += 1;
            NeedId(*last_id)
        });
        self.needs.entry(id).or_insert_with(|| Need {
            key,
            samples: Samples::default(),
            outdated: false,
            first: None,
            way: Way::default(),
        });
        id
    }
}
