//! The whole service in one process: adapters built, plugged into the pipeline, started, stopped.

use std::{
    future::Future,
    hash::{BuildHasher, Hasher, RandomState},
    net::SocketAddr,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use tokio::{net::TcpListener, runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    app::kafka_tokens::kafka_tokens,
    config::Settings,
    dead_letter::DeadLetters,
    gcp::{jobs::Jobs, objects::Bucket, settings::GcsSettings, tables::Tables},
    jitter::Jitter,
    kafka::{
        consumer::{ConsumeError, KafkaSource},
        dead_letter_producer::DeadLetterProducer,
        ffi::RawMessages,
        properties,
        registry_client::RegistryClient,
        topics::Topics,
    },
    ops::{LaneControl, ReleaseError, admin::Admin, connections, progress},
    path::Stream,
    pipeline::{
        Control, Parts, Pipeline,
        dispatch::{Dispatcher, Released},
        fingerprint::Fingerprints,
        lag,
        loads::{Loads, StagingArea},
        now_ms,
        orphans::{self, Orphans},
        paths::Paths,
        prepare::Preparer,
        schema_gate::{self, GateEvent, GateSettings, SchemaGate},
        settings::{LimitSettings, WriteMode},
        writer_schemas::WriterSchemas,
    },
    record::TopicPartition,
    registry::Registry,
    rest::Rest,
    schema::diff::Change,
    table::TableRef,
    telemetry::{Cause, LastError, TableState, Telemetry, Teller, Trouble},
    write::{
        by_form::ByForm,
        insert_all::InsertAll,
        load::pace::Clock,
        stack::retry::OnRetry,
        storage::{StorageWrite, news::SchemaNews, pending::PendingStreams},
    },
};

/// A running service.
pub struct Service {
    /// Where the admin endpoint listens.
    pub admin_addr: SocketAddr,
    /// Counters and states.
    pub telemetry: Arc<Telemetry>,
    pipeline: Pipeline<RawMessages>,
    polling: JoinHandle<Result<(), ConsumeError>>,
    stop_polling: CancellationToken,
    stop_admin: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("admin_addr", &self.admin_addr).finish_non_exhaustive()
    }
}

/// Runs the service until `shutdown` resolves, then drains: nothing new is read, what is in flight is
/// settled and committed, the group is left.
///
/// # Errors
/// The service cannot start, or fails for good.
pub async fn run(
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let mut service = Service::start(settings).await?;
    tracing::info!(admin = %service.admin_addr, "kcbq is running");
    let showing = CancellationToken::new();
    let telemetry = Arc::clone(&service.telemetry);
    let line = progress::run(telemetry, showing.clone().cancelled_owned());
    service.tasks.spawn(async move {
        line.await;
        Ok(())
    });
    let ended = tokio::select! {
        () = shutdown => Ok(()),
        ended = service.failed() => ended,
    };
    showing.cancel();
    tracing::info!("stopping: partitions are drained and given up");
    let stopped = service.stop().await;
    ended.and(stopped)
}

impl Service {
    /// Builds and starts everything.
    ///
    /// # Errors
    /// A setting that only shows when it is used, such as a port that is taken.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let workers = settings.limits.workers().max(1);
        let telemetry = Arc::new(Telemetry::new(workers, Instant::now(), now_ms())?);
        #[cfg(feature = "failpoints")]
        last_words(&telemetry);
        let settings = Arc::new(settings);
        let source = {
            // It waits for the brokers, and may ask for a token meanwhile.
            let settings = Arc::clone(&settings);
            tokio::task::spawn_blocking(move || source(&settings)).await??
        };
        let (ends, parts) = (source.watermarks(), parts(&settings, &source, &telemetry)?);
        let orphans = orphans(&settings, &parts);
        let (ages, paths) = (Arc::clone(&parts.ages), Arc::clone(&parts.paths));
        let (pipeline, dispatcher, control) = Pipeline::start(parts)?;
        let listener = TcpListener::bind(settings.admin.listen)
            .await
            .with_context(|| format!("admin.listen: {}", settings.admin.listen))?;
        let admin_addr = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        let stop_admin = CancellationToken::new();
        let admin = Admin::new(&settings.admin, Arc::clone(&telemetry), Arc::new(Lanes(control)));
        tasks.spawn(serve(listener, admin, stop_admin.clone()));
        let lag = lag::run(Arc::clone(&telemetry), ends, ages, paths, stop_admin.clone());
        tasks.spawn(async move {
            lag.await;
            Ok(())
        });
        if let Some(orphans) = orphans {
            let swept = orphans::run(orphans, Jitter::random(), now_ms, stop_admin.clone());
            tasks.spawn(async move {
                swept.await;
                Ok(())
            });
        }
        let stop_polling = CancellationToken::new();
        let polling = poll(source, dispatcher, stop_polling.clone())?;
        Ok(Self { admin_addr, telemetry, pipeline, polling, stop_polling, stop_admin, tasks })
    }

    /// Resolves when the service has failed although nobody asked it to stop.
    ///
    /// # Errors
    /// Always: what has failed.
    pub async fn failed(&mut self) -> anyhow::Result<()> {
        let mut look = tokio::time::interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                () = self.pipeline.failed() => anyhow::bail!("a worker has failed"),
                _ = look.tick() => if self.polling.is_finished() {
                    anyhow::bail!("the Kafka client has failed")
                },
            }
        }
    }

    /// Drains and stops.
    ///
    /// # Errors
    /// A part had failed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.telemetry.status.not_ready("stopping");
        self.stop_polling.cancel();
        let (polling, pipeline) = (self.polling, self.pipeline);
        self.stop_admin.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        tokio::task::spawn_blocking(move || {
            let polled = polling.join().map_err(|_| anyhow::anyhow!("the poll thread panicked"));
            let stopped = pipeline.stop();
            polled?.context("Kafka")?;
            stopped.context("pipeline")
        })
        .await?
    }
}

/// A failpoint tells what the process held when it died.
#[cfg(feature = "failpoints")]
fn last_words(telemetry: &Arc<Telemetry>) {
    let telemetry = Arc::clone(telemetry);
    crate::failpoint::report(move || {
        let lanes = telemetry.status.snapshot().lanes;
        let records = lanes.iter().map(|lane| lane.in_flight_records).sum();
        (lanes.len(), records)
    });
}

fn source(settings: &Settings) -> anyhow::Result<KafkaSource> {
    let names = settings.topics.iter().filter_map(|topic| topic.matcher.name());
    let patterns = settings.topics.iter().filter(|topic| topic.matcher.name().is_none());
    let patterns = patterns.map(|topic| topic.matcher.as_str());
    let excluded = settings.topics.iter().filter_map(|topic| topic.dead_letter.as_deref());
    let topics = Topics::new(names, patterns, excluded).context("topics")?;
    let tokens = kafka_tokens(settings).context("kafka.security.sasl")?;
    let has_bucket = settings.gcs.is_some();
    let needs_topic_ids = settings.topics.iter().any(|topic| topic.write.may_load(has_bucket));
    let source = KafkaSource::new(&settings.kafka, topics, tokens).context("kafka")?;
    Ok(source.needing_topic_ids(needs_topic_ids))
}

fn parts(
    settings: &Settings,
    source: &KafkaSource,
    telemetry: &Arc<Telemetry>,
) -> anyhow::Result<Parts> {
    let streaming = settings.bigquery.streaming.clone();
    let rest = settings.bigquery.connect(streaming.requests_in_flight).context("bigquery")?;
    let rest: Arc<dyn Rest> = Arc::new(rest);
    let body_bytes_max = streaming.body_bytes_max;
    let counted = Arc::clone(telemetry);
    let on_retry: OnRetry = Arc::new(move |table: &TableRef, fault: &crate::fault::Fault| {
        counted.table(&table.to_string()).retried(fault.kind.name());
    });
    let news = Arc::<SchemaNews>::default();
    let storage = storage(settings, Arc::clone(&on_retry), Arc::clone(&news))?;
    let insert_all = InsertAll::new(streaming, Arc::clone(&rest), on_retry, Jitter::random());
    let writer = ByForm { insert_all, storage };
    let registry = match &settings.schema_registry {
        None => None,
        Some(registry) => {
            let client = RegistryClient::new(registry).context("schema_registry")?;
            Some(Arc::new(client) as Arc<dyn Registry>)
        }
    };
    let jobs = Jobs::new(Arc::clone(&rest), settings.bigquery.location.clone());
    let catalog = Arc::new(Tables::new(rest));
    let gate = Arc::new(SchemaGate::new(schema_gate::Shared {
        catalog: Arc::clone(&catalog) as _,
        settings: GateSettings::default(),
        location: settings.bigquery.location.clone(),
        jitter: Jitter::random(),
        on_event: on_gate_event(telemetry),
    }));
    let wait = settings.schema_registry.as_ref().map(|registry| registry.unknown_id_wait);
    let schemas = WriterSchemas::new(registry, wait.unwrap_or_default(), Arc::clone(telemetry));
    let preparer = Preparer::new(schemas, catalog, gate, Arc::clone(telemetry));
    let unix_ms = u64::try_from(now_ms()).unwrap_or_default();
    let clock = Clock { at: Instant::now(), unix_ms };
    Ok(Parts {
        topics: settings.topics.clone(),
        project: settings.bigquery.project.as_str().into(),
        limits: limits(settings),
        body_bytes_max,
        fingerprints: fingerprints(settings),
        writer: Arc::new(writer),
        letters: letters(settings)?,
        loads: loads(settings, jobs)?,
        paths: Arc::new(Paths::new(settings.gcs.is_some(), clock).with_prices(settings.prices)),
        news,
        preparer: Arc::new(preparer),
        committer: Arc::new(source.committer()),
        telemetry: Arc::clone(telemetry),
        ages: Arc::default(),
        runtime: Handle::current(),
    })
}

/// The limits, with a drain that ends before the group goes on without this member: what it would still write
/// then, the next owner would write, too.
fn limits(settings: &Settings) -> LimitSettings {
    let session = properties::session_timeout(&settings.kafka);
    let longest = u64::try_from((session * 3 / 4).as_millis()).unwrap_or(u64::MAX);
    let drain_timeout_ms = settings.limits.drain_timeout_ms.min(longest);
    LimitSettings { drain_timeout_ms, ..settings.limits }
}

/// The Storage Write API, where some topic goes by it.
fn storage(
    settings: &Settings,
    on_retry: OnRetry,
    news: Arc<SchemaNews>,
) -> anyhow::Result<Option<StorageWrite>> {
    if settings.topics.iter().all(|topic| topic.stream == Stream::Inserts) {
        return Ok(None);
    }
    let rpc = settings.bigquery.connect_storage().context("bigquery")?;
    let limits = &settings.bigquery.storage;
    Ok(Some(StorageWrite::new(limits, Arc::new(rpc), on_retry, Jitter::random(), news)))
}

fn loads(settings: &Settings, jobs: Jobs) -> anyhow::Result<Option<Arc<Loads>>> {
    let is_any =
        |wanted: fn(WriteMode) -> bool| settings.topics.iter().any(|topic| wanted(topic.write));
    let is_loaded = is_any(|write| write.may_load(false));
    let is_pending = is_any(|write| write == WriteMode::Pending);
    if settings.gcs.is_none() && !is_loaded && !is_pending {
        return Ok(None);
    }
    let bucket = settings.gcs.as_ref().map(|gcs| staging_area(settings, gcs)).transpose()?;
    let codec = settings.bigquery.load.avro_codec;
    let mut loads = Loads::new(Arc::new(jobs), bucket).with_codec(codec);
    if is_pending {
        let rpc = settings.bigquery.connect_storage().context("bigquery")?;
        loads = loads.with_streams(PendingStreams::new(Arc::new(rpc), &settings.bigquery.storage));
    }
    Ok(Some(Arc::new(loads)))
}

fn staging_area(settings: &Settings, gcs: &GcsSettings) -> anyhow::Result<StagingArea> {
    let connections = settings.bigquery.streaming.requests_in_flight;
    let rest = settings.bigquery.connect_bucket(gcs, connections).context("gcs")?;
    let objects = Arc::new(Bucket::new(Arc::new(rest), &gcs.bucket));
    // The randomness behind the standard hasher: another number in every process.
    let nonce = format!("{:016x}", RandomState::new().build_hasher().finish());
    Ok(StagingArea { objects, prefix: gcs.prefix.clone(), nonce })
}

/// What sweeps the bucket, where there is one.
fn orphans(settings: &Settings, parts: &Parts) -> Option<Orphans> {
    let age = settings.gcs.as_ref()?.orphan_age;
    parts.loads.as_ref()?.orphans(age, Arc::clone(&parts.telemetry))
}

fn fingerprints(settings: &Settings) -> Fingerprints {
    // A schema that cannot be read is reported with the first record that needs it.
    let schema = |path: &std::path::Path| std::fs::read_to_string(path).ok();
    Fingerprints::new(&settings.bigquery.project, &settings.topics, schema)
}

fn letters(settings: &Settings) -> anyhow::Result<Option<Arc<dyn DeadLetters>>> {
    if settings.topics.iter().all(|topic| topic.dead_letter.is_none()) {
        return Ok(None);
    }
    let tokens = kafka_tokens(settings).context("kafka.security.sasl")?;
    let producer =
        DeadLetterProducer::new(&settings.kafka, tokens).context("kafka: dead letters")?;
    Ok(Some(Arc::new(producer)))
}

fn on_gate_event(telemetry: &Arc<Telemetry>) -> schema_gate::OnGateEvent {
    let telemetry = Arc::clone(telemetry);
    Arc::new(move |table, event| {
        let name: Arc<str> = table.to_string().into();
        let counters = telemetry.table(&name);
        match event {
            GateEvent::Creating => enter(&telemetry, &name, TableState::Creating),
            GateEvent::Altering => enter(&telemetry, &name, TableState::Altering),
            GateEvent::Missing(why) => missing(&telemetry, &name, why),
            GateEvent::Created => {
                counters.schema_changed("create");
                changed(&telemetry, &name, "created".to_owned());
            }
            GateEvent::Altered { changes } => {
                changes.iter().for_each(|change| counters.schema_changed(kind(change)));
                let count = changes.len();
                let change = format!("{count} columns added, relaxed or widened");
                changed(&telemetry, &name, change);
            }
            GateEvent::Failed(fault) => counters.retried(fault.kind.name()),
        }
    })
}

fn enter(telemetry: &Telemetry, table: &Arc<str>, state: TableState) {
    let now = now_ms();
    telemetry.status.update_table(table, now, |status| status.enter(state, now));
}

fn missing(telemetry: &Telemetry, table: &Arc<str>, why: &str) {
    let at_ms = now_ms();
    telemetry.status.update_table(table, at_ms, |status| {
        status.enter(TableState::Halted, at_ms);
        let (stage, message) = ("schema".to_owned(), why.to_owned());
        let remedy = Some("create the table by hand, or set `policy.create: allow`".to_owned());
        let trouble = Trouble::new(Cause::TableMissing, message.clone(), at_ms);
        status.troubles.tell(Teller::Gate, Some(trouble.with_remedy(remedy.clone())));
        status.last_error = Some(LastError { stage, field: None, message, remedy, at_ms });
    });
}

fn changed(telemetry: &Telemetry, table: &Arc<str>, change: String) {
    tracing::info!(%table, change, "the table was changed");
    let now = now_ms();
    telemetry.status.update_table(table, now, |status| {
        status.last_change = Some(change);
        status.last_change_ms = Some(now);
    });
}

/// A change's label in `kcbq_schema_changes_total`.
fn kind(change: &Change) -> &'static str {
    match change {
        Change::AddColumn { .. } => "add_column",
        Change::Relax { .. } => "relax",
        Change::Widen { .. } => "widen",
    }
}

fn poll(
    source: KafkaSource,
    mut dispatcher: Dispatcher<RawMessages>,
    stop: CancellationToken,
) -> anyhow::Result<JoinHandle<Result<(), ConsumeError>>> {
    let thread = std::thread::Builder::new().name("kcbq-poll".to_owned());
    Ok(thread.spawn(move || source.run(&mut dispatcher, &stop))?)
}

async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) -> anyhow::Result<()> {
    connections::serve(listener, admin.router(), stop.cancelled_owned()).await;
    Ok(())
}

/// [`LaneControl`] over the pipeline's control.
struct Lanes(Control<RawMessages>);

impl LaneControl for Lanes {
    fn release(&self, lane: TopicPartition) -> BoxFuture<'_, Result<(), ReleaseError>> {
        Box::pin(async move {
            match self.0.release(lane).await {
                Released::Done => Ok(()),
                Released::NotHalted => Err(ReleaseError::NotHalted),
                Released::NotOwned => Err(ReleaseError::NotOwned),
                Released::Stopping => Err(ReleaseError::Stopping),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, FaultKind};

    #[test]
    fn a_table_shows_what_its_gate_is_at() {
        let telemetry = Arc::new(Telemetry::new(1, Instant::now(), 0).unwrap());
        let on_event = on_gate_event(&telemetry);
        let name = || "x".into();
        let table = TableRef { project: name(), dataset: name(), table: name() };
        let fault = Fault::refused(FaultKind::Conflict, "", "");
        let relaxed = Change::Relax { path: Vec::new() };
        for (event, state, change) in [
            (GateEvent::Missing("create it by hand"), TableState::Halted, None),
            (GateEvent::Creating, TableState::Creating, None),
            (GateEvent::Created, TableState::Creating, Some("created")),
            (GateEvent::Altering, TableState::Altering, Some("created")),
            (GateEvent::Failed(&fault), TableState::Altering, Some("created")),
            (
                GateEvent::Altered { changes: &[relaxed] },
                TableState::Altering,
                Some("1 columns added, relaxed or widened"),
            ),
        ] {
            on_event(&table, event);
            let shown = telemetry.status.snapshot().tables.remove(0);
            assert_eq!((shown.state, shown.last_change.as_deref()), (state, change));
            assert_eq!(shown.last_error.unwrap().message, "create it by hand");
        }
    }
}
