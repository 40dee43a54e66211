//! How a request's message is built: rows appended in place to one buffer, and a head that is made when the
//! request is sent. Behind the head the buffer goes out as it is.
//!
//! The buffer is the content of `ProtoRows`: field 1, repeated, one row each. The head is everything of
//! `AppendRowsRequest` before it, the length of the rows last.

use bytes::Bytes;

/// Field 1, length-delimited: `ProtoRows.serialized_rows`, `AppendRowsRequest.write_stream`.
const FIELD_1: u8 = 0x0a;
/// `ProtoData.rows`, `AppendRowsRequest.offset`.
const FIELD_2: u8 = 0x12;
/// `AppendRowsRequest.proto_rows`.
const FIELD_4: u8 = 0x22;
/// `AppendRowsRequest.trace_id`.
const FIELD_6: u8 = 0x32;

/// `Int64Value.value`, a varint.
const INT64_VALUE: u8 = 0x08;

/// Who the service says it is, for Google's support.
const TRACE_ID: &str = concat!("kcbq:", env!("CARGO_PKG_VERSION"));

/// Bytes of a length as most rows have it: 128 to 16,383.
const LENGTH_BYTES: usize = 2;

/// Begins a row; where it begins. The caller appends the row and then calls [`end_row`], or truncates `rows`
/// to what it was before.
#[inline]
pub fn begin_row(rows: &mut Vec<u8>) -> usize {
    rows.extend_from_slice(&[FIELD_1, 0, 0]);
    rows.len()
}

/// Ends a row that begins at `start`: its length is put before it.
#[inline]
pub fn end_row(rows: &mut Vec<u8>, start: usize) {
    let length = rows.len().saturating_sub(start);
    let place = start.saturating_sub(LENGTH_BYTES)..start;
    if let (0x80..0x4000, Some(room)) = (length, rows.get_mut(place.clone())) {
        room.copy_from_slice(&[(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
        return;
    }
    let mut prefix = Vec::with_capacity(5);
    push_varint(&mut prefix, length as u64);
    rows.splice(place, prefix);
}

/// A request's head, for `rows` bytes of rows: `stream` is named where the connection was used for another
/// before, `schema` (an encoded `ProtoSchema`) where the rows are otherwise than those before.
pub fn head(stream: &str, schema: Option<&[u8]>, rows: usize) -> Bytes {
    head_of(stream, None, schema.unwrap_or_default(), rows)
}

/// The head of a request that appends at an offset of a stream.
pub fn head_at(stream: &str, offset: i64, schema: &[u8], rows: usize) -> Bytes {
    head_of(stream, Some(offset), schema, rows)
}

fn head_of(stream: &str, offset: Option<i64>, schema: &[u8], rows: usize) -> Bytes {
    let mut data = Vec::with_capacity(schema.len() + 24);
    if !schema.is_empty() {
        push_field(&mut data, FIELD_1, schema);
    }
    data.push(FIELD_2);
    push_varint(&mut data, rows as u64);
    let mut head = Vec::with_capacity(data.len() + stream.len() + 48);
    push_field(&mut head, FIELD_1, stream.as_bytes());
    if let Some(offset) = offset {
        let mut value = vec![INT64_VALUE];
        push_varint(&mut value, offset.unsigned_abs());
        push_field(&mut head, FIELD_2, &value);
    }
    push_field(&mut head, FIELD_6, TRACE_ID.as_bytes());
    head.push(FIELD_4);
    push_varint(&mut head, (data.len() + rows) as u64);
    head.extend_from_slice(&data);
    head.into()
}

fn push_field(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    push_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
        AppendRowsRequest, append_rows_request::Rows,
    };
    use prost::Message as _;
    use prost_types::DescriptorProto;

    use super::*;

    fn request(stream: &str, schema: Option<&[u8]>, rows: &[u8]) -> AppendRowsRequest {
        let message = [&head(stream, schema, rows.len())[..], rows].concat();
        AppendRowsRequest::decode(&message[..]).unwrap()
    }

    #[test]
    fn head_and_rows_are_a_request() {
        let lengths = [0, 1, 127, 128, 300, 16_383, 16_384, 3_000_000];
        let mut rows = Vec::new();
        for length in lengths {
            let start = begin_row(&mut rows);
            rows.extend(std::iter::repeat_n(7, length));
            end_row(&mut rows, start);
        }
        let mut schema = Vec::new();
        let descriptor = DescriptorProto { name: Some("Row".into()), ..Default::default() };
        prost::encoding::message::encode(1, &descriptor, &mut schema);
        for schema in [None, Some(&schema[..])] {
            let request = request("projects/p/…/_default", schema, &rows);
            assert_eq!(request.write_stream, "projects/p/…/_default");
            assert!(request.trace_id.starts_with("kcbq:"));
            let Some(Rows::ProtoRows(data)) = request.rows else { panic!() };
            let sent = data.rows.unwrap().serialized_rows;
            let sent: Vec<usize> = sent.iter().map(|row| row.len()).collect();
            assert_eq!(sent, lengths);
            let written = data.writer_schema.and_then(|schema| schema.proto_descriptor);
            assert_eq!(written.is_some(), schema.is_some());
        }
    }

    #[test]
    fn the_offset_is_in_the_head() {
        let mut rows = Vec::new();
        let start = begin_row(&mut rows);
        rows.push(1);
        end_row(&mut rows, start);
        for offset in [0, 300] {
            let mut whole = head_at("s", offset, b"", rows.len()).to_vec();
            whole.extend_from_slice(&rows);
            let request = AppendRowsRequest::decode(&*whole).unwrap();
            assert_eq!(request.offset, Some(offset));
        }
    }

    #[test]
    fn a_row_that_is_taken_back_leaves_nothing() {
        let mut rows = b"before".to_vec();
        let before = rows.len();
        let start = begin_row(&mut rows);
        rows.extend_from_slice(b"half");
        assert!(start > before);
        rows.truncate(before);
        assert_eq!(rows, b"before");
    }
}
