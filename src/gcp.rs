//! Adapter to Google Cloud: credentials and the BigQuery REST API.
