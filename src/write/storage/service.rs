//! The write path: protobuf rows through the [stack](crate::write::stack) to the connections.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use tower::{BoxError, Service, util::BoxCloneSyncService};

use crate::{
    fault::{Fault, FaultKind},
    jitter::Jitter,
    rpc::Rpc,
    write::{
        RowForm, Write, WriteOutcome, WriteRequest,
        stack::{Attempt, Stacks, retry::OnRetry},
        storage::{
            classify,
            news::SchemaNews,
            pool::Pool,
            settings::{ROWS_BYTES_MAX, StorageSettings},
        },
    },
};

/// [`Write`] through `AppendRows` to the `_default` streams.
pub struct StorageWrite {
    stacks: Stacks,
    pool: Arc<Pool>,
}

impl StorageWrite {
    /// A write path over `rpc`; `on_retry` is told about every retry, `jitter` spreads them, `news` is told of
    /// tables that have changed.
    pub fn new(
        settings: &StorageSettings,
        rpc: Arc<dyn Rpc>,
        on_retry: OnRetry,
        jitter: Jitter,
        news: Arc<SchemaNews>,
    ) -> Self {
        let pool = Arc::new(Pool::new(rpc, settings.connections_max, news));
        let client = BoxCloneSyncService::new(Client { pool: Arc::clone(&pool) });
        Self { stacks: Stacks::new(settings.limits(), client, on_retry, jitter), pool }
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.pool.len()
    }

    async fn run(&self, request: WriteRequest) -> WriteOutcome {
        if request.body.len() > ROWS_BYTES_MAX {
            return WriteOutcome::Refused(classify::too_large());
        }
        let wire = request.body.clone();
        self.stacks.run(Attempt::new(request, wire)).await
    }
}

impl Write for StorageWrite {
    fn write(&self, request: WriteRequest) -> BoxFuture<'_, WriteOutcome> {
        Box::pin(self.run(request))
    }
}

impl fmt::Debug for StorageWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageWrite").field("stacks", &self.stacks).finish_non_exhaustive()
    }
}

/// The innermost service.
#[derive(Clone)]
struct Client {
    pool: Arc<Pool>,
}

impl Service<Attempt> for Client {
    type Response = WriteOutcome;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<WriteOutcome, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        attempt.start();
        let pool = Arc::clone(&self.pool);
        Box::pin(async move {
            let request = attempt.request.clone();
            Ok(match request.form.clone() {
                RowForm::Proto(schema) => match pool.send(request.clone(), schema.clone()).await {
                    // It was renewed when it was refused.
                    outcome if classify::is_token_refused(&outcome) => {
                        pool.send(request, schema).await
                    }
                    outcome => outcome,
                },
                RowForm::Json => WriteOutcome::Refused(Fault::refused(
                    FaultKind::InvalidRequest,
                    "rowForm",
                    "rows of insertAll have come to the Storage Write API",
                )),
            })
        })
    }
}

#[cfg(test)]
mod tests;
