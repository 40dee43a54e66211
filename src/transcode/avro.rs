//! Avro's binary encoding. <https://avro.apache.org/docs/1.12.0/specification/>

pub mod accept;
pub mod interpret;
pub mod reader;
pub mod writer;
