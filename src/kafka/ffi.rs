//! The few calls into librdkafka for which the `rdkafka` crate has no safe wrapper: batch
//! consumption from one queue, per-lane results of a commit, metadata that may not be UTF-8, and
//! topics' ids.
//!
//! The only module of the crate, with those inside it, that has `unsafe` in it. What makes it sound, in one place:
//!
//! - every raw pointer taken from a client lives in a value that also holds an `Arc` of that client,
//!   so the client is destroyed last;
//! - a message is owned by exactly one [`RawMessages`] and destroyed exactly once, in its `Drop`;
//! - librdkafka's own functions are thread-safe; messages are not, and [`RawMessages`] is `Send` but
//!   not `Sync`.

#![expect(unsafe_code, reason = "the FFI module: see the module's documentation")]

use std::{
    ffi::{CStr, CString, c_char, c_void},
    ptr::{self, NonNull},
    slice,
    sync::Arc,
    time::Duration,
};

use rdkafka::{TopicPartitionList, consumer::BaseConsumer, error::RDKafkaErrorCode};
use rdkafka_sys as sys;

use super::context::Context;

pub mod describe;
pub mod inflate;

use crate::{
    record::{Headers, Record, TopicPartition, push_header},
    source::Messages,
};

/// The consumer client, shared by everything that points into it.
pub type Client = BaseConsumer<Context>;

fn native(client: &Client) -> *mut sys::rd_kafka_t {
    use rdkafka::consumer::Consumer as _;
    client.client().native_ptr()
}

/// A librdkafka queue of one client.
#[derive(Debug)]
struct Queue(NonNull<sys::rd_kafka_queue_t>);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a function that hands out a reference of its own, and is
        // destroyed only here.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// The queue to which every assigned partition's queue is forwarded, and which is read in batches.
///
/// Batches cannot be read from the consumer's own queue: that would swallow the rebalance events
/// which the `rdkafka` crate serves in `BaseConsumer::poll` (seen: the assignment stays empty).
pub struct BatchQueue {
    own: Queue,
    events: Option<Queue>,
    slots: Vec<*mut sys::rd_kafka_message_t>,
    // Last: the queues are destroyed before the client may be.
    client: Arc<Client>,
}

// SAFETY: librdkafka's queues may be used from any thread; `slots` holds null pointers between
// calls.
unsafe impl Send for BatchQueue {}

impl std::fmt::Debug for BatchQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchQueue").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

/// One group of messages that stand in one partition, with those that report errors.
#[derive(Debug)]
pub struct PolledLane {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The records before the first error, in offset order; may be empty.
    pub messages: RawMessages,
    /// What the client reported in place of records. What came behind the first is dropped: it is
    /// fetched again.
    pub errors: Vec<MessageError>,
}

/// An error that came in place of a record.
#[derive(Clone, Debug)]
pub struct MessageError {
    /// librdkafka's code.
    pub code: RDKafkaErrorCode,
    /// librdkafka's words.
    pub message: String,
}

impl BatchQueue {
    /// A queue of `client` that gives up to `batch_max` messages a call; `None` if librdkafka cannot
    /// make one.
    pub fn new(client: Arc<Client>, batch_max: usize) -> Option<Self> {
        let rk = native(&client);
        // SAFETY: `rk` is alive as long as `client`.
        let own = Queue(NonNull::new(unsafe { sys::rd_kafka_queue_new(rk) })?);
        // SAFETY: as above; the function returns a new reference or null.
        let events = NonNull::new(unsafe { sys::rd_kafka_queue_get_consumer(rk) }).map(Queue);
        Some(Self { own, events, slots: vec![ptr::null_mut(); batch_max], client })
    }

    /// Sends what is fetched for `lane` to this queue from now on. To be repeated at each
    /// assignment: librdkafka undoes it when a partition is unassigned.
    pub fn attach(&self, lane: &TopicPartition) -> bool {
        let Ok(topic) = CString::new(&*lane.topic) else { return false };
        // SAFETY: the client is alive; `topic` is a C string for the length of the call.
        let queue = unsafe {
            sys::rd_kafka_queue_get_partition(native(&self.client), topic.as_ptr(), lane.partition)
        };
        let Some(queue) = NonNull::new(queue).map(Queue) else { return false };
        // SAFETY: both queues are alive; the source keeps its own reference to the destination.
        unsafe { sys::rd_kafka_queue_forward(queue.0.as_ptr(), self.own.0.as_ptr()) };
        true
    }

    /// How many events wait to be served by `BaseConsumer::poll`.
    pub fn events_pending(&self) -> usize {
        // SAFETY: the queue is alive as long as `self`.
        self.events
            .as_ref()
            .map_or(0, |queue| unsafe { sys::rd_kafka_queue_length(queue.0.as_ptr()) })
    }

    /// Waits up to `timeout` for a full batch and returns what there is, by lane.
    pub fn poll(&mut self, timeout: Duration) -> Vec<PolledLane> {
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: `slots` has room for as many pointers as it is long.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(
                self.own.0.as_ptr(),
                timeout,
                self.slots.as_mut_ptr(),
                self.slots.len(),
            )
        };
        let count = usize::try_from(count).unwrap_or(0);
        let mut groups = Groups::default();
        for slot in self.slots.iter_mut().take(count) {
            if let Some(message) = NonNull::new(std::mem::replace(slot, ptr::null_mut())) {
                groups.push(message, &self.client);
            }
        }
        groups.lanes
    }
}

/// Groups one poll's messages. The topic is found by its handle, which the messages themselves keep
/// alive for as long as this is used.
#[derive(Default)]
struct Groups {
    lanes: Vec<PolledLane>,
    keys: Vec<(*mut sys::rd_kafka_topic_t, i32)>,
    last: usize,
}

impl Groups {
    fn push(&mut self, message: NonNull<sys::rd_kafka_message_t>, client: &Arc<Client>) {
        // SAFETY: librdkafka filled the slot with a valid message that is ours now.
        let head = unsafe { message.as_ref() };
        let key = (head.rkt, head.partition);
        if self.keys.get(self.last) != Some(&key) {
            self.last = self.keys.iter().position(|known| *known == key).unwrap_or_else(|| {
                self.keys.push(key);
                self.lanes.push(PolledLane {
                    topic: topic_name(head.rkt),
                    partition: head.partition,
                    messages: RawMessages { messages: Vec::new(), client: Arc::clone(client) },
                    errors: Vec::new(),
                });
                self.lanes.len() - 1
            });
        }
        let Some(lane) = self.lanes.get_mut(self.last) else { return };
        let is_record = head.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        if is_record && lane.errors.is_empty() {
            lane.messages.messages.push(message);
            return;
        }
        if !is_record {
            lane.errors.push(message_error(head));
        }
        // SAFETY: the message is ours and is not used again.
        unsafe { sys::rd_kafka_message_destroy(message.as_ptr()) };
    }
}

fn topic_name(topic: *mut sys::rd_kafka_topic_t) -> String {
    if topic.is_null() {
        return String::new();
    }
    // SAFETY: the handle is kept alive by the message it was read from; the name is a C string.
    let name = unsafe { sys::rd_kafka_topic_name(topic) };
    to_string(name)
}

fn message_error(head: &sys::rd_kafka_message_t) -> MessageError {
    // SAFETY: `head` is a valid message; the text lives at least as long as it.
    let text = unsafe { sys::rd_kafka_message_errstr(head) };
    MessageError { code: head.err.into(), message: to_string(text) }
}

fn to_string(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and librdkafka's texts end with a NUL.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Records of one lane, in librdkafka's own memory. Destroyed on drop.
pub struct RawMessages {
    messages: Vec<NonNull<sys::rd_kafka_message_t>>,
    client: Arc<Client>,
}

// SAFETY: a message may be read and destroyed on any one thread; it is not `Sync`, because reading
// headers parses them into the message.
unsafe impl Send for RawMessages {}

impl std::fmt::Debug for RawMessages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawMessages").field("len", &self.messages.len()).finish_non_exhaustive()
    }
}

impl Drop for RawMessages {
    fn drop(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: each message is owned by this value alone, and `client` outlives it.
            unsafe { sys::rd_kafka_message_destroy(message.as_ptr()) };
        }
    }
}

impl RawMessages {
    /// The offset of the record at `index`.
    pub fn offset(&self, index: usize) -> Option<i64> {
        // SAFETY: the messages are valid until drop.
        self.messages.get(index).map(|message| unsafe { message.as_ref() }.offset)
    }

    /// Releases the records before `index`.
    pub fn drop_before(&mut self, index: usize) {
        let rest = self.messages.split_off(index.min(self.messages.len()));
        let dropped = std::mem::replace(&mut self.messages, rest);
        drop(Self { messages: dropped, client: Arc::clone(&self.client) });
    }
}

impl Messages for RawMessages {
    fn len(&self) -> usize {
        self.messages.len()
    }

    fn record<'a>(&'a self, index: usize, headers: Option<&'a mut Vec<u8>>) -> Option<Record<'a>> {
        let message = self.messages.get(index)?.as_ptr();
        // SAFETY: the message is valid until drop, and its payloads with it.
        let head: &'a sys::rd_kafka_message_t = unsafe { &*message };
        let headers = headers.map(|headers| {
            headers.clear();
            flatten_headers(message, headers);
            Headers::from_encoded(headers)
        });
        Some(Record {
            offset: head.offset,
            timestamp_ms: timestamp_ms(message),
            // SAFETY: librdkafka's pointer and length describe the key, or null for none.
            key: unsafe { bytes(head.key, head.key_len) },
            // SAFETY: as for the key.
            value: unsafe { bytes(head.payload, head.len) },
            headers: headers.unwrap_or_default(),
        })
    }
}

/// # Safety
///
/// `data` is null, or points to `len` bytes that live and do not change for `'a`.
unsafe fn bytes<'a>(data: *mut c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    (!data.is_null()).then(|| unsafe { slice::from_raw_parts(data.cast::<u8>(), len) })
}

fn timestamp_ms(message: *const sys::rd_kafka_message_t) -> Option<i64> {
    let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the message is valid; the function only reads it and writes `kind`.
    let at = unsafe { sys::rd_kafka_message_timestamp(message, &mut kind) };
    let known = kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    (known && at >= 0).then_some(at)
}

fn flatten_headers(message: *const sys::rd_kafka_message_t, out: &mut Vec<u8>) {
    let mut headers = ptr::null_mut();
    // SAFETY: the message is valid and, being `!Sync`, used by this thread alone.
    let found = unsafe { sys::rd_kafka_message_headers(message, &mut headers) };
    if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
        return;
    }
    for index in 0.. {
        let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
        // SAFETY: `headers` belongs to the message; the out pointers are valid; past the end the
        // function reports an error.
        let got = unsafe {
            sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut len)
        };
        if got != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return;
        }
        // SAFETY: librdkafka's pointer and length describe the value, or null for none.
        let value = unsafe { bytes(value.cast_mut(), len) };
        push_header(out, &to_string(name), value);
    }
}

/// One partition of a list: its name, its offset, its metadata and its error, read without the
/// crate's accessor, which panics on metadata that is not UTF-8.
#[derive(Clone, Debug)]
pub struct Element {
    /// The topic-partition.
    pub lane: TopicPartition,
    /// librdkafka's raw offset: negative values are logical.
    pub offset: i64,
    /// The metadata's bytes; empty for none.
    pub metadata: Vec<u8>,
    /// The partition's own error.
    pub error: Option<RDKafkaErrorCode>,
}

/// The elements of a list.
pub fn elements(list: &TopicPartitionList) -> Vec<Element> {
    // SAFETY: the list owns its elements for the length of the call.
    unsafe { read_elements(list.ptr()) }
}

/// # Safety
///
/// `list` is null or a valid list that does not change during the call.
unsafe fn read_elements(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<Element> {
    // SAFETY: as the caller promises.
    let Some(list) = (unsafe { list.as_ref() }) else { return Vec::new() };
    let count = usize::try_from(list.cnt).unwrap_or(0);
    if count == 0 || list.elems.is_null() {
        return Vec::new();
    }
    // SAFETY: `elems` points to `cnt` elements.
    let elements = unsafe { slice::from_raw_parts(list.elems, count) };
    elements
        .iter()
        .map(|element| Element {
            lane: TopicPartition::new(to_string(element.topic), element.partition),
            offset: element.offset,
            // SAFETY: pointer and size describe the metadata, or null for none.
            metadata: unsafe { bytes(element.metadata, element.metadata_size) }
                .unwrap_or_default()
                .to_vec(),
            error: (element.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR)
                .then(|| element.err.into()),
        })
        .collect()
}

/// What a commit came to: an error of the whole request, and the elements with their own.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// The request's error.
    pub error: Option<RDKafkaErrorCode>,
    /// The partitions of the answer.
    pub elements: Vec<Element>,
}

/// Commits `list` and waits for the answer; blocks for as long as librdkafka does.
pub fn commit(client: &Client, list: &TopicPartitionList) -> Committed {
    unsafe extern "C" fn answered(
        _: *mut sys::rd_kafka_t,
        _: sys::rd_kafka_resp_err_t,
        offsets: *mut sys::rd_kafka_topic_partition_list_t,
        opaque: *mut c_void,
    ) {
        // SAFETY: `opaque` is the `Committed` below, which nothing else touches during the call.
        let Some(out) = (unsafe { opaque.cast::<Committed>().as_mut() }) else { return };
        // SAFETY: librdkafka lends the list, or null, for the length of this callback.
        out.elements = unsafe { read_elements(offsets) };
    }
    let mut out = Committed::default();
    // SAFETY: client and list are alive; without a queue the callback runs before the call returns,
    // on this thread.
    let error = unsafe {
        sys::rd_kafka_commit_queue(
            native(client),
            list.ptr(),
            ptr::null_mut(),
            Some(answered),
            ptr::from_mut(&mut out).cast(),
        )
    };
    out.error =
        (error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| error.into());
    out
}

/// The end of a lane as of its last fetch, the high watermark: in a topic with transactions that is more than
/// may be read. No request is made. `None` until known.
pub fn cached_high(client: &Client, lane: &TopicPartition) -> Option<i64> {
    let topic = CString::new(&*lane.topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is alive, `topic` a C string, the out pointers valid.
    let error = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            native(client),
            topic.as_ptr(),
            lane.partition,
            &mut low,
            &mut high,
        )
    };
    (error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}
