//! What the encoder asks to have prepared.

use std::sync::Arc;

use crate::{
    pipeline::{encoder::payload::Source, obstacle::Way, settings::TopicSettings},
    record::Coordinates,
    schema::model::Type,
    table::{TableRef, TableSchema},
};

/// The table name of a request that only learns a schema's record name. No such table is made.
pub const NAME_ONLY: &str = "";

/// Different types of schemaless records that one change of a table is made for.
const SAMPLES_MAX: usize = 64;

/// Types of schemaless records that wait for columns.
#[derive(Clone, Debug, Default)]
pub struct Samples(pub Vec<Type>);

impl Samples {
    /// Adds a type, unless it is there or there are enough: the records of those left out ask again.
    pub fn add(&mut self, ty: Type) {
        if self.0.len() < SAMPLES_MAX && !self.0.contains(&ty) {
            self.0.push(ty);
        }
    }
}

/// The first record that waits for something.
#[derive(Clone, Debug)]
pub struct First {
    /// Where it stands.
    pub at: Coordinates,
    /// When it was written.
    pub timestamp_ms: Option<i64>,
}

/// One thing to prepare: a plan for records of one kind.
#[derive(Clone, Debug)]
pub struct Request {
    /// The topic's settings.
    pub settings: Arc<TopicSettings>,
    /// The table; named [`NAME_ONLY`] where only the record's name is wanted.
    pub table: TableRef,
    /// The value's schema.
    pub value: Source,
    /// The key's schema.
    pub key: Source,
    /// Types of schemaless records to make place for.
    pub samples: Samples,
    /// BigQuery refused rows although the table seemed to fit: what is known of it is out of date.
    pub outdated: bool,
    /// The columns that the last plan was compiled for.
    pub known: Option<Arc<TableSchema>>,
    /// The first record that waits; `None` where rows came back.
    pub first: Option<First>,
    /// Where to tell what is in the way.
    pub way: Way,
}
