//! `kcbq`: a Kafka-to-BigQuery sink service.
//!
//! Consumer groups read Kafka topics, batch the records, create and evolve BigQuery tables by
//! themselves, and commit a Kafka offset only after BigQuery, or the dead-letter topic, has
//! acknowledged everything below it.

// Vocabulary: imports nothing from the crate.
pub mod duration;
pub mod failpoint;
pub mod fault;
pub mod jitter;
pub mod printable;
pub mod record;
pub mod secret;
pub mod table;
pub mod telemetry;

// Pure logic: no clock, no I/O, no vendor client.
pub mod batch;
pub mod delivery;
pub mod path;
pub mod schema;
pub mod transcode;

// Ports: traits with their contracts.
pub mod catalog;
pub mod committer;
pub mod dead_letter;
pub mod registry;
pub mod rest;
pub mod rpc;
pub mod source;
pub mod write;

// Drivers.
pub mod pipeline;

// Adapters: vendor crates live only here.
pub mod gcp;
pub mod kafka;

// The shell.
pub mod app;
pub mod cli;
pub mod config;
pub mod ops;

#[cfg(feature = "sim")]
pub mod sim;
