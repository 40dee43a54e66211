//! `storage.objects.list`: prefix, delimiter, pages.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::URL_SAFE as BASE64};
use serde_json::{Value, json};

use crate::sim::{
    gcs::{Gcs, error::GcsError},
    message::{Request, Response},
};

/// Entries of one page; more are never answered at once.
const PAGE_MAX: usize = 1_000;

impl Gcs {
    pub(crate) fn list(&self, bucket: &str, request: &Request) -> Result<Response, GcsError> {
        let text = |name: &str| request.parameter(name).unwrap_or_default();
        let (prefix, delimiter) = (text("prefix"), text("delimiter"));
        let (start, end) = (text("startOffset"), text("endOffset"));
        let after = after(request)?;
        let max = request.number("maxResults").unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        let (mut items, mut prefixes, mut last) = (Vec::new(), BTreeSet::new(), String::new());
        let mut more = false;
        for (name, object) in self.objects(bucket) {
            let Some(rest) = name.strip_prefix(prefix.as_str()) else { continue };
            if name < start.as_str() || (!end.is_empty() && name >= end.as_str()) {
                continue;
            }
            let group = rest.split_once(&delimiter).filter(|_| !delimiter.is_empty());
            let entry = match group {
                Some((first, _)) => format!("{prefix}{first}{delimiter}"),
                None => name.to_owned(),
            };
            if after.as_ref().is_some_and(|after| entry <= *after) || prefixes.contains(&entry) {
                continue;
            }
            if items.len() + prefixes.len() == max {
                more = true;
                break;
            }
            last.clone_from(&entry);
            match group {
                Some(_) => _ = prefixes.insert(entry),
                None => items.push(object.resource(bucket, name)),
            }
        }
        Ok(Response::json(200, &page(items, prefixes, more.then_some(last))))
    }
}

/// The last entry of the page before.
fn after(request: &Request) -> Result<Option<String>, GcsError> {
    let Some(token) = request.parameter("pageToken") else { return Ok(None) };
    let decoded = BASE64.decode(&token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.map(Some).ok_or_else(|| GcsError::invalid(format!("Invalid page token: '{token}'")))
}

/// As the service does, an empty list is left out.
fn page(items: Vec<Value>, prefixes: BTreeSet<String>, last: Option<String>) -> Value {
    let mut body = json!({"kind": "storage#objects"});
    if let Some(body) = body.as_object_mut() {
        if let Some(last) = last {
            body.insert("nextPageToken".into(), json!(BASE64.encode(last)));
        }
        if !prefixes.is_empty() {
            body.insert("prefixes".into(), json!(prefixes));
        }
        if !items.is_empty() {
            body.insert("items".into(), json!(items));
        }
    }
    body
}
