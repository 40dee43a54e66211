//! A record into its row, and what is said of one that does not become a row.

use super::{TopicEncoder, origin::Origin, slot::Plans};
use crate::{
    dead_letter::{Reason, Stage},
    delivery::encoder::{NotEncoded, SlotId},
    record::Record,
    transcode::{LaneLabel, RowError, RowErrorKind},
};

impl TopicEncoder {
    /// Appends the row alone, without framing.
    pub(super) fn encode_row(
        &mut self,
        slot: SlotId,
        origin: &Origin,
        record: &Record<'_>,
        body: &mut Vec<u8>,
        form: impl FnOnce(&Plans, &Record<'_>, &LaneLabel, &mut Vec<u8>) -> Result<(), RowError>,
    ) -> Result<(), NotEncoded> {
        let Some(found) = self.slot(slot) else { return Ok(()) };
        let key = found.key;
        let Some(plans) = &found.plans else { return Err(NotEncoded::Wait(self.need(key))) };
        let payload = self.cut.payload(record);
        let Err(error) = form(plans, &payload, &origin.label, body) else { return Ok(()) };
        let reason = Reason {
            stage: match error.kind {
                RowErrorKind::Decode => Stage::Decode,
                RowErrorKind::Transcode | RowErrorKind::UnknownColumns => Stage::Transcode,
            },
            field: (!error.path.is_empty()).then(|| error.path.clone()),
            schema_id: key.value.registry_id(),
            message: error.message.to_string(),
        };
        Err(match error.kind {
            RowErrorKind::UnknownColumns => self.unknown_columns(slot, &payload, reason),
            RowErrorKind::Decode | RowErrorKind::Transcode => NotEncoded::Bad(Box::new(reason)),
        })
    }
}
