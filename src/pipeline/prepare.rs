//! Preparing what records wait for: the writer schema, the table, the plan.
//!
//! Whatever can pass is tried again here, for ever, with the reason on the status page: a transient
//! fault is never a dead letter. Only a definite refusal ends a request without a plan.

mod samples;

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    catalog::Catalog,
    dead_letter::{Reason, Stage},
    delivery::backoff::Backoff,
    fault::{Fault, FaultKind},
    path::Stream,
    pipeline::{
        encoder::{
            Appended, Prepared,
            payload::Source,
            request::{NAME_ONLY, Request},
            with_columns,
        },
        now_ms,
        obstacle::{Obstacle, Way},
        report::cause_of,
        schema_gate::{GateError, ReadyTable, SchemaGate},
        settings::PayloadSettings,
        writer_schemas::WriterSchemas,
    },
    schema::{
        avro,
        model::Kind,
        policy::{Permission, Policy},
    },
    table::{TableRef, TableSchema},
    telemetry::{LastError, TableState, Telemetry, Teller, Trouble},
    transcode::{KeySource, Limits, RowPlan, RowSpec, ValueSource},
    write::storage::descriptor,
};

use samples::Wanted;

const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(500), max: Duration::from_secs(30) };

/// Prepares plans. Shared by all workers.
pub struct Preparer {
    schemas: WriterSchemas,
    catalog: Arc<dyn Catalog>,
    gate: Arc<SchemaGate>,
    telemetry: Arc<Telemetry>,
}

impl std::fmt::Debug for Preparer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Preparer").finish_non_exhaustive()
    }
}

type Refusal = Box<Reason>;

impl Preparer {
    /// A preparer over these ports.
    pub fn new(
        schemas: WriterSchemas,
        catalog: Arc<dyn Catalog>,
        gate: Arc<SchemaGate>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self { schemas, catalog, gate, telemetry }
    }

    /// Prepares `request`, however long it takes.
    ///
    /// # Errors
    /// Why records of this kind can never be rows of this table.
    pub async fn prepare(&self, request: Request) -> Result<Prepared, Refusal> {
        let settings = &request.settings;
        if matches!((&request.value, &request.key), (Source::Gone, _) | (_, Source::Gone)) {
            if request.outdated {
                self.gate.invalidate(&request.table);
            }
            return Ok(Prepared::name_only(None));
        }
        let value = self.source(&request, &request.value, Some(&settings.value)).await?;
        let record_name = record_name(&value);
        let schema_id = registry_id(&request.value);
        if &*request.table.table == NAME_ONLY {
            return Ok(Prepared::name_only(record_name));
        }
        let key = match &settings.key {
            None => None,
            Some(key) => Some(KeySource {
                source: self.source(&request, &request.key, Some(key)).await?,
                placement: settings.row.key.clone(),
            }),
        };
        let spec = RowSpec {
            value,
            value_column: settings.row.value_column.clone(),
            key,
            metadata: settings.row.metadata.clone(),
            headers: settings.row.headers_column.clone(),
        };
        let (ready, wanted) = self.ready_table(&request, &spec, schema_id).await?;
        let limits = Limits { row_bytes_max: settings.row.row_bytes_max };
        let plan = RowPlan::compile(&spec, &ready.schema, limits)
            .map_err(|error| schema_refusal(error.to_string(), schema_id))?;
        let appended = match settings.stream {
            Stream::Appends => Some(appended(&spec, &ready.schema, limits, schema_id)?),
            Stream::Inserts => None,
        };
        Ok(Prepared {
            bytes: plan_bytes(&spec, &ready.schema, appended.is_some()),
            plan: Some(Arc::new(plan)),
            appended,
            schema: ready.schema,
            record_name,
            refused: wanted.refused,
            satisfied: wanted.satisfied,
        })
    }

    async fn ready_table(
        &self,
        request: &Request,
        spec: &RowSpec,
        schema_id: Option<u32>,
    ) -> Result<(ReadyTable, Wanted), Refusal> {
        let settings = &request.settings;
        if request.outdated {
            self.gate.invalidate(&request.table);
        }
        let mut attempt = 0;
        loop {
            let fault = match self.wanted(request, spec, schema_id).await? {
                Err(fault) => fault,
                Ok(wanted) => {
                    let columns = wanted.columns.clone();
                    let ensured = self.gate.ensure(
                        &request.table,
                        columns,
                        &settings.policy,
                        &settings.layout,
                    );
                    match ensured.await {
                        Ok(ready) => {
                            request.way.is_free();
                            self.show_ready(&request.table, &ready);
                            return Ok((ready, wanted));
                        }
                        Err(GateError::Refused { difference }) => {
                            return Err(schema_refusal(difference, schema_id));
                        }
                        Err(GateError::Fault(fault)) => fault,
                    }
                }
            };
            attempt += 1;
            tell(&request.way, &request.table, &fault);
            self.show_fault(&request.table, &fault);
            sleep(BACKOFF.wait(attempt, u64::from(attempt))).await;
        }
    }

    /// The columns that the request's rows want. For schemaless records the table is looked at
    /// first: what somebody declared there is not undone by a record that happens to lack it.
    async fn wanted(
        &self,
        request: &Request,
        spec: &RowSpec,
        schema_id: Option<u32>,
    ) -> Result<Result<Wanted, Fault>, Refusal> {
        let settings = &request.settings;
        let own = spec
            .columns(&settings.columns)
            .map_err(|error| schema_refusal(error.to_string(), schema_id))?;
        if spec.value != ValueSource::Json {
            return Ok(Ok(Wanted::only(own)));
        }
        let (current, policy) = match self.catalog.describe(&request.table).await {
            Ok(Some(table)) => (Arc::clone(&table.schema), settings.policy),
            // What a new table begins with is not added to one that somebody made.
            Ok(None) => (
                request.known.clone().unwrap_or_default(),
                Policy { add_columns: Permission::Allow, ..settings.policy },
            ),
            Err(fault) => return Ok(Err(fault)),
        };
        let columns = with_columns(&current, &own);
        let samples = &request.samples.0;
        Ok(Ok(Wanted::for_samples(columns, samples, &settings.columns, &policy)))
    }

    async fn source(
        &self,
        request: &Request,
        source: &Source,
        settings: Option<&PayloadSettings>,
    ) -> Result<ValueSource, Refusal> {
        Ok(match source {
            // A null value: a row of key and metadata only, which takes no column of the value's.
            Source::None | Source::Gone | Source::Json => ValueSource::Json,
            Source::String => ValueSource::String,
            Source::Bytes => ValueSource::Bytes,
            Source::Connect(ty) => ValueSource::ConnectJson(Arc::clone(ty)),
            Source::Registry(id) => {
                let found = self.schemas.avro(*id, request.first.as_ref(), &request.way);
                ValueSource::Avro(found.await?)
            }
            Source::Local => {
                let path = settings.and_then(|settings| settings.schema.as_deref());
                let path = path.ok_or_else(|| schema_refusal("no local schema".into(), None))?;
                let text = tokio::fs::read_to_string(path).await.map_err(|error| {
                    schema_refusal(format!("{}: {error}", path.display()), None)
                })?;
                let ty = avro::parse(&text, &[] as &[&str])
                    .map_err(|error| schema_refusal(error.to_string(), None))?;
                ValueSource::Avro(Arc::new(ty))
            }
        })
    }

    fn show_ready(&self, table: &TableRef, ready: &ReadyTable) {
        let now = now_ms();
        self.telemetry.status.update_table(&table.to_string().into(), now, |status| {
            status.enter(TableState::Ready, now);
            status.troubles.tell(Teller::Gate, None);
            status.schema_version = ready.version;
        });
    }

    fn show_fault(&self, table: &TableRef, fault: &Fault) {
        tracing::warn!(%table, error = %fault, "the table is not ready; trying again");
        let now = now_ms();
        self.telemetry.status.update_table(&table.to_string().into(), now, |status| {
            let state = match fault.kind {
                FaultKind::Throttled | FaultKind::QuotaExceeded => TableState::Throttled,
                FaultKind::PermissionDenied | FaultKind::Unauthenticated => TableState::Denied,
                _ => TableState::WaitingSchema,
            };
            status.enter(state, now);
            let trouble = Trouble::new(cause_of(fault), fault.what(), now);
            let trouble = trouble.with_remedy(fault.remedy.as_deref());
            status.troubles.tell(Teller::Gate, Some(trouble));
            status.last_error = Some(LastError {
                stage: "schema".to_owned(),
                field: None,
                message: fault.what(),
                remedy: fault.remedy.as_deref().map(str::to_owned),
                at_ms: now,
            });
        });
    }
}

/// A table that is not ready may stay so: what waits for it says why.
fn tell(way: &Way, table: &TableRef, fault: &Fault) {
    way.is_blocked_by(Arc::new(Obstacle {
        cause: cause_of(fault),
        message: format!("{table}: {}", fault.what()),
        remedy: fault.remedy.as_deref().map(str::to_owned),
    }));
}

fn appended(
    spec: &RowSpec,
    schema: &TableSchema,
    limits: Limits,
    schema_id: Option<u32>,
) -> Result<Appended, Refusal> {
    let plan = RowPlan::compile(spec, schema, limits)
        .map_err(|error| schema_refusal(error.to_string(), schema_id))?;
    Ok(Appended { plan: Arc::new(plan), schema: descriptor::writer_schema(schema) })
}

/// About how many bytes the plans take: measured, a type is some 350 bytes of its plan, and a column some
/// 150 of what is known of the table.
fn plan_bytes(spec: &RowSpec, schema: &TableSchema, has_two: bool) -> usize {
    let key = spec.key.as_ref().map(|key| &key.source);
    let columns = schema.size();
    let types = [Some(&spec.value), key].into_iter().flatten().map(|source| match source {
        ValueSource::Avro(ty) | ValueSource::ConnectJson(ty) => ty.size(),
        // A plan of schemaless records has a place for each column.
        _ => columns,
    });
    let plans = if has_two { 2 } else { 1 };
    1_024 + types.sum::<usize>() * 350 * plans + columns * 150
}

fn schema_refusal(message: String, schema_id: Option<u32>) -> Refusal {
    Box::new(Reason { stage: Stage::Schema, message, field: None, schema_id })
}

fn registry_id(source: &Source) -> Option<u32> {
    match source {
        Source::Registry(id) => Some(*id),
        _ => None,
    }
}

fn record_name(value: &ValueSource) -> Option<Arc<str>> {
    let (ValueSource::Avro(ty) | ValueSource::ConnectJson(ty)) = value else { return None };
    match &ty.kind {
        Kind::Record(record) => Some(Arc::clone(&record.name)),
        _ => None,
    }
}
