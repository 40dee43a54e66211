//! Schemas: the model, its sources, the columns they become, and what a table lacks for them.

pub mod columns;
pub mod diff;
pub mod error;
pub mod model;
pub mod names;

pub use error::SchemaError;
