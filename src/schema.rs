//! Schemas: the model, its sources, the columns they become, and what a table lacks for them.

pub mod columns;
pub mod diff;
pub mod model;
pub mod policy;
