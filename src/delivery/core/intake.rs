//! Records coming in: routed, encoded into open batches, or put aside.

use std::time::Instant;

use super::{Core, Open, Past, Place, Timer, Way, waiting::NEEDS_MAX};
use crate::{
    batch::{Batch, LaneSlot},
    delivery::{
        action::{BatchId, ChainKey},
        chain::Chain,
        encoder::{BatchLimits, Encoder, NotEncoded, Route, SlotId, Staging},
        lane::Phase,
    },
    record::Record,
};

/// Skipped records share this group in the tracker, those that wait or are refused share others;
/// batch ids never get there.
const GROUP_SKIPPED: u64 = u64::MAX;
const GROUP_REFUSED: u64 = u64::MAX - 1;
const GROUP_WAITING: u64 = 1 << 63;
const GROUP_STAGED: u64 = 1 << 62;

/// What became of a record that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// It is not this core's to deliver, or will be read again.
    Ignored,
    /// It is done with by an explicit setting.
    Skipped,
    /// It is on its way.
    Taken,
}

impl<E: Encoder> Core<E> {
    /// Takes in one record of a lane, in offset order. A record of a lane that is
    /// gone or draining is ignored: its offset stays uncommitted and the next owner reads it. So is
    /// one that was on its way when the lane was paused, and all behind it until
    /// [`resumed`](Self::resumed): however much is on its way, a paused lane takes no more memory.
    pub fn record(&mut self, slot: LaneSlot, record: &Record<'_>, now: Instant) -> Intake {
        let Some(lane) = self.lanes.get_mut(&slot) else { return Intake::Ignored };
        if lane.phase != Phase::Running || record.offset < lane.tracker.next() {
            return Intake::Ignored;
        }
        if lane.paused || lane.deaf {
            lane.deaf = true;
            #[cfg(test)]
            if self.defect == Some(crate::delivery::defect::Defect::StaleAfterResume) {
                lane.deaf = false;
            }
            return Intake::Ignored;
        }
        let route = self.encoder.route(&lane.origin, record);
        if let Route::Wait(need) = &route
            && lane.needs >= NEEDS_MAX
            && !self.waiting.get(need).is_some_and(|waiting| waiting.lanes.contains(&slot))
        {
            self.crowd(slot);
            return Intake::Ignored;
        }
        let is_new = |staging: Staging| {
            let chain = self.chains.get(&ChainKey { lane: slot, table: staging.table });
            chain.is_some_and(|chain| chain.is_new(record.offset))
        };
        let group = match &route {
            Route::Row(row) => match self.encoder.staging(*row) {
                Some(staging) if self.encoder.is_staged(*row) || !is_new(staging) => {
                    GROUP_STAGED | u64::from(staging.table.0)
                }
                _ => {
                    let way = Way::Streamed(*row);
                    let limits = || self.encoder.limits(*row);
                    Self::open_batch(&mut self.open, &mut self.last_id, way, limits).id.0
                }
            },
            Route::Skip => GROUP_SKIPPED,
            Route::Wait(need) => GROUP_WAITING | u64::from(need.0),
            Route::Bad(_) => GROUP_REFUSED,
        };
        let Some(span) = lane.tracker.deliver(record, group) else { return Intake::Ignored };
        lane.bytes += record.bytes();
        let intake = if group == GROUP_SKIPPED { Intake::Skipped } else { Intake::Taken };
        self.place(Place { lane: slot, span }, record, route, now);
        if self.memory_bytes >= self.look_at {
            self.flow(now);
        }
        intake
    }

    /// The source has carried out a resume: what comes from now on begins at the offset that it was
    /// given, or below what has been taken in since.
    pub fn resumed(&mut self, slot: LaneSlot) {
        if let Some(lane) = self.lanes.get_mut(&slot) {
            lane.deaf = false;
        }
    }

    /// Does what follows from a batch of records having been taken in.
    pub fn intake_done(&mut self, now: Instant) {
        self.flow(now);
    }

    /// Puts a record, new or one that comes back, where `route` says.
    pub(super) fn place(&mut self, place: Place, record: &Record<'_>, route: Route, now: Instant) {
        match route {
            Route::Row(slot) => {
                let put = self.put(slot, place, record, now);
                self.placed(put, place, record, now);
            }
            Route::Skip => self.resolve(place, 1, record.bytes()),
            Route::Wait(need) => self.wait(need, place, record, Past::default()),
            Route::Bad(reason) => self.refuse(place, record, *reason, now),
        }
    }

    fn placed(
        &mut self,
        put: Result<(), NotEncoded>,
        place: Place,
        record: &Record<'_>,
        now: Instant,
    ) {
        match put {
            Ok(()) => {}
            Err(NotEncoded::Wait(need)) => self.wait(need, place, record, Past::default()),
            Err(NotEncoded::Bad(reason)) => self.refuse(place, record, *reason, now),
        }
    }

    fn open_batch<'a>(
        open: &'a mut super::Map<Way, Open>,
        last_id: &mut u64,
        way: Way,
        limits: impl FnOnce() -> BatchLimits,
    ) -> &'a mut Open {
        open.entry(way).or_insert_with(|| {
            *last_id += 1;
            let limits = limits();
            // A row that a job refuses is read again, unless it is the only one that can be meant.
            let batch = match way {
                Way::Staged(..) if limits.rows > 1 && !way.is_pending() => Batch::of_rows_only(),
                Way::Staged(..) | Way::Streamed(_) => Batch::default(),
            };
            Open { id: BatchId(*last_id), batch, limits }
        })
    }

    fn put(
        &mut self,
        slot: SlotId,
        place: Place,
        record: &Record<'_>,
        now: Instant,
    ) -> Result<(), NotEncoded> {
        match self.way(slot, place, record, Past::default()) {
            Some(way) => self.append(way, place, record, now),
            None => Ok(()),
        }
    }

    /// The way of a row to its table; `None` if it is there already, or put aside until that is known.
    fn way(&mut self, slot: SlotId, place: Place, record: &Record<'_>, past: Past) -> Option<Way> {
        let Some(staging) = self.encoder.staging(slot) else { return Some(Way::Streamed(slot)) };
        let key = ChainKey { lane: place.lane, table: staging.table };
        if !self.admit(key, place, record) {
            return None;
        }
        Some(match !past.is_doubtful && self.encoder.is_staged(slot) {
            true => self.staged_way(slot, key, staging.format),
            false => Way::Streamed(slot),
        })
    }

    /// Stages a row that streaming inserts do not take for its partition, where rows can be staged.
    pub(super) fn stage_instead(
        &mut self,
        slot: SlotId,
        place: Place,
        record: &Record<'_>,
        now: Instant,
    ) -> bool {
        if self.encoder.staging(slot).is_none() {
            return false;
        }
        let Some(lane) = self.lanes.get(&place.lane) else { return true };
        // What is encoded must have been routed last. The plan may be another one by now, and its rows
        // stand otherwise in a container.
        let route = self.encoder.route(&lane.origin, record);
        let Route::Row(slot) = route else {
            self.place(place, record, route, now);
            return true;
        };
        let Some(staging) = self.encoder.staging(slot) else { return false };
        let key = ChainKey { lane: place.lane, table: staging.table };
        if self.admit(key, place, record) {
            let way = self.staged_way(slot, key, staging.format);
            let put = self.append(way, place, record, now);
            self.placed(put, place, record, now);
        }
        true
    }

    fn append(
        &mut self,
        way: Way,
        place: Place,
        record: &Record<'_>,
        now: Instant,
    ) -> Result<(), NotEncoded> {
        // A lane that is gone encodes to nothing.
        let Some(lane) = self.lanes.get_mut(&place.lane) else { return Ok(()) };
        let limits = || batch_limits(&self.encoder, &self.chains, way);
        let open = Self::open_batch(&mut self.open, &mut self.last_id, way, limits);
        let limits = open.limits;
        let before = open.batch.memory_bytes();
        // Where the memory is small beside a batch, rows take what they need and no more.
        let is_roomy =
            self.memory_bytes + 2 * limits.body_bytes <= self.settings.memory_bytes_max / 2;
        if open.batch.is_empty()
            && let Some(like) = self.filled.get(&way)
            && !self.spares.replace(&mut open.batch, limits.body_bytes)
            && is_roomy
        {
            open.batch.make_room(limits.body_bytes, *like);
        }
        let pushed = push(&mut self.encoder, &lane.origin, &mut open.batch, way, place, record);
        if pushed.is_ok() {
            lane.budget.good();
            if way.chain().is_none() {
                lane.streams(record.offset);
            }
        }
        if is_roomy {
            self.spares.enlarge(&mut open.batch, limits.body_bytes);
        }
        let (id, rows, body) = (open.id, open.batch.rows().len(), open.batch.body_bytes());
        let size = open.batch.size();
        let after = open.batch.memory_bytes();
        self.recharge(before, after);
        if rows == 0 {
            self.open.remove(&way);
            self.release_memory(after);
        }
        pushed?;
        match way.chain() {
            Some(key) => self.row_added(key, record.offset, now),
            None if rows == 1 => self.at(now + limits.linger, Timer::Seal(way, id)),
            None => {}
        }
        if rows >= limits.rows || body >= limits.body_bytes {
            self.seal(way);
            self.filled.insert(way, size);
        }
        Ok(())
    }

    pub(super) fn encode_again(&mut self, batch: &Batch, past: Past, now: Instant) {
        let mut fresh: super::Map<SlotId, Batch> = super::Map::default();
        let anew = Past { replans: 0, ..past };
        for row in batch.rows() {
            let Some(lane) = self.lanes.get(&row.lane) else { continue };
            let place = Place { lane: row.lane, span: row.span };
            let record = batch.record(row);
            let slot = match self.encoder.route(&lane.origin, &record) {
                Route::Row(slot) if past.is_doubtful || !self.encoder.is_staged(slot) => slot,
                Route::Wait(need) => {
                    self.wait(need, place, &record, anew);
                    continue;
                }
                other => {
                    self.place(place, &record, other, now);
                    continue;
                }
            };
            let Some(way) = self.way(slot, place, &record, past) else { continue };
            let Some(lane) = self.lanes.get_mut(&row.lane) else { continue };
            let target = fresh.entry(slot).or_default();
            match push(&mut self.encoder, &lane.origin, target, way, place, &record) {
                Ok(()) => {
                    lane.streams(row.offset);
                    let limits = self.encoder.limits(slot);
                    if target.body_bytes() >= limits.body_bytes
                        || target.rows().len() >= limits.rows
                    {
                        let full = std::mem::take(target);
                        self.charge(full.memory_bytes());
                        self.dispatch(way, full, past);
                    }
                }
                Err(NotEncoded::Wait(need)) => self.wait(need, place, &record, anew),
                Err(NotEncoded::Bad(reason)) => self.refuse(place, &record, *reason, now),
            }
        }
        for (slot, batch) in fresh {
            self.charge(batch.memory_bytes());
            self.dispatch(Way::Streamed(slot), batch, past);
        }
    }
}

/// When an open batch of this way is sealed. One that is staged waits for its chain's next job.
fn batch_limits<E: Encoder>(
    encoder: &E,
    chains: &super::Map<ChainKey, Chain>,
    way: Way,
) -> BatchLimits {
    let limits = encoder.limits(way.slot());
    let Some(key) = way.chain() else { return limits };
    let object_bytes = encoder.staging(way.slot()).map(|staging| staging.object_bytes);
    let rows_max = chains.get(&key).map_or(u64::MAX, |chain| chain.rows_max);
    BatchLimits {
        body_bytes: object_bytes.unwrap_or(limits.body_bytes),
        rows: usize::try_from(rows_max).unwrap_or(usize::MAX),
        ..limits
    }
}

/// Encodes a record to the end of `batch`.
fn push<E: Encoder>(
    encoder: &mut E,
    origin: &E::Origin,
    batch: &mut Batch,
    way: Way,
    place: Place,
    record: &Record<'_>,
) -> Result<(), NotEncoded> {
    match way {
        Way::Staged(slot, _, format) => batch.push(place.lane, place.span, record, |body| {
            encoder.encode_staged((slot, format), origin, record, body)
        }),
        Way::Streamed(slot) => {
            if batch.body_bytes() == 0 {
                encoder.open_body(slot, batch.body_mut());
            }
            batch.push(place.lane, place.span, record, |body| {
                encoder.encode(slot, origin, record, body)
            })
        }
    }
}
