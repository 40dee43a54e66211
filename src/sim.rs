//! The strict BigQuery and Schema Registry simulator.
