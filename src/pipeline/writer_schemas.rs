//! The registry's schemas, for the whole process.
//!
//! Any producer may name any id, so an id costs one look-up at a time, whoever waits for it, and what
//! is kept is bounded by bytes. An id that the registry does not know is waited for, because
//! registries replicate with a delay; then its records are refused, and for a while the registry is
//! not asked again.

mod kept;
mod pace;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    dead_letter::{Reason, Stage},
    delivery::backoff::Backoff,
    fault::FaultKind,
    pipeline::{
        encoder::request::First,
        now_ms,
        obstacle::{Obstacle, Way},
    },
    registry::{RegisteredSchema, Registry, RegistryError},
    schema::{avro, model::Type},
    telemetry::{Cause, Telemetry},
};

use kept::{Kept, Refusals, Refused};
use pace::LogPace;

/// Between look-ups of an id that cannot be had. What an operator mends is noticed within seconds.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(500), max: Duration::from_secs(15) };

/// The least time that an id is waited for after the first look-up, however old the record: the
/// registry may have come up a moment ago.
const WAIT_MIN: Duration = Duration::from_secs(30);

/// Bytes of parsed schemas. Ids are immutable, so what is dropped can be fetched again.
const TYPES_BYTES_MAX: usize = 32 << 20;

/// A parsed schema takes about so many bytes for each byte of its text.
const BYTES_PER_TEXT: usize = 8;

/// See the module.
pub struct WriterSchemas {
    registry: Option<Arc<dyn Registry>>,
    unknown_id_wait: Duration,
    telemetry: Arc<Telemetry>,
    state: Mutex<State>,
}

impl std::fmt::Debug for WriterSchemas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriterSchemas").finish_non_exhaustive()
    }
}

type Refusal = Box<Reason>;
type Told = Option<Arc<Obstacle>>;

#[derive(Debug)]
struct State {
    types: Kept<Arc<Type>>,
    refusals: Refusals,
    /// Ids that somebody looks up at this moment, and what is in the way.
    asked: HashMap<u32, watch::Receiver<Told>>,
    log: LogPace,
}

/// What there is to do for one who wants a schema.
enum Role {
    Done(Result<Arc<Type>, Refusal>),
    /// Somebody else looks it up.
    Follow(watch::Receiver<Told>),
    /// Look it up, and tell those who follow; whether it was refused a while ago.
    Lead(watch::Sender<Told>, bool),
}

impl WriterSchemas {
    /// The schemas of this registry; `None` where the configuration has none. An id that it does not
    /// know is waited for so long.
    pub fn new(
        registry: Option<Arc<dyn Registry>>,
        unknown_id_wait: Duration,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let state = State {
            types: Kept::new(TYPES_BYTES_MAX),
            refusals: Refusals::default(),
            asked: HashMap::new(),
            log: LogPace::default(),
        };
        Self { registry, unknown_id_wait, telemetry, state: Mutex::new(state) }
    }

    /// The Avro schema with this id, however long it takes. What is in the way is told to `way`.
    ///
    /// # Errors
    /// Why records with this id cannot be read.
    pub async fn avro(
        &self,
        id: u32,
        first: Option<&First>,
        way: &Way,
    ) -> Result<Arc<Type>, Refusal> {
        let Some(registry) = &self.registry else {
            let message = "the value names a schema of a registry, but no `schema_registry` is \
                           configured";
            return Err(refusal(Stage::Schema, message.to_owned(), id));
        };
        let result = loop {
            match self.role(id) {
                Role::Done(result) => break result,
                Role::Lead(tell, was_refused) => {
                    break self.lead((id, &**registry), first, (tell, was_refused), way).await;
                }
                Role::Follow(mut told) => loop {
                    way.put(told.borrow_and_update().clone());
                    if told.changed().await.is_err() {
                        break;
                    }
                },
            }
        };
        way.is_free();
        result
    }

    fn role(&self, id: u32) -> Role {
        let mut state = self.state();
        if let Some(known) = state.types.get(id) {
            return Role::Done(Ok(Arc::clone(known)));
        }
        let refused = state.refusals.get(id);
        if let Some(reason) = refused.and_then(Refused::still_stands) {
            return Role::Done(Err(reason));
        }
        let was_refused = refused.is_some_and(Refused::is_recent);
        // One who looked it up and is gone, whatever the cause, has closed the channel.
        let asked = state.asked.get(&id).filter(|told| told.has_changed().is_ok());
        if let Some(told) = asked {
            return Role::Follow(told.clone());
        }
        let (tell, told) = watch::channel(None);
        state.asked.insert(id, told);
        Role::Lead(tell, was_refused)
    }

    async fn lead(
        &self,
        (id, registry): (u32, &dyn Registry),
        first: Option<&First>,
        (tell, was_refused): (watch::Sender<Told>, bool),
        way: &Way,
    ) -> Result<Arc<Type>, Refusal> {
        // An id that was waited for in vain is not waited for again.
        let patience = if was_refused { Duration::ZERO } else { self.patience(first) };
        let give_up = Instant::now() + patience;
        let mut waited: Option<Waited> = None;
        let mut attempt = 0;
        let result = loop {
            let error = match registry.schema(id).await {
                Ok(schema) => {
                    self.count("found");
                    break parse(&schema);
                }
                Err(error) => error,
            };
            let (outcome, mut pause) = (outcome(&error), BACKOFF.wait(attempt + 1, u64::from(id)));
            self.count(outcome);
            let is_unknown = matches!(error, RegistryError::UnknownId { .. });
            if let RegistryError::Unusable { .. } = error {
                break Err(refusal(Stage::Schema, error.to_string(), id));
            }
            if is_unknown {
                let left = give_up.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break Err(refusal(Stage::Decode, self.unknown(id, registry), id));
                }
                pause = pause.min(left);
            }
            attempt += 1;
            let obstacle = Arc::new(self.obstacle(id, registry, &error));
            let known = waited.as_ref().map(|waited| waited.cause);
            if known != Some(obstacle.cause) {
                self.log_wait(id, first, &obstacle);
                waited = Some(Waited::begin(&self.telemetry, obstacle.cause));
            }
            way.is_blocked_by(Arc::clone(&obstacle));
            tell.send_replace(Some(obstacle));
            sleep(pause).await;
        };
        self.settle(id, &result);
        if waited.is_some() && result.is_ok() {
            tracing::debug!(schema_id = id, "the schema that records waited for is there");
        }
        result.map(|(ty, _)| ty)
    }

    /// Keeps the answer for those who follow, before they learn that the look-up is over.
    fn settle(&self, id: u32, result: &Result<(Arc<Type>, usize), Refusal>) {
        let mut state = self.state();
        state.asked.remove(&id);
        match result {
            Ok((ty, bytes)) => {
                state.refusals.forget(id);
                state.types.keep(id, Arc::clone(ty), *bytes);
            }
            Err(reason) => state.refusals.keep(id, reason.clone()),
        }
    }

    /// How long after its first look-up an id that nobody knows is given up. The wait is counted from
    /// when the record was written, because that is when its schema had to be there: so it does not
    /// begin anew with each process that reads the record.
    fn patience(&self, first: Option<&First>) -> Duration {
        let written = first.and_then(|first| first.timestamp_ms);
        let age = written.map_or(0, |at| now_ms().saturating_sub(at));
        let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
        let least = WAIT_MIN.min(self.unknown_id_wait);
        self.unknown_id_wait.saturating_sub(age).max(least)
    }

    fn unknown(&self, id: u32, registry: &dyn Registry) -> String {
        format!(
            "the schema registry at {} does not know schema id {id}; check that the producer and \
             this service use the same registry",
            registry.address()
        )
    }

    fn obstacle(&self, id: u32, registry: &dyn Registry, error: &RegistryError) -> Obstacle {
        let at = registry.address();
        let wait = humantime::format_duration(self.unknown_id_wait);
        match error {
            RegistryError::UnknownId { .. } | RegistryError::Unusable { .. } => Obstacle {
                cause: Cause::Schema,
                message: format!("the schema registry at {at} does not know schema id {id}"),
                remedy: Some(format!(
                    "register the schema there, or check that the producer and this service use the \
                     same registry (schema_registry.url); otherwise its records are refused when \
                     they are {wait} old (schema_registry.unknown_id_wait)"
                )),
            },
            RegistryError::Fault(fault) => {
                let remedy = match fault.kind {
                    FaultKind::Unauthenticated | FaultKind::PermissionDenied => {
                        "check schema_registry's username, password or bearer_token, and what they \
                         may read"
                    }
                    FaultKind::InvalidRequest => "check schema_registry.url",
                    _ => "check that the schema registry runs, and schema_registry.url",
                };
                let what = fault.what();
                Obstacle {
                    cause: Cause::Registry,
                    message: format!("schema id {id} of the schema registry at {at}: {what}"),
                    remedy: Some(remedy.to_owned()),
                }
            }
        }
    }

    /// One line per id and cause, and few at a time: a producer that names any number of ids must not
    /// fill the log.
    fn log_wait(&self, id: u32, first: Option<&First>, obstacle: &Obstacle) {
        let Some(not_told) = self.state().log.admit(Instant::now()) else { return };
        tracing::warn!(
            schema_id = id,
            topic = first.map(|first| &*first.at.lane.topic),
            partition = first.map(|first| first.at.lane.partition),
            offset = first.map(|first| first.at.offset),
            cause = obstacle.cause.name(),
            reason = %obstacle.message,
            remedy = obstacle.remedy,
            ids_not_told = (not_told > 0).then_some(not_told),
            "records wait for a schema"
        );
    }

    fn count(&self, outcome: &str) {
        self.telemetry.metrics.registry_lookups.with_label_values(&[outcome]).inc();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An id that is waited for, in the metric.
struct Waited {
    cause: Cause,
    telemetry: Arc<Telemetry>,
}

impl Waited {
    fn begin(telemetry: &Arc<Telemetry>, cause: Cause) -> Self {
        telemetry.metrics.waiting_schema_ids.with_label_values(&[cause.name()]).inc();
        Self { cause, telemetry: Arc::clone(telemetry) }
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        self.telemetry.metrics.waiting_schema_ids.with_label_values(&[self.cause.name()]).dec();
    }
}

fn outcome(error: &RegistryError) -> &'static str {
    match error {
        RegistryError::UnknownId { .. } => "unknown",
        RegistryError::Unusable { .. } => "unusable",
        RegistryError::Fault(_) => "failed",
    }
}

/// The type, and about how many bytes it takes.
fn parse(schema: &RegisteredSchema) -> Result<(Arc<Type>, usize), Refusal> {
    let id = schema.id;
    if schema.format != "AVRO" {
        let format = &schema.format;
        let message = format!("schema {id} is {format}, but the topic's format is avro");
        return Err(refusal(Stage::Schema, message, id));
    }
    let ty = avro::parse(&schema.text, &schema.references)
        .map_err(|error| refusal(Stage::Schema, error.to_string(), id))?;
    let text: usize = schema.references.iter().map(|text| text.len()).sum();
    Ok((Arc::new(ty), (schema.text.len() + text) * BYTES_PER_TEXT))
}

fn refusal(stage: Stage, message: String, id: u32) -> Refusal {
    Box::new(Reason { stage, message, field: None, schema_id: Some(id) })
}

#[cfg(test)]
mod tests;
