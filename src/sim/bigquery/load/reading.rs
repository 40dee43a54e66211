//! A job's files read into rows: the long part of it, which touches nothing but its own data.

use std::sync::Arc;

use crate::sim::{
    bigquery::{
        columns::Column,
        jobs::job::{JobError, Loaded},
        load::{
            Failure, Input, avro,
            config::{Format, LoadConfig},
            ndjson,
            partitions::Partitions,
            rows::Rows,
        },
        store::Store,
    },
    settings::SimSettings,
};

/// What is read, and by which columns.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The job.
    pub load: Arc<LoadConfig>,
    /// Its files.
    pub inputs: Arc<[Input]>,
    /// The columns that the table will have.
    pub columns: Arc<Vec<Column>>,
    /// The partitions that it may load into.
    pub partitions: Partitions,
    /// Limits.
    pub settings: Arc<SimSettings>,
    /// Rows at the end that are left out.
    pub short: u64,
}

/// A reading that is done.
#[derive(Debug)]
pub struct Read {
    /// What was read.
    pub reading: Reading,
    /// What it came to.
    pub staged: Result<Staged, Failure>,
}

/// Rows that are not in the table yet.
#[derive(Debug)]
pub struct Staged {
    /// The rows.
    pub store: Store,
    /// What was passed over.
    pub warnings: Vec<JobError>,
    /// The figures.
    pub loaded: Loaded,
}

impl Reading {
    /// Reads every file.
    pub fn read(self) -> Read {
        let staged = self.staged();
        Read { reading: self, staged }
    }

    fn staged(&self) -> Result<Staged, Failure> {
        let Self { load, inputs, columns, settings, .. } = self;
        let mut rows = Rows::new(load, columns, self.partitions.clone(), settings);
        match load.format {
            Format::Avro => {
                let files = avro::open(inputs, load, settings)?;
                files.iter().try_for_each(|file| file.read(&mut rows))?;
            }
            Format::Json => ndjson::read(inputs, &mut rows)?,
        }
        let (store, warnings, mut loaded) = rows.finish(self.short);
        loaded.input_files = inputs.len() as u64;
        loaded.input_bytes = inputs.iter().map(|input| input.bytes.len() as u64).sum();
        Ok(Staged { store, warnings, loaded })
    }
}
