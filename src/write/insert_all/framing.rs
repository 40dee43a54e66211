//! How a request body is built: one buffer, rows appended in place, any subset cut out again.
//!
//! `PREFIX row , row , row SUFFIX`, where a row is `{"insertId":"…","json":<row>}`. Only `<row>` comes
//! from elsewhere; [`BODY_PREFIX`] switches off both of insertAll's ways to drop data silently.

use std::{fmt, ops::Range};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{BufMut, Bytes, BytesMut};

/// What a body starts with.
pub const BODY_PREFIX: &[u8] =
    b"{\"skipInvalidRows\":false,\"ignoreUnknownValues\":false,\"rows\":[";
/// What a body ends with.
pub const BODY_SUFFIX: &[u8] = b"]}";
/// Between an insertId and its row.
const ROW_MIDDLE: &[u8] = b"\",\"json\":";
/// What a row ends with.
const ROW_SUFFIX: &[u8] = b"}";

/// Bytes of a body beside its rows and the commas between them.
pub const BODY_OVERHEAD_BYTES: usize = BODY_PREFIX.len() + BODY_SUFFIX.len();
/// Bytes of a row, and the comma before it, beside the row's own JSON: an upper bound.
pub const ROW_OVERHEAD_BYTES_MAX: usize = 128;

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

/// Where the rows of a complete body lie, given where each ends (the length of the body after
/// [`end_row`]). Excludes the commas.
pub fn row_ranges(row_ends: &[usize]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = BODY_PREFIX.len();
    row_ends.iter().map(move |&end| {
        let range = start..end;
        start = end + 1;
        range
    })
}

/// A body with only the given rows of another, in the order given; ranges outside it are left out.
pub fn subset(body: &Bytes, rows: impl Iterator<Item = Range<usize>> + Clone) -> Bytes {
    let bytes = rows.clone().map(|row| row.len() + 1).sum::<usize>() + BODY_OVERHEAD_BYTES;
    let mut out = BytesMut::with_capacity(bytes);
    out.put_slice(BODY_PREFIX);
    for (index, row) in rows.filter_map(|row| body.get(row)).enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.put_slice(row);
    }
    out.put_slice(BODY_SUFFIX);
    out.freeze()
}

/// FNV-1a, 128 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>). It stands in every insertId, so it
/// must never change from release to release, which no hasher meant for tables promises.
fn fnv1a_128(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn body(rows: &[(i64, String)]) -> (Bytes, Vec<usize>) {
        let lane = LanePrefix::new("shop.orders", 3);
        let (mut body, mut ends) = (Vec::new(), Vec::new());
        begin_body(&mut body);
        for (offset, row) in rows {
            lane.begin_row(*offset, &mut body);
            body.extend_from_slice(row.as_bytes());
            end_row(&mut body);
            ends.push(body.len());
        }
        end_body(&mut body);
        (body.into(), ends)
    }

    #[test]
    fn insert_ids_are_what_they_always_were() {
        let (body, _) = body(&[(42, "{\"a\":1}".into())]);
        let body: Value = serde_json::from_slice(&body).unwrap();
        let id = "1SimbbhtxAvbrk45WZ8PzA-3-42";
        assert_eq!(
            body,
            json!({"skipInvalidRows": false, "ignoreUnknownValues": false,
                   "rows": [{"insertId": id, "json": {"a": 1}}]})
        );
    }

    #[test]
    fn the_overhead_of_a_row_is_bounded() {
        let mut body = Vec::new();
        begin_body(&mut body);
        body.push(b' ');
        let before = body.len();
        LanePrefix::new(&"x".repeat(300), i32::MIN).begin_row(i64::MIN, &mut body);
        end_row(&mut body);
        assert!(body.len() - before <= ROW_OVERHEAD_BYTES_MAX);
    }

    #[test]
    fn identity_tells_topics_and_partitions_apart() {
        let prefixes =
            [("a", 1), ("a", 11), ("a1", 1), ("b", 1)].map(|(t, p)| LanePrefix::new(t, p));
        for (i, one) in prefixes.iter().enumerate() {
            assert!(prefixes.iter().skip(i + 1).all(|other| other != one));
        }
    }

    proptest! {
        #[test]
        fn a_subset_is_the_body_of_those_rows(
            rows in prop::collection::vec((any::<i64>(), "[a-z]{0,9}"), 1..20),
            keep in prop::collection::vec(any::<bool>(), 20),
        ) {
            let rows: Vec<_> =
                rows.into_iter().map(|(o, s)| (o, json!({ "s": s }).to_string())).collect();
            let (whole, ends) = body(&rows);
            let kept: Vec<_> = rows.iter().zip(&keep).filter(|(_, k)| **k).map(|(r, _)| r.clone()).collect();
            let ranges: Vec<_> =
                row_ranges(&ends).zip(&keep).filter(|(_, k)| **k).map(|(r, _)| r).collect();
            prop_assert_eq!(subset(&whole, ranges.into_iter()), body(&kept).0);
        }
    }
}
