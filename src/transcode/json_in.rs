//! Reading JSON: one pass over the bytes, no value tree.
//!
//! Numbers are taken as text, so that neither a large integer nor a decimal passes through a
//! double. Refused are invalid UTF-8, invalid escapes, lone surrogates, control characters in
//! strings, a key that an object has twice (two parsers would disagree about its value), nesting
//! deeper than [`DEPTH_MAX`](crate::transcode::limits::DEPTH_MAX), and anything after the value.

pub mod names;
pub mod numbers;
pub mod strings;
pub mod tokens;
pub mod typed;
pub mod untyped;
