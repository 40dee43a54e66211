//! Plans: what decides how a record is encoded, and what was compiled for it.

use std::sync::Arc;

use bytes::Bytes;

use super::payload::SchemaKey;
use crate::{
    dead_letter::Reason,
    delivery::encoder::TableIx,
    record::Record,
    schema::model::Type,
    table::TableSchema,
    transcode::{
        LaneLabel, RowError, RowPlan,
        writer::{json::JsonRow, proto::ProtoRow},
    },
    write::load::job::LoadFormat,
};

/// What decides how a record is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlanKey {
    /// The settings' number.
    pub(super) settings: u32,
    pub(super) table: TableIx,
    pub(super) value: SchemaKey,
    pub(super) key: SchemaKey,
}

/// How rows of the Storage Write API are encoded.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The plan.
    pub plan: Arc<RowPlan<ProtoRow>>,
    /// What BigQuery is told of the rows: an encoded `ProtoSchema`.
    pub schema: Bytes,
}

/// A plan and what it was compiled for.
pub struct Prepared {
    /// The plan; `None` where only the record's name was wanted.
    pub plan: Option<Arc<RowPlan<JsonRow>>>,
    /// The same for the Storage Write API, where rows are streamed by it.
    pub appended: Option<Appended>,
    /// The table's columns at that time.
    pub schema: Arc<TableSchema>,
    /// The full name of the value's record, where it has one.
    pub record_name: Option<Arc<str>>,
    /// Types of schemaless records for which the table is not changed, and why.
    pub refused: Vec<(Type, Reason)>,
    /// Types of schemaless records that the table has a place for now.
    pub satisfied: Vec<Type>,
    /// About how many bytes it takes.
    pub bytes: usize,
}

impl Prepared {
    /// Nothing but the name of the value's record, where it has one.
    pub fn name_only(record_name: Option<Arc<str>>) -> Self {
        Self {
            plan: None,
            appended: None,
            schema: Arc::default(),
            record_name,
            refused: Vec::new(),
            satisfied: Vec::new(),
            bytes: 0,
        }
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("refused", &self.refused.len()).finish_non_exhaustive()
    }
}

/// A plan in use.
pub(super) struct Slot {
    pub(super) key: PlanKey,
    /// How rows are encoded; `None` once the plan is given up: only rows that were encoded before are
    /// on their way.
    pub(super) plans: Option<Plans>,
    /// What BigQuery is told of rows that are streamed by the Storage Write API.
    pub(super) writer_schema: Option<Bytes>,
    /// About how many bytes the plans take.
    pub(super) bytes: usize,
    /// How rows stand in staged objects.
    pub(super) format: LoadFormat,
    pub(super) schema: Arc<TableSchema>,
    /// What could not be encoded with this very plan although the table was changed for it.
    pub(super) refused: Vec<(Type, Reason)>,
    pub(super) satisfied: Vec<Type>,
}

/// The plans of a slot.
pub(super) struct Plans {
    pub(super) plan: Arc<RowPlan<JsonRow>>,
    /// How rows are streamed, if not by `plan`.
    pub(super) appended: Option<Arc<RowPlan<ProtoRow>>>,
}

impl Plans {
    /// Appends a row for the Storage Write API.
    pub(super) fn append(
        &self,
        record: &Record<'_>,
        label: &LaneLabel,
        body: &mut Vec<u8>,
    ) -> Result<(), RowError> {
        match &self.appended {
            Some(appended) => appended.encode(record, label, body),
            None => Ok(()),
        }
    }
}
