//! `DescribeTopics`: the only call that tells topics' ids.

#![expect(unsafe_code, reason = "the FFI module: see its parent's documentation")]

use std::{
    collections::BTreeMap,
    ffi::{CString, c_char},
    ptr::{self, NonNull},
    slice,
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rdkafka_sys as sys;
use rdkafka_sys::rd_kafka_resp_err_t as Code;

use super::{Client, Queue, native, to_string};

/// Topics' ids by name, as Kafka's own tools write them; `None` where the brokers know no ids (before
/// Kafka 2.8, and some that only speak its protocol). Topics that do not exist are not in it.
pub type TopicIds = BTreeMap<Arc<str>, Option<String>>;

/// A question that is under way.
pub struct Question {
    topics: Vec<Arc<str>>,
    queue: Queue,
    // Last: the queue is destroyed before the client may be.
    _client: Arc<Client>,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question")
    }
}

impl Question {
    /// Asks for the ids of `topics`, each named once; the client gives up after `timeout`. `None`
    /// if librdkafka cannot ask.
    pub fn ask(client: &Arc<Client>, topics: Vec<Arc<str>>, timeout: Duration) -> Option<Self> {
        let rk = native(client);
        // SAFETY: `rk` is alive as long as `client`.
        let queue = Queue(NonNull::new(unsafe { sys::rd_kafka_queue_new(rk) })?);
        let names: Vec<CString> = topics.iter().filter_map(|name| c_string(name)).collect();
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: as many C strings as the length says, which are copied.
        let collection = unsafe {
            sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len())
        };
        let collection = Collection(NonNull::new(collection)?);
        let options = Options::new(client, timeout)?;
        // SAFETY: client, collection, options and queue are alive; the call copies what it needs and
        // keeps a reference to the queue of its own.
        unsafe {
            sys::rd_kafka_DescribeTopics(
                rk,
                collection.0.as_ptr(),
                options.0.as_ptr(),
                queue.0.as_ptr(),
            );
        }
        Some(Self { topics, queue, _client: Arc::clone(client) })
    }

    /// Waits up to `timeout` for the answer; `None` if there is none.
    pub fn answer(self, timeout: Duration) -> Option<TopicIds> {
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive; the event is ours, or null.
        let event = unsafe { sys::rd_kafka_queue_poll(self.queue.0.as_ptr(), timeout) };
        let event = Event(NonNull::new(event)?);
        // SAFETY: the event is alive; null if it is another kind of event.
        let result = unsafe { sys::rd_kafka_event_DescribeTopics_result(event.0.as_ptr()) };
        // SAFETY: as above.
        let error = unsafe { sys::rd_kafka_event_error(event.0.as_ptr()) };
        match error {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR if !result.is_null() => {}
            Code::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE => {
                return Some(self.topics.iter().map(|topic| (Arc::clone(topic), None)).collect());
            }
            _ => return None,
        }
        let mut count = 0;
        // SAFETY: the result lives as long as the event; the array has `count` elements.
        let topics = unsafe { sys::rd_kafka_DescribeTopics_result_topics(result, &mut count) };
        if topics.is_null() {
            return Some(TopicIds::new());
        }
        // SAFETY: as said.
        let topics = unsafe { slice::from_raw_parts(topics, count) };
        // SAFETY: the descriptions live as long as the event.
        Some(topics.iter().filter_map(|topic| unsafe { id(*topic) }).collect())
    }
}

/// # Safety
///
/// `topic` is null or a valid description.
unsafe fn id(topic: *const sys::rd_kafka_TopicDescription_t) -> Option<(Arc<str>, Option<String>)> {
    if topic.is_null() {
        return None;
    }
    // SAFETY: `topic` is valid, as the caller promises; all three only read it.
    let (name, error, id) = unsafe {
        (
            sys::rd_kafka_TopicDescription_name(topic),
            sys::rd_kafka_TopicDescription_error(topic),
            sys::rd_kafka_TopicDescription_topic_id(topic),
        )
    };
    // SAFETY: a null error, too, has a code: none.
    let error = unsafe { sys::rd_kafka_error_code(error) };
    if error != Code::RD_KAFKA_RESP_ERR_NO_ERROR || id.is_null() {
        return None;
    }
    // SAFETY: `id` is not null and belongs to the description.
    let (most, least) = unsafe {
        (
            sys::rd_kafka_Uuid_most_significant_bits(id),
            sys::rd_kafka_Uuid_least_significant_bits(id),
        )
    };
    Some((to_string(name).into(), text(most, least)))
}

/// An id as Kafka writes it; `None` for the zero that older brokers send.
fn text(most: i64, least: i64) -> Option<String> {
    let bytes = [most.to_be_bytes(), least.to_be_bytes()].concat();
    (most != 0 || least != 0).then(|| URL_SAFE_NO_PAD.encode(bytes))
}

fn c_string(name: &str) -> Option<CString> {
    CString::new(name).ok()
}

struct Collection(NonNull<sys::rd_kafka_TopicCollection_t>);

impl Drop for Collection {
    fn drop(&mut self) {
        // SAFETY: made by librdkafka for us, destroyed only here.
        unsafe { sys::rd_kafka_TopicCollection_destroy(self.0.as_ptr()) }
    }
}

struct Options(NonNull<sys::rd_kafka_AdminOptions_t>);

impl Options {
    fn new(client: &Client, timeout: Duration) -> Option<Self> {
        let kind = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        // SAFETY: the client is alive.
        let options = unsafe { sys::rd_kafka_AdminOptions_new(native(client), kind) };
        let options = Self(NonNull::new(options)?);
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the options are alive; no text is written to a buffer of no bytes.
        let error = unsafe {
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options.0.as_ptr(),
                timeout,
                ptr::null_mut(),
                0,
            )
        };
        (error == Code::RD_KAFKA_RESP_ERR_NO_ERROR).then_some(options)
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by librdkafka for us, destroyed only here.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.0.as_ptr()) }
    }
}

struct Event(NonNull<sys::rd_kafka_event_t>);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: polled from a queue by us, destroyed only here.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_as_kafkas_tools_write_it() {
        // Kafka's own: `new Uuid(1, 2).toString()`.
        assert_eq!(text(1, 2).as_deref(), Some("AAAAAAAAAAEAAAAAAAAAAg"));
        assert_eq!(text(-1, -1).as_deref(), Some("_____________________w"));
        assert_eq!(text(0, 0), None);
    }
}
