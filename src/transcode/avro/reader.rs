//! The primitive types of Avro's binary encoding, every length checked against what is left.

use crate::transcode::{
    error::{RowError, Step},
    plan::too_large,
    raw_text::RawText,
};

/// A position in a datum.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// The output's length at which the row is too large.
    out_max: usize,
}

impl<'a> Reader<'a> {
    /// Starts reading; the row may end at `out_max`.
    pub fn new(datum: &'a [u8], out_max: usize) -> Self {
        Self { rest: datum, out_max }
    }

    /// Checks that the output has not outgrown the row's limit: asked once per element, because an
    /// element of one byte may become a long row.
    #[inline]
    pub fn check_room(&self, out: &[u8]) -> Step {
        if out.len() > self.out_max { Err(too_large()) } else { Ok(()) }
    }

    /// Checks that nothing is left.
    pub fn end(&self) -> Step {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(RowError::decode("there are bytes left after the datum; is this the writer's schema?"))
    }

    /// So many bytes.
    #[inline(always)]
    pub fn take(&mut self, len: usize) -> Step<&'a [u8]> {
        let Some((bytes, rest)) = self.rest.split_at_checked(len) else { return Err(ends_early()) };
        self.rest = rest;
        Ok(bytes)
    }

    #[inline(always)]
    fn chunk<const N: usize>(&mut self) -> Step<[u8; N]> {
        let Some((bytes, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(ends_early());
        };
        self.rest = rest;
        Ok(*bytes)
    }

    /// A `boolean`.
    #[inline]
    pub fn boolean(&mut self) -> Step<bool> {
        match self.chunk::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(RowError::decode("a boolean that is neither 0 nor 1")),
        }
    }

    /// A `long` that is likely to take one byte.
    #[inline(always)]
    fn short_long(&mut self) -> Step<i64> {
        if let Some((first, rest)) = self.rest.split_first()
            && *first < 0x80
        {
            self.rest = rest;
            return Ok(unzigzag(u64::from(*first)));
        }
        self.long()
    }

    /// A `long`: without a branch per byte, because nobody can predict how many there are.
    #[inline(always)]
    pub fn long(&mut self) -> Step<i64> {
        if let Some(word) = self.rest.first_chunk()
            && let Some((value, len)) = varint_of_word(u64::from_le_bytes(*word))
            && let Some(rest) = self.rest.get(len..)
        {
            self.rest = rest;
            return Ok(unzigzag(value));
        }
        self.any_long()
    }

    /// A `long` of more than eight bytes, or near the datum's end.
    fn any_long(&mut self) -> Step<i64> {
        let mut value = 0_u64;
        let mut shift = 0;
        let mut bytes = self.rest.iter();
        for byte in bytes.by_ref().take(10) {
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(varint_too_long());
            }
            value |= part << shift;
            if *byte < 0x80 {
                self.rest = bytes.as_slice();
                return Ok(unzigzag(value));
            }
            shift += 7;
        }
        if shift >= 70 { Err(varint_too_long()) } else { Err(ends_early()) }
    }

    /// An `int`.
    #[inline(always)]
    pub fn int(&mut self) -> Step<i32> {
        i32::try_from(self.long()?).map_err(|_| RowError::decode("an int of more than 32 bits"))
    }

    /// A `float`.
    #[inline]
    pub fn float(&mut self) -> Step<f32> {
        Ok(f32::from_le_bytes(self.chunk()?))
    }

    /// A `double`.
    #[inline]
    pub fn double(&mut self) -> Step<f64> {
        Ok(f64::from_le_bytes(self.chunk()?))
    }

    /// Three little-endian `u32`: a `duration`.
    pub fn duration(&mut self) -> Step<[u32; 3]> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.chunk::<12>()?;
        Ok([[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_le_bytes))
    }

    /// `bytes`.
    #[inline(always)]
    pub fn bytes(&mut self) -> Step<&'a [u8]> {
        let len = self.len()?;
        self.take(len)
    }

    #[inline(always)]
    fn len(&mut self) -> Step<usize> {
        usize::try_from(self.short_long()?).map_err(|_| RowError::decode("a negative length"))
    }

    /// A `string`, not checked to be UTF-8.
    #[inline(always)]
    pub fn text(&mut self) -> Step<RawText<'a>> {
        let len = self.len()?;
        let text = RawText::new(self.rest, len).ok_or_else(ends_early)?;
        self.take(len)?;
        Ok(text)
    }

    /// The index of a union's branch or an enum's symbol.
    #[inline(always)]
    pub fn index(&mut self) -> Step<u32> {
        u32::try_from(self.short_long()?).map_err(|_| RowError::decode("an index out of range"))
    }

    /// The head of an array's or map's next block: how many items of at least `bytes_min` bytes it
    /// has; 0 at the end.
    pub fn block(&mut self, bytes_min: usize) -> Step<u64> {
        let mut count = self.short_long()?;
        if count < 0 {
            let bytes = self.long()?;
            if usize::try_from(bytes).map_or(true, |bytes| bytes > self.rest.len()) {
                return Err(RowError::decode("a block's size is larger than the datum"));
            }
            count = count.checked_neg().ok_or_else(block_too_large)?;
        }
        let count = count.unsigned_abs();
        let bytes = count.checked_mul(bytes_min as u64).ok_or_else(block_too_large)?;
        if bytes > self.rest.len() as u64 {
            return Err(block_too_large());
        }
        Ok(count)
    }
}

/// The varint at the start of eight bytes and how many of them it takes, if it ends among them.
#[inline(always)]
fn varint_of_word(word: u64) -> Option<(u64, usize)> {
    let ends = !word & 0x8080_8080_8080_8080;
    if ends == 0 {
        return None;
    }
    // All bits up to the first clear continuation bit, then groups of 7 bits moved together.
    let sevens = word & (ends ^ (ends - 1)) & 0x7f7f_7f7f_7f7f_7f7f;
    let pairs = (sevens & 0x007f_007f_007f_007f) | (sevens & 0x7f00_7f00_7f00_7f00) >> 1;
    let fours = (pairs & 0x0000_3fff_0000_3fff) | (pairs & 0x3fff_0000_3fff_0000) >> 2;
    let value = (fours & 0x0fff_ffff) | (fours & 0x0fff_ffff_0000_0000) >> 4;
    Some((value, (ends.trailing_zeros() / 8 + 1) as usize))
}

#[inline(always)]
fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cold]
fn ends_early() -> Box<RowError> {
    RowError::decode("the datum ends early")
}

#[cold]
fn varint_too_long() -> Box<RowError> {
    RowError::decode("an integer of more than 64 bits")
}

#[cold]
fn block_too_large() -> Box<RowError> {
    RowError::decode("a block has more items than the datum has bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(bytes: &[u8]) -> Result<i64, String> {
        let mut reader = Reader::new(bytes, 0);
        let value = reader.long().map_err(|error| error.message.into_owned())?;
        reader.end().map_err(|error| error.message.into_owned())?;
        Ok(value)
    }

    #[test]
    fn longs_are_zigzag_varints() {
        assert_eq!(long(&[0]), Ok(0));
        assert_eq!(long(&[1]), Ok(-1));
        assert_eq!(long(&[0x80, 0x01]), Ok(64));
        assert_eq!(
            long(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            Ok(i64::MIN)
        );
        assert_eq!(
            long(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            Ok(i64::MAX)
        );
    }

    #[test]
    fn longs_are_the_same_near_the_end_and_before_it() {
        for bits in 0..64 {
            for value in
                [1_i64 << bits, (1_i64 << bits).wrapping_sub(1), -1_i64 << bits, i64::MIN >> bits]
            {
                let mut zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
                let mut bytes = Vec::new();
                while zigzag >= 0x80 {
                    bytes.push((zigzag & 0x7f) as u8 | 0x80);
                    zigzag >>= 7;
                }
                bytes.push(zigzag as u8);
                assert_eq!(long(&bytes), Ok(value));
                bytes.resize(20, 0xff);
                assert_eq!(Reader::new(&bytes, 0).long().ok(), Some(value));
                assert_eq!(Reader::new(&bytes, 0).short_long().ok(), Some(value));
            }
        }
    }

    #[test]
    fn overlong_and_cut_varints_are_told_apart() {
        assert!(long(&[0xff; 9]).unwrap_err().contains("ends early"));
        assert!(long(&[0x80]).unwrap_err().contains("ends early"));
        assert!(long(&[]).unwrap_err().contains("ends early"));
        let too_wide = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert!(long(&too_wide).unwrap_err().contains("64 bits"));
        assert!(long(&[0xff; 11]).unwrap_err().contains("64 bits"));
    }

    #[test]
    fn blocks_promise_no_more_than_there_is() {
        let block = |bytes: &[u8], bytes_min| Reader::new(bytes, 0).block(bytes_min).ok();
        assert_eq!(block(&[4, 0, 0], 1), Some(2));
        assert_eq!(block(&[4, 0, 0], 2), None);
        assert_eq!(block(&[3, 4, 0, 0], 1), Some(2));
        assert_eq!(block(&[3, 6, 0, 0], 1), None);
        let most_negative = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0];
        assert_eq!(block(&most_negative, 0), None);
    }

    #[test]
    fn ints_and_lengths_are_bounded() {
        let wide = [0x80, 0x80, 0x80, 0x80, 0x10];
        assert_eq!(long(&wide), Ok(1 << 31));
        assert!(Reader::new(&wide, 0).int().is_err());
        assert!(Reader::new(&[1], 0).bytes().is_err());
        assert!(Reader::new(&[4, 0], 0).bytes().is_err());
        assert!(Reader::new(&[2, 0xff], 0).text().unwrap().checked().is_err());
        assert!(Reader::new(&[2], 0).boolean().is_err());
    }
}
