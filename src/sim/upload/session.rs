//! Resumable sessions: media in chunks, with questions about how much has arrived.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::header;

use crate::sim::{
    message::{Request, Response},
    upload::range::ContentRange,
};

/// Every chunk but the last is a multiple of this.
const QUANTUM: u64 = 256 << 10;
const ID_PREFIX: &str = "sim-upload-";

/// The open and the finished sessions of one service. `T` is what the start of one said.
#[derive(Debug)]
pub struct Sessions<T> {
    /// By number; the oldest first.
    known: BTreeMap<u64, Session<T>>,
    next: u64,
    limits: Limits,
}

/// How long sessions live, and how much one takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a session lives.
    pub lifetime: Duration,
    /// Bytes of one session's media.
    pub bytes_max: usize,
}

#[derive(Debug)]
struct Session<T> {
    expires: Duration,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Open {
        start: T,
        received: Vec<u8>,
        total: Option<u64>,
    },
    /// Its answer, for a client that lost it.
    Finished(Response),
    /// Over its time, or cancelled.
    Gone,
}

/// What became of a request to a session.
#[derive(Debug)]
pub enum Put<T> {
    /// This is the answer.
    Answer(Response),
    /// The media is there: act, then tell [`Sessions::finish`] the answer.
    Complete {
        /// What the start said.
        start: T,
        /// The media.
        media: Bytes,
    },
}

/// Why a session takes no request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// No such session was ever started.
    Unknown,
    /// It has expired or was cancelled.
    Gone,
    /// The request does not fit the session; a message for the client.
    Invalid(String),
}

impl<T> Sessions<T> {
    /// No session yet.
    pub fn new(limits: Limits) -> Self {
        Self { known: BTreeMap::new(), next: 0, limits }
    }

    /// Starts one and answers its id. Those that have been over for a lifetime are forgotten.
    pub fn start(&mut self, start: T, now: Duration) -> String {
        let forgotten = |session: &Session<T>| session.expires + self.limits.lifetime <= now;
        while self.known.first_key_value().is_some_and(|(_, oldest)| forgotten(oldest)) {
            self.known.pop_first();
        }
        self.next += 1;
        let state = State::Open { start, received: Vec::new(), total: None };
        let expires = now + self.limits.lifetime;
        self.known.insert(self.next, Session { expires, state });
        format!("{ID_PREFIX}{}", self.next)
    }

    /// Takes a chunk, or answers how much there is.
    pub fn put(
        &mut self,
        id: &str,
        request: &Request,
        now: Duration,
    ) -> Result<Put<T>, SessionError> {
        let limits = self.limits;
        let session = self.session(id)?;
        session.expire(now);
        let complete = match &mut session.state {
            State::Gone => return Err(SessionError::Gone),
            State::Finished(answer) => return Ok(Put::Answer(answer.clone())),
            State::Open { received, total, .. } => take(received, total, request, limits)?,
        };
        match (complete, std::mem::replace(&mut session.state, State::Gone)) {
            (true, State::Open { start, received, .. }) => {
                Ok(Put::Complete { start, media: received.into() })
            }
            (_, state) => {
                let answer = incomplete(&state);
                session.state = state;
                Ok(Put::Answer(answer))
            }
        }
    }

    /// Keeps the answer of a session that was complete. Without it the session is gone.
    pub fn finish(&mut self, id: &str, answer: Response) {
        if let Ok(session) = self.session(id) {
            session.state = State::Finished(answer);
        }
    }

    /// Cancels a session; whatever arrived is gone.
    pub fn cancel(&mut self, id: &str, now: Duration) -> Result<(), SessionError> {
        let session = self.session(id)?;
        session.expire(now);
        match session.state {
            State::Open { .. } => {
                session.state = State::Gone;
                Ok(())
            }
            State::Finished(_) => Err(SessionError::Invalid("The upload is complete.".to_owned())),
            State::Gone => Err(SessionError::Gone),
        }
    }

    fn session(&mut self, id: &str) -> Result<&mut Session<T>, SessionError> {
        let number = id.strip_prefix(ID_PREFIX).and_then(|number| number.parse().ok());
        number.and_then(|number: u64| self.known.get_mut(&number)).ok_or(SessionError::Unknown)
    }
}

impl<T> Session<T> {
    fn expire(&mut self, now: Duration) {
        if self.expires <= now {
            self.state = State::Gone;
        }
    }
}

/// 308 with how much has arrived. Without a `Range` nothing has.
fn incomplete<T>(state: &State<T>) -> Response {
    let received = match state {
        State::Open { received, .. } => received.len(),
        _ => 0,
    };
    let answer = Response::empty(308);
    match received.checked_sub(1) {
        Some(last) => answer.with_header(header::RANGE, &format!("bytes=0-{last}")),
        None => answer,
    }
}

/// Appends what is new of a chunk; true if the media is complete.
fn take(
    received: &mut Vec<u8>,
    total: &mut Option<u64>,
    request: &Request,
    limits: Limits,
) -> Result<bool, SessionError> {
    let invalid = |message: String| Err(SessionError::Invalid(message));
    let body = &request.body;
    let range = match request.headers.get(header::CONTENT_RANGE) {
        None => ContentRange::whole(body.len()),
        Some(text) => {
            let range = text.to_str().ok().and_then(ContentRange::parse);
            let malformed =
                || SessionError::Invalid("Failed to parse Content-Range header.".into());
            range.ok_or_else(malformed)?
        }
    };
    if range.total.is_some() && total.is_some() && range.total != *total {
        return invalid("The total length differs from that of an earlier chunk.".to_owned());
    }
    let have = received.len() as u64;
    let Some((first, end)) = range.bytes else {
        if !body.is_empty() {
            return invalid("A request without a byte range must have no body.".to_owned());
        }
        return Ok(range.total == Some(have));
    };
    if first > have {
        return invalid(format!(
            "The chunk starts at {first}, but only {have} bytes have arrived."
        ));
    }
    if body.len() as u64 > end - first {
        let (sent, said) = (body.len(), end - first);
        return invalid(format!("There were {sent} bytes in the body; Content-Range says {said}."));
    }
    let last = range.total == Some(end);
    if !last && (end - first) % QUANTUM != 0 {
        return invalid(format!("Every chunk but the last must be a multiple of {QUANTUM} bytes."));
    }
    if end > limits.bytes_max as u64 {
        return invalid(format!("The media is larger than {} bytes.", limits.bytes_max));
    }
    *total = range.total.or(*total);
    let whole = body.len() as u64 == end - first;
    // Where the connection broke, what is kept ends at a multiple.
    let kept = if whole { body.len() as u64 } else { body.len() as u64 / QUANTUM * QUANTUM };
    let known = usize::try_from(have - first).unwrap_or(usize::MAX);
    let kept = usize::try_from(kept).unwrap_or(usize::MAX);
    received.extend_from_slice(body.get(known.min(kept)..kept).unwrap_or_default());
    Ok(last && received.len() as u64 == end)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;

    const CHUNK: usize = QUANTUM as usize;

    fn sessions() -> Sessions<&'static str> {
        Sessions::new(Limits { lifetime: Duration::from_secs(60), bytes_max: 1 << 20 })
    }

    fn request(range: &str, length: usize) -> Request {
        let mut headers = HeaderMap::new();
        if !range.is_empty() {
            headers.insert(header::CONTENT_RANGE, HeaderValue::from_str(range).unwrap());
        }
        Request::new(Method::PUT, "/upload/x", headers, Bytes::from(vec![7; length]))
    }

    /// The status and the `Range`; 200 for a complete upload.
    fn put(
        sessions: &mut Sessions<&'static str>,
        id: &str,
        range: &str,
        length: usize,
    ) -> Result<(u16, String), SessionError> {
        Ok(match sessions.put(id, &request(range, length), Duration::ZERO)? {
            Put::Answer(answer) => {
                let range = answer.headers.get(header::RANGE);
                (answer.status, range.map_or("", |range| range.to_str().unwrap()).to_owned())
            }
            Put::Complete { media, .. } => (200, media.len().to_string()),
        })
    }

    #[test]
    fn chunks_questions_and_the_end() {
        let mut sessions = sessions();
        let id = sessions.start("s", Duration::ZERO);
        let total = 2 * CHUNK + 5;
        let ask = format!("bytes */{total}");
        assert_eq!(put(&mut sessions, &id, &ask, 0), Ok((308, String::new())));
        let first = format!("bytes 0-{}/{total}", CHUNK - 1);
        let one = (308, format!("bytes=0-{}", CHUNK - 1));
        assert_eq!(put(&mut sessions, &id, &first, CHUNK), Ok(one.clone()));
        assert_eq!(put(&mut sessions, &id, &first, CHUNK), Ok(one.clone()), "a repetition");
        assert_eq!(put(&mut sessions, &id, &ask, 0), Ok(one));
        let rest = format!("bytes {CHUNK}-{}/{total}", total - 1);
        assert_eq!(put(&mut sessions, &id, &rest, total - CHUNK), Ok((200, total.to_string())));
        sessions.finish(&id, Response::empty(201));
        assert_eq!(put(&mut sessions, &id, &ask, 0), Ok((201, String::new())), "the answer again");
    }

    #[test]
    fn a_length_may_be_told_at_the_end() {
        let mut sessions = sessions();
        let id = sessions.start("s", Duration::ZERO);
        put(&mut sessions, &id, &format!("bytes 0-{}/*", CHUNK - 1), CHUNK).unwrap();
        let wrong = format!("bytes */{}", CHUNK + 1);
        assert_eq!(put(&mut sessions, &id, &wrong, 0).unwrap().0, 308);
        let end = format!("bytes */{CHUNK}");
        assert_eq!(put(&mut sessions, &id, &end, 0), Ok((200, CHUNK.to_string())));
    }

    #[test]
    fn whole_media_without_a_range() {
        let mut sessions = sessions();
        for length in [0, 5] {
            let id = sessions.start("s", Duration::ZERO);
            assert_eq!(put(&mut sessions, &id, "", length), Ok((200, length.to_string())));
        }
    }

    #[test]
    fn a_broken_chunk_is_kept_up_to_a_multiple() {
        let mut sessions = sessions();
        let id = sessions.start("s", Duration::ZERO);
        let all = format!("bytes 0-{}/{}", 3 * CHUNK - 1, 3 * CHUNK);
        let kept = put(&mut sessions, &id, &all, 2 * CHUNK - 1);
        assert_eq!(kept, Ok((308, format!("bytes=0-{}", CHUNK - 1))));
        let whole = put(&mut sessions, &id, &all, 3 * CHUNK);
        assert_eq!(whole, Ok((200, (3 * CHUNK).to_string())), "sent again from its start");
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut sessions = sessions();
        let id = sessions.start("s", Duration::ZERO);
        let whole = format!("bytes 0-{}/*", CHUNK - 1);
        put(&mut sessions, &id, &whole, CHUNK).unwrap();
        let gap = format!("bytes {}-{}/*", 2 * CHUNK, 3 * CHUNK - 1);
        let large = format!("bytes {CHUNK}-{}/{}", 8 * CHUNK - 1, 8 * CHUNK);
        for (range, length) in [
            ("bytes 262144-262243/*", 100),
            (gap.as_str(), CHUNK),
            (large.as_str(), CHUNK),
            ("bytes 262144-262243/262244", 101),
            ("bytes */5", 5),
            ("bites */5", 0),
        ] {
            let refused = put(&mut sessions, &id, range, length);
            assert!(matches!(refused, Err(SessionError::Invalid(_))), "{range}: {refused:?}");
        }
        assert_eq!(put(&mut sessions, &id, "bytes */*", 0).unwrap().1, "bytes=0-262143");
    }

    #[test]
    fn sessions_end() {
        let mut sessions = sessions();
        assert_eq!(put(&mut sessions, "other", "", 1), Err(SessionError::Unknown));
        let id = sessions.start("s", Duration::ZERO);
        let late = sessions.put(&id, &request("", 1), Duration::from_secs(60));
        assert_eq!(late.unwrap_err(), SessionError::Gone);
        sessions.start("s", Duration::from_secs(120));
        let later = sessions.put(&id, &request("", 1), Duration::from_secs(120));
        assert_eq!(later.unwrap_err(), SessionError::Unknown, "forgotten");
        let id = sessions.start("s", Duration::ZERO);
        assert_eq!(sessions.cancel(&id, Duration::ZERO), Ok(()));
        assert_eq!(put(&mut sessions, &id, "", 1), Err(SessionError::Gone));
    }
}
