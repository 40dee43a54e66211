//! The driver's part of the load path: objects are stored, jobs followed, and what is spent deleted.

use std::{
    collections::HashMap,
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use tokio::runtime::Handle;

use crate::{
    delivery::action::Stage,
    fault::{Fault, FaultKind},
    record::TopicPartition,
    table::TableRef,
    write::load::{
        LoadJobs, Objects,
        chain::{ChainId, Slot},
        job::{LoadFormat, LoadJob},
        run::{self, JobEnd},
    },
};

/// Jobs and objects, as the workers use them.
pub struct Loads {
    jobs: Arc<dyn LoadJobs>,
    objects: Arc<dyn Objects>,
    prefix: String,
    nonce: String,
    spent: Mutex<HashMap<TopicPartition, Vec<Spent>>>,
    runtime: Handle,
}

/// Objects that may be deleted once an offset is committed.
struct Spent {
    offset: i64,
    uris: Vec<String>,
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
        runtime: Handle,
    ) -> Self {
        Self { jobs, objects, prefix, nonce, spent: Mutex::default(), runtime }
    }

    /// Stores rows as an object and gives its address.
    ///
    /// # Errors
    /// It may be stored or not; the same call may be made again.
    pub async fn stage(&self, worker: usize, stage: Stage) -> Result<String, Fault> {
        let nonce = format!("{}-{worker}", self.nonce);
        let name = stage.chain.object(&self.prefix, stage.first, &nonce, stage.id.0);
        let Stage { body, format, .. } = stage;
        let object = tokio::task::spawn_blocking(move || object(&body, format)).await;
        let object = object.map_err(|_| not_compressed())??;
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

    /// Deletes objects that no job knows.
    pub fn discard(&self, uris: Vec<String>) {
        let objects = Arc::clone(&self.objects);
        self.runtime.spawn(async move {
            for uri in uris {
                // What stays is swept by age.
                if let Err(fault) = objects.delete(&uri).await {
                    tracing::debug!(%fault, uri, "a staged object was not deleted");
                }
            }
        });
    }

    /// Deletes objects once `offset` of the lane is committed.
    pub fn discard_after(&self, lane: TopicPartition, offset: i64, uris: Vec<String>) {
        self.spent().entry(lane).or_default().push(Spent { offset, uris });
    }

    /// `offset` of the lane is committed.
    pub fn committed(&self, lane: &TopicPartition, offset: i64) {
        let mut spent = self.spent();
        let Some(waiting) = spent.get_mut(lane) else { return };
        let due: Vec<Spent> = waiting.extract_if(.., |spent| spent.offset <= offset).collect();
        if waiting.is_empty() {
            spent.remove(lane);
        }
        drop(spent);
        due.into_iter().for_each(|spent| self.discard(spent.uris));
    }

    /// The lane is another owner's now: what it had to delete is swept by age.
    pub fn forget(&self, lane: &TopicPartition) {
        self.spent().remove(lane);
    }

    fn spent(&self) -> std::sync::MutexGuard<'_, HashMap<TopicPartition, Vec<Spent>>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn object(rows: &[u8], format: LoadFormat) -> Result<Bytes, Fault> {
    match format {
        LoadFormat::NdjsonGz => {
            let mut gzip = GzEncoder::new(Vec::with_capacity(rows.len() / 8), Compression::fast());
            let written = gzip.write_all(rows).and_then(|()| gzip.finish());
            written.map(Bytes::from).map_err(|_| not_compressed())
        }
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
