//! The driver's part of the load path: objects are stored, jobs followed, and what is spent deleted.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    delivery::action::{Content, Stage},
    fault::{Fault, FaultKind},
    pipeline::orphans::Orphans,
    table::TableRef,
    telemetry::Telemetry,
    write::{
        gzip::Gzip,
        load::{
            LoadJobs, Objects,
            chain::{ChainId, Slot},
            container::{AvroCodec, container},
            job::LoadJob,
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
    shape: Arc<Shape>,
}

/// What turns rows into objects.
#[derive(Debug, Default)]
struct Shape {
    gzip: Gzip,
    codec: AvroCodec,
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
        Self { jobs, objects, prefix, nonce, shape: Arc::default() }
    }

    /// The same with Avro containers compressed by `codec`.
    #[must_use]
    pub fn with_codec(self, codec: AvroCodec) -> Self {
        Self { shape: Arc::new(Shape { codec, ..Shape::default() }), ..self }
    }

    /// What sweeps the objects that other processes left below the same prefix, once they are older
    /// than `age`.
    pub fn orphans(&self, age: Duration, telemetry: Arc<Telemetry>) -> Orphans {
        let objects = Arc::clone(&self.objects);
        Orphans::new(objects, self.prefix.clone(), self.nonce.clone(), age, telemetry)
    }

    /// Stores rows as an object and gives its address.
    ///
    /// # Errors
    /// It may be stored or not; the same call may be made again.
    pub async fn stage(&self, worker: usize, stage: Stage) -> Result<String, Fault> {
        let nonce = format!("{}-{worker}", self.nonce);
        let Stage { id, chain, content, first, .. } = stage;
        let name = chain.object(&self.prefix, first, (&nonce, id.0), content.extension());
        let shape = Arc::clone(&self.shape);
        let object = if content.bytes() <= INLINE_BYTES || shape.is_cheap(&content) {
            shape.object(&name, content)
        } else {
            let of = name.clone();
            let object = tokio::task::spawn_blocking(move || shape.object(&of, content)).await;
            object.unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        self.objects.put(&name, object.map_err(not_compressed)?).await?;
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
            // What stays costs a little, and is swept one day as an orphan.
            if let Err(fault) = self.objects.delete(&uri).await {
                tracing::debug!(%fault, uri, "a staged object was not deleted");
            }
        }
    }
}

impl Shape {
    /// Whether an object is made of its rows in no time.
    fn is_cheap(&self, content: &Content) -> bool {
        matches!(content, Content::Datums { .. }) && self.codec == AvroCodec::None
    }

    /// The object called `name`, in parts.
    fn object(&self, name: &str, content: Content) -> io::Result<Vec<Bytes>> {
        Ok(match content {
            Content::Lines(rows) => vec![self.gzip.compress(&rows)?],
            Content::Datums { schema, blocks } => container(&schema, self.codec, name, blocks)?,
        })
    }
}

/// Writing into memory does not fail; a panic in the library is caught by the runtime.
fn not_compressed(error: io::Error) -> Fault {
    let message = format!("the rows could not be compressed: {error}");
    Fault::refused(FaultKind::Transient, "compression", message)
}
