//! A request's body as the client sends it.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::rest::Body;

/// Parts one after the other. The length is known, so that the request says it.
struct Parts {
    parts: vec::IntoIter<Bytes>,
}

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.parts.next().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.as_slice().is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.parts.as_slice().iter().map(|part| part.len() as u64).sum())
    }
}

/// The body for reqwest. One part is sent as it is.
pub(super) fn outgoing(body: Body) -> reqwest::Body {
    let mut parts = body.into_parts();
    match parts.len() {
        0 | 1 => parts.pop().unwrap_or_default().into(),
        _ => reqwest::Body::wrap(Parts { parts: parts.into_iter() }),
    }
}
