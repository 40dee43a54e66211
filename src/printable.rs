//! Text that others chose, as messages may show it: names out of records and schemas, words of
//! remotes, paths of requests.
//!
//! Whoever may produce a record, register a schema or call an endpoint chooses such text. A line break in
//! it would forge a line of the log, an escape sequence would change what a terminal shows, and a
//! name of megabytes would fill the disk. So it is escaped and cut here, where a fault or a field of the
//! log takes it, and nowhere else.

use std::borrow::Cow;

/// The longest name that a message shows, characters.
pub const NAME_CHARS_MAX: usize = 100;

/// The longest path, or sentence of a remote, that a message shows, characters.
pub const TEXT_CHARS_MAX: usize = 300;

/// What stands in a path for a key that cannot be a field's name.
const KEY: &str = "(key)";

/// A name: escaped, and cut to [`NAME_CHARS_MAX`] characters.
pub fn name(text: &str) -> Cow<'_, str> {
    cut(text, NAME_CHARS_MAX)
}

/// A path or a sentence: escaped, and cut to [`TEXT_CHARS_MAX`] characters.
pub fn text(text: &str) -> Cow<'_, str> {
    cut(text, TEXT_CHARS_MAX)
}

/// A key of an object that no schema declares, as part of a path.
///
/// Such an object may be a map, whose keys are data: addresses, telephone numbers, sentences. A key that
/// cannot be the name of a field is not shown, and the path names the object around it. A key that can be
/// one is shown, because the operator needs it to find the field.
pub fn key(text: &str) -> Cow<'_, str> {
    let begins = |first: char| first.is_alphabetic() || matches!(first, '_' | '$' | '@' | '#');
    let goes_on =
        |char: char| char.is_alphanumeric() || matches!(char, '_' | '-' | '.' | ':' | '/');
    let mut chars = text.chars();
    let is_name = chars.next().is_some_and(begins) && chars.all(goes_on);
    let is_long = text.chars().nth(NAME_CHARS_MAX).is_some();
    if is_name && !is_long { Cow::Borrowed(text) } else { Cow::Borrowed(KEY) }
}

/// `text` with what is not printable escaped, and no longer than `chars_max` characters.
pub fn cut(text: &str, chars_max: usize) -> Cow<'_, str> {
    let is_short = text.len() <= chars_max || text.chars().nth(chars_max).is_none();
    if is_short && !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    let mut left = chars_max;
    for char in text.chars() {
        // As Rust's literals have it: `\n`, `\u{1b}`.
        let escaped = is_hidden(char).then(|| char.escape_debug().to_string());
        let length = escaped.as_ref().map_or(1, String::len);
        if length > left {
            shown.push('…');
            break;
        }
        left -= length;
        match escaped {
            Some(escaped) => shown.push_str(&escaped),
            None => shown.push(char),
        }
    }
    Cow::Owned(shown)
}

/// Whether a character ends a line, steers a terminal, or changes the order in which others are shown
/// (<https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing>).
fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
        || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printable_stays_as_it_is() {
        for plain in ["", "order.lines[].price", "größe", "日本語", "a\\b \"c\"", "🦀"] {
            assert_eq!(name(plain), plain);
        }
    }

    #[test]
    fn lines_terminals_and_directions_cannot_be_forged() {
        let forged = "a\n2026-12-01T00:00:00Z ERROR forged\r\u{1b}[2Jb\u{85}\u{202e}c\u{2028}d\0";
        assert_eq!(
            name(forged),
            "a\\n2026-12-01T00:00:00Z ERROR forged\\r\\u{1b}[2Jb\\u{85}\\u{202e}c\\u{2028}d\\0"
        );
    }

    #[test]
    fn nothing_is_longer_than_its_limit() {
        for long in ["x".repeat(100_000), "ß".repeat(100_000), "\u{1b}".repeat(100_000)] {
            for (shown, limit) in [(name(&long), NAME_CHARS_MAX), (text(&long), TEXT_CHARS_MAX)] {
                let length = shown.chars().count();
                assert!(length <= limit + 1 && length > limit - 10 && shown.ends_with('…'));
            }
        }
        assert_eq!(name(&"ß".repeat(100)), "ß".repeat(100));
    }

    #[test]
    fn a_key_that_is_no_name_is_not_shown() {
        assert_eq!(key(&"x".repeat(101)), "(key)");
        for field in ["price", "@timestamp", "$ref", "http.method", "größe", "_id", "a-b"] {
            assert_eq!(key(field), field);
        }
        for data in
            ["alice@example.com", "+49 151 1234567", "491511234567", "Alice Example", "", "a\nb"]
        {
            assert_eq!(key(data), "(key)", "{data}");
        }
    }
}
