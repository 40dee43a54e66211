//! Makes a table ready for the columns that rows want: looks, creates, changes by compare-and-swap.
//!
//! **One table, many callers, many replicas.** Within a process, the callers of one table queue for its
//! driver; who holds it makes one change for the wishes of all. Between processes there is nobody to ask:
//! BigQuery takes five changes of a table per ten seconds from everyone together, and refuses a change
//! that was planned from an older version. So a replica listens before it talks, as on a shared wire: it
//! looks at the table right before each change, and if somebody has changed it since the look before, it
//! stands back for at least the spacing that the limit implies, plus a random time. Changes that nobody
//! saw coming meet in the ETag, once; after that the replicas take turns, and hardly any attempt is
//! refused.
//!
//! **Stale answers.** An ETag that a change was refused with is never used again: until `tables.get`
//! shows another, the table is only looked at.

pub mod driver;
pub mod pace;
pub mod plan;
pub mod settings;
pub mod state;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use crate::{
    catalog::{Catalog, TableDescription},
    fault::{Fault, FaultKind},
    jitter::Jitter,
    schema::diff::Change,
    schema::policy::Policy,
    table::{Column, TableLayout, TableRef, TableSchema},
};

pub use settings::GateSettings;
pub use state::{GatePhase, GateState};

use driver::TableGate;

/// A table that has every column asked for.
#[derive(Clone, Debug)]
pub struct ReadyTable {
    /// Its columns.
    pub schema: Arc<TableSchema>,
    /// Grows whenever this process sees other columns, or another table under the same name; what was
    /// compiled against an older version is to be compiled again.
    pub version: u64,
    /// Milliseconds since the epoch; see [`TableDescription::created_ms`].
    pub created_ms: i64,
}

/// Why a table is not ready.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GateError {
    /// The table cannot hold the rows, and policy or BigQuery does not let it be changed so that it
    /// could. The rows are dead letters; the text is the difference.
    #[error("{difference}")]
    Refused {
        /// What the table lacks and why it is not given it.
        difference: String,
    },
    /// Something that may pass, or that an operator must mend. The rows wait.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What happened to a table, for metrics and logs.
#[derive(Clone, Debug)]
pub enum GateEvent<'a> {
    /// This process is about to create the table.
    Creating,
    /// This process is about to change it.
    Altering,
    /// It does not exist and policy refuses to create it, as this sentence says.
    Missing(&'a str),
    /// The table was created by this process.
    Created,
    /// The table was changed by this process.
    Altered {
        /// Columns added, relaxed or widened, all at once.
        changes: &'a [Change],
    },
    /// BigQuery refused or failed a call for the table.
    Failed(&'a Fault),
}

/// Called on each [`GateEvent`].
pub type OnGateEvent = Arc<dyn Fn(&TableRef, GateEvent<'_>) + Send + Sync>;

/// The gate to all tables of a process. Concurrent calls are expected; dropping a call withdraws it.
pub struct SchemaGate {
    shared: Arc<Shared>,
    tables: Mutex<HashMap<TableRef, Arc<TableGate>>>,
}

/// What all tables' gates have in common.
pub struct Shared {
    /// BigQuery's tables.
    pub catalog: Arc<dyn Catalog>,
    /// Limits and pauses.
    pub settings: GateSettings,
    /// Where a missing dataset is created.
    pub location: Option<String>,
    /// Spreads attempts.
    pub jitter: Jitter,
    /// Told about changes and faults.
    pub on_event: OnGateEvent,
}

impl SchemaGate {
    /// A gate that knows no table yet.
    pub fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared), tables: Mutex::default() }
    }

    /// Returns once the table has a place for every column in `wanted`, as far as `tables.get` shows:
    /// the streaming backend may learn of a change minutes later.
    ///
    /// `layout` is used only if the table is missing. Ends after
    /// [`GateSettings::deadline_ms`] with the last fault; calling again continues where it stopped.
    pub async fn ensure(
        &self,
        table: &TableRef,
        wanted: Vec<Column>,
        policy: &Policy,
        layout: &TableLayout,
    ) -> Result<ReadyTable, GateError> {
        let gate = self.table(table);
        if let Some(ready) = gate.cached(&wanted, policy) {
            return Ok(ready);
        }
        let deadline = Instant::now() + self.shared.settings.deadline();
        match timeout_at(deadline, gate.drive(wanted, policy, layout)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(GateError::Fault(gate.last_fault().unwrap_or_else(|| {
                Fault::refused(
                    FaultKind::Transient,
                    "schemaGate",
                    format!("table {table} did not become ready in time"),
                )
            }))),
        }
    }

    /// Forgets what is known about the table: BigQuery has said that it, or a column of it, is gone.
    /// A look that is under way is not remembered either.
    pub fn invalidate(&self, table: &TableRef) {
        if let Some(gate) = lock(&self.tables).get(table) {
            gate.invalidate();
        }
    }

    /// The state of each table known, for `/status`.
    pub fn states(&self) -> Vec<(TableRef, GateState)> {
        let tables = lock(&self.tables);
        let mut states: Vec<_> =
            tables.iter().map(|(table, gate)| (table.clone(), gate.state())).collect();
        states.sort_by(|one, other| one.0.cmp(&other.0));
        states
    }

    fn table(&self, table: &TableRef) -> Arc<TableGate> {
        let mut tables = lock(&self.tables);
        if let Some(gate) = tables.get(table) {
            return Arc::clone(gate);
        }
        if tables.len() >= self.shared.settings.tables_max {
            // What nobody waits for can be learnt again.
            tables.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        let gate = Arc::new(TableGate::new(table.clone(), Arc::clone(&self.shared)));
        tables.insert(table.clone(), Arc::clone(&gate));
        gate
    }
}

impl fmt::Debug for SchemaGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaGate")
            .field("tables", &lock(&self.tables).len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Locks state that is whole between any two statements, so that a panic elsewhere cannot spoil it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A call to the catalog, with a bound of time. One that does not answer may have taken effect.
pub(crate) async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
        Err(Fault::unknown(FaultKind::Transient, "noAnswer", "BigQuery did not answer in time"))
    })
}

/// What is known about a table.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// As the callers get it.
    pub(crate) ready: ReadyTable,
    /// As BigQuery described it.
    pub(crate) description: TableDescription,
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests;
