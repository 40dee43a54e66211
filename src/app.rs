//! The composition root: the only place that builds adapters and plugs them into ports.

pub mod check;
#[cfg(feature = "sim")]
pub mod demo;
pub mod explain;
mod kafka_tokens;
mod pace;
pub mod probe;
pub mod service;

#[cfg(feature = "sim")]
pub use demo::{DemoOptions, demo};
pub use service::run;
