//! Adapter to Google Cloud: credentials and the BigQuery REST API.

pub mod auth;
pub mod classify;
pub mod grpc;
pub mod http;
pub mod jobs;
pub mod objects;
pub mod settings;
pub mod tables;
