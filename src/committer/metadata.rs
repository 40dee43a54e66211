//! The metadata string that rides on every committed offset.
//!
//! `v1.<crc32 of the body, 8 hex digits>.<base64url of a JSON object>`, ASCII, at most 4,096 bytes
//! (the brokers' default `offset.metadata.max.bytes`). Unknown fields of the object are ignored and
//! all fields are optional, so that older and newer versions read each other. Offsets and metadata
//! are one atomic record in Kafka: what is said here is true of exactly this offset.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::record::Fingerprint;

/// The largest metadata a broker takes by default (`offset.metadata.max.bytes`).
pub const BYTES_MAX: usize = 4096;

/// What this service remembers beside a committed offset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommitMetadata {
    /// The topic's id, where known.
    #[serde(rename = "tid", skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// Fingerprint of the configuration that matters for what a record becomes.
    #[serde(rename = "cfg", skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// A record shortly below the committed offset.
    #[serde(rename = "last", skip_serializing_if = "Option::is_none")]
    pub last: Option<Fingerprint>,
    /// How many partitions the topic had when the group first met it.
    #[serde(rename = "parts", skip_serializing_if = "Option::is_none")]
    pub topic_partitions: Option<u32>,
    /// A node of each chain of load jobs of the lane, by the chain's short name: where to look for its
    /// end. Whatever does not fit is left out: a chain can be found from its beginning.
    #[serde(rename = "nodes", skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, i64>,
    /// The tables the lane feeds, `project.dataset.table`; dropped where it would not fit.
    #[serde(rename = "tables", skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
}

/// Why a committed offset's metadata tells this service nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// There is none: another tool committed or reset the offset.
    #[error("there is no metadata: another tool has set the offset")]
    Missing,
    /// It does not begin with a known version.
    #[error("it was not written by this service, or by a later version of it")]
    Version,
    /// The checksum does not match the body.
    #[error("its checksum does not match")]
    Checksum,
    /// The body is not base64url of a JSON object of the expected shape.
    #[error("its body cannot be read")]
    Body,
}

impl CommitMetadata {
    /// The metadata as a string of at most [`BYTES_MAX`] bytes of ASCII.
    ///
    /// What does not fit is left out, the list of tables first; the offset itself is never at
    /// stake.
    pub fn encode(&self) -> String {
        let full = self.render();
        if full.len() <= BYTES_MAX {
            return full;
        }
        let mut smaller = Self { tables: Vec::new(), ..self.clone() };
        let without_tables = smaller.render();
        if without_tables.len() <= BYTES_MAX {
            return without_tables;
        }
        let mut rendered = without_tables;
        while rendered.len() > BYTES_MAX && !smaller.nodes.is_empty() {
            let half = smaller.nodes.len() / 2;
            smaller.nodes = smaller.nodes.into_iter().take(half).collect();
            rendered = smaller.render();
        }
        if rendered.len() > BYTES_MAX {
            smaller.config = None;
            smaller.topic_id = None;
            rendered = smaller.render();
        }
        rendered
    }

    fn render(&self) -> String {
        // A struct of strings and numbers always serialises.
        let body = serde_json::to_vec(self).unwrap_or_default();
        let body = URL_SAFE_NO_PAD.encode(body);
        format!("v1.{:08x}.{body}", crc32fast::hash(body.as_bytes()))
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`Foreign`] says why the bytes are not ours; that is for the log, and otherwise the same as
    /// no metadata.
    pub fn decode(bytes: &[u8]) -> Result<Self, Foreign> {
        if bytes.is_empty() {
            return Err(Foreign::Missing);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Foreign::Version)?;
        let rest = text.strip_prefix("v1.").ok_or(Foreign::Version)?;
        let (crc, body) = rest.split_once('.').ok_or(Foreign::Version)?;
        let crc = u32::from_str_radix(crc, 16).map_err(|_| Foreign::Checksum)?;
        if crc != crc32fast::hash(body.as_bytes()) {
            return Err(Foreign::Checksum);
        }
        let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| Foreign::Body)?;
        serde_json::from_slice(&body).map_err(|_| Foreign::Body)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Headers, Record};

    fn metadata() -> impl Strategy<Value = CommitMetadata> {
        (
            proptest::option::of(".{0,40}"),
            proptest::option::of("[0-9a-f]{0,16}"),
            proptest::option::of((any::<i64>(), any::<i64>(), any::<u32>())),
            proptest::option::of(any::<u32>()),
            proptest::collection::btree_map("[0-9a-f]{16}", any::<i64>(), 0..200),
            proptest::collection::vec("[a-z.]{1,60}", 0..200),
        )
            .prop_map(|(topic_id, config, last, topic_partitions, nodes, tables)| {
                CommitMetadata {
                    topic_id,
                    config,
                    last: last.map(|(offset, timestamp_ms, hash)| Fingerprint {
                        offset,
                        timestamp_ms,
                        hash,
                    }),
                    topic_partitions,
                    nodes,
                    tables,
                }
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again_and_fits(written in metadata()) {
            let text = written.encode();
            prop_assert!(text.len() <= BYTES_MAX && text.is_ascii());
            let read = CommitMetadata::decode(text.as_bytes()).unwrap();
            prop_assert_eq!(read.last, written.last);
            prop_assert_eq!(read.topic_partitions, written.topic_partitions);
            prop_assert_eq!(&read.config, &written.config);
            prop_assert!(read.tables == written.tables || read.tables.is_empty());
            prop_assert!(read.nodes.iter().all(|(chain, node)| written.nodes.get(chain) == Some(node)));
            prop_assert!(read.nodes.len() >= written.nodes.len().min(10));
        }

        #[test]
        fn foreign_bytes_are_told_apart_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(CommitMetadata::decode(&bytes).is_err());
        }

        #[test]
        fn one_flipped_bit_is_noticed(written in metadata(), at in any::<prop::sample::Index>(), bit in 0..8u32) {
            let mut bytes = written.encode().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            // The checksum's own hex digits may change case without a change of meaning.
            match CommitMetadata::decode(&bytes) {
                Err(_) => {}
                Ok(_) => prop_assert!((3..11).contains(&at) && bit == 5),
            }
        }
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let body = URL_SAFE_NO_PAD.encode(br#"{"parts":3,"later":{"x":[1]}}"#);
        let text = format!("v1.{:08x}.{body}", crc32fast::hash(body.as_bytes()));
        let read = CommitMetadata::decode(text.as_bytes()).unwrap();
        assert_eq!(read.topic_partitions, Some(3));
    }

    #[test]
    fn the_reasons_are_told_apart() {
        assert_eq!(CommitMetadata::decode(b""), Err(Foreign::Missing));
        assert_eq!(CommitMetadata::decode(b"\xff\xfe"), Err(Foreign::Version));
        assert_eq!(CommitMetadata::decode(b"v2.00000000.e30"), Err(Foreign::Version));
        assert_eq!(CommitMetadata::decode(b"v1.00000000.e30"), Err(Foreign::Checksum));
        let broken = format!("v1.{:08x}.###", crc32fast::hash(b"###"));
        assert_eq!(CommitMetadata::decode(broken.as_bytes()), Err(Foreign::Body));
    }

    #[test]
    fn a_fingerprint_tells_null_from_empty_and_key_from_value() {
        let record = |key, value| {
            let (timestamp_ms, headers) = (Some(1), Headers::default());
            Fingerprint::of(&Record { offset: 7, timestamp_ms, key, value, headers }).hash
        };
        let all = [
            record(None, None),
            record(Some(&b""[..]), None),
            record(None, Some(&b""[..])),
            record(Some(&b"a"[..]), Some(&b"b"[..])),
            record(Some(&b"ab"[..]), Some(&b""[..])),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
