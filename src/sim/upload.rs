//! Google's upload protocol, as GCS and BigQuery's media uploads share it.
//!
//! `uploadType=media` is the body itself, `multipart` is JSON metadata and the media in one body,
//! `resumable` is a [`session`] that takes the media in chunks. Facts:
//! <https://docs.cloud.google.com/storage/docs/performing-resumable-uploads>.

pub mod multipart;
pub mod range;
pub mod session;

use crate::sim::message::Request;

/// The path's segments behind the front that takes uploads (`/upload/…`, in discovery documents
/// also `/resumable/upload/…`); `None` for any other path.
pub fn target(request: &Request) -> Option<Vec<String>> {
    let segments = request.segments();
    let behind = match segments.as_slice() {
        [first, rest @ ..] if first == "upload" => rest,
        [first, second, rest @ ..] if first == "resumable" && second == "upload" => rest,
        _ => return None,
    };
    Some(behind.to_vec())
}

/// Whether the path takes uploads, whose bodies have limits of their own and stay encoded.
pub fn is_upload(path: &str) -> bool {
    path.starts_with("/upload/") || path.starts_with("/resumable/upload/")
}

/// Where a session is continued: an absolute URL, as Google answers it.
pub fn location(request: &Request, query: &[(&str, &str)]) -> String {
    let host = request.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("http://{}{}?{query}", host.unwrap_or("localhost"), request.path)
}
