//! Cloud Storage's JSON API over objects in memory: what the service stages load jobs with.
//!
//! Facts: <https://docs.cloud.google.com/storage/docs/json_api/v1> (objects, status codes),
//! `…/storage/docs/request-preconditions`, and the shapes that fake-gcs-server answers. Objects have
//! one live generation: there is no versioning here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use http::Method;

use crate::sim::{
    gcs::{error::GcsError, insert::Start, object::Object},
    message::{Request, Response},
    settings::SimSettings,
    upload::{
        self,
        session::{Limits, Sessions},
    },
};

pub mod buckets;
pub mod checksum;
pub mod conditions;
pub mod error;
pub mod insert;
pub mod list;
pub mod object;
pub mod read;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcsRoute {
    /// The REST method's name, such as `storage.objects.get`. A chunk of a resumable upload, or a
    /// question about one, is `storage.objects.upload`.
    pub operation: &'static str,
    /// The bucket; empty where the route has none.
    pub bucket: String,
    /// The object; for inserts the query's `name`, empty where only the metadata name it.
    pub object: String,
    /// Whether the media is asked for wherever `alt` may stand.
    media: bool,
}

impl GcsRoute {
    /// The route of a request; `None` for a path that is not Cloud Storage's.
    pub fn of(request: &Request) -> Option<Self> {
        if let Some(segments) = upload::target(request) {
            return Self::of_upload(request, &segments);
        }
        let segments = request.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (download, segments) = match segments.as_slice() {
            ["download", rest @ ..] => (true, rest),
            all => (false, all),
        };
        let (operation, bucket, object) =
            match (segments.strip_prefix(&["storage", "v1"])?, &request.method) {
                (["b"], &Method::POST) => ("storage.buckets.insert", "", ""),
                (["b", bucket], &Method::GET) => ("storage.buckets.get", *bucket, ""),
                (["b", bucket, "o"], &Method::GET) => ("storage.objects.list", *bucket, ""),
                (["b", bucket, "o", object], &Method::GET) => {
                    ("storage.objects.get", *bucket, *object)
                }
                (["b", bucket, "o", object], &Method::DELETE) => {
                    ("storage.objects.delete", *bucket, *object)
                }
                _ => ("storage.other", "", ""),
            };
        Some(Self {
            operation,
            bucket: bucket.to_owned(),
            object: object.to_owned(),
            media: download || request.parameter("alt").as_deref() == Some("media"),
        })
    }

    fn of_upload(request: &Request, segments: &[String]) -> Option<Self> {
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let operation = match *segments.as_slice() {
            ["storage", "v1", "b", _, "o"] => match request.method {
                Method::POST => "storage.objects.insert",
                Method::PUT => "storage.objects.upload",
                Method::DELETE => "storage.objects.cancelUpload",
                _ => "storage.other",
            },
            ["storage", ..] => "storage.other",
            _ => return None,
        };
        let bucket = segments.get(3).copied().unwrap_or_default().to_owned();
        let object = request.parameter("name").unwrap_or_default();
        Some(Self { operation, bucket, object, media: false })
    }
}

/// All buckets' objects.
#[derive(Debug)]
pub struct Gcs {
    settings: Arc<SimSettings>,
    objects: BTreeMap<String, BTreeMap<String, Object>>,
    /// Buckets that were created by request.
    created: BTreeSet<String>,
    sessions: Sessions<Start>,
    generation: u64,
}

impl Gcs {
    /// An empty service.
    pub fn new(settings: Arc<SimSettings>) -> Self {
        let limits = Limits {
            lifetime: Duration::from_millis(settings.upload_session_ms),
            bytes_max: settings.upload_bytes_max,
        };
        Self {
            settings,
            objects: BTreeMap::new(),
            created: BTreeSet::new(),
            sessions: Sessions::new(limits),
            generation: 0,
        }
    }

    /// Applies one request.
    pub fn handle(&mut self, route: &GcsRoute, request: &Request, now: Duration) -> Response {
        let answer = match route.operation {
            "storage.buckets.insert" => self.insert_bucket(request),
            _ if route.operation == "storage.other" => {
                let what = format!("{} {} is not simulated", request.method, request.path);
                Err(GcsError::new(501, "notImplemented", what))
            }
            _ if !self.exists(&route.bucket) => Err(GcsError::no_bucket()),
            "storage.buckets.get" => Ok(buckets::response(&route.bucket)),
            "storage.objects.list" => self.list(&route.bucket, request),
            "storage.objects.get" => self.get(route, request),
            "storage.objects.delete" => self.delete(route, request),
            "storage.objects.insert" => self.insert(route, request, now),
            "storage.objects.upload" => self.upload(request, now),
            _ => self.cancel(request, now),
        };
        answer.unwrap_or_else(|error| match route.media {
            true => error.as_text(),
            false => error.into(),
        })
    }

    /// A live object.
    pub fn object(&self, bucket: &str, object: &str) -> Option<&Object> {
        self.objects.get(bucket)?.get(object)
    }

    /// A bucket's live objects by name.
    pub fn objects(&self, bucket: &str) -> impl Iterator<Item = (&str, &Object)> {
        let objects = self.objects.get(bucket).into_iter().flatten();
        objects.map(|(name, object)| (name.as_str(), object))
    }

    /// The next generation: microseconds, as the service's are, and never one twice.
    fn next_generation(&mut self, now: Duration) -> u64 {
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.generation = micros.max(self.generation + 1);
        self.generation
    }
}
