//! The two checksums of an object, as the API spells them.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use md5::{Digest, Md5};

/// CRC32C (Castagnoli, reflected polynomial 0x82f63b78) by the byte.
const TABLE: [u32; 256] = {
    let mut table = [0_u32; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

/// Base64 of the big-endian CRC32C.
pub fn crc32c(bytes: &[u8]) -> String {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        let index = (crc as u8 ^ byte) as usize;
        TABLE.get(index).copied().unwrap_or_default() ^ (crc >> 8)
    });
    BASE64.encode((!crc).to_be_bytes())
}

/// Base64 of the MD5.
pub fn md5(bytes: &[u8]) -> String {
    BASE64.encode(Md5::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        // RFC 3720, B.4: 32 zeros; and the usual check value 0xe3069283.
        assert_eq!(crc32c(&[0; 32]), BASE64.encode(0x8a91_36aa_u32.to_be_bytes()));
        assert_eq!(crc32c(b"123456789"), BASE64.encode(0xe306_9283_u32.to_be_bytes()));
        assert_eq!(crc32c(b""), "AAAAAA==");
        assert_eq!(md5(b""), "1B2M2Y8AsgTpgAmY7PhCfg==");
    }
}
