//! Kafka Connect's JSON envelope, `{"schema": …, "payload": …}`, cut into its two texts.
//!
//! The schema's text is the same in each record of a producer: a caller keys its cache of types by
//! it and parses it once.

use crate::transcode::{
    error::{RowError, Step},
    json_in::tokens::Tokens,
};

/// The raw texts of an envelope's two members, both checked to be JSON.
///
/// Other members are refused, as are missing and repeated ones. The schema is `null` where the
/// converter writes values without schema.
///
/// # Errors
/// When the bytes are no such envelope.
pub fn split(envelope: &[u8]) -> Result<(&[u8], &[u8]), RowError> {
    split_texts(envelope).map_err(|error| *error)
}

fn split_texts(envelope: &[u8]) -> Step<(&[u8], &[u8])> {
    let mut tokens = Tokens::new(envelope)?;
    let (mut schema, mut payload) = (None, None);
    let mut first = true;
    tokens.open_object()?;
    while let Some(key) = tokens.key(&mut first)? {
        let slot = match &*key.value()? {
            "schema" => &mut schema,
            "payload" => &mut payload,
            _ => return Err(not_an_envelope()),
        };
        if slot.replace(tokens.raw_value()?).is_some() {
            return Err(not_an_envelope());
        }
    }
    tokens.end()?;
    schema.zip(payload).ok_or_else(not_an_envelope)
}

fn not_an_envelope() -> Box<RowError> {
    RowError::decode(
        "the JSON is not Connect's envelope of one schema and one payload; use value_format json for objects without schema",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_text(text: &str) -> Option<(String, String)> {
        let text_of = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        split(text.as_bytes()).ok().map(|(a, b)| (text_of(a), text_of(b)))
    }

    #[test]
    fn both_members_come_as_they_stand() {
        let both = |schema: &str, payload: &str| Some((schema.to_owned(), payload.to_owned()));
        assert_eq!(
            split_text(r#" {"schema": {"type": "int32"} , "payload": [1, 2]} "#),
            both(r#"{"type": "int32"}"#, "[1, 2]")
        );
        assert_eq!(split_text(r#"{"payload":null,"schema":null}"#), both("null", "null"));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "{}",
            r#"{"schema":1}"#,
            r#"{"schema":1,"payload":1,"x":1}"#,
            r#"{"schema":1,"schema":1,"payload":1}"#,
            r#"{"schema":1,"payload":{]}"#,
            "[]",
            "1",
            r#"{"schema":1,"payload":1} x"#,
        ] {
            assert_eq!(split_text(text), None, "{text}");
        }
    }
}
