//! Buffers of acknowledged batches, kept for batches that grow.
//!
//! Megabytes of fresh memory for every batch cost more in page faults than many a row costs to
//! encode. Small batches never come here, so that hundreds of tables with few rows each do not hold
//! a full buffer apiece; a table whose last batch was full gets one at once, new if need be.

use super::Batch;

/// A batch that has reached this part of its full size will most likely be full.
const GROWN: usize = 4;
/// Smaller buffers are not worth keeping.
const KEPT_BYTES_MIN: usize = 64 * 1024;

/// Empty batches with grown buffers, bounded by memory.
#[derive(Debug)]
pub struct Spares {
    free: Vec<Batch>,
    bytes: usize,
    bytes_max: usize,
}

impl Spares {
    /// None yet; at most `bytes_max` of memory later.
    pub fn new(bytes_max: usize) -> Self {
        Self { free: Vec::new(), bytes: 0, bytes_max }
    }

    /// Memory held.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps the buffers of an emptied batch, if they have grown and there is room.
    pub fn keep(&mut self, batch: Batch) {
        let bytes = batch.memory_bytes();
        if batch.body.capacity() >= KEPT_BYTES_MIN && self.bytes + bytes <= self.bytes_max {
            self.bytes += bytes;
            self.free.push(batch);
        }
    }

    /// Gives a batch that will most likely be full buffers with room for `body_bytes`, if any were
    /// kept; whether there were.
    pub fn replace(&mut self, batch: &mut Batch, body_bytes: usize) -> bool {
        let fits = |spare: &Batch| spare.body.capacity() >= body_bytes;
        // The one that was written last is the likeliest to be in the processor's cache.
        let Some(found) = self.free.iter().rposition(fits) else { return false };
        let spare = self.free.swap_remove(found);
        self.bytes -= spare.memory_bytes();
        batch.move_into(spare);
        true
    }

    /// Gives a batch that has reached a quarter of `body_bytes` room for all of it: in buffers that
    /// were kept, if there are any as large, else in new ones.
    pub fn enlarge(&mut self, batch: &mut Batch, body_bytes: usize) {
        if batch.body.len() < body_bytes / GROWN || batch.body.capacity() >= body_bytes {
            return;
        }
        if !self.replace(batch, body_bytes) {
            batch.make_room(body_bytes, batch.size());
        }
    }

    /// Gives the memory back.
    pub fn clear(&mut self) {
        self.free = Vec::new();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch::{LaneSlot, SpanId},
        record::{Headers, Record},
    };

    fn grown(body_bytes: usize) -> Batch {
        let mut batch = Batch::default();
        add(&mut batch, 1, &vec![b'x'; body_bytes]);
        batch
    }

    fn add(batch: &mut Batch, offset: i64, row: &[u8]) {
        let record = Record {
            offset,
            timestamp_ms: None,
            key: None,
            value: Some(b"value"),
            headers: Headers::default(),
        };
        let written = batch.push(LaneSlot(0), SpanId(0), &record, |body| {
            body.extend_from_slice(row);
            Ok::<(), ()>(())
        });
        written.unwrap();
    }

    fn acknowledged(mut batch: Batch) -> Batch {
        let body = batch.take_body();
        batch.reclaim(body).unwrap()
    }

    #[test]
    fn a_batch_goes_on_in_a_spare_with_what_it_held() {
        let mut spares = Spares::new(10 << 20);
        let spare = acknowledged(grown(1 << 20));
        let bytes = spare.memory_bytes();
        spares.keep(spare);
        assert_eq!(spares.memory_bytes(), bytes);
        let mut batch = grown((1 << 18) - 1);
        spares.enlarge(&mut batch, 1 << 20);
        assert_eq!(spares.memory_bytes(), bytes, "it may stay small");
        add(&mut batch, 2, b"!");
        spares.enlarge(&mut batch, 1 << 20);
        assert_eq!(spares.memory_bytes(), 0);
        assert!(batch.memory_bytes() >= bytes);
        let offsets: Vec<_> = batch.rows().iter().map(|row| row.offset).collect();
        assert_eq!(offsets, [1, 2]);
        assert_eq!(batch.record(&batch.rows()[1]).value, Some(&b"value"[..]));
        assert!(batch.take_body().ends_with(b"x!"));
    }

    #[test]
    fn without_a_spare_room_is_made_once() {
        let mut spares = Spares::new(10 << 20);
        let mut batch = Batch::default();
        (0..4).for_each(|offset| add(&mut batch, offset, &[b'y'; 1 << 16]));
        spares.enlarge(&mut batch, 1 << 20);
        let memory = batch.memory_bytes();
        assert!(((1 << 20)..(5 << 18)).contains(&memory), "{memory}");
        (4..16).for_each(|offset| add(&mut batch, offset, &[b'y'; 1 << 16]));
        assert_eq!(batch.memory_bytes(), memory);
    }

    #[test]
    fn small_buffers_and_more_than_the_bound_are_not_kept() {
        let mut spares = Spares::new(3 << 20);
        spares.keep(acknowledged(grown(KEPT_BYTES_MIN - 1)));
        assert_eq!(spares.memory_bytes(), 0);
        (0..5).for_each(|_| spares.keep(acknowledged(grown(1 << 20))));
        assert!((1 << 20..=3 << 20).contains(&spares.memory_bytes()));
        spares.clear();
        assert_eq!(spares.memory_bytes(), 0);
    }

    #[test]
    fn a_body_that_is_still_on_the_wire_is_not_taken_back() {
        let mut batch = grown(1 << 20);
        let before = batch.memory_bytes();
        let body = batch.take_body();
        assert_eq!(batch.memory_bytes(), before, "its memory counts until it is given back");
        let on_the_wire = body.clone();
        assert!(batch.reclaim(body).is_none());
        assert_eq!(on_the_wire.len(), 1 << 20);
    }
}
