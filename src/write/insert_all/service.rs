//! The write path: a body that BigQuery takes, through the [stack](crate::write::stack).

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use tower::util::BoxCloneSyncService;

use crate::{
    fault::{Fault, FaultKind},
    jitter::Jitter,
    rest::Rest,
    write::{
        Write, WriteOutcome, WriteRequest,
        gzip::Gzip,
        insert_all::{
            client::Client,
            settings::{BODY_BYTES_HARD_MAX, InsertAllSettings},
        },
        stack::{Attempt, Stacks, retry::OnRetry},
    },
};

/// [`Write`] through `tabledata.insertAll`.
pub struct InsertAll {
    stacks: Stacks,
    gzip: Option<Gzip>,
}

impl InsertAll {
    /// A write path over `rest`; `on_retry` is told about every retry, `jitter` spreads them.
    pub fn new(
        settings: InsertAllSettings,
        rest: Arc<dyn Rest>,
        on_retry: OnRetry,
        jitter: Jitter,
    ) -> Self {
        let client = BoxCloneSyncService::new(Client::new(rest, settings.gzip));
        Self {
            stacks: Stacks::new(settings.limits(), client, on_retry, jitter),
            gzip: settings.gzip.then(Gzip::default),
        }
    }

    fn attempt(&self, request: WriteRequest) -> Result<Attempt, Fault> {
        if request.body.len() > BODY_BYTES_HARD_MAX {
            return Err(Fault::refused(
                FaultKind::TooLarge,
                "requestTooLarge",
                "the request is larger than the 10 MB that insertAll takes",
            ));
        }
        let wire = match &self.gzip {
            Some(gzip) => gzip.compress(&request.body).map_err(|error| {
                Fault::refused(FaultKind::Transient, "gzip", "could not compress a request")
                    .with_source(error)
            })?,
            None => request.body.clone(),
        };
        Ok(Attempt::new(request, wire))
    }

    async fn run(&self, request: WriteRequest) -> WriteOutcome {
        match self.attempt(request) {
            Ok(attempt) => self.stacks.run(attempt).await,
            Err(fault) => WriteOutcome::Refused(fault),
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
        f.debug_struct("InsertAll").field("stacks", &self.stacks).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
