//! The load path: rows are staged as objects in a bucket, and a load job brings them into the table. Where
//! there is no bucket, they wait in memory, and go with the job's creation.
//!
//! Exactly once, by the *slot protocol* (`docs/delivery.md`): the rows that one topic-partition has
//! for one table form a [chain](chain::ChainId) of slots. A slot begins at an offset, its *node*, and
//! its job's id is made of the node and the attempt, never of the end: BigQuery takes an id once and
//! for ever, so whoever creates the job decides where the slot ends, and everybody else reads the end
//! from the job and goes on there.

pub mod chain;
pub mod container;
pub mod content;
pub mod job;
pub mod pace;
pub mod run;
pub mod settings;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    fault::Fault,
    table::TableRef,
    write::load::job::{JobView, LoadJob},
};

/// The answer to a job's creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The job is created.
    Created,
    /// There is a job of that id already, whoever made it (HTTP 409).
    Exists,
}

/// BigQuery's load jobs.
///
/// One call is one request, nothing is repeated. Jobs live in the project of their table.
pub trait LoadJobs: Send + Sync + 'static {
    /// Creates the job. An `Unknown` fault may have created it. `media` are the rows of a job without
    /// sources, in parts that are sent one behind the other.
    fn insert<'a>(
        &'a self,
        job: &'a LoadJob,
        media: Vec<Bytes>,
    ) -> BoxFuture<'a, Result<Inserted, Fault>>;

    /// Reads the job afresh; `None` if no job has that id.
    fn get<'a>(
        &'a self,
        table: &'a TableRef,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<JobView>, Fault>>;
}

/// A staged object as the bucket lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// Its name.
    pub name: String,
    /// When it was created, milliseconds since the epoch by the bucket's clock.
    pub created_ms: i64,
}

/// A page of a bucket's objects, and where the next page begins.
pub type ObjectPage = (Vec<ListedObject>, Option<String>);

/// The bucket of staged objects.
///
/// Names are unique: an object is written once and never changed.
pub trait Objects: Send + Sync + 'static {
    /// The address by which a load job finds the object: `gs://bucket/name`.
    fn uri(&self, name: &str) -> String;

    /// Stores an object of these parts, one behind the other. Answers `Ok` if it is there already with the same bytes: an earlier attempt
    /// has done it.
    fn put<'a>(&'a self, name: &'a str, parts: Vec<Bytes>) -> BoxFuture<'a, Result<(), Fault>>;

    /// Deletes the object at an address; one that is gone is no fault.
    fn delete<'a>(&'a self, uri: &'a str) -> BoxFuture<'a, Result<(), Fault>>;

    /// A page of the objects below `prefix`.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        page: Option<&'a str>,
    ) -> BoxFuture<'a, Result<ObjectPage, Fault>>;
}
