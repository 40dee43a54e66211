//! Schemas: the model, its sources, the columns they become, and what a table lacks for them.

#[cfg(test)]
pub mod arbitrary;
pub mod avro;
pub mod columns;
pub mod connect;
pub mod diff;
pub mod error;
pub mod infer;
pub mod model;
pub mod names;
pub mod policy;
pub mod semantic;

pub use error::SchemaError;
