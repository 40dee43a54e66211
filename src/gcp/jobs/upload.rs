//! A job whose rows come with it, by a resumable upload
//! (<https://docs.cloud.google.com/bigquery/docs/reference/api-uploads#resumable>).
//!
//! The job is created by the upload's last byte, under the id that the first request named. So nothing is
//! lost by beginning anew, and a connection that broke is only gone on with where that is cheap.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE},
};

use crate::{
    fault::{Fault, FaultKind},
    gcp::classify::{call_fault, job_call_fault, succeed_or},
    rest::{Body, Rest, RestRequest, RestResponse},
};

/// How often an upload goes on where it broke off, before it is begun anew.
const CONTINUED_MAX: u32 = 4;

const MEDIA_TYPE: HeaderName = HeaderName::from_static("x-upload-content-type");
const MEDIA_LENGTH: HeaderName = HeaderName::from_static("x-upload-content-length");

/// What has become of an upload.
enum Progress {
    /// The job is created.
    Complete,
    /// So many bytes have arrived.
    Partial(usize),
}

/// Creates the job that `document` describes, with `media` as its rows. `path` is that of the project's
/// jobs.
///
/// # Errors
/// BigQuery refuses the job, or its answer is not known.
pub(super) async fn upload(
    rest: &dyn Rest,
    path: &str,
    document: Bytes,
    media: Vec<Bytes>,
) -> Result<(), Fault> {
    let media = Body::of(media);
    let session = start(rest, path, document, media.len()).await?;
    let mut from = 0;
    for _ in 0..=CONTINUED_MAX {
        let sent = put(rest, &session, &media, from).await;
        let progress = match sent {
            Err(fault) if fault.kind == FaultKind::Transient => {
                ask(rest, &session, media.len()).await?
            }
            other => other?,
        };
        match progress {
            Progress::Complete => return Ok(()),
            Progress::Partial(arrived) => from = arrived,
        }
    }
    Err(Fault::unknown(
        FaultKind::Transient,
        "uploadIncomplete",
        "the upload of the rows breaks off",
    ))
}

/// Begins an upload; gives its path.
async fn start(
    rest: &dyn Rest,
    path: &str,
    document: Bytes,
    bytes: usize,
) -> Result<String, Fault> {
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(MEDIA_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(MEDIA_LENGTH, bytes.into());
    let path = format!("/upload{path}?uploadType=resumable");
    let request = RestRequest { method: Method::POST, path, headers, body: document.into() };
    let answer = succeed_or(rest, request, job_call_fault).await?;
    let location = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok());
    location.and_then(below_endpoint).ok_or_else(no_location)
}

/// The session's address without its origin: the endpoint that was asked is asked on.
fn below_endpoint(location: &str) -> Option<String> {
    let url = url::Url::parse(location).ok()?;
    Some(format!("{}?{}", url.path(), url.query()?))
}

/// Sends the media from one byte on.
async fn put(rest: &dyn Rest, session: &str, media: &Body, from: usize) -> Result<Progress, Fault> {
    let bytes = media.len();
    let range = match bytes.checked_sub(1) {
        Some(last) if from <= last => format!("bytes {from}-{last}/{bytes}"),
        _ => format!("bytes */{bytes}"),
    };
    send(rest, session, &range, media.clone().from(from)).await
}

/// Asks how much has arrived.
async fn ask(rest: &dyn Rest, session: &str, bytes: usize) -> Result<Progress, Fault> {
    send(rest, session, &format!("bytes */{bytes}"), Body::default()).await
}

async fn send(rest: &dyn Rest, session: &str, range: &str, body: Body) -> Result<Progress, Fault> {
    let mut headers = HeaderMap::with_capacity(1);
    let range = HeaderValue::from_str(range).map_err(|_| no_location())?;
    headers.insert(CONTENT_RANGE, range);
    let (method, path) = (Method::PUT, session.to_owned());
    let answer =
        rest.call(RestRequest { method, path, headers, body }).await.map_err(call_fault)?;
    match answer.status {
        200..300 => Ok(Progress::Complete),
        308 => Ok(Progress::Partial(arrived(&answer))),
        // A session that is over, or that another server does not know: the job may be made anew.
        404 | 410 => Err(Fault::unknown(
            FaultKind::Transient,
            "uploadGone",
            "BigQuery has forgotten the upload",
        )),
        _ => Err(job_call_fault(&answer)),
    }
}

/// `bytes=0-41` is 42; without a range nothing has arrived.
fn arrived(answer: &RestResponse) -> usize {
    let range = answer.headers.get(RANGE).and_then(|range| range.to_str().ok());
    let last = range.and_then(|range| range.strip_prefix("bytes=0-")?.parse::<usize>().ok());
    last.map_or(0, |last| last.saturating_add(1))
}

fn no_location() -> Fault {
    let message = "BigQuery did not say where the rows of the job go";
    Fault::unknown(FaultKind::Transient, "noLocation", message)
}

#[cfg(test)]
mod tests;
