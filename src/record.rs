//! A Kafka record as the rest of the crate sees it: where it stands, and its bytes.
//!
//! A record's identity is (topic, partition, offset), topic included: two topics share partition
//! numbers and offsets (confluentinc/kafka-connect-bigquery#460 lost rows by leaving it out).

use std::{fmt, sync::Arc};

/// A topic-partition. Cheap to clone; the order is by topic, then partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// The identity of one record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Coordinates {
    /// Where the record stands.
    pub lane: TopicPartition,
    /// Its offset in that partition.
    pub offset: i64,
}

impl fmt::Display for Coordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.lane, self.offset)
    }
}

/// One header: its name and its value, which may be null.
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// The bytes of one record, borrowed from wherever they lie (the client's fetch buffer, or a
/// batch's payload arena).
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// The record's offset.
    pub offset: i64,
    /// Milliseconds since the epoch, as the producer or the broker stamped it; `None` where the
    /// message format carries none.
    pub timestamp_ms: Option<i64>,
    /// The key; `None` is a null key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a null value (a tombstone on a compacted topic).
    pub value: Option<&'a [u8]>,
    /// The headers, in order, in the encoding of [`Headers`].
    pub headers: Headers<'a>,
}

/// Shows sizes only: a record's content is never logged.
impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("offset", &self.offset)
            .field("key_bytes", &self.key.map(<[u8]>::len))
            .field("value_bytes", &self.value.map(<[u8]>::len))
            .finish_non_exhaustive()
    }
}

impl Record<'_> {
    /// Bytes of key, value and headers together.
    pub fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len)
            + self.value.map_or(0, <[u8]>::len)
            + self.headers.encoded().len()
    }
}

/// Enough of a record to notice that another one now stands at its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fingerprint {
    /// The record's offset.
    #[serde(rename = "o")]
    pub offset: i64,
    /// Its timestamp, milliseconds since the epoch; −1 where it has none.
    #[serde(rename = "t")]
    pub timestamp_ms: i64,
    /// CRC-32 of key and value, null told from empty.
    #[serde(rename = "h")]
    pub hash: u32,
}

impl Fingerprint {
    /// The fingerprint of a record.
    pub fn of(record: &Record<'_>) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        for part in [record.key, record.value] {
            let len = part.map_or(u64::MAX, |part| part.len() as u64);
            hasher.update(&len.to_le_bytes());
            hasher.update(part.unwrap_or_default());
        }
        Self {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms.unwrap_or(-1),
            hash: hasher.finalize(),
        }
    }
}

/// A record's headers in one flat run of bytes, so that they can be copied with one `memcpy` and
/// kept until the record is acknowledged: per header a little-endian `u32` name length, the name,
/// an `i32` value length (−1 for null), the value.
#[derive(Clone, Copy, Default)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    /// Wraps bytes written by [`push_header`]; anything malformed ends the iteration.
    pub fn from_encoded(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The flat encoding.
    pub fn encoded(&self) -> &'a [u8] {
        self.0
    }

    /// Whether there is no header.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The headers in order.
    pub fn iter(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (header, after) = split_header(rest)?;
            rest = after;
            Some(header)
        })
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Headers({} bytes)", self.0.len())
    }
}

/// Appends one header to `out` in the encoding of [`Headers`].
///
/// A name or value longer than `i32::MAX` cannot come from Kafka; its length is clamped.
pub fn push_header(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    let clamp = |len: usize| i32::try_from(len).unwrap_or(i32::MAX);
    out.extend_from_slice(&clamp(name.len()).to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&value.map_or(-1, |value| clamp(value.len())).to_le_bytes());
    out.extend_from_slice(value.unwrap_or_default());
}

fn split_header(bytes: &[u8]) -> Option<(Header<'_>, &[u8])> {
    let (name_len, rest) = split_len(bytes)?;
    let (name, rest) = rest.split_at_checked(usize::try_from(name_len).ok()?)?;
    let (value_len, rest) = split_len(rest)?;
    let name = std::str::from_utf8(name).ok()?;
    let Ok(value_len) = usize::try_from(value_len) else { return Some(((name, None), rest)) };
    let (value, rest) = rest.split_at_checked(value_len)?;
    Some(((name, Some(value)), rest))
}

fn split_len(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    Some((i32::from_le_bytes(*len), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_flat_encoding() {
        let mut flat = Vec::new();
        push_header(&mut flat, "trace", Some(b"\x00\xff"));
        push_header(&mut flat, "", None);
        push_header(&mut flat, "trace", Some(b""));
        let headers: Vec<_> = Headers::from_encoded(&flat).iter().collect();
        assert_eq!(
            headers,
            [("trace", Some(&b"\x00\xff"[..])), ("", None), ("trace", Some(&b""[..]))]
        );
    }

    #[test]
    fn a_cut_encoding_ends_instead_of_panicking() {
        let mut flat = Vec::new();
        push_header(&mut flat, "name", Some(b"value"));
        for len in 0..flat.len() {
            assert_eq!(Headers::from_encoded(&flat[..len]).iter().count(), 0);
        }
    }
}
