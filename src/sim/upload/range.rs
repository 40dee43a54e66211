//! The `Content-Range` of a chunk, of a session's end, or of a question about its state.

/// `bytes 0-99/200`, `bytes 0-99/*`, `bytes */200`, `bytes */*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The first byte and the one behind the last; `None` where the request carries no media.
    pub bytes: Option<(u64, u64)>,
    /// The whole length, where it is known.
    pub total: Option<u64>,
}

impl ContentRange {
    /// Reads the header's value; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (bytes, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let total = match total {
            "*" => None,
            total => Some(total.parse().ok()?),
        };
        let bytes = match bytes {
            "*" => None,
            bytes => {
                let (first, last) = bytes.split_once('-')?;
                let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
                Some((first, last.checked_add(1).filter(|end| *end > first)?))
            }
        };
        let fits = |(_, end): (u64, u64)| total.is_none_or(|total| end <= total);
        bytes.is_none_or(fits).then_some(Self { bytes, total })
    }

    /// The range of media that comes whole, without the header.
    pub fn whole(length: usize) -> Self {
        let length = length as u64;
        Self { bytes: (length > 0).then_some((0, length)), total: Some(length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range = |bytes, total| Some(ContentRange { bytes, total });
        for (text, expected) in [
            ("bytes 0-99/200", range(Some((0, 100)), Some(200))),
            ("bytes 100-199/200", range(Some((100, 200)), Some(200))),
            ("bytes 0-99/*", range(Some((0, 100)), None)),
            ("bytes */200", range(None, Some(200))),
            ("bytes */*", range(None, None)),
            ("bytes 100-200/200", None),
            ("bytes 5-4/200", None),
            ("bytes 0-99", None),
            ("0-99/200", None),
            ("bytes a-99/200", None),
        ] {
            assert_eq!(ContentRange::parse(text), expected, "{text}");
        }
    }
}
