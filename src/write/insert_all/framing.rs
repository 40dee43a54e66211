//! How a request body is built: one buffer, rows appended in place.
//!
//! `PREFIX row , row , row SUFFIX`, where a row is `{"insertId":"…","json":<row>}`. Only `<row>` comes
//! from elsewhere; [`BODY_PREFIX`] switches off both of insertAll's ways to drop data silently.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::write::stable_hash::fnv1a_128;

/// What a body starts with.
const BODY_PREFIX: &[u8] = b"{\"skipInvalidRows\":false,\"ignoreUnknownValues\":false,\"rows\":[";
/// What a body ends with.
const BODY_SUFFIX: &[u8] = b"]}";
/// Between an insertId and its row.
const ROW_MIDDLE: &[u8] = b"\",\"json\":";
/// What a row ends with.
const ROW_SUFFIX: &[u8] = b"}";

/// The start of every row of one topic-partition, rendered once.
///
/// An insertId is `<hash of the topic's identity>-<partition>-<offset>`: the same for every owner and
/// every attempt, different for every record, at most 60 of the 128 characters that BigQuery takes.
#[derive(Clone, PartialEq, Eq)]
pub struct LanePrefix {
    rendered: Box<[u8]>,
}

impl LanePrefix {
    /// The prefix for `partition` of the topic with this identity: its id where known, else its name
    /// with what tells it from an earlier topic of the same name.
    pub fn new(topic_identity: &str, partition: i32) -> Self {
        let hash = URL_SAFE_NO_PAD.encode(fnv1a_128(topic_identity.as_bytes()).to_be_bytes());
        Self { rendered: format!("{{\"insertId\":\"{hash}-{partition}-").into_bytes().into() }
    }

    /// Appends a row's start to `body`, with a comma if it is not the first. The caller appends the
    /// row's JSON and then calls [`end_row`], or truncates `body` to what it was before.
    pub fn begin_row(&self, offset: i64, body: &mut Vec<u8>) {
        if body.len() > BODY_PREFIX.len() {
            body.push(b',');
        }
        body.extend_from_slice(&self.rendered);
        body.extend_from_slice(itoa::Buffer::new().format(offset).as_bytes());
        body.extend_from_slice(ROW_MIDDLE);
    }
}

impl fmt::Debug for LanePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.rendered))
    }
}

/// Starts a body.
pub fn begin_body(body: &mut Vec<u8>) {
    body.clear();
    body.extend_from_slice(BODY_PREFIX);
}

/// Ends a row.
pub fn end_row(body: &mut Vec<u8>) {
    body.extend_from_slice(ROW_SUFFIX);
}

/// Ends a body. It must hold a row: BigQuery refuses an empty request.
pub fn end_body(body: &mut Vec<u8>) {
    body.extend_from_slice(BODY_SUFFIX);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn only_row(lane: &LanePrefix, offset: i64) -> Value {
        let mut body = Vec::new();
        begin_body(&mut body);
        lane.begin_row(offset, &mut body);
        body.extend_from_slice(b"{\"a\":1}");
        end_row(&mut body);
        end_body(&mut body);
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn insert_ids_are_what_they_always_were() {
        let id = "1SimbbhtxAvbrk45WZ8PzA-3-42";
        assert_eq!(
            only_row(&LanePrefix::new("shop.orders", 3), 42),
            json!({"skipInvalidRows": false, "ignoreUnknownValues": false,
                   "rows": [{"insertId": id, "json": {"a": 1}}]})
        );
    }

    #[test]
    fn insert_ids_are_short_whatever_the_topic() {
        let body = only_row(&LanePrefix::new(&"x".repeat(300), i32::MIN), i64::MIN);
        assert!(body["rows"][0]["insertId"].as_str().unwrap().len() <= 60);
    }

    #[test]
    fn identity_tells_topics_and_partitions_apart() {
        let prefixes =
            [("a", 1), ("a", 11), ("a1", 1), ("b", 1)].map(|(t, p)| LanePrefix::new(t, p));
        for (i, one) in prefixes.iter().enumerate() {
            assert!(prefixes.iter().skip(i + 1).all(|other| other != one));
        }
    }
}
