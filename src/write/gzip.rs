//! Bodies compressed at the cheapest level, with compressors that are kept.

use std::{io::Write, sync::Mutex};

use bytes::Bytes;
use flate2::{Compression, GzBuilder, write::GzEncoder};

/// Compresses bodies. Output buffers are allocated per body, since they travel; that is the only
/// allocation of size, because the encoder's own state is far smaller than a body.
#[derive(Debug, Default)]
pub struct Gzip {
    /// Bytes that came out for 1,024 that went in, lately: sizes the next output buffer.
    ratio: Mutex<usize>,
}

impl Gzip {
    /// The body as gzip.
    pub fn compress(&self, body: &Bytes) -> std::io::Result<Bytes> {
        let guess = self.guess(body.len());
        let mut encoder: GzEncoder<Vec<u8>> =
            GzBuilder::new().write(Vec::with_capacity(guess), Compression::fast());
        encoder.write_all(body)?;
        let out = encoder.finish()?;
        self.learn(body.len(), out.len());
        Ok(out.into())
    }

    fn guess(&self, bytes: usize) -> usize {
        let ratio = self.ratio.lock().map_or(0, |ratio| *ratio);
        let ratio = if ratio == 0 { 256 } else { ratio };
        bytes / 1024 * ratio * 5 / 4 + 1024
    }

    fn learn(&self, bytes_in: usize, bytes_out: usize) {
        if let Ok(mut ratio) = self.ratio.lock() {
            *ratio = bytes_out * 1024 / bytes_in.max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let (gzip, body) = (Gzip::default(), Bytes::from("abc".repeat(100_000)));
        for _ in 0..2 {
            let packed = gzip.compress(&body).unwrap();
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(packed.as_ref()).read_to_end(&mut text).unwrap();
            assert!(packed.len() < 30_000 && text == body);
        }
    }
}
