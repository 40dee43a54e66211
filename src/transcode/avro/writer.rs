//! The few encodings that are written: what stands beside a datum that is passed through.

/// Appends a `long`.
pub fn push_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a length, or an index.
pub fn push_len(len: usize, out: &mut Vec<u8>) {
    // No slice is longer than `isize::MAX`.
    push_long(i64::try_from(len).unwrap_or(i64::MAX), out);
}

/// Appends `bytes` or a `string`.
pub fn push_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    push_len(bytes.len(), out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcode::avro::reader::Reader;

    #[test]
    fn what_is_written_is_read() {
        for value in [0, -1, 1, 63, 64, -64, -65, 1 << 40, i64::MIN, i64::MAX] {
            let mut out = Vec::new();
            push_long(value, &mut out);
            push_bytes(b"abc", &mut out);
            let mut reader = Reader::new(&out, 0);
            assert_eq!((reader.long().unwrap(), reader.bytes().unwrap()), (value, &b"abc"[..]));
            reader.end().unwrap();
        }
    }
}
