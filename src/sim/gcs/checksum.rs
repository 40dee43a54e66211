//! The two checksums of an object, as the API spells them.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use md5::{Digest, Md5};

/// What is known of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksums {
    /// Base64 of the big-endian CRC32C.
    pub crc32c: String,
    /// Base64 of the MD5.
    pub md5: String,
}

impl Checksums {
    /// Those of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            crc32c: BASE64.encode(crc32c::crc32c(bytes).to_be_bytes()),
            md5: BASE64.encode(Md5::digest(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        let crc32c = |bytes| Checksums::of(bytes).crc32c;
        // RFC 3720, B.4: 32 zeros; and the usual check value 0xe3069283.
        assert_eq!(crc32c(&[0; 32]), BASE64.encode(0x8a91_36aa_u32.to_be_bytes()));
        assert_eq!(crc32c(b"123456789"), BASE64.encode(0xe306_9283_u32.to_be_bytes()));
        assert_eq!(crc32c(b""), "AAAAAA==");
        assert_eq!(Checksums::of(b"").md5, "1B2M2Y8AsgTpgAmY7PhCfg==");
    }
}
