//! Buffers of acknowledged batches, kept for batches that grow.
//!
//! Megabytes of fresh memory for every batch cost more in page faults than many a row costs to
//! encode. Small batches never come here, so that hundreds of tables with few rows each do not hold
//! a full buffer apiece.

use super::Batch;

/// A batch whose body outgrows this goes on in a spare.
pub const GROWN_BYTES: usize = 64 * 1024;

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
        if batch.body.capacity() > GROWN_BYTES && self.bytes + bytes <= self.bytes_max {
            self.bytes += bytes;
            self.free.push(batch);
        }
    }

    /// Moves `batch` into larger buffers if it has outgrown [`GROWN_BYTES`] and there are some.
    pub fn enlarge(&mut self, batch: &mut Batch) {
        if batch.body.len() <= GROWN_BYTES {
            return;
        }
        let larger = |spare: &mut Batch| spare.body.capacity() > batch.body.capacity();
        if let Some(spare) = self.free.pop_if(larger) {
            self.bytes -= spare.memory_bytes();
            batch.move_into(spare);
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
        let mut batch = grown(GROWN_BYTES);
        spares.enlarge(&mut batch);
        assert_eq!(spares.memory_bytes(), bytes, "it has not outgrown its own");
        add(&mut batch, 2, b"!");
        spares.enlarge(&mut batch);
        assert_eq!(spares.memory_bytes(), 0);
        assert!(batch.memory_bytes() >= bytes);
        let offsets: Vec<_> = batch.rows().iter().map(|row| row.offset).collect();
        assert_eq!(offsets, [1, 2]);
        assert_eq!(batch.record(&batch.rows()[1]).value, Some(&b"value"[..]));
        assert!(batch.take_body().ends_with(b"x!"));
    }

    #[test]
    fn small_buffers_and_more_than_the_bound_are_not_kept() {
        let mut spares = Spares::new(3 << 20);
        spares.keep(acknowledged(grown(GROWN_BYTES)));
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
