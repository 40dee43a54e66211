//! Staged objects over the JSON API of Cloud Storage
//! (<https://docs.cloud.google.com/storage/docs/json_api/v1/objects>).
//!
//! Google's own crate is not used: what it deletes and lists with is gRPC only, which no emulator
//! serves, and three calls over the port that BigQuery is called through can be simulated as they are.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    fault::{Fault, FaultKind},
    gcp::classify::{call_fault, plain_fault},
    rest::{Body, Rest, RestRequest, RestResponse},
    write::load::{ListedObject, ObjectPage, Objects},
};

/// Google's own endpoint.
pub const ENDPOINT: &str = "https://storage.googleapis.com";
/// What may create, read, list and delete objects
/// (<https://docs.cloud.google.com/storage/docs/access-control/iam-roles>).
pub const ROLE: &str = "roles/storage.objectUser";

/// [`Objects`] in one bucket.
pub struct Bucket {
    rest: Arc<dyn Rest>,
    name: String,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Page {
    items: Vec<Item>,
    next_page_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Item {
    name: String,
    time_created: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stored {
    size: String,
}

impl Bucket {
    /// The bucket called `name`, reached over `rest`.
    pub fn new(rest: Arc<dyn Rest>, name: impl Into<String>) -> Self {
        Self { rest, name: name.into() }
    }

    async fn send(&self, method: Method, path: String, body: Body) -> Result<RestResponse, Fault> {
        let mut headers = HeaderMap::with_capacity(1);
        if method == Method::POST {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        }
        let request = RestRequest { method, path, headers, body };
        let answer = self.rest.call(request).await.map_err(call_fault)?;
        if (200..300).contains(&answer.status) { Ok(answer) } else { Err(self.fault(&answer)) }
    }

    fn fault(&self, answer: &RestResponse) -> Fault {
        let fault = plain_fault(answer);
        match fault.kind {
            FaultKind::PermissionDenied => {
                fault.with_remedy(format!("grant {ROLE} on the bucket {}", self.name))
            }
            FaultKind::Unauthenticated => {
                fault.with_remedy("check the service's Google credentials")
            }
            _ => fault,
        }
    }

    /// `ifGenerationMatch=0`: the object must not exist. Names are this process's own, so that one
    /// that does exist is the work of an attempt whose answer was lost, which Cloud Storage stores whole
    /// or not at all.
    async fn store(&self, name: &str, body: Body) -> Result<(), Fault> {
        let size = body.len();
        let path = format!(
            "/upload/storage/v1/b/{}/o?uploadType=media&ifGenerationMatch=0&name={}",
            escape(&self.name),
            escape(name)
        );
        let answer = match self.send(Method::POST, path, body).await {
            Err(fault) if fault.kind == FaultKind::Conflict => {
                self.send(Method::GET, self.path(name), Body::default()).await?
            }
            other => other?,
        };
        let stored: Stored = serde_json::from_slice(&answer.body).unwrap_or_default();
        if stored.size == size.to_string() { Ok(()) } else { Err(wrong_size(name)) }
    }

    async fn remove(&self, uri: &str) -> Result<(), Fault> {
        let name = uri.strip_prefix(&self.uri("")).unwrap_or(uri);
        match self.send(Method::DELETE, self.path(name), Body::default()).await {
            Ok(_) => Ok(()),
            Err(fault) if fault.kind == FaultKind::TableNotFound => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    async fn page(&self, prefix: &str, page: Option<&str>) -> Result<ObjectPage, Fault> {
        let mut path = format!("/storage/v1/b/{}/o?prefix={}", escape(&self.name), escape(prefix));
        if let Some(page) = page {
            path.push_str("&pageToken=");
            path.push_str(&escape(page));
        }
        let answer = self.send(Method::GET, path, Body::default()).await?;
        let page: Page = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
        let objects = page.items.into_iter().map(listed).collect::<Result<_, _>>()?;
        Ok((objects, page.next_page_token))
    }

    fn path(&self, name: &str) -> String {
        format!("/storage/v1/b/{}/o/{}", escape(&self.name), escape(name))
    }
}

impl Objects for Bucket {
    fn uri(&self, name: &str) -> String {
        format!("gs://{}/{name}", self.name)
    }

    fn put<'a>(&'a self, name: &'a str, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(self.store(name, Body::of(parts)))
    }

    fn delete<'a>(&'a self, uri: &'a str) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(self.remove(uri))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        page: Option<&'a str>,
    ) -> BoxFuture<'a, Result<ObjectPage, Fault>> {
        Box::pin(self.page(prefix, page))
    }
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn listed(item: Item) -> Result<ListedObject, Fault> {
    let created = OffsetDateTime::parse(&item.time_created, &Rfc3339).map_err(|_| unreadable())?;
    let created_ms = created.unix_timestamp() * 1_000 + i64::from(created.millisecond());
    Ok(ListedObject { name: item.name, created_ms })
}

fn wrong_size(name: &str) -> Fault {
    let message = format!("object {name} was stored with another size than it was sent with");
    Fault::unknown(FaultKind::Transient, "objectSize", message)
}

fn unreadable() -> Fault {
    let message = "the answer is not one of Cloud Storage; is there a proxy in between?";
    Fault::unknown(FaultKind::Transient, "unreadableAnswer", message)
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use serde_json::json;

    use super::*;
    use crate::rest::RestError;

    /// Answers with these statuses and sizes.
    #[derive(Default)]
    struct Scripted {
        answers: Mutex<VecDeque<(u16, u64)>>,
        sent: Mutex<Vec<(Method, String)>>,
    }

    impl Rest for Scripted {
        fn call(&self, request: RestRequest) -> BoxFuture<'_, Result<RestResponse, RestError>> {
            Box::pin(async move {
                self.sent.lock().unwrap().push((request.method, request.path));
                let (status, size) = self.answers.lock().unwrap().pop_front().unwrap();
                let body = json!({"size": size.to_string()}).to_string().into();
                Ok(RestResponse { status, headers: HeaderMap::new(), body })
            })
        }
    }

    async fn put(answers: &[(u16, u64)]) -> (Result<(), Fault>, Vec<(Method, String)>) {
        let rest = Arc::new(Scripted::default());
        rest.answers.lock().unwrap().extend(answers);
        let bucket = Bucket::new(Arc::<Scripted>::clone(&rest), "b");
        let parts = vec![Bytes::from_static(b"123"), Bytes::from_static(b"45")];
        let result = bucket.put("o/1", parts).await;
        let sent = std::mem::take(&mut *rest.sent.lock().unwrap());
        (result, sent)
    }

    #[tokio::test]
    async fn an_object_that_is_there_is_never_written_over() {
        let (result, sent) = put(&[(200, 5)]).await;
        assert!(result.is_ok() && sent[0].1.contains("ifGenerationMatch=0"), "{sent:?}");
        // An earlier attempt has stored it, whose answer was lost.
        let (result, sent) = put(&[(412, 0), (200, 5)]).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(sent[1], (Method::GET, "/storage/v1/b/b/o/o%2F1".to_owned()));
        let (result, _) = put(&[(412, 0), (200, 4)]).await;
        assert_eq!(result.unwrap_err().reason, "objectSize");
    }

    #[tokio::test]
    async fn an_object_that_was_not_stored_whole_is_a_fault() {
        for (status, kind) in [
            (503, FaultKind::Transient),
            (429, FaultKind::Throttled),
            (403, FaultKind::PermissionDenied),
            (404, FaultKind::TableNotFound),
        ] {
            assert_eq!(put(&[(status, 5)]).await.0.unwrap_err().kind, kind, "{status}");
        }
        assert_eq!(put(&[(200, 4)]).await.0.unwrap_err().reason, "objectSize");
    }
}
