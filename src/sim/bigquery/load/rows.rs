//! The rows of a job before they are in the table.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::sim::{
    bigquery::{
        columns::Column,
        jobs::job::{JobError, Loaded},
        load::{Failure, config::LoadConfig, partitions::Partitions},
        store::Store,
    },
    settings::{SimSettings, StoreMode},
};

/// Errors of rows that are listed; more are left out.
const ERRORS_MAX: usize = 16;

/// Rows on their way into a table.
#[derive(Debug)]
pub struct Rows<'a> {
    /// The job.
    pub load: &'a LoadConfig,
    /// The columns that the table will have.
    pub columns: &'a [Column],
    /// Limits.
    pub settings: &'a SimSettings,
    partitions: Partitions,
    stage: Store,
    seen: u64,
    bytes: u64,
    bad: u64,
    errors: Vec<JobError>,
}

impl<'a> Rows<'a> {
    /// No row yet.
    pub fn new(
        load: &'a LoadConfig,
        columns: &'a [Column],
        partitions: Partitions,
        settings: &'a SimSettings,
    ) -> Self {
        let stage = Store::new(settings.store);
        let (seen, bytes, bad, errors) = (0, 0, 0, Vec::new());
        Self { load, columns, settings, partitions, stage, seen, bytes, bad, errors }
    }

    /// Whether rows are only counted.
    pub fn counts(&self) -> bool {
        self.settings.store == StoreMode::Count
    }

    /// Counts rows that are not looked at.
    pub fn count(&mut self, rows: u64, bytes: usize) {
        self.seen += rows;
        self.bytes += bytes as u64;
        self.stage.add_count(rows);
    }

    /// Takes one row of canonical cells, encoded in so many bytes. The error is BigQuery's message.
    pub fn push(&mut self, row: Map<String, Value>, bytes: usize) -> Result<(), String> {
        self.partitions.admit(&row)?;
        self.seen += 1;
        self.bytes += bytes as u64;
        // When they are there, is known when the job is done.
        self.stage.push(row, self.settings, Duration::ZERO);
        Ok(())
    }

    /// Takes note of a bad row, unless it is one too many.
    pub fn refuse(&mut self, uri: Option<&str>, messages: Vec<String>) -> Result<(), Failure> {
        self.seen += 1;
        self.bad += 1;
        let room = ERRORS_MAX.saturating_sub(self.errors.len());
        let errors = messages.into_iter().take(room);
        self.errors.extend(errors.map(|message| JobError::new("invalid", uri, message)));
        if self.bad <= self.load.bad_records_max {
            return Ok(());
        }
        Err(self.too_many(uri))
    }

    /// The words: r-dbi/bigrquery#344, The-Academic-Observatory/observatory-platform#76.
    fn too_many(&mut self, uri: Option<&str>) -> Failure {
        let (rows, errors, max) = (self.seen, self.bad, self.load.bad_records_max);
        let error = format!(
            "Error while reading data, error message: JSON table encountered too many errors, giving \
             up. Rows: {rows}; errors: {errors}. Please look into the errors[] collection for more \
             details."
        );
        let summary = format!(
            "Error while reading data, error message: JSON processing encountered too many errors, \
             giving up. Rows: {rows}; errors: {errors}; max bad: {max}; error percent: 0"
        );
        let summary = JobError::new("invalid", None, summary);
        let details = [summary].into_iter().chain(self.errors.drain(..)).collect();
        Failure { error: JobError::new("invalid", uri, error), details }
    }

    /// What goes into the table, the warnings, and the figures but for the files'.
    pub fn finish(mut self, short: u64) -> (Store, Vec<JobError>, Loaded) {
        self.stage.drop_last(short);
        let loaded = Loaded {
            output_rows: self.stage.count(),
            output_bytes: self.bytes,
            bad_records: self.bad,
            ..Loaded::default()
        };
        (self.stage, self.errors, loaded)
    }
}
