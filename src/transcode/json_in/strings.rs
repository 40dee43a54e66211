//! The strings of a JSON text.

use std::borrow::Cow;

use crate::transcode::{
    error::{RowError, Step},
    raw_text::RawText,
    scan::clean_prefix,
};

/// A JSON string as it stands in the text, checked.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    raw: RawText<'a>,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// What stands between the quotes, and whether there are escapes in it.
    #[inline(always)]
    pub fn new(raw: RawText<'a>, escaped: bool) -> Self {
        Self { raw, escaped }
    }

    /// The string's contents; allocates only if the text has escapes.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn value(&self) -> Step<Cow<'a, str>> {
        if !self.escaped {
            return self.raw.checked().map(Cow::Borrowed);
        }
        let value = String::from_utf8(unescape(self.raw.bytes()));
        value.map(Cow::Owned).map_err(|_| RowError::decode("a string that is not valid UTF-8"))
    }

    /// Calls `take` with the string's contents; allocates only if the text has escapes.
    #[inline(always)]
    pub fn with<T>(&self, take: impl FnOnce(RawText<'_>) -> T) -> T {
        if self.escaped {
            let value = unescape(self.raw.bytes());
            return take(RawText::whole(&value));
        }
        take(self.raw)
    }

    /// The string's contents where they stand in the text, if there are no escapes.
    #[inline(always)]
    pub fn plain(&self) -> Option<RawText<'a>> {
        (!self.escaped).then_some(self.raw)
    }
}

/// How many bytes an escape takes, and the character that it stands for.
pub fn read_escape(bytes: &[u8]) -> Option<(usize, char)> {
    let (head, after) = bytes.split_first_chunk::<2>()?;
    let character = match head {
        b"\\\"" => '"',
        b"\\\\" => '\\',
        b"\\/" => '/',
        b"\\b" => '\u{8}',
        b"\\f" => '\u{c}',
        b"\\n" => '\n',
        b"\\r" => '\r',
        b"\\t" => '\t',
        b"\\u" => return read_unicode(after),
        _ => return None,
    };
    Some((2, character))
}

fn read_unicode(bytes: &[u8]) -> Option<(usize, char)> {
    let (unit, after) = hex4(bytes)?;
    if let Some(character) = char::from_u32(unit) {
        return Some((6, character));
    }
    let (low, _) = hex4(after.strip_prefix(b"\\u")?)?;
    if !(0xd800..0xdc00).contains(&unit) || !(0xdc00..0xe000).contains(&low) {
        return None;
    }
    let code = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
    Some((12, char::from_u32(code)?))
}

fn hex4(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, after) = bytes.split_first_chunk::<4>()?;
    let mut unit = 0;
    for digit in digits {
        unit = unit << 4 | char::from(*digit).to_digit(16)?;
    }
    Some((unit, after))
}

/// The contents of a checked string.
#[cold]
fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(raw.len());
    let mut rest = raw;
    loop {
        // A checked string has nothing special but escapes.
        let (plain, escape) = rest.split_at_checked(clean_prefix(rest)).unwrap_or((rest, &[]));
        value.extend_from_slice(plain);
        let Some((consumed, character)) = read_escape(escape) else { return value };
        value.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = escape.get(consumed..).unwrap_or_default();
    }
}
