//! Confluent's wire format: a zero byte, the schema id as four big-endian bytes, the datum.
//!
//! <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>

/// Why a payload is not in Confluent's wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer than five bytes.
    #[error("the payload is shorter than the five-byte header of Confluent's wire format")]
    TooShort,
    /// The first byte is not zero.
    #[error(
        "the payload does not start with the magic byte 0 of Confluent's wire format; is it Avro written without a schema registry?"
    )]
    Magic,
}

/// The schema id and the datum after it.
///
/// # Errors
/// When the payload is shorter than the header, or does not start with the magic byte.
pub fn split(payload: &[u8]) -> Result<(u32, &[u8]), WireError> {
    let (header, body) = payload.split_first_chunk::<5>().ok_or(WireError::TooShort)?;
    let [magic, id @ ..] = *header;
    if magic != 0 {
        return Err(WireError::Magic);
    }
    Ok((u32::from_be_bytes(id), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_split_from_the_datum() {
        assert_eq!(split(&[0, 0, 1, 0, 2, 9, 8]), Ok((65_538, &[9, 8][..])));
        assert_eq!(split(&[0, 0, 0, 0, 7]), Ok((7, &[][..])));
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(split(b"\0\0\0\0"), Err(WireError::TooShort));
        assert_eq!(split(b"Obj\x01\0\0"), Err(WireError::Magic));
    }
}
