//! The handle that fronts share: the core behind a lock, a clock, and the waiting.

use std::{
    fmt,
    io::Read,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use tokio::sync::watch;

use crate::sim::{
    bigquery::{error::ApiError, storage},
    control,
    core::Core,
    gcs::checksum::Checksums,
    message::{Request, Response, Step},
    settings::SimSettings,
    upload,
};

/// Tells the time since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// A running simulator, in memory. Clones share it.
#[derive(Clone)]
pub struct Simulator {
    core: Arc<Mutex<Core>>,
    clock: Clock,
    /// Changes after each control request, so that held requests look again.
    released: Arc<watch::Sender<u64>>,
    bytes_max: usize,
    upload_bytes_max: usize,
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator").finish_non_exhaustive()
    }
}

impl Simulator {
    /// A simulator that goes by `clock`.
    pub fn new(settings: SimSettings, clock: Clock) -> Self {
        let (bytes_max, upload_bytes_max) = (settings.request_bytes_max, settings.upload_bytes_max);
        Self {
            core: Arc::new(Mutex::new(Core::new(settings))),
            clock,
            released: Arc::new(watch::Sender::new(0)),
            bytes_max,
            upload_bytes_max,
        }
    }

    /// A simulator that goes by the system's clock.
    pub fn with_system_clock(settings: SimSettings) -> Self {
        Self::new(settings, Arc::new(system_time))
    }

    /// Runs `work` on the core at the current time, under the lock.
    pub fn with_core<T>(&self, work: impl FnOnce(&mut Core, Duration) -> T) -> T {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (self.clock)();
        work(&mut core, now)
    }

    /// The largest body a front needs to read for `path`: a larger one is refused anyway.
    pub fn bytes_max(&self, path: &str) -> usize {
        if upload::is_upload(path) { self.upload_bytes_max } else { self.bytes_max }
    }

    /// One request and its answer; `None` if the answer is lost. Waits in tokio's time.
    ///
    /// Dropping the future after its first poll leaves the request applied, or held and applied
    /// later.
    pub async fn call(&self, request: Request) -> Option<Response> {
        // What is uploaded stays as it is.
        let request = match upload::is_upload(&request.path) {
            true => summed_up(request),
            false => match decoded(request, self.bytes_max) {
                Ok(request) => request,
                Err(refusal) => return Some(refusal.into()),
            },
        };
        let control = request.path.starts_with(control::PREFIX);
        let released = self.released.subscribe();
        let step = self.with_core(|core, now| core.step(request, now));
        if control {
            self.released.send_modify(|count| *count += 1);
        }
        match step {
            Step::Answer { response, after } => {
                if !after.is_zero() {
                    tokio::time::sleep(after).await;
                }
                Some(response)
            }
            Step::Lose => None,
            Step::Hold { ticket, until } => self.collect(ticket, until, released).await,
        }
    }

    async fn collect(
        &self,
        ticket: u64,
        until: Option<Duration>,
        mut released: watch::Receiver<u64>,
    ) -> Option<Response> {
        loop {
            let (answer, now) = self.with_core(|core, now| (core.collect(ticket, now), now));
            if answer.is_some() {
                return answer;
            }
            match until {
                // Held for a while, and the answer is gone: the core was reset.
                Some(until) if until <= now => return None,
                Some(until) => tokio::select! {
                    () = tokio::time::sleep(until.saturating_sub(now)) => {}
                    changed = released.changed() => changed.ok()?,
                },
                None => released.changed().await.ok()?,
            }
        }
    }
}

/// A connection of the Storage Write API, which the core knows until this is dropped.
#[derive(Debug)]
pub struct Connection {
    simulator: Simulator,
    number: u64,
}

impl Connection {
    /// Opens one.
    pub fn open(simulator: Simulator) -> Self {
        let number = simulator.with_core(|core, now| core.connect(now));
        Self { simulator, number }
    }

    /// One of its requests.
    pub fn request(&self, path: &str, message: Bytes) -> Request {
        let mut headers = HeaderMap::new();
        headers.insert(storage::CONNECTION, HeaderValue::from(self.number));
        Request::new(Method::POST, path, headers, message)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.simulator.with_core(|core, _| core.disconnect(self.number));
    }
}

/// The request with its content encoding removed, or the refusal.
fn decoded(mut request: Request, bytes_max: usize) -> Result<Request, ApiError> {
    match request.headers.get(header::CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(request),
        Some(b"gzip") => {
            let mut body = Vec::new();
            let limit = bytes_max as u64 + 1;
            let read = flate2::read::MultiGzDecoder::new(&*request.body)
                .take(limit)
                .read_to_end(&mut body);
            read.map_err(|_| ApiError::new(400, "badRequest", "Request body is not gzip"))?;
            request.body = Bytes::from(body);
            Ok(request)
        }
        Some(_) => Err(ApiError::new(415, "badRequest", "Unsupported content encoding")),
    }
}

/// The request with its body's checksums, where the body is an object.
fn summed_up(request: Request) -> Request {
    let is_media = request.parameter("uploadType").is_some_and(|kind| kind == "media");
    let checksums = is_media.then(|| Checksums::of(&request.body));
    Request { checksums, ..request }
}

fn system_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
