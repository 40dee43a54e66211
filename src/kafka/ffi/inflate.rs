//! Stands between librdkafka and its decompressors, by the linker's `--wrap` (`build.rs`): each batch is measured, and
//! takes its memory from one budget, before it is decompressed. One that does not fit becomes librdkafka's own error
//! "bad compression" of its partition, as a damaged one does.
//!
//! librdkafka (2.12.1, `rdkafka_msgset_reader.c`) reads an answer partition by partition on the broker's thread:
//! `rd_kafka_msgset_parse` decompresses the batches of one, wraps each content in a buffer by
//! `rd_kafka_buf_new_shadow`, and hands all records over at its end. The records keep the buffer; the last one frees it.

use std::{
    cell::Cell,
    ffi::{c_char, c_int, c_void},
    ptr, slice,
};

use rdkafka_sys::rd_kafka_resp_err_t as Answer;

use crate::kafka::inflate::{self, Budget, Codec, Refusal};

/// What decompressed batches take. One for the process: librdkafka's functions know no client.
pub static BUDGET: Budget = Budget::new(u64::MAX / 2);

thread_local! {
    /// What the present partition's batches have taken on this thread.
    static OWN: Cell<u64> = const { Cell::new(0) };
    /// The content just decompressed, and what it took; its buffer is made next.
    static FRESH: Cell<Option<(usize, u64)>> = const { Cell::new(None) };
}

type FreeFunction = Option<unsafe extern "C" fn(*mut c_void)>;

unsafe extern "C" {
    fn __real_rd_kafka_msgset_parse(
        answer: *mut c_void,
        request: *mut c_void,
        partition: *mut c_void,
        aborted: *mut c_void,
        version: *const c_void,
    ) -> Answer;
    fn __real_rd_kafka_buf_new_shadow(
        content: *const c_void,
        len: usize,
        free: FreeFunction,
    ) -> *mut c_void;
    fn __real_rd_kafka_lz4_decompress(
        broker: *mut c_void,
        proper_checksum: c_int,
        offset: i64,
        batch: *mut c_char,
        len: usize,
        out: *mut *mut c_void,
        out_len: *mut usize,
    ) -> Answer;
    fn __real_rd_kafka_zstd_decompress(
        broker: *mut c_void,
        batch: *mut c_char,
        len: usize,
        out: *mut *mut c_void,
        out_len: *mut usize,
    ) -> Answer;
    fn __real_rd_kafka_snappy_java_uncompress(
        batch: *const c_char,
        len: usize,
        out_len: *mut usize,
        error: *mut c_char,
        error_len: usize,
    ) -> *mut c_char;
    fn __real_rd_kafka_snappy_uncompressed_length(
        batch: *const c_char,
        len: usize,
        out_len: *mut usize,
    ) -> bool;
    fn __real_rd_kafka_snappy_uncompress(
        batch: *const c_char,
        len: usize,
        out: *mut c_char,
    ) -> c_int;
    /// libzstd's: the content's size by the frames' headers, or a bound by the number of blocks.
    fn ZSTD_decompressBound(batch: *const c_void, len: usize) -> u64;
}

/// Memory that was taken for a batch that is not decompressed yet. Given back on drop.
///
/// It ends before the call that it is made in does, and so before the batch. That is no reference: librdkafka corrects
/// the header of old LZ4 batches in place.
struct Taken {
    batch: (*const c_void, usize),
    bytes: u64,
}

impl Taken {
    /// Takes memory for a content of `bytes`; a refusal is remembered.
    fn new(batch: &[u8], bytes: u64) -> Option<Self> {
        // Of a batch that failed after it was decompressed nothing came.
        if let Some((_, left)) = FRESH.take() {
            BUDGET.release(left);
        }
        let mut taken = Self { batch: (batch.as_ptr().cast(), batch.len()), bytes: 0 };
        taken.grow(bytes).then_some(taken)
    }

    fn grow(&mut self, more: u64) -> bool {
        match BUDGET.take(more, OWN.get().saturating_add(self.bytes)) {
            Ok(()) => {
                self.bytes += more;
                true
            }
            Err(refusal) => {
                let refusal = match refusal {
                    Refusal::TooLarge(bytes) => Refusal::TooLarge(bytes + self.bytes),
                    Refusal::NoMemory if self.bytes + more > BUDGET.limit() => {
                        Refusal::TooLarge(self.bytes + more)
                    }
                    Refusal::NoMemory => refusal,
                };
                let (batch, len) = self.batch;
                // SAFETY: see the type; nobody changes the batch meanwhile.
                BUDGET.refused(unsafe { bytes(batch, len) }, refusal);
                false
            }
        }
    }

    /// The content stands at `address`. Whether its records have room beside it; if not, the caller frees it.
    fn keep(mut self, address: *const c_void, content: &[u8]) -> bool {
        let weight = inflate::weight(content);
        if weight > self.bytes && !self.grow(weight - self.bytes) {
            return false;
        }
        BUDGET.release(self.bytes - weight);
        self.bytes = 0;
        OWN.set(OWN.get().saturating_add(weight));
        FRESH.set(Some((address.addr(), weight)));
        true
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.bytes > 0 {
            BUDGET.release(self.bytes);
        }
    }
}

/// # Safety
///
/// `data` points to `len` bytes that live and do not change for `'a`.
unsafe fn bytes<'a>(data: *const c_void, len: usize) -> &'a [u8] {
    if data.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(data.cast(), len) }
}

/// To which size a batch is measured that is too large: an operator is told what to set.
fn measured_most() -> u64 {
    BUDGET.limit().saturating_mul(4)
}

/// Takes the memory for a batch of this codec.
fn take(codec: Codec, batch: &[u8]) -> Option<Taken> {
    if BUDGET.is_known_too_large(batch) {
        return None;
    }
    let content = inflate::content_bytes(codec, batch, measured_most())?;
    Taken::new(batch, content)
}

/// # Safety
///
/// As of the function that it stands for; so in all that follow.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_msgset_parse(
    answer: *mut c_void,
    request: *mut c_void,
    partition: *mut c_void,
    aborted: *mut c_void,
    version: *const c_void,
) -> Answer {
    OWN.set(0);
    // SAFETY: the arguments are passed on.
    unsafe { __real_rd_kafka_msgset_parse(answer, request, partition, aborted, version) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_buf_new_shadow(
    content: *const c_void,
    len: usize,
    free: FreeFunction,
) -> *mut c_void {
    let mut free = free;
    if let Some((address, weight)) = FRESH.take() {
        if address == content.addr() && free.is_some() {
            BUDGET.hold(address, weight);
            free = Some(freed);
        } else {
            BUDGET.release(weight);
        }
    }
    // SAFETY: the arguments are passed on, with a function that frees as librdkafka's own does.
    unsafe { __real_rd_kafka_buf_new_shadow(content, len, free) }
}

/// Frees a content, on whatever thread its last record ends.
unsafe extern "C" fn freed(content: *mut c_void) {
    BUDGET.free(content.addr());
    // SAFETY: librdkafka allocated it by `malloc`, and calls this once.
    unsafe { libc::free(content) }
}

/// Takes the place of librdkafka's own, which would measure the batch once more.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_gz_decompress(
    batch: *const c_void,
    len: c_int,
    out_len: *mut u64,
) -> *mut c_void {
    // SAFETY: the caller lends the batch.
    let input = unsafe { bytes(batch, usize::try_from(len).unwrap_or(0)) };
    let Some(taken) = take(Codec::Gzip, input) else { return ptr::null_mut() };
    let size = usize::try_from(taken.bytes).unwrap_or(0);
    // SAFETY: the content is `size` bytes long, and one more, as librdkafka's own is.
    unsafe {
        let content = libc::calloc(1, size + 1);
        if content.is_null() {
            return content;
        }
        let out = slice::from_raw_parts_mut(content.cast::<u8>(), size);
        if !inflate::gunzip(input, out) || !taken.keep(content, out) {
            libc::free(content);
            return ptr::null_mut();
        }
        *out_len = size as u64;
        content
    }
}

/// What the decompressors come to that tell their content by pointers.
///
/// # Safety
///
/// If `answer` is no error, `out` and `out_len` tell the content.
unsafe fn keep(taken: Taken, answer: Answer, out: *mut *mut c_void, out_len: *mut usize) -> Answer {
    if answer != Answer::RD_KAFKA_RESP_ERR_NO_ERROR {
        return answer;
    }
    // SAFETY: as the caller promises; the content was allocated by `malloc`.
    unsafe {
        if taken.keep(*out, bytes(*out, *out_len)) {
            return answer;
        }
        libc::free(*out);
        *out = ptr::null_mut();
    }
    Answer::RD_KAFKA_RESP_ERR__BAD_COMPRESSION
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_lz4_decompress(
    broker: *mut c_void,
    proper_checksum: c_int,
    offset: i64,
    batch: *mut c_char,
    len: usize,
    out: *mut *mut c_void,
    out_len: *mut usize,
) -> Answer {
    // SAFETY: the caller lends the batch.
    let taken = take(Codec::Lz4, unsafe { bytes(batch.cast(), len) });
    let Some(taken) = taken else { return Answer::RD_KAFKA_RESP_ERR__BAD_COMPRESSION };
    // SAFETY: the arguments are passed on.
    unsafe {
        let answer = __real_rd_kafka_lz4_decompress(
            broker,
            proper_checksum,
            offset,
            batch,
            len,
            out,
            out_len,
        );
        keep(taken, answer, out, out_len)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_zstd_decompress(
    broker: *mut c_void,
    batch: *mut c_char,
    len: usize,
    out: *mut *mut c_void,
    out_len: *mut usize,
) -> Answer {
    // SAFETY: the caller lends the batch, which both only read.
    let (input, bound) =
        unsafe { (bytes(batch.cast(), len), ZSTD_decompressBound(batch.cast(), len)) };
    // A bound by blocks may be far off; and it is large where the batch is no zstd.
    let content = match bound > BUDGET.limit() {
        true if BUDGET.is_known_too_large(input) => None,
        true => inflate::zstd_bytes(input, measured_most()),
        false => Some(bound),
    };
    let taken = content.and_then(|content| Taken::new(input, content));
    let Some(taken) = taken else { return Answer::RD_KAFKA_RESP_ERR__BAD_COMPRESSION };
    // SAFETY: the arguments are passed on.
    unsafe {
        let answer = __real_rd_kafka_zstd_decompress(broker, batch, len, out, out_len);
        keep(taken, answer, out, out_len)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_snappy_java_uncompress(
    batch: *const c_char,
    len: usize,
    out_len: *mut usize,
    error: *mut c_char,
    error_len: usize,
) -> *mut c_char {
    if !error.is_null() && error_len > 0 {
        // SAFETY: the caller lends a text of this length, which it reads where there is no content.
        unsafe { *error = 0 };
    }
    // SAFETY: the caller lends the batch.
    let taken = take(Codec::SnappyBlocks, unsafe { bytes(batch.cast(), len) });
    let Some(taken) = taken else { return ptr::null_mut() };
    // SAFETY: the arguments are passed on; what comes back is `out_len` bytes, or null.
    unsafe {
        let content = __real_rd_kafka_snappy_java_uncompress(batch, len, out_len, error, error_len);
        let address: *mut c_void = content.cast();
        if !address.is_null() && !taken.keep(address, bytes(address, *out_len)) {
            libc::free(address);
            return ptr::null_mut();
        }
        content
    }
}

/// librdkafka allocates what this says, up to 4 GiB, and ends the process where it cannot.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_snappy_uncompressed_length(
    batch: *const c_char,
    len: usize,
    out_len: *mut usize,
) -> bool {
    // SAFETY: the arguments are passed on; `out_len` tells the size where the answer is true.
    unsafe {
        let is_snappy = __real_rd_kafka_snappy_uncompressed_length(batch, len, out_len);
        let is_small = is_snappy && *out_len as u64 <= BUDGET.limit();
        if is_snappy && !is_small {
            BUDGET.refused(bytes(batch.cast(), len), Refusal::TooLarge(*out_len as u64));
        }
        is_small
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_snappy_uncompress(
    batch: *const c_char,
    len: usize,
    out: *mut c_char,
) -> c_int {
    // SAFETY: the caller lends the batch.
    let input = unsafe { bytes(batch.cast(), len) };
    let Some(taken) = take(Codec::Snappy, input) else { return -libc::ENOMEM };
    // Before it keeps what it took: the caller frees `out` at an error.
    let size = usize::try_from(taken.bytes).unwrap_or(0);
    // SAFETY: the arguments are passed on; `out` has room for as many bytes as the batch says, which are
    // written where the answer is 0.
    unsafe {
        let answer = __real_rd_kafka_snappy_uncompress(batch, len, out);
        if answer == 0 && !taken.keep(out.cast(), bytes(out.cast(), size)) {
            return -libc::ENOMEM;
        }
        answer
    }
}
