//! Adapter to Kafka and the Schema Registry; the only place that knows `rdkafka`.

pub mod settings;
