use std::sync::{
    Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use axum::{Router, http::StatusCode, response::IntoResponse, routing::any};
use http::{HeaderMap, Method};
use tokio::{net::TcpListener, task::JoinSet};

use super::*;
use crate::gcp::auth::{Anonymous, AuthError};

/// A server whose tokens are good from generation 1 on.
async fn server() -> (String, JoinSet<()>) {
    let routes = Router::new()
        .route(
            "/echo",
            any(|headers: HeaderMap, body: Bytes| async move {
                let auth = headers.get(AUTHORIZATION).map_or("none".into(), |v| format!("{v:?}"));
                let project = headers.get("x-goog-user-project").cloned();
                let stale = headers.get(AUTHORIZATION).is_some_and(|v| v == "Bearer token-0");
                let status = if stale { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
                (status, format!("{auth} {project:?} {}", body.len()))
            }),
        )
        .route(
            "/moved",
            any(|| async { (StatusCode::FOUND, [("location", "/echo")]).into_response() }),
        )
        .route("/huge", any(|| async { vec![b'x'; ANSWER_BYTES_MAX + 1] }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (endpoint, tasks)
}

fn get(path: &str) -> RestRequest {
    RestRequest {
        method: Method::POST,
        path: path.into(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"12345").into(),
    }
}

#[derive(Debug, Default)]
struct Counted {
    generation: AtomicU64,
    asked: Mutex<Vec<u64>>,
    refreshes: AtomicUsize,
}

impl TokenProvider for Counted {
    fn token(&self) -> BoxFuture<'_, Result<Option<Token>, AuthError>> {
        let generation = self.generation.load(Ordering::SeqCst);
        self.asked.lock().unwrap().push(generation);
        Box::pin(async move { Token::bearer(&format!("token-{generation}"), generation).map(Some) })
    }

    fn refresh(&self, generation: u64) -> BoxFuture<'_, ()> {
        self.refreshes.fetch_add(1, Ordering::SeqCst);
        self.generation.fetch_max(generation + 1, Ordering::SeqCst);
        Box::pin(async {})
    }
}

#[tokio::test]
async fn a_request_goes_out_and_its_answer_comes_back() {
    let (endpoint, _server) = server().await;
    let rest = HttpRest::new(Some(&endpoint), Some("bill-me"), Arc::new(Anonymous), 4).unwrap();
    let answer = rest.call(get("/echo")).await.unwrap();
    assert_eq!((answer.status, answer.body.as_ref()), (200, &b"none Some(\"bill-me\") 5"[..]));
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_the_request_sent_again() {
    let (endpoint, _server) = server().await;
    let tokens = Arc::new(Counted::default());
    let provider = Arc::<Counted>::clone(&tokens);
    let rest = HttpRest::new(Some(&endpoint), None, provider, 4).unwrap();
    let answer = rest.call(get("/echo")).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body.as_ref(), b"\"Bearer token-1\" None 5");
    assert_eq!(*tokens.asked.lock().unwrap(), [0, 1]);
    assert_eq!(tokens.refreshes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let (endpoint, _server) = server().await;
    let rest = HttpRest::new(Some(&endpoint), None, Arc::new(Anonymous), 4).unwrap();
    assert_eq!(rest.call(get("/moved")).await.unwrap().status, 302);
}

#[tokio::test]
async fn an_answer_without_end_is_none() {
    let (endpoint, _server) = server().await;
    let rest = HttpRest::new(Some(&endpoint), None, Arc::new(Anonymous), 4).unwrap();
    assert!(matches!(rest.call(get("/huge")).await, Err(RestError::NoAnswer { .. })));
}

#[tokio::test]
async fn a_refused_connection_was_not_sent_and_a_broken_one_may_have_been() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let rest = HttpRest::new(Some(&endpoint), None, Arc::new(Anonymous), 4).unwrap();
    let hang_up = async {
        let (stream, _) = listener.accept().await.unwrap();
        stream.readable().await.unwrap();
        drop(stream);
    };
    let (answer, ()) = tokio::join!(rest.call(get("/echo")), hang_up);
    assert!(matches!(answer, Err(RestError::NoAnswer { .. })), "{answer:?}");
    drop(listener);
    let answer = rest.call(get("/echo")).await;
    assert!(matches!(answer, Err(RestError::NotSent { .. })), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_none_after_a_while() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let rest = HttpRest::new(Some(&endpoint), None, Arc::new(Anonymous), 4).unwrap();
    let began = tokio::time::Instant::now();
    let answer = rest.call(get("/echo")).await;
    assert!(matches!(answer, Err(RestError::NoAnswer { .. })), "{answer:?}");
    assert_eq!(began.elapsed().as_secs(), ANSWER_TIMEOUT.as_secs());
    assert_eq!(limit(4 << 20), ANSWER_TIMEOUT + Duration::from_secs(41));
}

#[test]
fn an_endpoint_is_an_origin_and_nothing_else() {
    assert_eq!(origin("http://localhost:9050/").unwrap().as_ref(), "http://localhost:9050");
    for wrong in ["localhost:9050", "ftp://h", "http://u:p@h", "http://h/path", "http://h?x=1"] {
        assert!(origin(wrong).is_err(), "{wrong}");
    }
}
