//! What decompressed batches take, and may take.
//!
//! A batch of 300 KB may hold 300 MB, and librdkafka decompresses every batch of an answer before it hands over
//! the first record. So each is measured before it is decompressed, and all that are in memory share one budget;
//! `kafka::ffi::inflate` puts this between librdkafka and its decompressors.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read as _},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What librdkafka allocates for a record beside its bytes (2.12.1: 304 bytes of `rd_kafka_op_t`, and malloc's own).
const RECORD_BYTES: u64 = 320;
/// How long a batch waits for others to be worked off.
const WAIT: Duration = Duration::from_secs(2);
/// Refusals that are remembered until the poll loop asks for them.
const REFUSALS_MAX: usize = 256;

/// A codec of Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// gzip.
    Gzip,
    /// LZ4 frames.
    Lz4,
    /// One Snappy block, as librdkafka writes it.
    Snappy,
    /// Snappy blocks, each behind its length, as the JVM's producers write them; without their header.
    SnappyBlocks,
}

/// How many bytes the content of a batch is, or a little more; `None` where it is not of the codec. What is found to
/// be larger than `most` is not measured to its end.
pub fn content_bytes(codec: Codec, batch: &[u8], most: u64) -> Option<u64> {
    match codec {
        Codec::Gzip => count(flate2::bufread::MultiGzDecoder::new(batch), most),
        Codec::Lz4 => lz4_bytes(batch),
        Codec::Snappy => snap::raw::decompress_len(batch).ok().map(|bytes| bytes as u64),
        Codec::SnappyBlocks => snappy_blocks_bytes(batch),
    }
}

/// How many bytes the zstd batch holds; for one whose headers tell nothing useful.
pub fn zstd_bytes(batch: &[u8], most: u64) -> Option<u64> {
    count(zstd::stream::read::Decoder::with_buffer(batch).ok()?, most)
}

/// Decompresses a batch of gzip whose content is as long as `out`.
pub fn gunzip(batch: &[u8], out: &mut [u8]) -> bool {
    flate2::bufread::MultiGzDecoder::new(batch).read_exact(out).is_ok()
}

fn count(content: impl io::Read, most: u64) -> Option<u64> {
    io::copy(&mut content.take(most.saturating_add(1)), &mut io::sink()).ok()
}

/// The sum over the frame's blocks (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>): a block holds as
/// much as the frame says at most, and at most 255 times its own size.
fn lz4_bytes(frame: &[u8]) -> Option<u64> {
    const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
    let (magic, rest) = frame.split_first_chunk::<4>()?;
    let [flags, sizes] = *rest.first_chunk::<2>()?;
    let block_max: u64 = match sizes >> 4 & 7 {
        4 => 64 << 10,
        5 => 256 << 10,
        6 => 1 << 20,
        7 => 4 << 20,
        _ => return None,
    };
    let has = |bit: u8| usize::from(flags >> bit & 1);
    // The content's size, the dictionary's id, the header's checksum.
    let mut rest = rest.get(2 + 8 * has(3) + 4 * has(0) + 1..).filter(|_| *magic == MAGIC)?;
    let mut bytes: u64 = 0;
    while let Some((head, block)) = rest.split_first_chunk::<4>() {
        let head = u32::from_le_bytes(*head);
        let len = head & 0x7fff_ffff;
        if len == 0 {
            break;
        }
        let is_stored = head != len;
        let most = if is_stored { u64::from(len) } else { block_max.min(u64::from(len) * 255) };
        bytes = bytes.saturating_add(most);
        rest = block.get(usize::try_from(len).ok()? + 4 * has(4)..)?;
    }
    Some(bytes)
}

fn snappy_blocks_bytes(mut rest: &[u8]) -> Option<u64> {
    let mut bytes: u64 = 0;
    while let Some((len, blocks)) = rest.split_first_chunk::<4>() {
        let (block, after) = blocks.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        bytes = bytes.saturating_add(snap::raw::decompress_len(block).ok()? as u64);
        rest = after;
    }
    Some(bytes)
}

/// What the decompressed records will take: their bytes, and what librdkafka allocates for each. A record begins
/// with its length, a zigzag varint (<https://kafka.apache.org/documentation/#recordbatch>).
pub fn weight(content: &[u8]) -> u64 {
    let (mut records, mut rest) = (0, content);
    while let Some((len, after)) = varint(rest) {
        records += 1;
        let Some(next) = after.get(len..) else { break };
        rest = next;
    }
    content.len() as u64 + records * RECORD_BYTES
}

fn varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value: u64 = 0;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            // An odd number is negative: no length.
            let len = (value & 1 == 0).then_some(value >> 1)?;
            return Some((usize::try_from(len).ok()?, bytes.get(index + 1..)?));
        }
    }
    None
}

/// Why a batch was not decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It takes so many bytes at least, more than all batches may take together.
    TooLarge(u64),
    /// Others take the memory.
    NoMemory,
}

#[derive(Debug)]
struct State {
    limit: u64,
    taken: u64,
    /// By address, the weight of each decompressed batch in memory.
    batches: BTreeMap<usize, u64>,
    refusals: VecDeque<Refused>,
}

/// A batch that was not decompressed.
#[derive(Debug)]
struct Refused {
    /// Its compressed size, which librdkafka's error names.
    size: usize,
    crc: u32,
    refusal: Refusal,
}

/// The memory for decompressed batches.
#[derive(Debug)]
pub struct Budget {
    state: Mutex<State>,
    released: Condvar,
}

impl Budget {
    /// Room for `limit` bytes.
    pub const fn new(limit: u64) -> Self {
        let state = State { limit, taken: 0, batches: BTreeMap::new(), refusals: VecDeque::new() };
        Self { state: Mutex::new(state), released: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the room.
    pub fn set_limit(&self, limit: u64) {
        self.state().limit = limit;
    }

    /// The room.
    pub fn limit(&self) -> u64 {
        self.state().limit
    }

    /// What is taken.
    pub fn taken(&self) -> u64 {
        self.state().taken
    }

    /// Takes `bytes` once they are there. `own` is what the caller itself has taken and can release only after this:
    /// it is not waited for.
    ///
    /// # Errors
    ///
    /// The refusal, if there can be no room, or was none for a while.
    pub fn take(&self, bytes: u64, own: u64) -> Result<(), Refusal> {
        let until = Instant::now() + WAIT;
        let mut state = self.state();
        loop {
            if bytes > state.limit {
                return Err(Refusal::TooLarge(bytes));
            }
            if state.taken.saturating_add(bytes) <= state.limit {
                state.taken += bytes;
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || own.saturating_add(bytes) > state.limit {
                return Err(Refusal::NoMemory);
            }
            let waited = self.released.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives `bytes` back.
    pub fn release(&self, bytes: u64) {
        let mut state = self.state();
        state.taken = state.taken.saturating_sub(bytes);
        self.released.notify_all();
    }

    /// The batch at `address` has taken `bytes`.
    pub fn hold(&self, address: usize, bytes: u64) {
        self.state().batches.insert(address, bytes);
    }

    /// The batch at `address` is gone.
    pub fn free(&self, address: usize) {
        let bytes = self.state().batches.remove(&address);
        self.release(bytes.unwrap_or_default());
    }

    /// Remembers why a batch was refused.
    pub fn refused(&self, batch: &[u8], refusal: Refusal) {
        let (size, crc) = (batch.len(), crc32fast::hash(batch));
        let mut state = self.state();
        state.refusals.retain(|known| known.size != size);
        if state.refusals.len() >= REFUSALS_MAX {
            state.refusals.pop_front();
        }
        state.refusals.push_back(Refused { size, crc, refusal });
    }

    /// Whether this very batch was too large before: it is not measured again at each try.
    pub fn is_known_too_large(&self, batch: &[u8]) -> bool {
        let state = self.state();
        let known = state.refusals.iter().find(|known| known.size == batch.len());
        known.is_some_and(|known| {
            matches!(known.refusal, Refusal::TooLarge(bytes) if bytes > state.limit)
                && known.crc == crc32fast::hash(batch)
        })
    }

    /// Why the batch that librdkafka's error is about was refused, if it was.
    pub fn refusal(&self, error: &str) -> Option<Refusal> {
        let size: usize = error
            .split_once(" bytes failed")
            .and_then(|(before, _)| before.rsplit(' ').next()?.parse().ok())?;
        let state = self.state();
        state.refusals.iter().find(|known| known.size == size).map(|known| known.refusal)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A batch's content: `count` records of `bytes` bytes each.
    fn content(count: usize, bytes: u8) -> Vec<u8> {
        let record = [&[bytes * 2][..], &vec![7; usize::from(bytes)]].concat();
        record.repeat(count)
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn snappy(content: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(content).unwrap()
    }

    #[test]
    fn the_content_is_measured_before_it_is_decompressed() {
        let content = content(100_000, 30);
        let bytes = Some(content.len() as u64);
        let most = u64::MAX - 1;
        assert_eq!(content_bytes(Codec::Gzip, &gzip(&content), most), bytes);
        assert_eq!(content_bytes(Codec::Snappy, &snappy(&content), most), bytes);
        let blocks = content.chunks(32 << 10).flat_map(|chunk| {
            let block = snappy(chunk);
            [&(block.len() as u32).to_be_bytes()[..], &block].concat()
        });
        let blocks: Vec<u8> = blocks.collect();
        assert_eq!(content_bytes(Codec::SnappyBlocks, &blocks, most), bytes);
        assert_eq!(zstd_bytes(&zstd::encode_all(&content[..], 3).unwrap(), most), bytes);
    }

    #[test]
    fn gzip_is_decompressed_into_a_buffer_of_its_size() {
        let content = content(1_000, 30);
        let (batch, mut out) = (gzip(&content), vec![0; content.len()]);
        assert!(gunzip(&batch, &mut out));
        assert_eq!(out, content);
        let parts = [gzip(b"two"), gzip(b" parts")].concat();
        assert_eq!(content_bytes(Codec::Gzip, &parts, 100), Some(9));
        assert!(gunzip(&parts, &mut out[..9]));
        assert_eq!(&out[..9], b"two parts");
        assert!(!gunzip(&batch[..batch.len() / 2], &mut out), "cut");
    }

    #[test]
    fn an_lz4_frame_is_measured_by_its_blocks() {
        let block = |head: u32, len: usize| [&head.to_le_bytes()[..], &vec![0; len]].concat();
        let header = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
        let frame = [
            &header[..],
            &block(100, 100),                   // at most 255 times
            &block(10_000, 10_000),             // at most 64 KB
            &block(0x8000_0000 | 5_000, 5_000), // stored
            &block(0, 0),
        ]
        .concat();
        assert_eq!(lz4_bytes(&frame), Some(25_500 + 65_536 + 5_000));
        assert_eq!(lz4_bytes(&frame[..200]), None, "cut");
        assert_eq!(lz4_bytes(b"no frame at all"), None);
    }

    #[test]
    fn a_bomb_is_not_measured_to_its_end() {
        let zeros = vec![0; 10_000_000];
        assert_eq!(content_bytes(Codec::Gzip, &gzip(&zeros), 1_000), Some(1_001));
        assert_eq!(zstd_bytes(&zstd::encode_all(&zeros[..], 3).unwrap(), 1_000), Some(1_001));
        assert_eq!(content_bytes(Codec::Gzip, b"no gzip", 1_000), None);
        assert_eq!(content_bytes(Codec::SnappyBlocks, &[0, 0, 0, 9, 1], 1_000), None);
    }

    #[test]
    fn many_small_records_weigh_more_than_their_bytes() {
        assert_eq!(weight(&content(1_000, 10)), 1_000 * (11 + RECORD_BYTES));
        assert_eq!(weight(&[]), 0);
        assert_eq!(weight(&[3, 0]), 2, "a negative length begins no record");
    }

    #[test]
    fn what_exceeds_the_limit_alone_is_refused_at_once_and_what_does_not_fit_now_after_a_wait() {
        let budget = Budget::new(100);
        assert_eq!(budget.take(101, 0), Err(Refusal::TooLarge(101)));
        assert_eq!(budget.take(60, 0), Ok(()));
        let began = Instant::now();
        assert_eq!(budget.take(60, 60), Err(Refusal::NoMemory));
        assert!(began.elapsed() < WAIT / 2, "nobody could release anything");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.take(60, 0));
            std::thread::sleep(Duration::from_millis(50));
            budget.release(60);
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
        assert_eq!(budget.taken(), 60);
    }

    #[test]
    fn a_batch_gives_back_what_it_took() {
        let budget = Budget::new(100);
        budget.take(40, 0).unwrap();
        budget.hold(7, 40);
        budget.free(8);
        assert_eq!(budget.taken(), 40);
        budget.free(7);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn the_refusal_is_found_by_the_size_that_librdkafkas_error_names() {
        let budget = Budget::new(100);
        budget.refused(&[1; 294_283], Refusal::TooLarge(300));
        let error = "Decompression (codec 0x4) of message at 355267 of 294283 bytes failed: Local: \
                     Invalid compressed data";
        assert_eq!(budget.refusal(error), Some(Refusal::TooLarge(300)));
        assert_eq!(budget.refusal("MessageSet at offset 7 (294283 bytes) failed"), None);
        for size in 0..2 * REFUSALS_MAX {
            budget.refused(&vec![0; size], Refusal::NoMemory);
        }
        assert_eq!(budget.refusal(error), None, "bounded");
    }

    #[test]
    fn a_batch_that_is_too_large_is_known_again_until_the_limit_lets_it_in() {
        let budget = Budget::new(100);
        budget.refused(&[1; 10], Refusal::TooLarge(300));
        budget.refused(&[1; 11], Refusal::NoMemory);
        assert!(budget.is_known_too_large(&[1; 10]));
        assert!(!budget.is_known_too_large(&[2; 10]), "another one of its size");
        assert!(!budget.is_known_too_large(&[1; 11]), "it may fit the next time");
        budget.set_limit(300);
        assert!(!budget.is_known_too_large(&[1; 10]));
    }
}
