//! The driver's part of the load path: objects are stored, jobs followed, and what is spent deleted.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    delivery::action::Stage,
    fault::{Fault, FaultKind},
    table::TableRef,
    write::{
        gzip::Gzip,
        load::{
            LoadJobs, Objects,
            chain::{ChainId, Slot},
            job::{LoadFormat, LoadJob},
            run::{self, JobEnd},
        },
    },
};

/// Rows up to this many bytes are compressed where they are: another thread would take longer to wake.
const INLINE_BYTES: usize = 32 * 1024;

/// Jobs and objects, as the workers use them.
pub struct Loads {
    jobs: Arc<dyn LoadJobs>,
    objects: Arc<dyn Objects>,
    prefix: String,
    nonce: String,
    gzip: Arc<Gzip>,
}

impl std::fmt::Debug for Loads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loads").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Loads {
    /// Objects go below `prefix`, under names that hold `nonce`, which no other process has.
    pub fn new(
        jobs: Arc<dyn LoadJobs>,
        objects: Arc<dyn Objects>,
        prefix: String,
        nonce: String,
    ) -> Self {
        Self { jobs, objects, prefix, nonce, gzip: Arc::default() }
    }

    /// Stores rows as an object and gives its address.
    ///
    /// # Errors
    /// It may be stored or not; the same call may be made again.
    pub async fn stage(&self, worker: usize, stage: Stage) -> Result<String, Fault> {
        let nonce = format!("{}-{worker}", self.nonce);
        let name = stage.chain.object(&self.prefix, stage.first, &nonce, stage.id.0);
        let Stage { body, format, .. } = stage;
        let gzip = Arc::clone(&self.gzip);
        let object = if body.len() <= INLINE_BYTES {
            object(&gzip, &body, format)?
        } else {
            let object = tokio::task::spawn_blocking(move || object(&gzip, &body, format)).await;
            object.map_err(|_| not_compressed())??
        };
        self.objects.put(&name, object).await?;
        Ok(self.objects.uri(&name))
    }

    /// Finds the end of a chain.
    ///
    /// # Errors
    /// As for [`run::locate`].
    pub async fn locate(
        &self,
        chain: &ChainId,
        table: &TableRef,
        from: Slot,
    ) -> Result<Slot, Fault> {
        run::locate(&*self.jobs, table, chain, from).await
    }

    /// Sees a job through.
    ///
    /// # Errors
    /// As for [`run::run`].
    pub async fn run(&self, job: &LoadJob) -> Result<JobEnd, Fault> {
        run::run(&*self.jobs, job).await
    }

    /// Deletes objects that nobody needs any more.
    pub async fn discard(&self, uris: Vec<String>) {
        for uri in uris {
            // What stays costs a little, and goes by the bucket's life-cycle rule.
            if let Err(fault) = self.objects.delete(&uri).await {
                tracing::debug!(%fault, uri, "a staged object was not deleted");
            }
        }
    }
}

fn object(gzip: &Gzip, rows: &Bytes, format: LoadFormat) -> Result<Bytes, Fault> {
    match format {
        LoadFormat::NdjsonGz => gzip.compress(rows).map_err(|_| not_compressed()),
        LoadFormat::Avro => Err(Fault::refused(
            FaultKind::InvalidRequest,
            "format",
            "rows are not staged in Avro containers",
        )),
    }
}

/// Writing into memory does not fail; a panic in the library is caught by the runtime.
fn not_compressed() -> Fault {
    Fault::refused(FaultKind::Transient, "gzip", "the rows could not be compressed")
}
