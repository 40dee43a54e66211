//! The tokens of a JSON text.

use std::borrow::Cow;

use crate::transcode::{
    error::{RowError, Step},
    json_in::typed::finite,
    limits::DEPTH_MAX,
    scan::clean_prefix,
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

/// A JSON string as it stands in the text, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// The string's contents; allocates only if the text has escapes.
    pub fn value(&self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(unescape(self.raw)) } else { Cow::Borrowed(self.raw) }
    }
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

/// A position in a JSON text.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    /// Starts reading.
    ///
    /// # Errors
    /// When the bytes are not UTF-8.
    pub fn new(bytes: &'a [u8]) -> Step<Self> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| RowError::decode("the JSON text is not valid UTF-8"))?;
        Ok(Self::of(text))
    }

    /// Starts reading text.
    pub fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not white space, not consumed.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other,
            }
        }
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
    pub fn only_number(mut self) -> Step<&'a str> {
        let number = self.number()?;
        if number.len() != self.text.len() {
            return Err(RowError::decode("the text is no number"));
        }
        Ok(number)
    }

    /// The next key of the open object and its colon, or `None` at its end. `first` starts true.
    pub fn key(&mut self, first: &mut bool) -> Step<Option<Text<'a>>> {
        if !self.separator(first, b'}')? {
            return Ok(None);
        }
        let key = self.string()?;
        self.expect(b':')?;
        Ok(Some(key))
    }

    /// Whether the open array has another element, standing before it. `first` starts true.
    pub fn element(&mut self, first: &mut bool) -> Step<bool> {
        self.separator(first, b']')
    }

    fn separator(&mut self, first: &mut bool, close: u8) -> Step<bool> {
        let next = self.peek();
        if next == Some(close) {
            self.at += 1;
            return Ok(false);
        }
        if !std::mem::take(first) {
            self.expect(b',')?;
        }
        Ok(true)
    }

    /// A string.
    #[inline]
    pub fn string(&mut self) -> Step<Text<'a>> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += clean_prefix(self.rest());
            match self.byte() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(RowError::decode("control character in a JSON string")),
                None => return Err(RowError::decode("the JSON text ends within a string")),
            }
        }
        let raw = self.text.get(start..self.at).unwrap_or_default();
        self.at += 1;
        Ok(Text { raw, escaped })
    }

    /// Checks and passes one escape, both halves of a surrogate pair.
    fn escape(&mut self) -> Step {
        let error = || RowError::decode("invalid escape in a JSON string");
        let (consumed, _) = read_escape(self.rest()).ok_or_else(error)?;
        self.at += consumed;
        Ok(())
    }

    /// A number's text, checked against JSON's grammar.
    pub fn number(&mut self) -> Step<&'a str> {
        self.peek();
        let start = self.at;
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
        Ok(self.text.get(start..self.at).unwrap_or_default())
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
    pub fn raw_value(&mut self) -> Step<&'a str> {
        self.value(|_| Ok(()))
    }

    /// Any value that a `JSON` column takes, as it stands in the text. BigQuery keeps its numbers as `INT64`,
    /// `UINT64` or `FLOAT64`, rounded at the most: one that is larger than any fails the row, and in a load the job.
    pub fn json_value(&mut self) -> Step<&'a str> {
        self.value(|number| {
            let may_be_too_large = number.len() > 300 || number.contains(['e', 'E']);
            if may_be_too_large { finite(number).map(drop) } else { Ok(()) }
        })
    }

    fn value(&mut self, check: impl Fn(&str) -> Step + Copy) -> Step<&'a str> {
        self.peek();
        let start = self.at;
        self.skip(0, check)?;
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    fn skip(&mut self, depth: usize, check: impl Fn(&str) -> Step + Copy) -> Step {
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

#[cold]
fn malformed() -> Box<RowError> {
    RowError::decode("malformed JSON text")
}

/// How many bytes an escape takes, and the character that it stands for.
fn read_escape(bytes: &[u8]) -> Option<(usize, char)> {
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
fn unescape(raw: &str) -> String {
    let mut value = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at_checked(at).unwrap_or((rest, ""));
        value.push_str(plain);
        let Some((consumed, character)) = read_escape(escape.as_bytes()) else { break };
        value.push(character);
        rest = escape.get(consumed..).unwrap_or_default();
    }
    value.push_str(rest);
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_are_unescaped() {
        let mut tokens = Tokens::of(r#" "a\"\\\/\b\f\n\r\té\ud83d\ude00z" "#);
        assert_eq!(tokens.string().unwrap().value(), "a\"\\/\u{8}\u{c}\n\r\té😀z");
        tokens.end().unwrap();
        assert!(matches!(Tokens::of(r#""é""#).string().unwrap().value(), Cow::Borrowed("é")));
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
