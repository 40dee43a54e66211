//! Text that has not been checked yet, copied while it is checked.
//!
//! Strings in records are short and of every length, so that loops over their bytes and copies of
//! just so many bytes cost a mispredicted branch each. Text is therefore read and written in whole
//! chunks, past its end if the payload goes on there, and the output is cut back afterwards.

use std::hint::select_unpredictable;

use crate::transcode::{
    error::{RowError, Step},
    scan::{self, CHUNK},
    writer::push_first,
};

/// Bytes that should be UTF-8, and the payload behind them.
#[derive(Clone, Copy, Debug)]
pub struct RawText<'a> {
    /// The text and whatever follows it in the payload.
    window: &'a [u8],
    len: usize,
}

impl<'a> From<&'a str> for RawText<'a> {
    fn from(text: &'a str) -> Self {
        Self::whole(text.as_bytes())
    }
}

impl<'a> RawText<'a> {
    /// The first `len` bytes of `window`, if it has so many.
    #[inline(always)]
    pub fn new(window: &'a [u8], len: usize) -> Option<Self> {
        (len <= window.len()).then_some(Self { window, len })
    }

    /// All of `bytes`.
    #[inline(always)]
    pub fn whole(bytes: &'a [u8]) -> Self {
        Self { window: bytes, len: bytes.len() }
    }

    /// The text's bytes.
    #[inline(always)]
    pub fn bytes(self) -> &'a [u8] {
        self.window.get(..self.len).unwrap_or_default()
    }

    /// The text.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn checked(self) -> Step<&'a str> {
        std::str::from_utf8(self.bytes())
            .map_err(|_| RowError::decode("a string that is not valid UTF-8"))
    }

    /// How many bytes the text has.
    #[inline(always)]
    pub fn size(self) -> usize {
        self.len
    }

    /// The same text, which is UTF-8. The library's check takes ten times as long for a short one.
    ///
    /// # Errors
    /// When it is not.
    #[inline(always)]
    pub fn check(self) -> Step<Self> {
        let (mut window, mut left, mut seen) = (self.window, self.len, 0);
        while left > CHUNK {
            let (chunk, after) = split_chunk(window);
            (window, left, seen) = (after, left - CHUNK, seen | chunk);
        }
        let (chunk, _) = split_chunk(window);
        // What follows the text may be anything.
        let beyond = u32::try_from(8 * (CHUNK - left)).unwrap_or_default();
        seen |= chunk.checked_shl(beyond).unwrap_or_default();
        if seen & HIGHS != 0 {
            self.check_wide()?;
        }
        Ok(self)
    }

    /// The same for text that is not all ASCII.
    #[inline(never)]
    fn check_wide(self) -> Step {
        let is_short = self.len <= CHUNK;
        if !is_short || !has_short_characters_only(pad(self.bytes())) {
            self.checked()?;
        }
        Ok(())
    }

    /// The byte after the first `plain` ones and what follows it, or `None` at the end.
    #[inline]
    pub fn split_special(self, plain: usize) -> Option<(u8, Self)> {
        let special = self.window.get(plain).filter(|_| plain < self.len)?;
        Some((*special, self.after(plain + 1)))
    }

    /// What follows the first `len` bytes.
    #[inline]
    pub fn after(self, len: usize) -> Self {
        Self {
            window: self.window.get(len..).unwrap_or_default(),
            len: self.len.saturating_sub(len),
        }
    }

    /// Appends the bytes, whatever they are.
    #[inline(always)]
    pub fn push(self, out: &mut Vec<u8>) {
        self.push_plain(out, |_| CHUNK);
    }

    /// Appends the text up to the first byte that is not plain, and returns how many bytes that
    /// are. `plain` counts those before it in a chunk (see [`scan`]).
    #[inline(always)]
    pub fn push_plain(self, out: &mut Vec<u8>, plain: impl Fn(u128) -> usize) -> usize {
        let (mut window, mut left) = (self.window, self.len);
        loop {
            let (chunk, after) = split_chunk(window);
            let plain = plain(chunk);
            // What follows the text may be anything.
            let plain = select_unpredictable(plain < left, plain, left);
            push_first(out, &chunk.to_le_bytes(), plain);
            if left <= CHUNK || plain < CHUNK {
                return self.len - left + plain;
            }
            window = after;
            left -= CHUNK;
        }
    }
}

/// Whether `bytes` are UTF-8; quick where most are ASCII and the rest are characters of two bytes.
pub fn is_utf8(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some((block, after)) = rest.split_first_chunk::<{ 4 * CHUNK }>() {
        if scan::all_ascii(block) {
            rest = after;
            continue;
        }
        let within = |rest: &[u8]| rest.len() > after.len();
        while within(rest) {
            let Some(taken) = short_characters(rest) else {
                return std::str::from_utf8(rest).is_ok();
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
    }
    while rest.len() >= CHUNK {
        let Some(taken) = short_characters(rest) else { return std::str::from_utf8(rest).is_ok() };
        rest = rest.get(taken..).unwrap_or_default();
    }
    has_short_characters_only(pad(rest)) || std::str::from_utf8(rest).is_ok()
}

/// How many bytes of the first chunk of `text` are whole characters, if they have one or two bytes each.
#[inline(always)]
fn short_characters(text: &[u8]) -> Option<usize> {
    let (chunk, _) = split_chunk(text);
    if chunk & HIGHS == 0 {
        return Some(CHUNK);
    }
    // A character that begins with the last byte belongs to the next chunk.
    let is_cut = chunk >> 120 >= 0xc0;
    let (taken, chunk) = if is_cut { (CHUNK - 1, chunk << 8 >> 8) } else { (CHUNK, chunk) };
    has_short_characters_only(chunk).then_some(taken)
}

/// The high bit of every byte.
const HIGHS: u128 = u128::from_ne_bytes([0x80; CHUNK]);

/// Whether the bytes are UTF-8 with characters of one byte and of two, as most of Europe's are. `false`
/// says nothing.
#[inline(always)]
fn has_short_characters_only(bytes: u128) -> bool {
    let bit = |number: u32| (bytes << (7 - number)) & HIGHS;
    let beyond = bit(7);
    let following = beyond & !bit(6);
    let leading = beyond & bit(6) & !bit(5);
    // 0xc0 and 0xc1 would lead what fits into one byte.
    let is_shortest = leading & !(bit(4) | bit(3) | bit(2) | bit(1)) == 0;
    let is_paired = leading << 8 == following && leading >> 120 == 0;
    is_shortest && is_paired && beyond == leading | following
}

/// Text that a plan owns, with room behind it, so that it is always read in whole chunks.
#[derive(Clone, Debug)]
pub struct PaddedText {
    window: Box<[u8]>,
    len: usize,
}

impl PaddedText {
    /// Copies `text`.
    pub fn new(text: &str) -> Self {
        let mut window = text.as_bytes().to_vec();
        window.resize(text.len().next_multiple_of(CHUNK), 0);
        Self { window: window.into(), len: text.len() }
    }

    /// The text.
    #[inline(always)]
    pub fn text(&self) -> RawText<'_> {
        RawText { window: &self.window, len: self.len }
    }
}

/// The first chunk of `window`, padded with zeros if the payload ends within it, and what follows it.
#[inline(always)]
pub fn split_chunk(window: &[u8]) -> (u128, &[u8]) {
    if let Some((chunk, after)) = window.split_first_chunk() {
        return (u128::from_le_bytes(*chunk), after);
    }
    (pad(window), &[])
}

/// At most a chunk, its first byte the lowest, padded with zeros: by words that overlap, not one by one.
#[inline]
pub fn pad(bytes: &[u8]) -> u128 {
    let len = bytes.len();
    if let (Some(low), Some(high)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (low, high) = (u64::from_le_bytes(*low), u64::from_le_bytes(*high));
        u128::from(low) | u128::from(high) << (8 * (len - 8))
    } else if let (Some(low), Some(high)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (low, high) = (u32::from_le_bytes(*low), u32::from_le_bytes(*high));
        u128::from(low) | u128::from(high) << (8 * (len - 4))
    } else {
        bytes.iter().rev().fold(0, |word, byte| word << 8 | u128::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transcode::scan::{ascii, clean, clean_ascii};

    /// What `push_plain` appends and how much that is.
    fn plain(window: &[u8], len: usize, count: fn(u128) -> usize) -> (Vec<u8>, usize) {
        let mut out = vec![b'x'];
        let copied = RawText::new(window, len).unwrap().push_plain(&mut out, count);
        assert_eq!(out.remove(0), b'x');
        (out, copied)
    }

    fn is_special(byte: u8) -> bool {
        byte < 0x20 || byte == b'"' || byte == b'\\'
    }

    #[test]
    fn every_length_is_padded_with_zeros() {
        let bytes: Vec<u8> = (1..=16).collect();
        for len in 0..=16 {
            let mut expected = [0; 16];
            expected[..len].copy_from_slice(&bytes[..len]);
            assert_eq!(pad(&bytes[..len]).to_le_bytes(), expected);
        }
    }

    #[test]
    fn what_follows_the_text_is_never_part_of_it() {
        for window in 0..50 {
            for len in 0..=window {
                let mut bytes = vec![b'a'; len];
                bytes.resize(window, b'"');
                let expected = (vec![b'a'; len], len);
                assert_eq!(plain(&bytes, len, clean_ascii), expected);
            }
            assert!(RawText::new(&vec![0; window], window + 1).is_none());
        }
    }

    #[test]
    fn text_that_is_not_utf_8_is_refused() {
        let text = RawText::new(b"abc\xffd and more", 5).unwrap();
        assert!(text.after(3).check().is_err());
        for bad in [&b"\xc0\x80"[..], b"\xc3", b"\x80", b"\xc3\xbc\xbc"] {
            assert!(RawText::new(bad, bad.len()).unwrap().check().is_err(), "{bad:?}");
        }
        assert!(text.checked().is_err());
        // Cut within a character.
        assert!(RawText::new("abcé".as_bytes(), 4).unwrap().after(3).check().is_err());
        let rest = RawText::from("abcéd").after(3).check().unwrap();
        assert_eq!(rest.bytes(), "éd".as_bytes());
    }

    #[test]
    fn every_pair_of_bytes_is_judged_as_the_standard_library_does() {
        for pair in 0..=u16::MAX {
            let pair = pair.to_le_bytes();
            let judged = has_short_characters_only(u128::from(u16::from_le_bytes(pair)));
            assert_eq!(judged, std::str::from_utf8(&pair).is_ok(), "{pair:?}");
        }
    }

    proptest! {
        #[test]
        fn the_copy_ends_where_a_plain_loop_ends(
            window in proptest::collection::vec(
                prop_oneof![9 => 0x20_u8..0x80, 1 => any::<u8>(), 1 => Just(b'\\')], 0..50
            ),
            len in 0..50_usize,
        ) {
            let len = len.min(window.len());
            let first = |special: fn(u8) -> bool| {
                let end = window[..len].iter().position(|byte| special(*byte)).unwrap_or(len);
                (window[..end].to_vec(), end)
            };
            let both = |byte: u8| is_special(byte) || !byte.is_ascii();
            prop_assert_eq!(plain(&window, len, clean), first(is_special));
            prop_assert_eq!(plain(&window, len, ascii), first(|byte| !byte.is_ascii()));
            prop_assert_eq!(plain(&window, len, clean_ascii), first(both));
        }

        #[test]
        fn text_is_judged_as_the_standard_library_does(
            characters in proptest::collection::vec(
                prop_oneof![
                    4 => (0x20_u8..0x7f).prop_map(|byte| vec![byte]),
                    3 => proptest::char::range('\u{80}', '\u{7ff}').prop_map(|c| c.to_string().into()),
                    1 => any::<char>().prop_map(|c| c.to_string().into()),
                    1 => any::<u8>().prop_map(|byte| vec![byte]),
                ],
                0..60,
            ),
            behind in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let text = characters.concat();
            let window = [&text[..], &behind].concat();
            let raw = RawText::new(&window, text.len()).unwrap();
            let expected = std::str::from_utf8(&text).is_ok();
            prop_assert_eq!((raw.check().is_ok(), is_utf8(&text)), (expected, expected));
            prop_assert_eq!(is_utf8(&window), std::str::from_utf8(&window).is_ok());
        }
    }
}
