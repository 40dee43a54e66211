//! What of a record goes into its dead letter, and what is left out where the topic does not take it.

use rdkafka::message::{Header, OwnedHeaders};

use crate::{
    dead_letter::{DeadLetter, Stage},
    record::Headers,
};

/// The longest text of a reason.
const REASON_BYTES_MAX: usize = 4 * 1024;

/// How much of the record a letter carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// At most so many bytes of key, value and headers together: a quarter for the key, a quarter for
    /// the headers, the rest for the value.
    Cut(usize),
    /// None of it: the coordinates and the reason only. The coordinates are its key, because a
    /// compacted topic takes no record without one.
    Minimal,
}

/// A letter as it is sent.
pub(super) struct Envelope {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: OwnedHeaders,
}

impl Envelope {
    /// So much of a letter.
    pub(super) fn of(letter: &DeadLetter, extent: Extent, group: &str) -> Self {
        let [key_max, headers_max] = match extent {
            Extent::Whole => [usize::MAX; 2],
            Extent::Cut(bytes) => [bytes / 4; 2],
            Extent::Minimal => [0; 2],
        };
        let (mut headers, headers_kept) = original_headers(&letter.headers, headers_max);
        let key = cut(letter.key.as_deref(), key_max);
        let value_max = match extent {
            Extent::Whole => usize::MAX,
            Extent::Cut(bytes) => {
                bytes.saturating_sub(headers_kept + key.as_ref().map_or(0, Vec::len))
            }
            Extent::Minimal => 0,
        };
        let value = cut(letter.value.as_deref(), value_max);
        let is_cut = |full: Option<usize>, kept: usize| full.filter(|full| *full > kept);
        let len = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let truncated = [
            ("kcbq.key.truncated_from_bytes", is_cut(letter.key.as_ref().map(Vec::len), len(&key))),
            (
                "kcbq.value.truncated_from_bytes",
                is_cut(letter.value.as_ref().map(Vec::len), len(&value)),
            ),
            ("kcbq.headers.truncated_from_bytes", is_cut(Some(letter.headers.len()), headers_kept)),
        ];
        for (name, text) in added(letter, group) {
            headers = headers.insert(Header { key: name, value: Some(&text) });
        }
        for (name, full) in truncated {
            if let Some(full) = full {
                headers = headers.insert(Header { key: name, value: Some(&full.to_string()) });
            }
        }
        if extent == Extent::Minimal {
            let key = Some(letter.origin.to_string().into_bytes());
            return Self { key, value: None, headers };
        }
        Self { key, value, headers }
    }
}

fn cut(part: Option<&[u8]>, bytes_max: usize) -> Option<Vec<u8>> {
    part.map(|part| part.get(..bytes_max).unwrap_or(part).to_vec())
}

/// The record's own headers, in order, as many as fit, and how many bytes they take.
fn original_headers(encoded: &[u8], bytes_max: usize) -> (OwnedHeaders, usize) {
    /// Two lengths of four bytes stand before name and value.
    const LENGTHS: usize = 8;
    let mut headers = OwnedHeaders::new();
    let mut kept = 0;
    for (key, value) in Headers::from_encoded(encoded).iter() {
        let bytes = LENGTHS + key.len() + value.map_or(0, <[u8]>::len);
        if bytes_max - kept < bytes {
            break;
        }
        kept += bytes;
        headers = headers.insert(Header { key, value });
    }
    (headers, kept)
}

/// The headers that say where the record came from and why.
fn added(letter: &DeadLetter, group: &str) -> Vec<(&'static str, String)> {
    let origin = &letter.origin;
    let reason = &letter.reason;
    let stage = reason.stage.name();
    let connect = if reason.stage == Stage::Decode { "VALUE_CONVERTER" } else { "TASK_PUT" };
    let message = shortened(&reason.message);
    let mut added = vec![
        ("__connect.errors.topic", origin.lane.topic.to_string()),
        ("__connect.errors.partition", origin.lane.partition.to_string()),
        ("__connect.errors.offset", origin.offset.to_string()),
        ("__connect.errors.connector.name", group.to_owned()),
        ("__connect.errors.task.id", "0".to_owned()),
        ("__connect.errors.stage", connect.to_owned()),
        ("__connect.errors.class.name", "kcbq".to_owned()),
        ("__connect.errors.exception.class.name", format!("kcbq.{stage}")),
        ("__connect.errors.exception.message", message.to_owned()),
        ("kcbq.error.stage", stage.to_owned()),
        ("kcbq.error.reason", message.to_owned()),
    ];
    let field = reason.field.as_deref().map(shortened);
    added.extend(field.map(|field| ("kcbq.error.field", field.to_owned())));
    added.extend(reason.schema_id.map(|id| ("kcbq.error.schema_id", id.to_string())));
    added.extend(letter.timestamp_ms.map(|at| ("kcbq.record.timestamp_ms", at.to_string())));
    added
}

fn shortened(text: &str) -> &str {
    text.split_at_checked(text.floor_char_boundary(REASON_BYTES_MAX)).map_or(text, |(head, _)| head)
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;

    use super::*;
    use crate::{
        dead_letter::Reason,
        record::{Coordinates, TopicPartition, push_header},
    };

    fn letter(key: usize, value: usize, headers: usize) -> DeadLetter {
        let mut encoded = Vec::new();
        push_header(&mut encoded, "first", Some(b"1"));
        push_header(&mut encoded, "second", Some(&vec![b'h'; headers]));
        DeadLetter {
            topic: "dead".into(),
            origin: Coordinates { lane: TopicPartition::new("orders", 3), offset: 42 },
            timestamp_ms: Some(7),
            key: Some(vec![b'k'; key]),
            value: Some(vec![b'v'; value]),
            headers: encoded,
            reason: Reason {
                stage: Stage::Decode,
                message: "é".repeat(9_000),
                field: None,
                schema_id: None,
            },
        }
    }

    fn named(envelope: &Envelope, name: &str) -> Option<String> {
        let mut headers = envelope.headers.iter();
        let found = headers.find(|header| header.key == name)?;
        Some(String::from_utf8(found.value.unwrap().to_vec()).unwrap())
    }

    #[test]
    fn key_and_headers_are_cut_as_the_value_is_and_each_says_so() {
        let large = 1_048_480;
        for (sizes, expected) in [
            ((large, 10, 10), (25_000, 10, true)),
            ((10, large, 10), (10, 100_000 - 10 - 38, true)),
            ((10, 10, large), (10, 10, false)),
        ] {
            let letter = letter(sizes.0, sizes.1, sizes.2);
            let envelope = Envelope::of(&letter, Extent::Cut(100_000), "g");
            let key = envelope.key.as_ref().unwrap().len();
            let value = envelope.value.as_ref().unwrap().len();
            let second = named(&envelope, "second").is_some();
            assert_eq!((key, value, second), expected);
            assert_eq!(named(&envelope, "first").as_deref(), Some("1"));
            let cut = ["key", "value", "headers"].map(|part| {
                named(&envelope, &format!("kcbq.{part}.truncated_from_bytes")).is_some()
            });
            let large = [sizes.0, sizes.1, sizes.2].map(|size| size == large);
            assert_eq!(cut, large, "{sizes:?}");
        }
        let whole = Envelope::of(&letter(large, large, large), Extent::Whole, "g");
        assert_eq!((whole.key.unwrap().len(), whole.value.unwrap().len()), (large, large));
    }

    #[test]
    fn a_minimal_letter_has_coordinates_stage_and_a_short_reason() {
        let envelope = Envelope::of(&letter(10, 10, 10), Extent::Minimal, "g");
        assert_eq!(envelope.key.as_deref(), Some(&b"orders[3]@42"[..]));
        assert_eq!((envelope.value.is_none(), named(&envelope, "first")), (true, None));
        assert_eq!(named(&envelope, "__connect.errors.offset").as_deref(), Some("42"));
        assert_eq!(named(&envelope, "kcbq.error.stage").as_deref(), Some("decode"));
        assert_eq!(named(&envelope, "kcbq.record.timestamp_ms").as_deref(), Some("7"));
        assert!(named(&envelope, "kcbq.error.reason").unwrap().len() <= REASON_BYTES_MAX);
        let all = envelope.headers.iter().map(|header| header.value.map_or(0, <[u8]>::len));
        assert!(all.sum::<usize>() < 3 * REASON_BYTES_MAX);
    }
}
