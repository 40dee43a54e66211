//! What every write path that sends requests has around its client: rate limit → slots of the table → retry →
//! slots of the process → timeout → client.
//!
//! A request in back-off keeps its table's slot, so that a throttled table slows its own callers down; it
//! does not keep its slot of the process, which counts requests on the wire only, so that a hundred throttled
//! tables leave the others alone.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Semaphore, time::Instant};
use tower::{
    BoxError, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer,
    util::BoxCloneSyncService,
};

use crate::{
    fault::{Certainty, Fault, FaultKind},
    jitter::Jitter,
    table::TableRef,
    write::{WriteOutcome, WriteRequest},
};

pub mod rate;
pub mod retry;

use rate::ByteRate;
use retry::{OnRetry, RetryPolicy, RetrySettings};

/// Tables whose stack is kept; beyond, those that nobody uses at the moment are forgotten.
const TABLES_KEPT: usize = 10_000;

/// A request on its way through the stack. Clones are further attempts at the same request.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What the caller wants written.
    pub request: WriteRequest,
    /// The body as it goes on the wire.
    pub wire: Bytes,
    /// When the first attempt was sent.
    started: Arc<OnceLock<Instant>>,
    /// Whether an earlier attempt may have stored the rows.
    in_doubt: Arc<AtomicBool>,
}

impl Attempt {
    /// The first attempt.
    pub fn new(request: WriteRequest, wire: Bytes) -> Self {
        Self { request, wire, started: Arc::default(), in_doubt: Arc::default() }
    }

    /// Notes that it is sent.
    pub fn start(&self) {
        self.started.get_or_init(Instant::now);
    }

    /// The time since the first attempt was sent.
    fn elapsed(&self) -> Duration {
        self.started.get().map(Instant::elapsed).unwrap_or_default()
    }

    /// Notes that rows may have been stored.
    fn doubt(&self) {
        self.in_doubt.store(true, Ordering::Relaxed);
    }
}

/// The innermost service.
pub type Client = BoxCloneSyncService<Attempt, WriteOutcome, BoxError>;

/// The limits of a path.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Body bytes per second that this process sends.
    pub bytes_per_second: u64,
    /// Requests on the wire at a time.
    pub requests_in_flight: usize,
    /// Requests of one table at a time, those that wait for a retry included.
    pub requests_in_flight_per_table: usize,
    /// An attempt without an answer for so long counts as lost.
    pub timeout: Duration,
    /// What happens to requests that fail for a moment.
    pub retry: RetrySettings,
}

impl Limits {
    /// What is wrong with the values, one sentence each, with the names that they have in the configuration.
    pub fn problems(&self) -> Vec<String> {
        let rules = [
            (
                (1..=10_000).contains(&self.requests_in_flight),
                "requests_in_flight must lie between 1 and 10,000",
            ),
            (
                (1..=self.requests_in_flight).contains(&self.requests_in_flight_per_table),
                "requests_in_flight_per_table must lie between 1 and requests_in_flight",
            ),
            (
                (Duration::from_secs(1)..=Duration::from_mins(10)).contains(&self.timeout),
                "timeout_ms must lie between 1,000 and 600,000",
            ),
        ];
        let broken = rules.iter().filter(|(holds, _)| !holds).map(|(_, text)| (*text).to_owned());
        broken.chain(self.retry.problems()).collect()
    }
}

/// The stacks of all tables, over one client.
pub struct Stacks {
    limits: Limits,
    client: Client,
    rate: ByteRate,
    on_the_wire: Arc<Semaphore>,
    on_retry: OnRetry,
    jitter: Jitter,
    tables: Mutex<HashMap<TableRef, Table>>,
}

struct Table {
    slots: Arc<Semaphore>,
    stack: Client,
}

impl Stacks {
    /// Stacks around `client`; `on_retry` is told about every retry, `jitter` spreads them.
    pub fn new(limits: Limits, client: Client, on_retry: OnRetry, jitter: Jitter) -> Self {
        Self {
            rate: ByteRate::new(limits.bytes_per_second),
            on_the_wire: Arc::new(Semaphore::new(limits.requests_in_flight)),
            tables: Mutex::default(),
            limits,
            client,
            on_retry,
            jitter,
        }
    }

    /// Sees a request through, whatever it takes in attempts.
    pub async fn run(&self, attempt: Attempt) -> WriteOutcome {
        let stack = self.of(&attempt.request.table);
        let in_doubt = Arc::clone(&attempt.in_doubt);
        match stack.oneshot(attempt).await {
            // The last attempt was refused, but an earlier one may have stored the rows.
            Ok(WriteOutcome::Refused(fault)) if in_doubt.load(Ordering::Relaxed) => {
                WriteOutcome::Unknown(Fault { certainty: Certainty::Unknown, ..fault })
            }
            Ok(WriteOutcome::Partial { rejected, unsent, .. }) => {
                let is_doubtful = in_doubt.load(Ordering::Relaxed);
                WriteOutcome::Partial { rejected, unsent, is_doubtful }
            }
            Ok(outcome) => outcome,
            Err(_) => WriteOutcome::Unknown(Fault::unknown(
                FaultKind::Transient,
                "noAnswer",
                "the request was given up",
            )),
        }
    }

    fn of(&self, table: &TableRef) -> Client {
        // Only whole entries are ever inserted.
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = tables.get(table) {
            return known.stack.clone();
        }
        if tables.len() >= TABLES_KEPT {
            let all = self.limits.requests_in_flight_per_table;
            tables.retain(|_, table| table.slots.available_permits() < all);
        }
        let slots = Arc::new(Semaphore::new(self.limits.requests_in_flight_per_table));
        let stack = self.build(Arc::clone(&slots));
        tables.insert(table.clone(), Table { slots, stack: stack.clone() });
        stack
    }

    fn build(&self, slots: Arc<Semaphore>) -> Client {
        let (settings, on_retry) = (self.limits.retry.clone(), Arc::clone(&self.on_retry));
        let retry = RetryPolicy::new(settings, on_retry, self.jitter.clone());
        let stack = ServiceBuilder::new()
            .layer(self.rate.clone())
            .layer(GlobalConcurrencyLimitLayer::with_semaphore(slots))
            .retry(retry)
            .layer(GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&self.on_the_wire)))
            .timeout(self.limits.timeout)
            .service(self.client.clone());
        BoxCloneSyncService::new(stack)
    }
}

impl fmt::Debug for Stacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stacks").field("limits", &self.limits).finish_non_exhaustive()
    }
}
