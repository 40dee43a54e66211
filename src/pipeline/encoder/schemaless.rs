//! Schemaless records: the table is asked for what their types need.

use super::TopicEncoder;
use crate::{
    dead_letter::{Reason, Stage},
    delivery::encoder::{NeedId, NotEncoded, Route, SlotId},
    record::Record,
    schema::infer,
};

impl TopicEncoder {
    /// A schemaless record that the table has no place for: once the table is changed for its type,
    /// it is encoded again; if it was changed already, or cannot be, the record is bad.
    pub(super) fn unknown_columns(
        &mut self,
        slot: SlotId,
        record: &Record<'_>,
        error: Reason,
    ) -> NotEncoded {
        let Some(slot) = self.slot(slot) else { return NotEncoded::Bad(Box::new(error)) };
        let inferred = infer::infer_beside(record.value.unwrap_or_default(), &slot.schema.columns);
        let ty = match inferred {
            Ok(ty) => ty,
            Err(error) => {
                return NotEncoded::Bad(Box::new(Reason {
                    stage: Stage::Decode,
                    message: error.to_string(),
                    field: None,
                    schema_id: None,
                }));
            }
        };
        if let Some((_, reason)) = slot.refused.iter().find(|(refused, _)| *refused == ty) {
            return NotEncoded::Bad(Box::new(reason.clone()));
        }
        if slot.satisfied.contains(&ty) {
            return NotEncoded::Bad(Box::new(error));
        }
        let need = self.need(slot.key);
        if let Some(state) = self.needs.get_mut(&need) {
            state.samples.add(ty);
        }
        NotEncoded::Wait(need)
    }

    /// The first records of a kind wait for their plan; their types say which columns it needs.
    pub(super) fn first_json(&mut self, need: NeedId, record: &Record<'_>) -> Route {
        let json = self.cut.payload(record).value.unwrap_or_default();
        match (infer::infer(json), self.needs.get_mut(&need)) {
            (Ok(ty), Some(state)) => {
                state.samples.add(ty);
                Route::Wait(need)
            }
            (Ok(_), None) => Route::Wait(need),
            (Err(error), _) => Route::Bad(Box::new(Reason {
                stage: Stage::Decode,
                message: error.to_string(),
                field: None,
                schema_id: None,
            })),
        }
    }
}
