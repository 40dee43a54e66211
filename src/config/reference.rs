//! The reference of every key, generated from the JSON Schema.
