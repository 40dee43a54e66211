//! The gRPC front: the Storage Write API over HTTP/2.
//!
//! Messages pass as they are: what they hold is the core's business.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::{Stream, stream};
use http::{HeaderMap, Method};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::sim::{
    bigquery::storage::{self, rpc},
    http::{Pace, WireSettings},
    message,
    simulator::{Connection, Simulator},
};

/// Answers of one connection that wait for their time.
const ANSWERS_MAX: usize = 4_096;
/// A message that nobody sends; what BigQuery refuses is smaller.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes that a client may send ahead, of one call and of all on a connection.
const WINDOWS: (u32, u32) = (8 << 20, 32 << 20);
/// The system parameter that BigQuery routes a connection by.
const ROUTING: &str = "x-goog-request-params";

type Answers = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// Serves one connection until it ends or `stop` is cancelled.
pub async fn serve_connection(
    simulator: Simulator,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    wire: WireSettings,
    stop: CancellationToken,
) {
    let front = Front { simulator, wire, broken: CancellationToken::new(), tasks: Arc::default() };
    let service = service_fn(|request| front.clone().handle(request));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a gRPC connection to the simulator ended early");
        },
        // Dropped without a word, and with it all calls on the connection.
        () = front.broken.cancelled() => {}
        () = stop.cancelled() => {}
    }
}

#[derive(Clone)]
struct Front {
    simulator: Simulator,
    wire: WireSettings,
    /// An answer is lost: the connection breaks.
    broken: CancellationToken,
    /// Those that take requests.
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Front {
    async fn handle(
        self,
        request: http::Request<Incoming>,
    ) -> Result<http::Response<tonic::body::Body>, Infallible> {
        let path = request.uri().path().to_owned();
        let mut server = tonic::server::Grpc::new(Raw).max_decoding_message_size(MESSAGE_BYTES_MAX);
        if path.strip_prefix(storage::SERVICE) == Some("AppendRows") {
            let service =
                tower::service_fn(|request| std::future::ready(self.append(path.clone(), request)));
            return Ok(server.streaming(service, request).await);
        }
        let service = tower::service_fn(|request| self.clone().call(path.clone(), request));
        Ok(server.unary(service, request).await)
    }

    async fn call(self, path: String, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        let request =
            message::Request::new(Method::POST, &path, HeaderMap::new(), request.into_inner());
        let answer = self.simulator.call(request).await;
        tokio::time::sleep(self.wire.answer_delay).await;
        match answer {
            Some(answer) => item(answer).map(Response::new),
            None => {
                self.broken.cancel();
                std::future::pending().await
            }
        }
    }

    fn append(
        &self,
        path: String,
        request: Request<Streaming<Bytes>>,
    ) -> Result<Response<Answers>, Status> {
        let routing = request.metadata().get(ROUTING).and_then(|value| value.to_str().ok());
        if !routing.is_some_and(|routing| routing.contains("write_stream=")) {
            return Err(Status::invalid_argument(format!("{ROUTING} names no write_stream")));
        }
        let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(self.clone().take(path, request.into_inner(), sender));
        drop(tasks);
        let answers = stream::unfold(receiver, |mut receiver| async {
            let (due, answer) = receiver.recv().await?;
            tokio::time::sleep_until(due).await;
            Some((answer, receiver))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    /// Takes a connection's requests, one after the other, until it ends.
    async fn take(
        self,
        path: String,
        mut requests: Streaming<Bytes>,
        answers: mpsc::Sender<(Instant, Result<Bytes, Status>)>,
    ) {
        let connection = Connection::open(self.simulator.clone());
        let pace = Pace::new(self.wire.connection_bytes_per_s);
        let idle = self.simulator.with_core(|core, _| core.settings().storage.idle_ms);
        loop {
            let next = tokio::time::timeout(Duration::from_millis(idle), requests.message());
            let body = match next.await {
                Ok(Ok(Some(body))) => body,
                Ok(Ok(None) | Err(_)) => return,
                // The core finds that nobody has used the connection.
                Err(_) => Bytes::new(),
            };
            pace.wait(body.len()).await;
            let request = connection.request(&path, body);
            let Some(answer) = self.simulator.call(request).await else {
                return self.broken.cancel();
            };
            let answer = item(answer);
            let is_end = answer.is_err();
            let due = Instant::now() + self.wire.answer_delay;
            if answers.send((due, answer)).await.is_err() || is_end {
                return;
            }
        }
    }
}

fn item(answer: message::Response) -> Result<Bytes, Status> {
    rpc::outcome(answer).map_err(|status| {
        let details = status.encode_to_vec().into();
        Status::with_details(tonic::Code::from(status.code), status.message, details)
    })
}

/// Messages as bytes.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}
