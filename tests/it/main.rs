//! Integration tests: one binary, so that everything is linked once.

mod kafka_consume;
mod kafka_mock;
