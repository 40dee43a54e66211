//! Adapter to Kafka and the Schema Registry; the only place that knows `rdkafka`.

pub mod admin;
pub mod brokers;
pub mod client_log;
pub mod commit;
pub mod consumer;
pub mod context;
pub mod dead_letter_producer;
pub mod deliver;
pub mod ffi;
pub mod inflate;
pub mod lanes;
pub mod oauth;
pub mod poll;
pub mod properties;
pub mod read_failure;
pub mod recovery;
pub mod registry_client;
pub mod settings;
pub mod start;
pub mod topic_ids;
pub mod topics;
