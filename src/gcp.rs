//! Adapter to Google Cloud: credentials and the BigQuery REST API.

pub mod settings;
