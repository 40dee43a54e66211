//! The write path: rate limit → slots of the table → retry → slots of the process → timeout → client.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tower::{
    BoxError, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer,
    util::BoxCloneSyncService,
};

use crate::{
    fault::{Fault, FaultKind},
    jitter::Jitter,
    rest::Rest,
    table::TableRef,
    write::{
        Write, WriteOutcome, WriteRequest,
        gzip::Gzip,
        insert_all::{
            client::{Attempt, Client},
            rate::ByteRate,
            retry::{OnRetry, RetryPolicy},
            settings::{BODY_BYTES_HARD_MAX, InsertAllSettings},
        },
    },
};

/// Tables whose stack is kept; beyond, those that nobody uses at the moment are forgotten.
const TABLES_KEPT: usize = 10_000;

type Stack = BoxCloneSyncService<Attempt, WriteOutcome, BoxError>;

/// [`Write`] through `tabledata.insertAll`.
///
/// A request in back-off keeps its table's slot, so that a throttled table slows its own callers
/// down; it does not keep its slot of the process, which counts requests on the wire only, so that a
/// hundred throttled tables leave the others alone.
pub struct InsertAll {
    settings: InsertAllSettings,
    rest: Arc<dyn Rest>,
    rate: ByteRate,
    on_the_wire: Arc<Semaphore>,
    on_retry: OnRetry,
    jitter: Jitter,
    gzip: Gzip,
    tables: Mutex<HashMap<TableRef, Table>>,
}

struct Table {
    slots: Arc<Semaphore>,
    stack: Stack,
}

impl InsertAll {
    /// A write path over `rest`; `on_retry` is told about every retry, `jitter` spreads them.
    pub fn new(
        settings: InsertAllSettings,
        rest: Arc<dyn Rest>,
        on_retry: OnRetry,
        jitter: Jitter,
    ) -> Self {
        Self {
            rate: ByteRate::new(settings.bytes_per_second),
            on_the_wire: Arc::new(Semaphore::new(settings.requests_in_flight)),
            gzip: Gzip::default(),
            tables: Mutex::default(),
            settings,
            rest,
            on_retry,
            jitter,
        }
    }

    fn stack(&self, table: &TableRef) -> Stack {
        let mut tables = match self.tables.lock() {
            Ok(tables) => tables,
            // Only whole entries are ever inserted.
            Err(poisoned) => poisoned.into_inner(),
        };
        if let Some(known) = tables.get(table) {
            return known.stack.clone();
        }
        if tables.len() >= TABLES_KEPT {
            let all = self.settings.requests_in_flight_per_table;
            tables.retain(|_, table| table.slots.available_permits() < all);
        }
        let slots = Arc::new(Semaphore::new(self.settings.requests_in_flight_per_table));
        let stack = self.build(Arc::clone(&slots));
        tables.insert(table.clone(), Table { slots, stack: stack.clone() });
        stack
    }

    fn build(&self, slots: Arc<Semaphore>) -> Stack {
        let (settings, on_retry) = (self.settings.retry.clone(), Arc::clone(&self.on_retry));
        let retry = RetryPolicy::new(settings, on_retry, self.jitter.clone());
        let stack = ServiceBuilder::new()
            .layer(self.rate.clone())
            .layer(GlobalConcurrencyLimitLayer::with_semaphore(slots))
            .retry(retry)
            .layer(GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&self.on_the_wire)))
            .timeout(self.settings.timeout())
            .service(Client::new(Arc::clone(&self.rest)));
        BoxCloneSyncService::new(stack)
    }

    fn attempt(&self, request: WriteRequest) -> Result<Attempt, Fault> {
        if request.body.len() > BODY_BYTES_HARD_MAX {
            return Err(Fault::refused(
                FaultKind::TooLarge,
                "requestTooLarge",
                "the request is larger than the 10 MB that insertAll takes",
            ));
        }
        let wire = if self.settings.gzip {
            self.gzip.compress(&request.body).map_err(|error| {
                Fault::refused(FaultKind::Transient, "gzip", "could not compress a request")
                    .with_source(error)
            })?
        } else {
            request.body.clone()
        };
        Ok(Attempt {
            wire,
            gzip: self.settings.gzip,
            started: Arc::default(),
            in_doubt: Arc::new(AtomicBool::new(false)),
            request,
        })
    }

    async fn run(&self, request: WriteRequest) -> WriteOutcome {
        let stack = self.stack(&request.table);
        let attempt = match self.attempt(request) {
            Ok(attempt) => attempt,
            Err(fault) => return WriteOutcome::Refused(fault),
        };
        let in_doubt = Arc::clone(&attempt.in_doubt);
        match stack.oneshot(attempt).await {
            // The last attempt was refused, but an earlier one may have stored the rows.
            Ok(WriteOutcome::Refused(fault)) if in_doubt.load(Ordering::Relaxed) => {
                WriteOutcome::Unknown(Fault {
                    certainty: crate::fault::Certainty::Unknown,
                    ..fault
                })
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
}

impl Write for InsertAll {
    fn write(&self, request: WriteRequest) -> BoxFuture<'_, WriteOutcome> {
        Box::pin(self.run(request))
    }
}

impl fmt::Debug for InsertAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InsertAll").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
