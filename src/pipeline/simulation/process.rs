//! What one process is made of: the production write path, schema gate, preparer and commit loop, over
//! the history's network.

use std::{sync::Arc, time::Duration};

use super::{
    bigquery::BUCKET,
    coverage::Mark,
    env::{Env, Who},
    line::Line,
    records::EPOCH_MS,
};
use crate::{
    catalog::Catalog,
    committer::ownership::Ownership,
    dead_letter::Reason,
    delivery::{
        action::{BatchId, ChainKey, LoadId, Stage, Write as WriteAction},
        defect::Defect,
        encoder::NeedId,
    },
    fault::Fault,
    gcp::{jobs::Jobs, objects::Bucket, tables::Tables},
    jitter::Jitter,
    pipeline::{
        commit::Commits,
        encoder::{Prepared, request::Request},
        loads::{Loads, StagingArea},
        paths::Paths,
        prepare::Preparer,
        schema_gate::{GateSettings, SchemaGate, Shared},
        writer_schemas::WriterSchemas,
    },
    rest::Rest,
    rpc::Rpc,
    table::TableRef,
    write::{
        Write, WriteOutcome, WriteRequest,
        by_form::ByForm,
        insert_all::{InsertAll, settings::InsertAllSettings},
        load::{
            chain::{ChainId, Slot},
            job::LoadJob,
            pace::Clock,
            run::JobEnd,
        },
        stack::retry::RetrySettings,
        storage::{
            StorageWrite,
            news::SchemaNews,
            pending::{Append, PendingStreams, Series},
            settings::StorageSettings,
        },
    },
};

/// A task that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Whose.
    pub(crate) who: Who,
    /// Which worker's.
    pub(crate) worker: usize,
    /// What came of it.
    pub(crate) done: Done,
}

/// See [`Finished`].
#[derive(Debug)]
pub(crate) enum Done {
    /// A batch was written, or not.
    Written(BatchId, WriteOutcome),
    /// A plan was prepared, or refused.
    Prepared(NeedId, Result<Prepared, Box<Reason>>),
    /// Rows were stored as an object, or not.
    Staged(BatchId, Result<String, Fault>),
    /// Rows were appended to a PENDING stream, or not.
    Appended(BatchId, Result<String, WriteOutcome>),
    /// A chain's end was found, or not.
    Located(ChainKey, Result<Slot, Fault>),
    /// A load job came to its end, or to none.
    Loaded(ChainKey, LoadId, Result<JobEnd, Fault>),
    /// Objects were deleted, or were not.
    Discarded,
}

/// What the workers of a process share.
#[derive(Clone)]
pub(crate) struct Process {
    writer: Arc<dyn Write>,
    loads: Arc<Loads>,
    preparer: Arc<Preparer>,
    /// What the write path has heard of tables' columns.
    pub(crate) news: Arc<SchemaNews>,
    /// The tables' write paths.
    pub(crate) paths: Arc<Paths>,
    /// The commit loop.
    pub(crate) commits: Arc<Commits>,
    /// What may be committed.
    pub(crate) ownership: Arc<Ownership>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").finish_non_exhaustive()
    }
}

impl Process {
    /// A process that has just started.
    pub(crate) fn new(env: &mut Env, who: Who) -> Self {
        let calls = env.calls.clone();
        let line = Arc::new(Line { who, calls, connections: Arc::default() });
        let rpc: Arc<dyn Rpc> = Arc::<Line>::clone(&line);
        let rest: Arc<dyn Rest> = Arc::<Line>::clone(&line);
        let catalog: Arc<dyn Catalog> = Arc::new(Tables::new(Arc::clone(&rest)));
        let gate = SchemaGate::new(Shared {
            catalog: Arc::clone(&catalog),
            settings: GateSettings::default(),
            location: None,
            jitter: Jitter::seeded(env.rng.bits()),
            on_event: Arc::new(|_, _| {}),
        });
        let telemetry = Arc::clone(&env.telemetry);
        let streams = PendingStreams::new(Arc::clone(&rpc), &storage_settings(env));
        let loads = Loads::new(
            Arc::new(Jobs::new(Arc::clone(&rest), None)),
            env.plan.loading.has_bucket.then(|| StagingArea {
                objects: Arc::new(Bucket::new(Arc::clone(&rest), BUCKET)),
                prefix: "kcbq/".to_owned(),
                nonce: format!("r{}l{}", who.replica, who.life),
            }),
        );
        let wait = Duration::from_secs(300);
        let schemas = WriterSchemas::new(Some(line), wait, Arc::clone(&telemetry));
        let preparer = Preparer::new(schemas, catalog, Arc::new(gate), Arc::clone(&telemetry));
        let jitter = Jitter::seeded(env.rng.bits());
        let clock = clock(env);
        let doubts = env.doubts.clone();
        let news = Arc::<SchemaNews>::default();
        let ownership = Ownership::default();
        ownership.lock().keeps_released = env.defect == Some(Defect::CommitAfterRevoke);
        Self {
            writer: Arc::new(ByForm {
                storage: Some(StorageWrite::new(
                    &storage_settings(env),
                    rpc,
                    Arc::new(move |table, fault| doubts.note(who, table, fault)),
                    jitter.clone(),
                    Arc::clone(&news),
                )),
                insert_all: InsertAll::new(write_settings(env), rest, Arc::new(|_, _| {}), jitter),
            }),
            loads: Arc::new(loads.with_streams(streams)),
            preparer: Arc::new(preparer),
            news,
            paths: Arc::new(Paths::new(env.plan.loading.has_bucket, clock)),
            commits: Arc::new(Commits::new(telemetry)),
            ownership: Arc::new(ownership),
        }
    }

    /// Sends a batch.
    pub(crate) fn write(&self, env: &mut Env, who: Who, worker: usize, write: WriteAction) {
        let WriteAction { id, table, body, rows, form, .. } = write;
        let (writer, doubts, named) = (Arc::clone(&self.writer), env.doubts.clone(), table.clone());
        env.spawn(who, async move {
            let outcome = writer.write(WriteRequest { table, body, rows, form }).await;
            if let WriteOutcome::Unknown(fault) = &outcome {
                doubts.note(who, &named, fault);
            }
            Finished { who, worker, done: Done::Written(id, outcome) }
        });
    }

    /// Stores rows as an object.
    pub(crate) fn stage(&self, env: &mut Env, who: Who, worker: usize, stage: Stage) {
        let (loads, id) = (Arc::clone(&self.loads), stage.id);
        env.spawn(who, async move {
            let done = Done::Staged(id, loads.stage(worker, stage).await);
            Finished { who, worker, done }
        });
    }

    /// Appends rows to a PENDING stream.
    pub(crate) fn append(
        &self,
        env: &mut Env,
        who: Who,
        worker: usize,
        (id, append, series): (BatchId, Append, Arc<Series>),
    ) {
        let loads = Arc::clone(&self.loads);
        env.spawn(who, async move {
            let done = Done::Appended(id, loads.append(append, &series).await);
            Finished { who, worker, done }
        });
    }

    /// Finds a chain's end.
    pub(crate) fn locate(
        &self,
        env: &mut Env,
        who: Who,
        worker: usize,
        (key, chain, table, from): (ChainKey, ChainId, TableRef, Slot),
    ) {
        let loads = Arc::clone(&self.loads);
        env.spawn(who, async move {
            let done = Done::Located(key, loads.locate(&chain, &table, from).await);
            Finished { who, worker, done }
        });
    }

    /// Sees a load job through.
    pub(crate) fn load(
        &self,
        env: &mut Env,
        who: Who,
        worker: usize,
        (key, id, job): (ChainKey, LoadId, LoadJob),
    ) {
        let loads = Arc::clone(&self.loads);
        env.spawn(who, async move {
            let done = Done::Loaded(key, id, loads.run(&job).await);
            Finished { who, worker, done }
        });
    }

    /// Deletes objects.
    pub(crate) fn discard(&self, env: &mut Env, who: Who, worker: usize, uris: Vec<String>) {
        let loads = Arc::clone(&self.loads);
        env.spawn(who, async move {
            loads.discard(uris).await;
            Finished { who, worker, done: Done::Discarded }
        });
    }

    /// Prepares a plan.
    pub(crate) fn prepare(
        &self,
        env: &mut Env,
        who: Who,
        worker: usize,
        (need, request): (NeedId, Request),
    ) {
        let preparer = Arc::clone(&self.preparer);
        env.spawn(who, async move {
            let done = Done::Prepared(need, preparer.prepare(request).await);
            Finished { who, worker, done }
        });
    }
}

/// The wall clock of a process, right or wrong.
fn clock(env: &mut Env) -> Clock {
    let skew = env.plan.skew_ms;
    let wrong = env.rng.between(0, 2 * skew);
    if wrong.abs_diff(skew) > 60_000 {
        env.mark(Mark::SkewedClock);
    }
    Clock { at: env.instant(), unix_ms: EPOCH_MS + env.now + wrong - skew }
}

fn write_settings(env: &Env) -> InsertAllSettings {
    let (timeout_ms, retry) = (env.plan.write_timeout_ms, retry_settings(env));
    InsertAllSettings { timeout_ms, retry, ..InsertAllSettings::default() }
}

fn storage_settings(env: &Env) -> StorageSettings {
    let (timeout_ms, retry) = (env.plan.write_timeout_ms, retry_settings(env));
    StorageSettings { timeout_ms, retry, connections_max: 2, ..StorageSettings::default() }
}

fn retry_settings(env: &Env) -> RetrySettings {
    RetrySettings {
        attempts_max: env.plan.write_attempts,
        elapsed_max_ms: 20_000,
        backoff_initial_ms: 200,
        backoff_max_ms: 3_000,
    }
}
