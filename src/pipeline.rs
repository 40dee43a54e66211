//! The drivers around the delivery core: dispatch, schema gate, commits, lifecycle.
//!
//! ```text
//! poll thread          worker threads (N)               runtime             commit thread
//! Dispatcher ──inbox──► Worker { Core, TopicEncoder } ──tasks──► write path      Commits
//!     ▲  pause/resume      │ progress                            dead letters       │
//!     └──── FlowBoard ◄────┴─────────────────────────────────────Preparer ──────────┘
//! ```

pub mod commit;
mod deal;
pub mod dispatch;
pub mod encoder;
pub mod fingerprint;
pub mod lag;
pub mod loads;
pub mod news;
pub mod obstacle;
pub mod orphans;
pub mod paths;
pub mod prepare;
pub mod report;
pub mod schema_gate;
pub mod settings;
pub mod worker;
pub mod writer_schemas;

// The defects are switches that exist only in tests, so the simulation is a module and not a test of
// its own; it needs the BigQuery simulator.
#[cfg(all(test, feature = "sim"))]
#[expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: what cannot be must panic"
)]
mod simulation;

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::{
    committer::Committer,
    dead_letter::DeadLetters,
    delivery::{backoff::Backoff, core::CoreSettings},
    pipeline::{
        commit::Commits,
        dispatch::{Dispatcher, FlowBoard, Message, Released},
        encoder::TopicEncoder,
        fingerprint::Fingerprints,
        prepare::Preparer,
        report::letters::LetterLog,
        settings::{LimitSettings, TopicSettings},
        worker::{Shared, Worker, WorkerError},
    },
    record::TopicPartition,
    source::Messages,
    telemetry::Telemetry,
    write::{Write, storage::news::SchemaNews},
};

/// Messages that wait for a worker; each is one poll. They are outside the byte budget (and pin the
/// client's fetch buffers), so there are few: what is on its way when a small budget says to hold back must
/// not fill the rest of it, or everything that the client has fetched is thrown away.
const INBOX: usize = 2;

/// Between attempts after a passing fault. The write path has tried for some seconds already.
const RETRY: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(30) };
/// Between attempts after a quota or a permission.
const RETRY_SLOWLY: Backoff =
    Backoff { first: Duration::from_secs(5), max: Duration::from_secs(300) };

/// What a pipeline is built from.
pub struct Parts {
    /// The topics and where they go; not empty.
    pub topics: Vec<Arc<TopicSettings>>,
    /// The Google Cloud project of all tables.
    pub project: Arc<str>,
    /// What the process may use.
    pub limits: LimitSettings,
    /// The largest request body.
    pub body_bytes_max: usize,
    /// The configuration's fingerprints, for the commit metadata.
    pub fingerprints: Fingerprints,
    /// The write path.
    pub writer: Arc<dyn Write>,
    /// The dead-letter topic.
    pub letters: Option<Arc<dyn DeadLetters>>,
    /// Load jobs and their objects; `None` where no topic is loaded.
    pub loads: Option<Arc<loads::Loads>>,
    /// The write paths of the tables that choose theirs.
    pub paths: Arc<paths::Paths>,
    /// Tables whose columns the write path has learned anew.
    pub news: Arc<SchemaNews>,
    /// Prepares plans.
    pub preparer: Arc<Preparer>,
    /// Commits offsets.
    pub committer: Arc<dyn Committer>,
    /// Counters and states.
    pub telemetry: Arc<Telemetry>,
    /// Where the workers report how old what waits is.
    pub ages: Arc<lag::Ages>,
    /// Where requests run.
    pub runtime: Handle,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("topics", &self.topics.len()).finish_non_exhaustive()
    }
}

/// Why a pipeline cannot start, or has failed.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The configuration names no topic.
    #[error("no topic is configured")]
    NoTopics,
    /// A thread cannot be started.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
    /// A worker ended early.
    #[error("a worker failed")]
    Worker(#[from] WorkerError),
    /// A thread panicked: a defect of this service. Nothing that it held is committed.
    #[error("the {0} thread panicked")]
    Panicked(&'static str),
}

/// The running pipeline, apart from the source that feeds it.
#[derive(Debug)]
pub struct Pipeline<M> {
    inboxes: Vec<mpsc::Sender<Message<M>>>,
    workers: Vec<JoinHandle<Result<(), WorkerError>>>,
    committing: JoinHandle<()>,
    commits: Arc<Commits>,
    failed: oneshot::Receiver<()>,
}

/// Releases halted lanes, for the admin endpoint.
#[derive(Debug)]
pub struct Control<M>(Vec<mpsc::Sender<Message<M>>>);

impl<M: Messages> Control<M> {
    /// Releases a halted lane.
    pub async fn release(&self, lane: TopicPartition) -> Released {
        for worker in &self.0 {
            let (answer, released) = oneshot::channel();
            if worker.send(Message::Release(lane.clone(), answer)).await.is_err() {
                return Released::Stopping;
            }
            match released.await {
                Ok(Released::NotOwned) => {}
                Ok(released) => return released,
                Err(_) => return Released::Stopping,
            }
        }
        Released::NotOwned
    }
}

impl<M: Messages> Pipeline<M> {
    /// Starts workers and commit thread; the dispatcher is for the source.
    ///
    /// # Errors
    /// No topic is configured, or a thread cannot be started.
    pub fn start(parts: Parts) -> Result<(Self, Dispatcher<M>, Control<M>), PipelineError> {
        let commits = Arc::new(Commits::new(Arc::clone(&parts.telemetry)));
        let flow = Arc::new(FlowBoard::default());
        let letter_log = Arc::<LetterLog>::default();
        let workers = parts.limits.workers().max(1);
        let limit = i64::try_from(parts.limits.bytes_in_flight).unwrap_or(i64::MAX);
        parts.telemetry.metrics.in_flight_limit_bytes.set(limit);
        let (fail, failed) = oneshot::channel();
        let fail = Arc::new(std::sync::Mutex::new(Some(fail)));
        let mut inboxes = Vec::new();
        let mut threads = Vec::new();
        for index in 0..workers {
            let (inbox, messages) = mpsc::channel(INBOX);
            inboxes.push(inbox);
            let worker = make_worker(&parts, &commits, &flow, &letter_log, index, messages)?;
            let (runtime, fail) = (parts.runtime.clone(), Fail(Arc::clone(&fail)));
            let thread = spawn(format!("kcbq-worker-{index}"), move || {
                let _fails_unless_done = fail;
                runtime.block_on(worker.run())
            })?;
            threads.push(thread);
        }
        let committing = {
            let (commits, committer) = (Arc::clone(&commits), Arc::clone(&parts.committer));
            let interval = parts.limits.commit_interval();
            spawn("kcbq-commit".to_owned(), move || commits.run(&*committer, interval))?
        };
        let dispatcher = Dispatcher::new(
            inboxes.clone(),
            flow,
            Arc::clone(&commits),
            parts.fingerprints,
            parts.limits.drain_timeout(),
            parts.telemetry,
        );
        let control = Control(inboxes.clone());
        Ok((Self { inboxes, workers: threads, committing, commits, failed }, dispatcher, control))
    }

    /// Resolves when a worker has ended although nobody asked it to.
    pub async fn failed(&mut self) {
        // The sender is dropped only when it was used.
        (&mut self.failed).await.ok();
    }

    /// Ends the threads. The source has given all lanes up before, and the dispatcher and control
    /// are dropped. Blocks.
    ///
    /// # Errors
    /// A thread panicked, or a worker had failed.
    pub fn stop(self) -> Result<(), PipelineError> {
        self.commits.stop();
        self.committing.join().map_err(|_| PipelineError::Panicked("commit"))?;
        drop(self.inboxes);
        for worker in self.workers {
            worker.join().map_err(|_| PipelineError::Panicked("worker"))??;
        }
        Ok(())
    }
}

/// Tells the pipeline when a worker ends, however it ends.
struct Fail(Arc<std::sync::Mutex<Option<oneshot::Sender<()>>>>);

impl Drop for Fail {
    fn drop(&mut self) {
        let sender = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // Nobody listens any more during an orderly stop.
            sender.send(()).ok();
        }
    }
}

fn make_worker<M: Messages>(
    parts: &Parts,
    commits: &Arc<Commits>,
    flow: &Arc<FlowBoard>,
    letter_log: &Arc<LetterLog>,
    index: usize,
    inbox: mpsc::Receiver<Message<M>>,
) -> Result<Worker<M>, PipelineError> {
    let encoder = TopicEncoder::new(
        Arc::clone(&parts.project),
        parts.topics.clone(),
        Arc::clone(&parts.paths),
    )
    .ok_or(PipelineError::NoTopics)?;
    let settings = CoreSettings {
        body_bytes_max: parts.body_bytes_max,
        memory_bytes_max: parts.limits.bytes_in_flight / parts.limits.workers().max(1),
        retry: RETRY,
        retry_slowly: RETRY_SLOWLY,
        halt_retry: parts.limits.halt_retry(),
    };
    let shared = Shared {
        writer: Arc::clone(&parts.writer),
        letters: parts.letters.clone(),
        loads: parts.loads.clone(),
        paths: Arc::clone(&parts.paths),
        news: Arc::clone(&parts.news),
        preparer: Arc::clone(&parts.preparer),
        commits: Arc::clone(commits),
        flow: Arc::clone(flow),
        telemetry: Arc::clone(&parts.telemetry),
        ages: Arc::clone(&parts.ages),
        letter_log: Arc::clone(letter_log),
        runtime: parts.runtime.clone(),
    };
    Ok(Worker::new(index, encoder, settings, inbox, shared))
}

fn spawn<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, PipelineError> {
    std::thread::Builder::new().name(name).spawn(body).map_err(PipelineError::Thread)
}

/// Milliseconds since the epoch, for what is shown to people.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
