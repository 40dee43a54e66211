//! What a load job does to its table: everything, or nothing.
//!
//! The rows go through the same checks into the same store as streamed ones, by the schema that the
//! table has now: load jobs do not wait until a change is visible to streaming, and know no window
//! of partitions. Facts: <https://docs.cloud.google.com/bigquery/docs/batch-loading-data>.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::sim::{
    bigquery::{
        BigQuery,
        change::Via,
        columns::Column,
        error::ApiError,
        jobs::job::{JobError, Loaded},
        load::{
            config::{Format, LoadConfig, WriteDisposition},
            partitions::Partitions,
            reading::{Read, Reading, Staged},
        },
    },
    settings::StoreMode,
};

pub mod avro;
pub mod config;
pub mod ndjson;
pub mod options;
pub mod partitions;
pub mod reading;
pub mod rows;
pub mod schema;
pub mod source;

/// One file of a job.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its place, `gs://…`; `None` for what came with the request.
    pub uri: Option<String>,
    /// Its bytes when the job began to run.
    pub bytes: Bytes,
}

/// Why a job fails: `errorResult` first, then the rest of `errors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why it failed.
    pub error: JobError,
    /// The details.
    pub details: Vec<JobError>,
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        Self { error, details: Vec::new() }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        JobError::from(error).into()
    }
}

/// What a job that succeeded loaded, and its warnings.
pub(crate) type Complete = (Loaded, Vec<JobError>);

/// What happens to the table beside its rows.
struct Plan {
    /// The table's new document, if it is created or changed.
    document: Option<Map<String, Value>>,
    exists: bool,
    columns: Arc<Vec<Column>>,
    partitions: Partitions,
}

impl BigQuery {
    /// What there is to read for a job; `short` rows at the end are left out.
    pub(crate) fn reading(
        &self,
        load: &Arc<LoadConfig>,
        inputs: Arc<[Input]>,
        short: u64,
    ) -> Result<Reading, Failure> {
        let Plan { columns, partitions, .. } = self.plan(load, &inputs)?;
        let (load, settings) = (Arc::clone(load), Arc::clone(&self.settings));
        Ok(Reading { load, inputs, columns, partitions, settings, short })
    }

    /// Puts into the table what was read. `None` if the table is not what it was when the reading
    /// began: it must be done again.
    pub(crate) fn complete(
        &mut self,
        read: Read,
        now: Duration,
    ) -> Result<Option<Complete>, Failure> {
        let Read { reading, staged } = read;
        let plan = self.plan(&reading.load, &reading.inputs)?;
        if plan.columns != reading.columns {
            return Ok(None);
        }
        let Staged { store, warnings, loaded } = staged?;
        self.commit(&reading.load, plan, now)?;
        self.table_mut(reading.load.table.path())?.store.append(store, now);
        Ok(Some((loaded, warnings)))
    }

    /// What the table will be like, or why the job cannot load into it.
    fn plan(&self, load: &LoadConfig, inputs: &[Input]) -> Result<Plan, Failure> {
        let files = match load.format {
            Format::Avro => avro::open(inputs, load, &self.settings)?,
            Format::Json => Vec::new(),
        };
        let path = load.table.path();
        let existing = match self.table(path) {
            Ok(table) => Some(table),
            Err(_) if load.create_if_needed => None,
            Err(missing) => return Err(missing.into()),
        };
        if let Some(table) = existing {
            if load.write == WriteDisposition::Empty && table.store.count() > 0 {
                return Err(ApiError::duplicate(&format!("Table {}", path.name())).into());
            }
            load.check_layout(&table.document)?;
        }
        let mut document = match existing.map(|table| &table.document) {
            Some(Value::Object(document)) => document.clone(),
            _ => load.new_table(),
        };
        let counted = self.settings.store == StoreMode::Count;
        let mut changed = existing.is_none();
        if !counted || existing.is_none() {
            let mut fields = schema::fields_of(&document);
            let name = path.name();
            let merge = schema::Merge::new(&name, load, existing.is_some());
            for provided in load.schema.iter().chain(files.iter().map(|file| &file.fields)) {
                changed |= merge.merge(&mut fields, provided)?;
            }
            document.insert("schema".into(), json!({"fields": fields}));
        }
        let (checked, columns) = self.checked(document.clone())?;
        if columns.is_empty() {
            return Err(ApiError::invalid("Schema has no fields.").into());
        }
        let limit = self.settings.load.partitions_max;
        let partitions =
            Partitions::of(&checked, &columns, load.table.decorator.as_deref(), limit)?;
        let document = changed.then_some(document);
        Ok(Plan { document, exists: existing.is_some(), columns: Arc::new(columns), partitions })
    }

    /// Creates or changes the table; a load that changes nothing is an update, too.
    fn commit(&mut self, load: &LoadConfig, plan: Plan, now: Duration) -> Result<(), Failure> {
        let path = load.table.path();
        let changed = match plan.document {
            Some(document) if !plan.exists => self.create_table(path, document, now).map(|_| ()),
            Some(document) => self.apply(path, document, Via::Rest, now).map(|_| ()),
            None => {
                let settings = Arc::clone(&self.settings);
                self.table_mut(path)?.spend_update(&path.name(), now, &settings)
            }
        };
        changed.map_err(|error| {
            let mut error = JobError::from(error);
            if error.reason == "rateLimitExceeded" {
                error.location = Some("table.write".to_owned());
            }
            error.into()
        })
    }
}
