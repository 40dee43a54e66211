//! What the Storage Write API calls things
//! (<https://docs.cloud.google.com/bigquery/docs/reference/storage/rpc/google.cloud.bigquery.storage.v1>).

use crate::table::TableRef;

/// What the methods' paths begin with.
pub const SERVICE: &str = "/google.cloud.bigquery.storage.v1.BigQueryWrite/";

/// A table.
pub fn table(table: &TableRef) -> String {
    let TableRef { project, dataset, table } = table;
    format!("projects/{project}/datasets/{dataset}/tables/{table}")
}

/// The stream that a table has from its beginning.
pub fn default_stream(table: &TableRef) -> String {
    let mut name = self::table(table);
    name.push_str("/streams/_default");
    name
}
