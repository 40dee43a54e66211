//! What Cloud Storage must do, as far as the service relies on it, on both fronts of the simulator.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use kcbq::{
    rest::{Rest, RestError, RestRequest, RestResponse},
    sim::{SimOptions, SimRest, SimSettings, Simulator, serve},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::sim_contract::{HttpRest, json_request, parsed, reason};

const CHUNK: usize = 256 << 10;

/// Objects of one bucket.
pub(crate) struct Bucket<'a> {
    pub(crate) rest: &'a dyn Rest,
    pub(crate) name: &'a str,
}

impl Bucket<'_> {
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: impl Into<Bytes>,
    ) -> RestResponse {
        let headers = headers.iter().map(|(name, value)| {
            (name.clone(), HeaderValue::from_str(value).expect("a header's value"))
        });
        let headers: HeaderMap = headers.collect();
        let request = RestRequest { method, path: path.into(), headers, body: body.into().into() };
        self.rest.call(request).await.expect("an answer")
    }

    fn path(&self, object: &str, query: &str) -> String {
        let object = object.replace('/', "%2F");
        format!("/storage/v1/b/{}/o/{object}?{query}", self.name)
    }

    /// The object's resource, or the answer's status and body.
    pub(crate) async fn put(
        &self,
        object: &str,
        query: &str,
        body: impl Into<Bytes>,
    ) -> Result<Value, (u16, Value)> {
        let bucket = self.name;
        let path =
            format!("/upload/storage/v1/b/{bucket}/o?uploadType=media&name={object}&{query}");
        let answer = self.send(Method::POST, &path, &[], body).await;
        match answer.status {
            200 => Ok(parsed(&answer)),
            status => Err((status, parsed(&answer))),
        }
    }

    pub(crate) async fn get(&self, object: &str, query: &str) -> RestResponse {
        self.send(Method::GET, &self.path(object, query), &[], "").await
    }

    pub(crate) async fn delete(&self, object: &str, query: &str) -> RestResponse {
        self.send(Method::DELETE, &self.path(object, query), &[], "").await
    }

    async fn list(&self, query: &str) -> Value {
        let path = format!("/storage/v1/b/{}/o?{query}", self.name);
        parsed(&self.send(Method::GET, &path, &[], "").await)
    }

    /// Starts a resumable upload; the session's path.
    async fn start(&self, object: &str, query: &str) -> Result<String, u16> {
        let path = format!("/upload/storage/v1/b/{}/o?uploadType=resumable&{query}", self.name);
        let body = json!({"name": object, "contentType": "x/y", "metadata": {"k": "v"}});
        let answer = self.send(Method::POST, &path, &[], body.to_string()).await;
        match answer.status {
            200 => Ok(session(&answer)),
            status => Err(status),
        }
    }

    async fn chunk(&self, session: &str, range: &str, body: impl Into<Bytes>) -> RestResponse {
        self.send(Method::PUT, session, &[(header::CONTENT_RANGE, range)], body).await
    }
}

/// The path and query of an upload's `Location`.
pub(crate) fn session(answer: &RestResponse) -> String {
    let location = answer.headers[header::LOCATION].to_str().unwrap();
    location.parse::<Uri>().unwrap().path_and_query().unwrap().as_str().to_owned()
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| item["name"].as_str().unwrap()).collect()
}

fn range_of(answer: &RestResponse) -> (u16, &str) {
    let range = answer.headers.get(header::RANGE);
    (answer.status, range.map_or("", |range| range.to_str().unwrap()))
}

async fn uploads_in_every_way(rest: &dyn Rest) {
    let bucket = Bucket { rest, name: "uploads" };
    let media = bucket.put("a%2Fmedia", "", "abc").await.unwrap();
    assert_eq!((&media["name"], &media["size"]), (&json!("a/media"), &json!("3")));
    assert_eq!(media["md5Hash"], "kAFQmDzST7DWlj99KOF/cg==");
    assert_eq!(media["crc32c"], "Nks/tw==");
    assert_eq!((&media["metageneration"], &media["bucket"]), (&json!("1"), &json!("uploads")));

    let body = "--b\r\nContent-Type: application/json\r\n\r\n{\"name\":\"two\",\"metadata\":{\"rows\":\"7\"}}\r\n--b\r\nContent-Type: x/y\r\n\r\nabc\r\n--b--";
    let path = "/upload/storage/v1/b/uploads/o?uploadType=multipart";
    let related = [(header::CONTENT_TYPE, "multipart/related; boundary=b")];
    let two = parsed(&bucket.send(Method::POST, path, &related, body).await);
    assert_eq!((&two["contentType"], &two["metadata"]), (&json!("x/y"), &json!({"rows": "7"})));

    let session = bucket.start("three", "").await.unwrap();
    let three = parsed(&bucket.send(Method::PUT, &session, &[], "abc").await);
    assert_eq!((&three["contentType"], &three["metadata"]), (&json!("x/y"), &json!({"k": "v"})));
    for object in ["a/media", "two", "three"] {
        let answer = bucket.get(object, "alt=media").await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"abc"[..]), "{object}");
        assert_eq!(parsed(&bucket.get(object, "").await)["name"], object);
    }
    let path = "/upload/storage/v1/b/uploads/o?uploadType=other&name=x";
    assert_eq!(bucket.send(Method::POST, path, &[], "abc").await.status, 400);
}

async fn declared_checksums_are_checked(rest: &dyn Rest) {
    let bucket = Bucket { rest, name: "checksums" };
    let path = "/upload/storage/v1/b/checksums/o?uploadType=media&name=x";
    let hash = HeaderName::from_static("x-goog-hash");
    for (value, expected) in [
        ("crc32c=Nks/tw==,md5=kAFQmDzST7DWlj99KOF/cg==", 200),
        ("crc32c=AAAAAA==", 400),
        ("md5=1B2M2Y8AsgTpgAmY7PhCfg==", 400),
    ] {
        let answer = bucket.send(Method::POST, path, &[(hash.clone(), value)], "abc").await;
        assert_eq!(answer.status, expected, "{value}");
    }
}

async fn generations_grow_and_guard_every_verb(rest: &dyn Rest) {
    let bucket = Bucket { rest, name: "generations" };
    let generation =
        |object: &Value| object["generation"].as_str().unwrap().parse::<u64>().unwrap();
    let first = generation(&bucket.put("x", "ifGenerationMatch=0", "1").await.unwrap());
    let (status, body) = bucket.put("x", "ifGenerationMatch=0", "2").await.unwrap_err();
    assert_eq!((status, reason(&body)), (412, "conditionNotMet"));
    assert_eq!(bucket.start("x", "ifGenerationMatch=0").await, Err(412), "told at the start");
    let second = bucket.put("x", &format!("ifGenerationMatch={first}"), "2").await.unwrap();
    let second = generation(&second);
    assert!(second > first);
    for (query, expected) in [
        (format!("ifGenerationMatch={first}"), 412),
        (format!("ifGenerationNotMatch={second}"), 304),
        (format!("ifGenerationMatch={second}&ifMetagenerationMatch=1"), 200),
        (format!("alt=media&ifGenerationMatch={first}"), 412),
        (format!("generation={first}"), 404),
    ] {
        assert_eq!(bucket.get("x", &query).await.status, expected, "{query}");
    }
    let stale = bucket.delete("x", &format!("ifGenerationMatch={first}")).await;
    assert_eq!((stale.status, reason(&parsed(&stale))), (412, "conditionNotMet"));
    assert_eq!(bucket.delete("x", &format!("ifGenerationMatch={second}")).await.status, 204);
    let gone = bucket.delete("x", "").await;
    assert_eq!((gone.status, reason(&parsed(&gone))), (404, "notFound"));
    let third = generation(&bucket.put("x", "ifGenerationMatch=0", "3").await.unwrap());
    assert!(third > second, "a generation is not used again");
}

async fn resumable_uploads_resume(rest: &dyn Rest) {
    let bucket = Bucket { rest, name: "resumable" };
    let media: Vec<u8> = (0..2 * CHUNK + 10).map(|at| at as u8).collect();
    let total = media.len();
    let session = bucket.start("x", "ifGenerationMatch=0").await.unwrap();
    let ask = format!("bytes */{total}");
    assert_eq!(range_of(&bucket.chunk(&session, &ask, "").await), (308, ""));
    let range = format!("bytes 0-{}/*", CHUNK - 1);
    let first = bucket.chunk(&session, &range, media[..CHUNK].to_vec()).await;
    let one = (308, "bytes=0-262143");
    assert_eq!(range_of(&first), one);
    assert_eq!(range_of(&bucket.chunk(&session, "bytes */*", "").await), one);
    let small = bucket.chunk(&session, "bytes 262144-262243/*", vec![0; 100]).await;
    assert_eq!(small.status, 400, "chunks are multiples of 256 KiB");
    assert_eq!(bucket.get("x", "").await.status, 404, "nothing is there before the end");
    let range = format!("bytes {CHUNK}-{}/{total}", total - 1);
    let last = bucket.chunk(&session, &range, media[CHUNK..].to_vec()).await;
    let object = parsed(&last);
    assert_eq!(object["size"], total.to_string());
    let again = bucket.chunk(&session, &ask, "").await;
    assert_eq!((again.status, parsed(&again)), (200, object), "the answer may be asked for again");
    assert_eq!(bucket.get("x", "alt=media").await.body, media);
    let unknown = session.replace("upload_id=", "upload_id=not-");
    assert_eq!(bucket.chunk(&unknown, &ask, "").await.status, 404);
}

async fn a_race_for_a_name_is_lost_at_the_end(rest: &dyn Rest) {
    let bucket = Bucket { rest, name: "race" };
    let session = bucket.start("x", "ifGenerationMatch=0").await.unwrap();
    bucket.put("x", "", "other").await.unwrap();
    let late = bucket.send(Method::PUT, &session, &[], "mine").await;
    assert_eq!((late.status, reason(&parsed(&late))), (412, "conditionNotMet"));
    assert_eq!(&bucket.get("x", "alt=media").await.body[..], b"other");
}

async fn cancelled_uploads_are_gone(rest: &dyn Rest) {
    let bucket = Bucket { rest, name: "cancelled" };
    let session = bucket.start("x", "").await.unwrap();
    assert_eq!(bucket.send(Method::DELETE, &session, &[], "").await.status, 499);
    assert_eq!(bucket.send(Method::PUT, &session, &[], "x").await.status, 410);
}

async fn media_come_in_ranges(rest: &dyn Rest) {
    let bucket = Bucket { rest, name: "ranges" };
    bucket.put("x", "", "0123456789").await.unwrap();
    let path = "/storage/v1/b/ranges/o/x?alt=media";
    let part = bucket.send(Method::GET, path, &[(header::RANGE, "bytes=2-4")], "").await;
    assert_eq!((part.status, &part.body[..]), (206, &b"234"[..]));
    assert_eq!(part.headers[header::CONTENT_RANGE], "bytes 2-4/10");
    let beyond = bucket.send(Method::GET, path, &[(header::RANGE, "bytes=10-")], "").await;
    assert_eq!(beyond.status, 416);
    let download = bucket.send(Method::GET, "/download/storage/v1/b/ranges/o/x", &[], "").await;
    assert_eq!(&download.body[..], b"0123456789");
    let missing = bucket.get("none", "alt=media").await;
    assert_eq!((missing.status, &missing.body[..]), (404, &b"No such object: ranges/none"[..]));
}

async fn lists_have_prefixes_and_pages(rest: &dyn Rest) {
    let bucket = Bucket { rest, name: "lists" };
    assert_eq!(bucket.list("").await, json!({"kind": "storage#objects"}));
    for object in ["a%2F1", "a%2F2", "b%2F1", "c", "d"] {
        bucket.put(object, "", "x").await.unwrap();
    }
    assert_eq!(names(&bucket.list("").await), ["a/1", "a/2", "b/1", "c", "d"]);
    assert_eq!(names(&bucket.list("prefix=a/").await), ["a/1", "a/2"]);
    assert_eq!(names(&bucket.list("startOffset=b&endOffset=d").await), ["b/1", "c"]);
    let grouped = bucket.list("delimiter=/").await;
    assert_eq!((&grouped["prefixes"], names(&grouped)), (&json!(["a/", "b/"]), vec!["c", "d"]));
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let page = bucket.list(&format!("maxResults=2&pageToken={token}")).await;
        found.extend(names(&page).into_iter().map(str::to_owned));
        match page["nextPageToken"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(found, ["a/1", "a/2", "b/1", "c", "d"]);
    let first = bucket.list("delimiter=/&maxResults=1").await;
    assert_eq!(first["prefixes"], json!(["a/"]));
    let token = first["nextPageToken"].as_str().unwrap();
    let second = bucket.list(&format!("delimiter=/&maxResults=2&pageToken={token}")).await;
    assert_eq!((&second["prefixes"], names(&second)), (&json!(["b/"]), vec!["c"]));
}

async fn what_is_not_simulated_says_so(rest: &dyn Rest) {
    let bucket = Bucket { rest, name: "other" };
    let path = "/storage/v1/b/other/o/x/compose";
    assert_eq!(bucket.send(Method::POST, path, &[], "{}").await.status, 501);
    assert_eq!(
        parsed(&bucket.send(Method::GET, "/storage/v1/b/other", &[], "").await)["name"],
        "other"
    );
}

async fn check_all(rest: &dyn Rest) {
    uploads_in_every_way(rest).await;
    declared_checksums_are_checked(rest).await;
    generations_grow_and_guard_every_verb(rest).await;
    resumable_uploads_resume(rest).await;
    a_race_for_a_name_is_lost_at_the_end(rest).await;
    cancelled_uploads_are_gone(rest).await;
    media_come_in_ranges(rest).await;
    lists_have_prefixes_and_pages(rest).await;
    what_is_not_simulated_says_so(rest).await;
}

#[tokio::test]
async fn objects_in_memory() {
    check_all(&SimRest(Simulator::with_system_clock(SimSettings::default()))).await;
}

#[tokio::test]
async fn objects_over_http() {
    let stop = CancellationToken::new();
    let running = serve(SimOptions::default(), stop.clone()).await.unwrap();
    check_all(&HttpRest::new(format!("http://{}", running.gcs_addr))).await;
    stop.cancel();
    running.stopped().await;
}

#[tokio::test]
async fn buckets_may_have_to_exist() {
    let settings = SimSettings { buckets: vec!["known".into()], ..SimSettings::default() };
    let rest = SimRest(Simulator::with_system_clock(settings));
    assert!(Bucket { rest: &rest, name: "known" }.put("x", "", "1").await.is_ok());
    let other = Bucket { rest: &rest, name: "other" };
    let (status, body) = other.put("x", "", "1").await.unwrap_err();
    assert_eq!((status, reason(&body)), (404, "notFound"));
    let create = json!({"name": "other"});
    for expected in [200, 409] {
        let request = json_request(Method::POST, "/storage/v1/b?project=p", Some(&create));
        assert_eq!(rest.call(request).await.unwrap().status, expected);
    }
    assert!(other.put("x", "", "1").await.is_ok());
}

#[tokio::test]
async fn sessions_expire() {
    let clock = Arc::new(AtomicU64::new(1_767_225_600_000));
    let read = Arc::clone(&clock);
    let now = move || Duration::from_millis(read.load(Ordering::Relaxed));
    let rest = SimRest(Simulator::new(SimSettings::default(), Arc::new(now)));
    let bucket = Bucket { rest: &rest, name: "b" };
    let session = bucket.start("x", "").await.unwrap();
    clock.fetch_add(7 * 86_400_000, Ordering::Relaxed);
    assert_eq!(bucket.send(Method::PUT, &session, &[], "x").await.status, 410);
}

#[tokio::test]
async fn a_chunk_whose_connection_breaks_is_kept_in_part() {
    let rest = SimRest(Simulator::with_system_clock(SimSettings::default()));
    let bucket = Bucket { rest: &rest, name: "b" };
    let session = bucket.start("x", "").await.unwrap();
    let script = json!({"rules": [{"operation": "storage.objects.upload", "nth": 1,
        "fault": {"kind": "cut", "bytes": CHUNK + 1}}]});
    let request = json_request(Method::POST, "/sim/v1/faults", Some(&script));
    rest.call(request).await.unwrap();
    let total = 2 * CHUNK;
    let request = RestRequest {
        method: Method::PUT,
        path: session.clone(),
        headers: HeaderMap::from_iter([(
            header::CONTENT_RANGE,
            HeaderValue::from_str(&format!("bytes 0-{}/{total}", total - 1)).unwrap(),
        )]),
        body: vec![1; total].into(),
    };
    assert!(matches!(rest.call(request).await, Err(RestError::NoAnswer { .. })));
    let ask = bucket.chunk(&session, &format!("bytes */{total}"), "").await;
    assert_eq!(range_of(&ask), (308, "bytes=0-262143"));
    let rest_of = format!("bytes {CHUNK}-{}/{total}", total - 1);
    assert_eq!(bucket.chunk(&session, &rest_of, vec![1; CHUNK]).await.status, 200);
}

#[tokio::test]
async fn faults_of_objects_have_the_services_envelope() {
    let rest = SimRest(Simulator::with_system_clock(SimSettings::default()));
    let bucket = Bucket { rest: &rest, name: "b" };
    let script = json!({"rules": [{"operation": "storage.objects.insert", "table": "data/*",
        "nth": 1, "fault": {"kind": "fail_after"}}]});
    rest.call(json_request(Method::POST, "/sim/v1/faults", Some(&script))).await.unwrap();
    assert!(bucket.put("other", "", "1").await.is_ok(), "another name");
    let (status, body) = bucket.put("data%2Fx", "ifGenerationMatch=0", "1").await.unwrap_err();
    assert_eq!((status, reason(&body)), (503, "backendError"));
    let (status, _) = bucket.put("data%2Fx", "ifGenerationMatch=0", "1").await.unwrap_err();
    assert_eq!(status, 412, "the first attempt was applied");
}
