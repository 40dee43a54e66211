//! The HTTP/1.1 front: one connection's requests, one after the other.

use std::{io, sync::Mutex, sync::PoisonError, time::Duration};

use axum::body::{Body, to_bytes};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::sim::{
    bigquery::error::ApiError,
    message::{Request, Response},
    simulator::Simulator,
};

/// How slow the wire is.
#[derive(Clone, Copy, Debug, Default)]
pub struct WireSettings {
    /// How long every answer is kept back.
    pub answer_delay: Duration,
    /// Request bytes per second that one connection takes; `None` is unlimited.
    pub connection_bytes_per_s: Option<u64>,
}

/// Serves one connection until it ends or `stop` is cancelled.
pub async fn serve_connection(
    simulator: Simulator,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    wire: WireSettings,
    stop: CancellationToken,
) {
    let pace = Pace::new(wire.connection_bytes_per_s);
    let service = service_fn(|request| handle(&simulator, request, wire, &pace));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(1 << 20)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            return;
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the simulator ended early");
    }
}

async fn handle(
    simulator: &Simulator,
    request: http::Request<Incoming>,
    wire: WireSettings,
    pace: &Pace,
) -> Result<http::Response<Body>, io::Error> {
    let (parts, body) = request.into_parts();
    // Read well beyond the limit, so that the client gets to see the refusal.
    let bytes_max = simulator.bytes_max(parts.uri.path());
    let body = match to_bytes(Body::new(body), bytes_max.saturating_mul(4)).await {
        Ok(body) => body,
        Err(_) => return respond(ApiError::too_large(bytes_max).into()),
    };
    pace.wait(body.len()).await;
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = Request::new(parts.method, path, parts.headers, body);
    let answer = simulator.call(request).await;
    if !wire.answer_delay.is_zero() {
        tokio::time::sleep(wire.answer_delay).await;
    }
    match answer {
        Some(response) => respond(response),
        // An error of the service closes the connection without an answer.
        None => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

fn respond(response: Response) -> Result<http::Response<Body>, io::Error> {
    let mut answer = http::Response::new(Body::from(response.body));
    *answer.status_mut() = http::StatusCode::from_u16(response.status).map_err(io::Error::other)?;
    *answer.headers_mut() = response.headers;
    Ok(answer)
}

/// The throughput cap of one connection. HTTP/1.1 takes one request at a time, so delaying each by
/// its size at the capped rate is what a slow wire looks like to the client.
#[derive(Debug)]
pub struct Pace {
    bytes_per_s: Option<u64>,
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    /// Of so many bytes a second; `None` is unlimited.
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        Self { bytes_per_s, free_at: Mutex::new(None) }
    }

    /// Waits until so many bytes more have come.
    pub async fn wait(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_s.filter(|rate| *rate > 0) else { return };
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let start = free_at.map_or(now, |at| at.max(now));
            let until = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *free_at = Some(until);
            until
        };
        tokio::time::sleep_until(until).await;
    }
}
