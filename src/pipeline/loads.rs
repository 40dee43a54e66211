//! The driver's part of the load path: objects are stored, jobs followed, and what is spent deleted.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    delivery::action::Stage,
    fault::{Fault, FaultKind},
    pipeline::orphans::Orphans,
    table::TableRef,
    telemetry::Telemetry,
    write::{
        WriteOutcome,
        gzip::Gzip,
        load::{
            LoadJobs, Objects,
            chain::{ChainId, Slot},
            container::{AvroCodec, container},
            content::Content,
            job::LoadJob,
            run::{self, JobEnd},
        },
        storage::pending::{Append, PendingStreams, Series},
    },
};

/// Rows up to this many bytes are compressed where they are: another thread would take longer to wake.
const INLINE_BYTES: usize = 32 * 1024;

/// Jobs and objects, as the workers use them.
pub struct Loads {
    jobs: Arc<dyn LoadJobs>,
    bucket: Option<StagingArea>,
    streams: Option<PendingStreams>,
    shape: Arc<Shape>,
}

/// Where objects go.
pub struct StagingArea {
    /// The bucket.
    pub objects: Arc<dyn Objects>,
    /// What the objects' names begin with.
    pub prefix: String,
    /// What they hold, and no other process's do.
    pub nonce: String,
}

/// What turns rows into objects.
#[derive(Debug, Default)]
struct Shape {
    gzip: Gzip,
    codec: AvroCodec,
}

impl std::fmt::Debug for Loads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loads").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for StagingArea {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StagingArea").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Loads {
    /// Jobs of objects in `bucket`; without one, of rows that come with the job.
    pub fn new(jobs: Arc<dyn LoadJobs>, bucket: Option<StagingArea>) -> Self {
        Self { jobs, bucket, streams: None, shape: Arc::default() }
    }

    /// The same with PENDING streams.
    #[must_use]
    pub fn with_streams(self, streams: PendingStreams) -> Self {
        Self { streams: Some(streams), ..self }
    }

    /// The same with Avro containers compressed by `codec`.
    #[must_use]
    pub fn with_codec(self, codec: AvroCodec) -> Self {
        Self { shape: Arc::new(Shape { codec, ..Shape::default() }), ..self }
    }

    /// What sweeps the objects that other processes left below the same prefix, once they are older
    /// than `age`; `None` without a bucket.
    pub fn orphans(&self, age: Duration, telemetry: Arc<Telemetry>) -> Option<Orphans> {
        let StagingArea { objects, prefix, nonce } = self.bucket.as_ref()?;
        Some(Orphans::new(Arc::clone(objects), prefix.clone(), nonce.clone(), age, telemetry))
    }

    /// Stores rows as an object and gives its address.
    ///
    /// # Errors
    /// It may be stored or not; the same call may be made again.
    pub async fn stage(&self, worker: usize, stage: Stage) -> Result<String, Fault> {
        let StagingArea { objects, prefix, nonce } = self.bucket.as_ref().ok_or_else(no_bucket)?;
        let nonce = format!("{nonce}-{worker}");
        let Stage { id, chain, content, first, .. } = stage;
        let name = chain.object(prefix, first, (&nonce, id.0), content.extension());
        let bytes = content.bytes();
        let (of, is_cheap) = (name.clone(), self.shape.is_cheap(&content));
        let parts = self.shaped(bytes, is_cheap, move |shape| shape.object(&of, content)).await?;
        objects.put(&name, parts).await?;
        Ok(objects.uri(&name))
    }

    /// Appends rows to a stream of the series, and gives its name.
    ///
    /// # Errors
    /// As for [`PendingStreams::append`].
    pub async fn append(&self, append: Append, series: &Series) -> Result<String, WriteOutcome> {
        match &self.streams {
            Some(streams) => streams.append(series, append).await,
            None => Err(WriteOutcome::Refused(no_streams())),
        }
    }

    /// Runs `make` where it holds nobody up.
    async fn shaped(
        &self,
        bytes: usize,
        is_cheap: bool,
        make: impl FnOnce(&Shape) -> io::Result<Vec<Bytes>> + Send + 'static,
    ) -> Result<Vec<Bytes>, Fault> {
        let shape = Arc::clone(&self.shape);
        let parts = if bytes <= INLINE_BYTES || is_cheap {
            make(&shape)
        } else {
            let parts = tokio::task::spawn_blocking(move || make(&shape)).await;
            parts.unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        parts.map_err(not_compressed)
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

    /// Sees a job through, or a commit.
    ///
    /// # Errors
    /// As for [`run::run`] and [`PendingStreams::commit`].
    pub async fn run(&self, job: &LoadJob) -> Result<JobEnd, Fault> {
        if job.format.is_pending() {
            return self.streams.as_ref().ok_or_else(no_streams)?.commit(job).await;
        }
        // The answer to an earlier creation may have been lost: its rows need not be sent again.
        if !job.rows_here.is_empty()
            && let Some(end) = run::found(&*self.jobs, job).await?
        {
            return Ok(end);
        }
        let (id, rows) = (job.id.clone(), job.rows_here.clone());
        let bytes = rows.iter().map(Content::bytes).sum();
        let is_cheap = rows.iter().all(|rows| self.shape.is_plain(rows));
        let media = self.shaped(bytes, is_cheap, move |shape| shape.media(&id, rows)).await?;
        run::run(&*self.jobs, job, media).await
    }

    /// Deletes objects that nobody needs any more.
    pub async fn discard(&self, uris: Vec<String>) {
        let Some(StagingArea { objects, .. }) = &self.bucket else { return };
        for uri in uris {
            // What stays costs a little, and is swept one day as an orphan.
            if let Err(fault) = objects.delete(&uri).await {
                tracing::debug!(%fault, uri, "a staged object was not deleted");
            }
        }
    }
}

impl Shape {
    /// Whether an object is made of its rows in no time.
    fn is_cheap(&self, content: &Content) -> bool {
        matches!(content, Content::Datums { .. }) && self.is_plain(content)
    }

    /// Whether rows that come with their job are sent as they are.
    fn is_plain(&self, content: &Content) -> bool {
        matches!(content, Content::Lines(_)) || self.codec == AvroCodec::None
    }

    /// The object called `name`, in parts.
    fn object(&self, name: &str, content: Content) -> io::Result<Vec<Bytes>> {
        Ok(match content {
            Content::Lines(rows) => vec![self.gzip.compress(&rows)?],
            Content::Datums { schema, blocks } => container(&schema, self.codec, name, blocks)?,
        })
    }

    /// The rows that come with the job called `id`, in parts: one file, whatever they were kept as. Lines
    /// are not compressed, because nothing would tell BigQuery that they are.
    fn media(&self, id: &str, rows: Vec<Content>) -> io::Result<Vec<Bytes>> {
        let (mut parts, mut schema, mut blocks) = (Vec::new(), None, Vec::new());
        for content in rows {
            match content {
                Content::Lines(rows) => parts.push(rows),
                Content::Datums { schema: of, blocks: more } => {
                    schema = Some(of);
                    blocks.extend(more);
                }
            }
        }
        match schema {
            Some(schema) => container(&schema, self.codec, id, blocks),
            None => Ok(parts),
        }
    }
}

fn no_bucket() -> Fault {
    Fault::refused(FaultKind::InvalidRequest, "noBucket", "there is no bucket to stage rows in")
}

/// Only a configuration without any topic whose rows are committed has none, and its core asks for none.
fn no_streams() -> Fault {
    Fault::refused(FaultKind::Transient, "noStreams", "there is no way to the Storage Write API")
}

/// Writing into memory does not fail; a panic in the library is caught by the runtime.
fn not_compressed(error: io::Error) -> Fault {
    let message = format!("the rows could not be compressed: {error}");
    Fault::refused(FaultKind::Transient, "compression", message)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::future::BoxFuture;

    use super::*;
    use crate::{
        delivery::action::BatchId,
        record::TopicPartition,
        write::load::{
            Inserted, ObjectPage,
            chain::ChainOf,
            job::{JobState, JobView, LoadFormat},
        },
    };

    /// A bucket that remembers names, and no jobs.
    #[derive(Default)]
    struct Names(Mutex<Vec<String>>);

    impl Objects for Names {
        fn uri(&self, name: &str) -> String {
            name.to_owned()
        }

        fn put<'a>(&'a self, name: &'a str, _: Vec<Bytes>) -> BoxFuture<'a, Result<(), Fault>> {
            self.0.lock().unwrap().push(name.to_owned());
            Box::pin(async { Ok(()) })
        }

        fn delete<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), Fault>> {
            unreachable!("nothing is deleted")
        }

        fn list<'a>(
            &'a self,
            _: &'a str,
            _: Option<&'a str>,
        ) -> BoxFuture<'a, Result<ObjectPage, Fault>> {
            unreachable!("nothing is listed")
        }
    }

    impl LoadJobs for Names {
        fn insert<'a>(
            &'a self,
            _: &'a LoadJob,
            _: Vec<Bytes>,
        ) -> BoxFuture<'a, Result<Inserted, Fault>> {
            unreachable!("no job is made")
        }

        fn get<'a>(
            &'a self,
            _: &'a TableRef,
            _: &'a str,
        ) -> BoxFuture<'a, Result<Option<JobView>, Fault>> {
            unreachable!("no job is read")
        }
    }

    fn stage(number: u64) -> Stage {
        let lane = TopicPartition::new("t", 0);
        let table = TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() };
        let of = ChainOf { group: "g", lane: &lane, topic_id: None, table: &table, load_epoch: 0 };
        Stage {
            id: BatchId(number),
            chain: ChainId::new(&of),
            table,
            content: Content::Lines(Bytes::from_static(b"{}\n")),
            rows: 1,
            first: 7,
        }
    }

    #[tokio::test]
    async fn the_same_rows_go_to_an_object_of_another_name_from_each_process_worker_and_batch() {
        let names = Arc::new(Names::default());
        for nonce in ["one", "other"] {
            let (jobs, objects) = (Arc::<Names>::clone(&names), Arc::<Names>::clone(&names));
            let (prefix, nonce) = ("stage/".to_owned(), nonce.to_owned());
            let loads = Loads::new(jobs, Some(StagingArea { objects, prefix, nonce }));
            for (worker, number) in [(0, 1), (0, 2), (1, 1), (1, 2)] {
                loads.stage(worker, stage(number)).await.unwrap();
            }
        }
        let mut names = names.0.lock().unwrap().clone();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 8, "{names:?}");
    }

    /// A BigQuery that has loaded every job one asks for, and makes none.
    struct AllLoaded;

    impl LoadJobs for AllLoaded {
        fn insert<'a>(
            &'a self,
            _: &'a LoadJob,
            _: Vec<Bytes>,
        ) -> BoxFuture<'a, Result<Inserted, Fault>> {
            unreachable!("no job is made")
        }

        fn get<'a>(
            &'a self,
            _: &'a TableRef,
            _: &'a str,
        ) -> BoxFuture<'a, Result<Option<JobView>, Fault>> {
            let state = JobState::Loaded { output_rows: Some(1) };
            Box::pin(async { Ok(Some(JobView { state, end: 8, rows: 1 })) })
        }
    }

    #[tokio::test]
    async fn rows_are_not_sent_again_for_a_job_that_is_there() {
        let Stage { chain, table, content, .. } = stage(1);
        let job = LoadJob {
            id: chain.job(Slot::at(7)),
            table,
            sources: Vec::new(),
            rows_here: vec![content],
            format: LoadFormat::NdjsonGz,
            end: 8,
            rows: 1,
        };
        let end = Loads::new(Arc::new(AllLoaded), None).run(&job).await.unwrap();
        assert!(matches!(end, JobEnd::Loaded { end: 8 }), "{end:?}");
    }
}
