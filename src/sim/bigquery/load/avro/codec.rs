//! The codecs of blocks that BigQuery documents: DEFLATE, Snappy and ZSTD, and none.

use std::{borrow::Cow, io::Read};

use flate2::read::DeflateDecoder;

/// A block's data, at most `limit` bytes of it.
pub fn decompress<'a>(codec: &str, data: &'a [u8], limit: usize) -> Result<Cow<'a, [u8]>, String> {
    let plain = match codec {
        "null" => Cow::Borrowed(data),
        "deflate" => Cow::Owned(read_all(DeflateDecoder::new(data), limit)?),
        "zstandard" => {
            let decoder =
                zstd::stream::read::Decoder::new(data).map_err(|error| error.to_string())?;
            Cow::Owned(read_all(decoder, limit)?)
        }
        "snappy" => Cow::Owned(snappy(data, limit)?),
        other => return Err(format!("Unknown codec: {other}")),
    };
    match plain.len() > limit {
        true => Err(format!("A block is larger than {limit} bytes")),
        false => Ok(plain),
    }
}

fn read_all(reader: impl Read, limit: usize) -> Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    let read = reader.take(limit as u64 + 1).read_to_end(&mut plain);
    read.map_err(|error| format!("Cannot decompress a block: {error}"))?;
    Ok(plain)
}

/// The data end with the big-endian CRC-32 of what they hold.
fn snappy(data: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let (data, checksum) = data.split_last_chunk::<4>().ok_or("A block without its checksum")?;
    let refused = |error: snap::Error| format!("Cannot decompress a block: {error}");
    if snap::raw::decompress_len(data).map_err(refused)? > limit {
        return Err(format!("A block is larger than {limit} bytes"));
    }
    let plain = snap::raw::Decoder::new().decompress_vec(data).map_err(refused)?;
    match crc32fast::hash(&plain) == u32::from_be_bytes(*checksum) {
        true => Ok(plain),
        false => Err("Checksum did not match".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_not_larger_than_allowed_in_any_codec() {
        let plain = vec![7; 1_000];
        let mut snappy = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        snappy.extend(crc32fast::hash(&plain).to_be_bytes());
        let mut deflate = Vec::new();
        let encoder = flate2::read::DeflateEncoder::new(&plain[..], flate2::Compression::fast());
        { encoder }.read_to_end(&mut deflate).unwrap();
        let zstandard = zstd::stream::encode_all(&plain[..], 1).unwrap();
        for (codec, data) in [
            ("null", &plain),
            ("snappy", &snappy),
            ("deflate", &deflate),
            ("zstandard", &zstandard),
        ] {
            assert_eq!(decompress(codec, data, 1_000).unwrap(), plain, "{codec}");
            assert!(decompress(codec, data, 999).is_err(), "{codec}");
        }
        *snappy.last_mut().unwrap() ^= 1;
        assert_eq!(decompress("snappy", &snappy, 1_000).unwrap_err(), "Checksum did not match");
        assert_eq!(decompress("xz", &plain, 1_000).unwrap_err(), "Unknown codec: xz");
    }
}
