//! The two checksums of an object, as the API spells them.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use md5::{Digest, Md5};

/// CRC32C (Castagnoli, reflected polynomial 0x82f63b78) by the byte.
static TABLE: LazyLock<[u32; 256]> = LazyLock::new(|| {
    std::array::from_fn(|index| {
        let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        (0..8).fold(index as u32, |crc, _| step(crc))
    })
});

/// Base64 of the big-endian CRC32C.
pub fn crc32c(bytes: &[u8]) -> String {
    let table = &*TABLE;
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        let index = usize::from(crc as u8 ^ byte);
        table.get(index).copied().unwrap_or_default() ^ (crc >> 8)
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
