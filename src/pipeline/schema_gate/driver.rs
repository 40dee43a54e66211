//! One table's gate: its cache, its queue of wishes, and the loop that works on them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, sleep_until},
};

use crate::{
    catalog::TableDescription,
    fault::{Certainty, Fault, FaultKind},
    pipeline::schema_gate::{
        GateError, GateEvent, GatePhase, GateState, Known, ReadyTable, Shared, bounded, lock,
        pace::{Pace, Turn},
        plan,
    },
    schema::{
        diff::{self, Change},
        policy::{Policy, Verdict},
    },
    table::{Column, TableLayout, TableRef, TableSchema},
};

/// Wishes that one change may serve.
const WISHES_MAX: usize = 1_000;

/// The gate of one table.
#[derive(Debug)]
pub struct TableGate {
    table: TableRef,
    shared: Arc<Shared>,
    cache: Mutex<Cache>,
    wishes: Mutex<Wishes>,
    state: Mutex<GateState>,
    /// Held by the caller that works for all.
    pace: AsyncMutex<Pace>,
}

#[derive(Debug, Default)]
struct Cache {
    known: Option<Known>,
    /// The version last given out.
    version: u64,
    /// Grows with each invalidation: a look that began before one is not remembered.
    generation: u64,
}

#[derive(Debug, Default)]
struct Wishes {
    next: u64,
    waiting: BTreeMap<u64, (Vec<Column>, Policy)>,
}

/// A wish in the queue; leaves it when dropped.
struct Ticket<'a> {
    gate: &'a TableGate,
    id: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut wishes = lock(&self.gate.wishes);
            wishes.waiting.remove(&self.id);
            wishes.waiting.len()
        };
        let mut state = lock(&self.gate.state);
        state.waiting = waiting;
        if waiting == 0 {
            state.phase = GatePhase::Idle;
        }
    }
}

/// One caller's request.
struct Wish<'a> {
    wanted: &'a [Column],
    policy: &'a Policy,
    layout: &'a TableLayout,
    /// A change for all was not accepted: make the next one for this caller alone.
    alone: bool,
}

impl TableGate {
    /// A gate to a table that nothing is known about.
    pub fn new(table: TableRef, shared: Arc<Shared>) -> Self {
        Self {
            table,
            shared,
            cache: Mutex::default(),
            wishes: Mutex::default(),
            state: Mutex::default(),
            pace: AsyncMutex::default(),
        }
    }

    /// The table, if what is known of it holds every wanted column.
    pub fn cached(&self, wanted: &[Column], policy: &Policy) -> Option<ReadyTable> {
        let cache = lock(&self.cache);
        let known = cache.known.as_ref()?;
        let ready = plan::plan(&known.ready.schema, wanted, policy) == Verdict::UpToDate;
        ready.then(|| known.ready.clone())
    }

    /// See [`SchemaGate::invalidate`](crate::pipeline::schema_gate::SchemaGate::invalidate).
    pub fn invalidate(&self) {
        let mut cache = lock(&self.cache);
        cache.known = None;
        cache.generation += 1;
    }

    /// The state for `/status`.
    pub fn state(&self) -> GateState {
        lock(&self.state).clone()
    }

    /// The fault that keeps the table from being ready.
    pub fn last_fault(&self) -> Option<Fault> {
        lock(&self.state).last_fault.clone()
    }

    /// Waits until the table is ready, working on it when it is this caller's turn.
    pub async fn drive(
        &self,
        wanted: Vec<Column>,
        policy: &Policy,
        layout: &TableLayout,
    ) -> Result<ReadyTable, GateError> {
        let _ticket = self.queue(&wanted, policy);
        let mut wish = Wish { wanted: &wanted, policy, layout, alone: false };
        let mut pace = self.pace.lock().await;
        loop {
            // Whoever worked before may have done it already.
            if let Some(ready) = self.cached(wish.wanted, wish.policy) {
                return Ok(ready);
            }
            if let Some(due) = pace.not_before().filter(|due| *due > Instant::now()) {
                self.phase(GatePhase::Waiting);
                sleep_until(due).await;
            }
            if let Some(ready) = self.round(&mut pace, &mut wish).await? {
                return Ok(ready);
            }
        }
    }

    fn queue(&self, wanted: &[Column], policy: &Policy) -> Ticket<'_> {
        let mut wishes = lock(&self.wishes);
        let id = wishes.next;
        wishes.next += 1;
        wishes.waiting.insert(id, (wanted.to_vec(), *policy));
        lock(&self.state).waiting = wishes.waiting.len();
        Ticket { gate: self, id }
    }

    /// Looks and, if it is this replica's turn, creates or changes. `None`: look again when due.
    async fn round(
        &self,
        pace: &mut Pace,
        wish: &mut Wish<'_>,
    ) -> Result<Option<ReadyTable>, GateError> {
        self.phase(GatePhase::Looking);
        let generation = lock(&self.cache).generation;
        let limit = self.shared.settings.timeout();
        let looked = bounded(limit, self.shared.catalog.describe(&self.table)).await;
        let Some(description) = self.passed(looked, pace)? else { return Ok(None) };
        let Some(description) = description else { return self.create(pace, wish).await };
        lock(&self.state).succeeded();
        let known = self.learn(&description, generation);
        let (settings, jitter) = (&self.shared.settings, &self.shared.jitter);
        let turn = pace.looked(&description, Instant::now(), settings, jitter);
        match plan::plan(&known.schema, wish.wanted, wish.policy) {
            Verdict::UpToDate => Ok(Some(known)),
            Verdict::Refuse(difference) => Err(GateError::Refused { difference }),
            Verdict::Apply(_) if turn == Turn::Wait => Ok(None),
            Verdict::Apply(own) => self.alter(pace, wish, &description, own).await,
        }
    }

    /// One change for the wishes of all who wait.
    async fn alter(
        &self,
        pace: &mut Pace,
        wish: &mut Wish<'_>,
        base: &TableDescription,
        own: Vec<Change>,
    ) -> Result<Option<ReadyTable>, GateError> {
        self.phase(GatePhase::Altering);
        self.tell(GateEvent::Altering);
        let changes = if wish.alone { own.clone() } else { self.changes(&base.schema, wish) };
        let generation = lock(&self.cache).generation;
        crate::failpoint!("alter_before");
        let call = self.shared.catalog.alter(&self.table, base, &changes);
        let altered = bounded(self.shared.settings.timeout(), call).await;
        crate::failpoint!("alter_after");
        match altered {
            Ok(after) => {
                lock(&self.state).changes += 1;
                lock(&self.state).succeeded();
                self.tell(GateEvent::Altered { changes: &changes });
                let known = self.learn(&after, generation);
                pace.changed(&after, Instant::now(), &self.shared.settings);
                let ready =
                    plan::plan(&known.schema, wish.wanted, wish.policy) == Verdict::UpToDate;
                Ok(ready.then_some(known))
            }
            Err(fault) if is_final(&fault) && changes != own => {
                // Perhaps it was another caller's wish.
                self.note(&fault);
                wish.alone = true;
                pace.failed(None, Instant::now(), &self.shared.settings, &self.shared.jitter);
                Ok(None)
            }
            Err(fault) => {
                let refused = matches!(fault.kind, FaultKind::Conflict | FaultKind::Throttled);
                lock(&self.state).refused += u64::from(refused);
                if fault.kind == FaultKind::Conflict && fault.certainty == Certainty::Refused {
                    pace.conflicted(
                        &base.etag,
                        Instant::now(),
                        &self.shared.settings,
                        &self.shared.jitter,
                    );
                }
                self.passed::<()>(Err(fault), pace)?;
                Ok(None)
            }
        }
    }

    fn changes(&self, current: &TableSchema, own: &Wish<'_>) -> Vec<Change> {
        let wishes = lock(&self.wishes);
        let others = wishes.waiting.values().take(WISHES_MAX);
        let others = others.map(|(wanted, policy)| (wanted.as_slice(), policy));
        plan::plan_all(current, std::iter::once((own.wanted, own.policy)).chain(others))
    }

    async fn create(
        &self,
        pace: &mut Pace,
        wish: &Wish<'_>,
    ) -> Result<Option<ReadyTable>, GateError> {
        self.forget();
        if let Err(why) = wish.policy.may_create() {
            let difference = format!("table {}: {why}", self.table);
            self.tell(GateEvent::Missing(&difference));
            return Err(GateError::Refused { difference });
        }
        self.phase(GatePhase::Creating);
        self.tell(GateEvent::Creating);
        let schema = self.first_schema(wish);
        let generation = lock(&self.cache).generation;
        let limit = self.shared.settings.timeout();
        let catalog = &self.shared.catalog;
        let mut created =
            bounded(limit, catalog.create_table(&self.table, &schema, wish.layout)).await;
        if created.as_ref().is_err_and(|fault| fault.kind == FaultKind::TableNotFound) {
            created = self.create_both(&schema, wish.layout).await;
        }
        if created.as_ref().is_err_and(|fault| fault.kind == FaultKind::AlreadyExists) {
            // Another replica was faster, and what it created may not be visible yet.
            pace.failed(None, Instant::now(), &self.shared.settings, &self.shared.jitter);
            return Ok(None);
        }
        let Some(after) = self.passed(created, pace)? else { return Ok(None) };
        lock(&self.state).changes += 1;
        lock(&self.state).succeeded();
        self.tell(GateEvent::Created);
        let known = self.learn(&after, generation);
        pace.changed(&after, Instant::now(), &self.shared.settings);
        Ok(Some(known))
    }

    async fn create_both(
        &self,
        schema: &TableSchema,
        layout: &TableLayout,
    ) -> Result<TableDescription, Fault> {
        let limit = self.shared.settings.timeout();
        let catalog = &self.shared.catalog;
        let location = self.shared.location.as_deref();
        match bounded(limit, catalog.create_dataset(&self.table, location)).await {
            Err(fault) if fault.kind != FaultKind::AlreadyExists => return Err(fault),
            _ => {}
        }
        bounded(limit, catalog.create_table(&self.table, schema, layout)).await
    }

    /// This caller's columns as they are, and what the others add to them.
    fn first_schema(&self, wish: &Wish<'_>) -> TableSchema {
        let schema = TableSchema { columns: wish.wanted.to_vec() };
        diff::apply(&schema, &self.changes(&schema, wish))
    }

    /// Sorts a call's outcome: a value, `None` after a fault that may pass (with the pace moved), or
    /// the fault that will not pass.
    fn passed<T>(
        &self,
        outcome: Result<T, Fault>,
        pace: &mut Pace,
    ) -> Result<Option<T>, GateError> {
        let fault = match outcome {
            Ok(value) => return Ok(Some(value)),
            Err(fault) => fault,
        };
        self.note(&fault);
        let (settings, jitter) = (&self.shared.settings, &self.shared.jitter);
        match fault.kind {
            // Its pause is set where the ETag is known.
            FaultKind::Conflict if fault.certainty == Certainty::Refused => {}
            FaultKind::Throttled => {
                pace.throttled(fault.retry_after, Instant::now(), settings, jitter);
            }
            FaultKind::TableNotFound => {
                self.forget();
                pace.failed(None, Instant::now(), settings, jitter);
            }
            _ if is_final(&fault) => return Err(GateError::Fault(fault)),
            _ => pace.failed(fault.retry_after, Instant::now(), settings, jitter),
        }
        Ok(None)
    }

    fn note(&self, fault: &Fault) {
        lock(&self.state).failed(fault);
        self.tell(GateEvent::Failed(fault));
    }

    /// Remembers a description, unless the cache was invalidated since `generation`.
    fn learn(&self, description: &TableDescription, generation: u64) -> ReadyTable {
        let mut cache = lock(&self.cache);
        let same = cache.known.as_ref().filter(|known| {
            known.description.created_ms == description.created_ms
                && known.ready.schema == description.schema
        });
        let ready = match same {
            Some(known) => known.ready.clone(),
            None => {
                cache.version += 1;
                ReadyTable {
                    schema: Arc::clone(&description.schema),
                    version: cache.version,
                    created_ms: description.created_ms,
                }
            }
        };
        if cache.generation == generation {
            cache.known = Some(Known { ready: ready.clone(), description: description.clone() });
        }
        lock(&self.state).version = ready.version;
        ready
    }

    fn forget(&self) {
        lock(&self.cache).known = None;
    }

    fn tell(&self, event: GateEvent<'_>) {
        (self.shared.on_event)(&self.table, event);
    }

    fn phase(&self, phase: GatePhase) {
        lock(&self.state).phase = phase;
    }
}

/// Whether waiting does not help: an operator must act, or the change is impossible.
fn is_final(fault: &Fault) -> bool {
    matches!(
        fault.kind,
        FaultKind::PermissionDenied
            | FaultKind::Unauthenticated
            | FaultKind::InvalidRequest
            | FaultKind::InvalidRow
            | FaultKind::SchemaMismatch
            | FaultKind::PartitionOutOfRange
            | FaultKind::TooLarge
    )
}
