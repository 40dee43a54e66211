//! Avro object containers around datums that are there already
//! (<https://avro.apache.org/docs/1.12.0/specification/#object-container-files>).

use std::io::{self, Write};

use bytes::Bytes;
use flate2::{Compression, write::DeflateEncoder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    transcode::avro::writer::{push_bytes, push_len},
    write::stable_hash::fnv1a_128,
};

/// How the blocks of a container are compressed: those that BigQuery reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AvroCodec {
    /// Not at all: the least work, and the most bytes on the wire.
    #[default]
    None,
    /// Snappy.
    Snappy,
    /// Zstandard at its first level.
    Zstandard,
    /// Deflate at its first level.
    Deflate,
}

/// A datum for each of these many rows, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// How many.
    pub rows: u32,
    /// Their bytes.
    pub data: Bytes,
}

/// A container of these blocks, in parts to be sent one after the other: what is not compressed is not
/// copied. Its sync marker is made of the object's `name`, so that each attempt gives the same bytes.
///
/// # Errors
/// When a block cannot be compressed.
pub fn container(
    schema: &str,
    codec: AvroCodec,
    name: &str,
    blocks: impl IntoIterator<Item = Block>,
) -> io::Result<Vec<Bytes>> {
    let sync = fnv1a_128(name.as_bytes()).to_be_bytes();
    let mut frame = header(schema, codec, sync);
    let mut parts = Vec::new();
    for Block { rows, data } in blocks {
        let data = codec.compress(data)?;
        push_len(rows as usize, &mut frame);
        push_len(data.len(), &mut frame);
        parts.push(Bytes::from(std::mem::replace(&mut frame, sync.to_vec())));
        parts.push(data);
    }
    parts.push(frame.into());
    Ok(parts)
}

fn header(schema: &str, codec: AvroCodec, sync: [u8; 16]) -> Vec<u8> {
    let mut header = b"Obj\x01".to_vec();
    let metadata = [("avro.schema", schema), ("avro.codec", codec.name())];
    push_len(metadata.len(), &mut header);
    for (key, value) in metadata {
        push_bytes(key.as_bytes(), &mut header);
        push_bytes(value.as_bytes(), &mut header);
    }
    push_len(0, &mut header);
    header.extend_from_slice(&sync);
    header
}

impl AvroCodec {
    /// The specification's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "null",
            Self::Snappy => "snappy",
            Self::Zstandard => "zstandard",
            Self::Deflate => "deflate",
        }
    }

    fn compress(self, data: Bytes) -> io::Result<Bytes> {
        Ok(match self {
            Self::None => data,
            Self::Snappy => snappy(&data)?.into(),
            Self::Zstandard => zstd::bulk::compress(&data, 1)?.into(),
            Self::Deflate => {
                let out = Vec::with_capacity(data.len() / 2);
                let mut encoder = DeflateEncoder::new(out, Compression::fast());
                encoder.write_all(&data)?;
                encoder.finish()?.into()
            }
        })
    }
}

/// The compressed data end with the big-endian CRC-32 of what they hold.
fn snappy(data: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = snap::raw::Encoder::new().compress_vec(data).map_err(io::Error::other)?;
    out.extend_from_slice(&crc32fast::hash(data).to_be_bytes());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use apache_avro::{Reader, types::Value};

    use super::*;

    #[test]
    fn another_reader_reads_what_was_put_in() {
        let schema =
            r#"{"type": "record", "name": "Row", "fields": [{"name": "a", "type": "string"}]}"#;
        let block = |texts: &[&str]| {
            let mut data = Vec::new();
            texts.iter().for_each(|text| push_bytes(text.as_bytes(), &mut data));
            Block { rows: u32::try_from(texts.len()).unwrap(), data: data.into() }
        };
        for codec in [AvroCodec::None, AvroCodec::Snappy, AvroCodec::Zstandard, AvroCodec::Deflate]
        {
            let blocks = [block(&["one", "two"]), block(&["three"])];
            let parts = container(schema, codec, "name", blocks).unwrap();
            let bytes = parts.concat();
            let rows: Vec<Value> = Reader::new(&bytes[..]).unwrap().map(Result::unwrap).collect();
            let row =
                |text: &str| Value::Record(vec![("a".to_owned(), Value::String(text.to_owned()))]);
            assert_eq!(rows, ["one", "two", "three"].map(row), "{codec:?}");
        }
    }

    #[test]
    fn no_row_is_an_empty_container() {
        let bytes = container("\"long\"", AvroCodec::None, "name", []).unwrap().concat();
        assert_eq!(Reader::new(&bytes[..]).unwrap().count(), 0);
    }
}
