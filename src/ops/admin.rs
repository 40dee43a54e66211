//! The admin endpoint: `/metrics`, `/livez`, `/readyz`, `/status`, releasing a lane.

use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{StatusCode, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;

use crate::{
    ops::{LaneControl, ReleaseError, settings::AdminSettings},
    printable,
    record::TopicPartition,
    secret::Secret,
    telemetry::{LaneStatus, ProcessStatus, TableStatus, Telemetry, Thresholds},
};

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// No request has a body worth reading.
const BODY_BYTES_MAX: usize = 4 << 10;

/// What the endpoint shows and does.
#[derive(Clone)]
pub struct Admin {
    telemetry: Arc<Telemetry>,
    control: Arc<dyn LaneControl>,
    thresholds: Thresholds,
    token: Option<Secret>,
    host_names: Arc<[String]>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("thresholds", &self.thresholds).finish_non_exhaustive()
    }
}

impl Admin {
    /// An endpoint over `telemetry` that hands orders to `control`.
    pub fn new(
        settings: &AdminSettings,
        telemetry: Arc<Telemetry>,
        control: Arc<dyn LaneControl>,
    ) -> Self {
        Self {
            telemetry,
            control,
            thresholds: settings.thresholds(),
            token: settings.token.clone(),
            host_names: settings.host_names.clone().into(),
        }
    }

    /// The routes. `/livez` and `/readyz` need no token: they tell nothing but yes, no and why.
    pub fn router(self) -> Router {
        let guarded = Router::new()
            .route("/metrics", get(metrics))
            .route("/status", get(status))
            .route("/lanes/{topic}/{partition}/release", post(release))
            .route_layer(middleware::from_fn_with_state(self.clone(), authorise))
            .route_layer(middleware::from_fn_with_state(self.clone(), called_by_name));
        Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .merge(guarded)
            .layer(middleware::from_fn(in_time))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(self)
    }

    fn liveness(&self, now: Instant) -> Result<(), String> {
        let work = self.telemetry.status.has_work();
        let verdict = self.telemetry.liveness.check(now, self.thresholds, work);
        verdict.map_err(|stuck| stuck.to_string())
    }
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "no answer in time\n").into_response(),
    }
}

/// A web page may point a name of its own at this machine and ask as its visitor (DNS rebinding). Its browser then
/// says that name; nothing that may ask does.
async fn called_by_name(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let named = request.uri().authority().map(|authority| authority.as_str()).or(header);
    // No browser leaves the header out.
    match named.is_none_or(|host| is_own_name(host, &admin.host_names)) {
        true => next.run(request).await,
        false => {
            let remedy = "requests must name this endpoint by its IP address, `localhost`, or a name in \
                          admin.host_names\n";
            (StatusCode::MISDIRECTED_REQUEST, remedy).into_response()
        }
    }
}

/// Whether `host`, with its port or without, is an address, `localhost` or one of `names`.
fn is_own_name(host: &str, names: &[String]) -> bool {
    let Ok(host) = host.parse::<Authority>() else { return false };
    let name = host.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    address.parse::<IpAddr>().is_ok() || is("localhost") || names.iter().any(|known| is(known))
}

async fn authorise(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    // A web page must not make its visitor's browser release a lane.
    if request.method() == axum::http::Method::POST
        && request.headers().contains_key(header::ORIGIN)
    {
        return (StatusCode::FORBIDDEN, "requests from web pages are refused\n").into_response();
    }
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let allowed = match &admin.token {
        None => true,
        Some(token) => same(given.unwrap_or_default(), token.expose().as_bytes()),
    };
    match allowed {
        true => next.run(request).await,
        false => {
            let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, challenge, "a bearer token is needed\n").into_response()
        }
    }
}

/// Compares in a time that depends on the lengths only.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    let difference = given.iter().zip(wanted).fold(0, |sum, (one, other)| sum | (one ^ other));
    std::hint::black_box(difference) == 0 && given.len() == wanted.len()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    const TEXT: [(header::HeaderName, &str); 1] =
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    match admin.telemetry.encode(Instant::now()) {
        Ok(text) => (TEXT, text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn livez(State(admin): State<Admin>) -> Response {
    verdict(admin.liveness(Instant::now()))
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let process = admin.telemetry.status.process();
    verdict(match process.ready {
        true => Ok(()),
        false => Err(process.reason.unwrap_or_else(|| "not ready".to_owned())),
    })
}

fn verdict(verdict: Result<(), String>) -> Response {
    match verdict {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// The body of `/status`.
#[derive(Serialize)]
struct StatusPage {
    process: ProcessPage,
    lanes: Vec<LaneStatus>,
    tables: Vec<TableStatus>,
}

#[derive(Serialize)]
struct ProcessPage {
    #[serde(flatten)]
    process: ProcessStatus,
    liveness: LivenessPage,
}

#[derive(Serialize)]
struct LivenessPage {
    alive: bool,
    reason: Option<String>,
    poll_age_ms: u64,
    progress_age_ms: u64,
    worker_ages_ms: Vec<u64>,
}

async fn status(State(admin): State<Admin>) -> Response {
    let now = Instant::now();
    let snapshot = admin.telemetry.status.snapshot();
    let liveness = &admin.telemetry.liveness;
    let ms = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let reason = admin.liveness(now).err();
    Json(StatusPage {
        process: ProcessPage {
            process: snapshot.process,
            liveness: LivenessPage {
                alive: reason.is_none(),
                reason,
                poll_age_ms: ms(liveness.poll_age(now)),
                progress_age_ms: ms(liveness.progress_age(now)),
                worker_ages_ms: liveness.worker_ages(now).map(ms).collect(),
            },
        },
        lanes: snapshot.lanes,
        tables: snapshot.tables,
    })
    .into_response()
}

async fn release(
    State(admin): State<Admin>,
    Path((topic, partition)): Path<(String, i32)>,
) -> Response {
    let lane = TopicPartition::new(topic, partition);
    let outcome = admin.control.release(lane.clone()).await;
    // Anyone may have written the path.
    let lane = printable::name(&lane.to_string()).into_owned();
    match outcome {
        Ok(()) => {
            tracing::warn!(%lane, "halted lane released by an operator");
            (StatusCode::ACCEPTED, format!("{lane} is released\n")).into_response()
        }
        Err(error) => {
            tracing::warn!(%lane, %error, "an operator's release was refused");
            let status = match error {
                ReleaseError::NotOwned => StatusCode::NOT_FOUND,
                ReleaseError::NotHalted => StatusCode::CONFLICT,
                ReleaseError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, format!("{lane}: {error}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::future::BoxFuture;
    use tower::ServiceExt as _;

    use super::*;
    use crate::telemetry::LaneState;

    struct OnlyOrders;

    impl LaneControl for OnlyOrders {
        fn release(&self, lane: TopicPartition) -> BoxFuture<'_, Result<(), ReleaseError>> {
            Box::pin(async move {
                match (&*lane.topic, lane.partition) {
                    ("shop.orders", 3) => Ok(()),
                    ("shop.orders", _) => Err(ReleaseError::NotHalted),
                    _ => Err(ReleaseError::NotOwned),
                }
            })
        }
    }

    fn admin(token: Option<&str>) -> Admin {
        let telemetry = Telemetry::new(1, Instant::now(), 17).unwrap();
        let token = token.map(Secret::new);
        let settings = AdminSettings { token, ..AdminSettings::default() };
        Admin::new(&settings, Arc::new(telemetry), Arc::new(OnlyOrders))
    }

    async fn ask(admin: &Admin, request: axum::http::request::Builder) -> (u16, String) {
        let request = request.body(Body::empty()).unwrap();
        let response = admin.clone().router().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(admin: &Admin, path: &str) -> (u16, String) {
        ask(admin, Request::get(path)).await
    }

    #[tokio::test]
    async fn readiness_follows_the_board() {
        let admin = admin(None);
        assert_eq!(get(&admin, "/readyz").await, (503, "starting\n".to_owned()));
        admin.telemetry.status.ready();
        assert_eq!(get(&admin, "/readyz").await, (200, "ok\n".to_owned()));
        admin.telemetry.status.not_ready("stopping");
        assert_eq!(get(&admin, "/readyz").await, (503, "stopping\n".to_owned()));
    }

    #[tokio::test]
    async fn a_poll_thread_that_stands_still_is_not_alive() {
        let mut admin = admin(None);
        assert_eq!(get(&admin, "/livez").await.0, 200);
        admin.thresholds.turn_max = Duration::ZERO;
        std::thread::sleep(Duration::from_millis(3));
        let (status, reason) = get(&admin, "/livez").await;
        assert!(status == 503 && reason.contains("poll thread"), "{status} {reason}");
    }

    #[tokio::test]
    async fn status_shows_lanes_and_their_reasons() {
        let admin = admin(None);
        let mut lane = LaneStatus::new("shop.orders".into(), 3, 1, 17);
        lane.enter(LaneState::Halted, Some("dead-letter budget".to_owned()), 18);
        admin.telemetry.status.put_lane(lane);
        let (_, body) = get(&admin, "/status").await;
        let page: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(page["lanes"][0]["state"], "halted");
        assert_eq!(page["lanes"][0]["reason"], "dead-letter budget");
        assert_eq!(page["process"]["started_ms"], 17);
        assert_eq!(page["process"]["liveness"]["alive"], true);
        let (_, metrics) = get(&admin, "/metrics").await;
        assert!(metrics.contains("kcbq_lanes{state=\"halted\"} 1"), "{metrics}");
    }

    #[tokio::test]
    async fn a_release_is_handed_on_and_its_refusal_told() {
        let admin = admin(None);
        for (path, status) in [
            ("/lanes/shop.orders/3/release", 202),
            ("/lanes/shop.orders/4/release", 409),
            ("/lanes/shop.payments/3/release", 404),
            ("/lanes/shop.orders/x/release", 400),
        ] {
            assert_eq!(ask(&admin, Request::post(path)).await.0, status, "{path}");
        }
        let page = Request::post("/lanes/shop.orders/3/release").header("Origin", "http://evil");
        assert_eq!(ask(&admin, page).await.0, 403);
        assert_eq!(get(&admin, "/lanes/shop.orders/3/release").await.0, 405);
    }

    #[tokio::test]
    async fn only_a_name_of_its_own_is_answered() {
        let mut admin = admin(None);
        admin.host_names = Arc::new(["kcbq.data.svc".to_owned()]);
        for (host, path, status) in [
            ("127.0.0.1:8080", "/status", 200),
            ("[::1]:8080", "/metrics", 200),
            ("10.1.2.3", "/status", 200),
            ("LOCALHOST:8080", "/status", 200),
            ("kcbq.data.svc:8080", "/status", 200),
            ("evil.example", "/status", 421),
            ("evil.example:8080", "/metrics", 421),
            ("127.0.0.1.evil.example", "/status", 421),
            ("localhost.evil.example", "/status", 421),
            ("", "/status", 421),
            ("a b", "/status", 421),
            // They tell nothing, and a probe by name must not restart the pod.
            ("evil.example", "/livez", 200),
        ] {
            let (found, _) = ask(&admin, Request::get(path).header("Host", host)).await;
            assert_eq!(found, status, "{host} {path}");
        }
        let absolute = Request::get("http://evil.example/status").header("Host", "localhost");
        assert_eq!(ask(&admin, absolute).await.0, 421);
        let release = Request::post("/lanes/shop.orders/3/release").header("Host", "evil.example");
        assert_eq!(ask(&admin, release).await.0, 421);
    }

    #[tokio::test]
    async fn a_path_cannot_forge_a_line() {
        let admin = admin(None);
        let forged = format!("/lanes/a%0aERROR%1b{}/0/release", "x".repeat(1_000));
        let (status, body) = ask(&admin, Request::post(forged)).await;
        assert_eq!(status, 404);
        assert!(body.starts_with("a\\nERROR\\u{1b}xxx") && body.len() < 200, "{body}");
        assert_eq!(body.lines().count(), 1, "{body}");
    }

    #[tokio::test]
    async fn a_token_guards_everything_but_the_probes() {
        let admin = admin(Some("0123456789abcdef"));
        for path in ["/metrics", "/status"] {
            assert_eq!(get(&admin, path).await.0, 401, "{path}");
            for (token, status) in
                [("0123456789abcdef", 200), ("0123456789abcdeX", 401), ("0123456789abcde", 401)]
            {
                let request = Request::get(path).header("Authorization", format!("Bearer {token}"));
                assert_eq!(ask(&admin, request).await.0, status, "{path} {token}");
            }
        }
        assert_eq!(get(&admin, "/livez").await.0, 200);
        assert_eq!(ask(&admin, Request::post("/lanes/shop.orders/3/release")).await.0, 401);
    }
}
