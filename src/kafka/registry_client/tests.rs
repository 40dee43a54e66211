use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};

use super::*;
use crate::secret::Secret;

type Pages = HashMap<&'static str, (u16, String)>;

/// A path, and the credentials sent with it.
type Asked = (String, Option<String>);

#[derive(Clone)]
struct Server {
    pages: Arc<Pages>,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Requests at this moment, and the most that there were.
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

async fn answer(State(server): State<Server>, uri: Uri, headers: HeaderMap) -> Response {
    let authorization =
        headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    server.asked.lock().unwrap().push((uri.path().to_owned(), authorization));
    let now = server.now.fetch_add(1, Ordering::Relaxed) + 1;
    server.most.fetch_max(now, Ordering::Relaxed);
    tokio::task::yield_now().await;
    server.now.fetch_sub(1, Ordering::Relaxed);
    match server.pages.get(uri.path()) {
        Some((status, body)) if *status == 302 => {
            (StatusCode::FOUND, [("location", body.clone())]).into_response()
        }
        Some((status, body)) => {
            (StatusCode::from_u16(*status).unwrap(), body.clone()).into_response()
        }
        None => (StatusCode::NOT_FOUND, r#"{"error_code":40403}"#).into_response(),
    }
}

/// Serves `pages` for the rest of the test.
async fn serve(pages: Pages) -> (String, Server) {
    let server = Server {
        pages: Arc::new(pages),
        asked: Arc::default(),
        now: Arc::default(),
        most: Arc::default(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(answer).with_state(server.clone());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await });
    tasks.detach_all();
    (url, server)
}

fn client(url: &str) -> RegistryClient {
    RegistryClient::new(&RegistrySettings { url: url.to_owned(), ..RegistrySettings::default() })
        .unwrap()
}

fn page(schema: &str, references: &[(&str, i32)]) -> (u16, String) {
    let references: Vec<_> = references
        .iter()
        .map(|(subject, version)| serde_json::json!({"name": "n", "subject": subject, "version": version}))
        .collect();
    (200, serde_json::json!({"schema": schema, "references": references}).to_string())
}

#[tokio::test]
async fn references_come_after_what_they_refer_to_and_once() {
    let (url, _) = serve(HashMap::from([
        ("/schemas/ids/7", page("root", &[("a/b", 1), ("c", 2)])),
        ("/subjects/a%2Fb/versions/1", page("ab", &[("c", 2)])),
        ("/subjects/c/versions/2", page("c", &[])),
    ]))
    .await;
    let schema = client(&url).schema(7).await.unwrap();
    assert_eq!((schema.id, &*schema.text, schema.format.as_str()), (7, "root", "AVRO"));
    let references: Vec<&str> = schema.references.iter().map(|text| &**text).collect();
    assert_eq!(references, ["c", "ab"]);
}

#[tokio::test]
async fn an_unknown_id_is_told_apart_from_a_wrong_address() {
    let (url, _) = serve(HashMap::from([("/schemas/ids/2", (404, "<html>".into()))])).await;
    let client = client(&url);
    assert!(matches!(client.schema(1).await, Err(RegistryError::UnknownId { id: 1 })));
    let Err(RegistryError::Fault(fault)) = client.schema(2).await else { panic!() };
    assert!(fault.to_string().contains("schema_registry.url"), "{fault}");
}

#[tokio::test]
async fn errors_are_classified_and_the_next_address_is_tried_only_where_it_may_help() {
    for (status, kind, next) in [
        (401, FaultKind::Unauthenticated, false),
        (403, FaultKind::PermissionDenied, false),
        (422, FaultKind::InvalidRequest, false),
        (429, FaultKind::Throttled, true),
        (500, FaultKind::Transient, true),
    ] {
        let (bad, _) = serve(HashMap::from([("/schemas/ids/1", (status, String::new()))])).await;
        let Err(RegistryError::Fault(fault)) = client(&bad).schema(1).await else { panic!() };
        assert_eq!(fault.kind, kind, "{status}");
        let (good, _) = serve(HashMap::from([("/schemas/ids/1", page("ok", &[]))])).await;
        let both = client(&format!("{bad}, {good}")).schema(1).await;
        assert_eq!(both.is_ok(), next, "{status}");
    }
    let Err(RegistryError::Fault(fault)) = client("http://127.0.0.1:1").schema(1).await else {
        panic!()
    };
    assert_eq!((fault.kind, fault.reason.as_str()), (FaultKind::Transient, "connect"));
}

#[tokio::test]
async fn credentials_are_sent_to_the_configured_host_and_never_follow_a_redirect_elsewhere() {
    let (other, elsewhere) = serve(HashMap::new()).await;
    let away = format!("{other}/schemas/ids/1");
    let (url, server) = serve(HashMap::from([
        ("/schemas/ids/1", (302, away)),
        ("/schemas/ids/2", page("ok", &[])),
    ]))
    .await;
    let settings = RegistrySettings {
        url,
        allow_insecure: true,
        username: Some("user".into()),
        password: Some(Secret::new("canary")),
        ..RegistrySettings::default()
    };
    let client = RegistryClient::new(&settings).unwrap();
    let Err(RegistryError::Fault(fault)) = client.schema(1).await else { panic!() };
    assert_eq!(fault.reason, "redirect");
    assert!(elsewhere.asked.lock().unwrap().is_empty());
    client.schema(2).await.unwrap();
    let sent = server.asked.lock().unwrap().last().unwrap().1.clone();
    assert_eq!(sent.as_deref(), Some("Basic dXNlcjpjYW5hcnk="));
    assert!(!format!("{client:?}").contains("canary"));
}

#[tokio::test]
async fn endless_references_and_huge_answers_are_refused() {
    let names: Vec<String> = (1..=40).map(|n| format!("/subjects/s{n}/versions/1")).collect();
    let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
    let mut pages = HashMap::from([("/schemas/ids/1", page("root", &[("s1", 1)]))]);
    for (n, name) in names.iter().enumerate() {
        pages.insert(name, page("s", &[(&format!("s{}", n + 2), 1)]));
    }
    pages.insert(
        "/schemas/ids/2",
        (200, format!("{{\"schema\":\"{}\"}}", "x".repeat(BODY_BYTES_MAX))),
    );
    // A cycle ends by itself.
    pages.insert("/schemas/ids/3", page("root", &[("cycle", 1)]));
    pages.insert("/subjects/cycle/versions/1", page("cycle", &[("cycle", 1)]));
    let (url, _) = serve(pages).await;
    let client = client(&url);
    for (id, why) in [(1, "16 deep"), (2, "larger than 1048576 bytes")] {
        let Err(RegistryError::Unusable { problem, .. }) = client.schema(id).await else {
            panic!()
        };
        assert!(problem.contains(why), "{problem}");
    }
    assert_eq!(client.schema(3).await.unwrap().references.len(), 1);
}

#[tokio::test]
async fn a_walk_ends_at_the_first_byte_too_many_and_few_walks_are_made_at_a_time() {
    // As a hostile registry answers: each schema is large and refers to hundreds of others.
    let large = "x".repeat(300_000);
    let mut pages = HashMap::new();
    let names: Vec<String> = (0..200).map(|n| format!("s{n}")).collect();
    let references: Vec<(&str, i32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    for id in 1..=40 {
        let path: &'static str = format!("/schemas/ids/{id}").leak();
        pages.insert(path, page("root", &references));
    }
    for name in names.iter().take(8) {
        let path: &'static str = format!("/subjects/{name}/versions/1").leak();
        pages.insert(path, page(&large, &references));
    }
    let (url, server) = serve(pages).await;
    let client = client(&url);
    let walks = futures_util::future::join_all((1..=40).map(|id| client.schema(id))).await;
    for walk in walks {
        let Err(RegistryError::Unusable { problem, .. }) = walk else { panic!("{walk:?}") };
        assert!(problem.contains("larger than 1048576 bytes"), "{problem}");
    }
    // Each: the schema twice, and four references, of which the last is one too many.
    assert_eq!(server.asked.lock().unwrap().len(), 40 * (2 + 4));
    assert!(server.most.load(Ordering::Relaxed) <= REQUESTS_MAX);
}

#[tokio::test]
async fn a_thousand_ids_at_once_are_a_few_requests_at_a_time() {
    let (url, server) = serve(HashMap::new()).await;
    let client = client(&url);
    let asked = futures_util::future::join_all((1..=1_000).map(|id| client.schema(id))).await;
    assert!(asked.iter().all(|one| matches!(one, Err(RegistryError::UnknownId { .. }))));
    let most = server.most.load(Ordering::Relaxed);
    assert!((2..=REQUESTS_MAX).contains(&most), "{most} at a time");
}

#[test]
fn the_address_names_every_url() {
    let client = client("http://one:8081/, https://two/registry");
    assert_eq!(client.address(), "http://one:8081, https://two/registry");
}

#[test]
fn only_http_urls_are_taken() {
    for url in ["", "ftp://x", "file:///etc/passwd", "localhost:8081", "http://"] {
        let settings = RegistrySettings { url: url.into(), ..RegistrySettings::default() };
        assert!(RegistryClient::new(&settings).is_err(), "{url}");
    }
}
