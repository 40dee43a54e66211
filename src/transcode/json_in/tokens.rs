//! The tokens of a JSON text.

use crate::transcode::{
    error::{RowError, Step},
    json_in::{
        names::SpelledKey,
        numbers::{Number, finite},
        strings::{Text, read_escape},
    },
    limits::DEPTH_MAX,
    number::PlainNumber,
    raw_text::{RawText, is_utf8},
    scan::{CHUNK, clean_first, clean_prefix},
};

/// Checks that `text` is one JSON value that a `JSON` column takes.
///
/// # Errors
/// When it is not.
pub fn validate(text: &str) -> Step {
    let mut tokens = Tokens::of(text);
    tokens.json_value()?;
    tokens.end()
}

/// What kind of value comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// A digit or `-`.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`.
    Null,
}

/// A position in a JSON text, which is UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    /// Starts reading.
    ///
    /// # Errors
    /// When the bytes are not UTF-8.
    pub fn new(bytes: &'a [u8]) -> Step<Self> {
        if is_utf8(bytes) { Ok(Self { text: bytes, at: 0 }) } else { Err(not_utf8()) }
    }

    /// Starts reading text.
    pub fn of(text: &'a str) -> Self {
        Self { text: text.as_bytes(), at: 0 }
    }

    #[inline(always)]
    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// What has been read since `start`.
    #[inline(always)]
    fn since(&self, start: usize) -> &'a [u8] {
        self.text.get(start..self.at).unwrap_or_default()
    }

    #[inline(always)]
    fn byte(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// The next byte that is not white space, not consumed.
    #[inline(always)]
    pub fn peek(&mut self) -> Option<u8> {
        match self.byte() {
            Some(byte) if byte > b' ' => Some(byte),
            _ => {
                self.at = pass_space(self.text, self.at);
                self.byte()
            }
        }
    }

    /// How far the text has been read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The key that was read from `position` on.
    pub fn key_at(&self, position: usize) -> Step<Text<'a>> {
        Self { text: self.text, at: position }.key_text()
    }

    /// What kind of value comes next.
    #[inline]
    pub fn upcoming(&mut self) -> Step<Next> {
        Ok(match self.peek() {
            Some(b'{') => Next::Object,
            Some(b'[') => Next::Array,
            Some(b'"') => Next::String,
            Some(b'-' | b'0'..=b'9') => Next::Number,
            Some(b't' | b'f') => Next::Bool,
            Some(b'n') => Next::Null,
            _ => return Err(malformed()),
        })
    }

    #[inline(always)]
    fn expect(&mut self, byte: u8) -> Step {
        if self.peek() != Some(byte) {
            return Err(malformed());
        }
        self.at += 1;
        Ok(())
    }

    /// Consumes `{`.
    ///
    /// # Errors
    /// When something else comes.
    pub fn open_object(&mut self) -> Step {
        self.open(b'{', "an object is expected here")
    }

    /// Consumes `[`.
    ///
    /// # Errors
    /// When something else comes.
    pub fn open_array(&mut self) -> Step {
        self.open(b'[', "an array is expected here")
    }

    fn open(&mut self, bracket: u8, message: &'static str) -> Step {
        if self.peek() != Some(bracket) {
            return Err(RowError::decode(message));
        }
        self.at += 1;
        Ok(())
    }

    /// Consumes `null` if it comes next.
    ///
    /// # Errors
    /// When something comes that only begins like it.
    #[inline]
    pub fn take_null(&mut self) -> Step<bool> {
        if self.peek() != Some(b'n') {
            return Ok(false);
        }
        self.null().map(|()| true)
    }

    /// The whole text, if it is one number without white space around it.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn only_number(mut self) -> Step<Number<'a>> {
        let number = self.number()?;
        if number.size() != self.text.len() {
            return Err(RowError::decode("the text is no number"));
        }
        Ok(number)
    }

    /// The next key of the open object and its colon, or `None` at its end. `first` starts true.
    pub fn key(&mut self, first: &mut bool) -> Step<Option<Text<'a>>> {
        if self.member(first)? { self.key_text().map(Some) } else { Ok(None) }
    }

    /// Whether the open object has another member, standing before its key. `first` starts true.
    #[inline(always)]
    pub fn member(&mut self, first: &mut bool) -> Step<bool> {
        self.separator(first, b'}')
    }

    /// A key and its colon.
    pub fn key_text(&mut self) -> Step<Text<'a>> {
        let key = self.string()?;
        self.expect(b':')?;
        Ok(key)
    }

    /// Consumes a key and its colon if they stand here in just this way.
    #[inline(always)]
    pub fn take_key(&mut self, key: &SpelledKey) -> bool {
        let is_next = self.text.get(self.at..).is_some_and(|rest| key.begins(rest));
        if is_next {
            self.at += key.size();
        }
        is_next
    }

    /// Whether the open array has another element, standing before it. `first` starts true.
    #[inline(always)]
    pub fn element(&mut self, first: &mut bool) -> Step<bool> {
        self.separator(first, b']')
    }

    #[inline(always)]
    fn separator(&mut self, first: &mut bool, close: u8) -> Step<bool> {
        let next = self.peek();
        if next == Some(close) {
            self.at += 1;
            return Ok(false);
        }
        if !std::mem::take(first) {
            if next != Some(b',') {
                return Err(malformed());
            }
            self.at += 1;
            self.peek();
        }
        Ok(true)
    }

    /// A string.
    #[inline]
    pub fn string(&mut self) -> Step<Text<'a>> {
        self.peek();
        self.string_here()
    }

    /// A string that begins with the next byte.
    #[inline(always)]
    pub fn string_here(&mut self) -> Step<Text<'a>> {
        if self.byte() != Some(b'"') {
            return Err(malformed());
        }
        let start = self.at + 1;
        let Some(window) = self.text.get(start..) else { return Err(malformed()) };
        let mut rest = window;
        self.at = loop {
            let plain = clean_first(rest);
            if plain < CHUNK {
                break start + window.len() - rest.len() + plain;
            }
            rest = rest.get(CHUNK..).unwrap_or_default();
        };
        let mut escaped = false;
        if self.byte() != Some(b'"') {
            (self.at, escaped) = self.pass_string()?;
        }
        let text = RawText::new(window, self.at - start).ok_or_else(malformed)?;
        self.at += 1;
        Ok(Text::new(text, escaped))
    }

    /// Where the closing quote stands, and whether there are escapes before it.
    #[inline(never)]
    fn pass_string(mut self) -> Step<(usize, bool)> {
        let mut escaped = false;
        loop {
            self.at += clean_prefix(self.rest());
            match self.byte() {
                Some(b'"') => return Ok((self.at, escaped)),
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(RowError::decode("control character in a JSON string")),
                None => return Err(RowError::decode("the JSON text ends within a string")),
            }
        }
    }

    /// Checks and passes one escape, both halves of a surrogate pair.
    fn escape(&mut self) -> Step {
        let error = || RowError::decode("invalid escape in a JSON string");
        let (consumed, _) = read_escape(self.rest()).ok_or_else(error)?;
        self.at += consumed;
        Ok(())
    }

    /// A number, checked against JSON's grammar.
    #[inline]
    pub fn number(&mut self) -> Step<Number<'a>> {
        self.peek();
        self.number_here()
    }

    /// A number that begins with the next byte.
    #[inline(always)]
    pub fn number_here(&mut self) -> Step<Number<'a>> {
        let Some(window) = self.text.get(self.at..) else { return Err(malformed()) };
        if let Some((plain, size)) = PlainNumber::read(window) {
            self.at += size;
            return Ok(Number::new(window, size, Some(plain)));
        }
        let start = self.at;
        self.at = self.pass_number()?;
        Ok(Number::new(window, self.at - start, None))
    }

    /// Where the number ends.
    #[inline(never)]
    fn pass_number(mut self) -> Step<usize> {
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.at)
    }

    fn digits(&mut self) -> Step {
        let count = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return Err(RowError::decode("malformed JSON number"));
        }
        self.at += count;
        Ok(())
    }

    /// `true` or `false`.
    pub fn bool(&mut self) -> Step<bool> {
        if self.peek() == Some(b't') {
            return self.literal(b"true").map(|()| true);
        }
        self.literal(b"false").map(|()| false)
    }

    /// `null`.
    pub fn null(&mut self) -> Step {
        self.peek();
        self.literal(b"null")
    }

    fn literal(&mut self, literal: &[u8]) -> Step {
        if !self.rest().starts_with(literal) {
            return Err(malformed());
        }
        self.at += literal.len();
        Ok(())
    }

    /// Any value, as it stands in the text.
    pub fn raw_value(&mut self) -> Step<&'a [u8]> {
        self.value(|_| Ok(()))
    }

    /// Any value that a `JSON` column takes, as it stands in the text. BigQuery keeps its numbers as `INT64`,
    /// `UINT64` or `FLOAT64`, rounded at the most: one that is larger than any fails the row, and in a load the job.
    pub fn json_value(&mut self) -> Step<&'a str> {
        text_of(self.value(|number| {
            let may_be_too_large = number.plain().is_none();
            if may_be_too_large { finite(number).map(drop) } else { Ok(()) }
        })?)
    }

    fn value(&mut self, check: impl Fn(Number<'_>) -> Step + Copy) -> Step<&'a [u8]> {
        self.peek();
        let start = self.at;
        self.skip(0, check)?;
        Ok(self.since(start))
    }

    fn skip(&mut self, depth: usize, check: impl Fn(Number<'_>) -> Step + Copy) -> Step {
        if depth > DEPTH_MAX {
            return Err(RowError::decode("the JSON text nests too deep"));
        }
        let mut first = true;
        match self.upcoming()? {
            Next::Object => {
                self.open_object()?;
                while self.key(&mut first)?.is_some() {
                    self.skip(depth + 1, check)?;
                }
            }
            Next::Array => {
                self.open_array()?;
                while self.element(&mut first)? {
                    self.skip(depth + 1, check)?;
                }
            }
            Next::String => {
                self.string()?;
            }
            Next::Number => check(self.number()?)?,
            Next::Bool => {
                self.bool()?;
            }
            Next::Null => self.null()?,
        }
        Ok(())
    }

    /// Checks that nothing but white space is left.
    pub fn end(&mut self) -> Step {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(RowError::decode("there is something after the JSON value")),
        }
    }
}

/// Where the white space ends that begins at `at`.
#[inline(never)]
fn pass_space(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default().iter();
    at + rest.take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count()
}

/// Part of a text that is UTF-8.
///
/// # Errors
/// When it is not.
pub fn text_of(part: &[u8]) -> Step<&str> {
    std::str::from_utf8(part).map_err(|_| not_utf8())
}

#[cold]
fn not_utf8() -> Box<RowError> {
    RowError::decode("the JSON text is not valid UTF-8")
}

#[cold]
fn malformed() -> Box<RowError> {
    RowError::decode("malformed JSON text")
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_are_unescaped() {
        let mut tokens = Tokens::of(r#" "a\"\\\/\b\f\n\r\té\ud83d\ude00z" "#);
        assert_eq!(tokens.string().unwrap().value().unwrap(), "a\"\\/\u{8}\u{c}\n\r\té😀z");
        tokens.end().unwrap();
        assert!(matches!(
            Tokens::of(r#""é""#).string().unwrap().value().unwrap(),
            Cow::Borrowed("é")
        ));
    }

    #[test]
    fn malformed_texts_are_refused() {
        for text in [
            "",
            "nul",
            "tru",
            "{",
            "[1",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "1e",
            "+1",
            "-",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\n\"",
            "1 2",
            "{} {}",
            "NaN",
            "\"\\",
        ] {
            assert!(validate(text).is_err(), "{text}");
        }
        assert!(Tokens::new(b"\"\xff\"").is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(validate(&nested(DEPTH_MAX)).is_ok());
        assert!(validate(&nested(DEPTH_MAX + 2)).is_err());
        assert!(validate(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn the_verdict_is_serde_jsons(
            text in "[\\[\\]{},:\"\\\\u0-9a-fA-F.eE+\\- ntrslé]{0,24}"
        ) {
            // serde_json refuses numbers beyond a double; this reader keeps them as text.
            let oracle = serde_json::from_str::<&serde_json::value::RawValue>(&text);
            prop_assert_eq!(validate(&text).is_ok(), oracle.is_ok(), "{}", text);
        }
    }
}
