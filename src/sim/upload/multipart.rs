//! `multipart/related` bodies of exactly two parts: JSON metadata, then the media.

use bytes::Bytes;
use memchr::memmem;

/// The two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The first part: JSON.
    pub metadata: Bytes,
    /// The media's own content type.
    pub media_type: Option<String>,
    /// The media; a slice of the body.
    pub media: Bytes,
}

/// Takes the body apart; the error is a message for the client.
pub fn split(content_type: &str, body: &Bytes) -> Result<Parts, &'static str> {
    let boundary = boundary(content_type).ok_or("multipart/related needs a boundary")?;
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    let mut at =
        memmem::find(body, delimiter.as_bytes()).ok_or("the boundary is not in the body")?;
    loop {
        let start = at + delimiter.len();
        let rest = body.get(start..).unwrap_or_default();
        if rest.starts_with(b"--") {
            break;
        }
        let next = format!("\r\n{delimiter}");
        let length = memmem::find(rest, next.as_bytes()).ok_or("the last part is not closed")?;
        parts.push(body.slice(start..start + length));
        at = start + length + 2;
    }
    let [metadata, media] = parts.as_slice() else {
        return Err("multipart/related needs two parts: metadata and media");
    };
    let (_, metadata) = part(metadata)?;
    let (media_type, media) = part(media)?;
    Ok(Parts { metadata, media_type, media })
}

fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/related") {
        return None;
    }
    let value = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches(['"', '\'']))
    })?;
    (!value.is_empty()).then(|| value.to_owned())
}

/// A part's content type and its content.
fn part(part: &Bytes) -> Result<(Option<String>, Bytes), &'static str> {
    let end = memmem::find(part, b"\r\n\r\n").ok_or("a part has no blank line")?;
    let headers = String::from_utf8_lossy(part.get(..end).unwrap_or_default()).into_owned();
    let content_type = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
    });
    Ok((content_type, part.slice(end + 4..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/related; boundary=\"b\"";

    #[test]
    fn two_parts_with_types_of_their_own() {
        let body = Bytes::from_static(
            b"--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\ncontent-type: x/y\r\n\r\na\r\nb\r\n--b--\r\n",
        );
        let parts = split(TYPE, &body).unwrap();
        assert_eq!((&parts.metadata[..], &parts.media[..]), (&b"{}"[..], &b"a\r\nb"[..]));
        assert_eq!(parts.media_type.as_deref(), Some("x/y"));
    }

    #[test]
    fn an_empty_media_part_is_a_part() {
        let body = Bytes::from_static(b"--b\r\n\r\n{}\r\n--b\r\n\r\n\r\n--b--");
        assert!(split(TYPE, &body).unwrap().media.is_empty());
    }

    #[test]
    fn what_is_no_two_part_body() {
        for (content_type, body) in [
            ("application/json", "--b\r\n\r\n{}\r\n--b\r\n\r\nx\r\n--b--"),
            ("multipart/related", "--b\r\n\r\n{}\r\n--b\r\n\r\nx\r\n--b--"),
            (TYPE, "--c\r\n\r\n{}\r\n--c--"),
            (TYPE, "--b\r\n\r\n{}\r\n--b--"),
            (TYPE, "--b\r\n\r\n{}\r\n--b\r\n\r\nx"),
            (TYPE, "--b\r\nx\r\n--b\r\n\r\nx\r\n--b--"),
        ] {
            assert!(split(content_type, &Bytes::from(body)).is_err(), "{content_type} {body}");
        }
    }
}
