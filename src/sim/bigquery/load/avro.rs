//! Avro object containers, read strictly and from the specification alone, so that the simulator
//! shares no mistake with the product's own reader and writer. Its judge in tests is apache-avro.
//!
//! Facts: <https://avro.apache.org/docs/1.12.0/specification/>; how BigQuery reads one:
//! <https://docs.cloud.google.com/bigquery/docs/loading-data-cloud-storage-avro>.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::sim::{
    bigquery::{
        jobs::job::JobError,
        load::{
            Input,
            avro::{
                container::{Container, Header},
                datum::{Binding, Cursor},
                derive::Derive,
                schema::Schema,
            },
            config::LoadConfig,
            rows::Rows,
        },
    },
    settings::SimSettings,
};

pub mod codec;
pub mod container;
pub mod datum;
pub mod decimal;
pub mod derive;
pub mod scalar;
pub mod schema;

/// One file whose header has been read.
#[derive(Debug)]
pub struct File<'a> {
    uri: Option<&'a str>,
    header: Header<'a>,
    schema: Arc<Schema>,
    /// The columns that BigQuery makes of the schema, as REST documents.
    pub fields: Vec<Value>,
}

/// Reads every file's header. The words: googleapis/google-cloud-node#1379,
/// basedosdados/sdk#1252.
pub fn open<'a>(
    inputs: &'a [Input],
    load: &LoadConfig,
    settings: &SimSettings,
) -> Result<Vec<File<'a>>, JobError> {
    let derive = Derive {
        logical_types: load.logical_types,
        nanos: settings.load.avro_nanos,
        decimal_targets: &load.decimal_targets,
    };
    let open = |input: &'a Input| {
        let uri = input.uri.as_deref();
        let refused = |what: &str, detail: String| {
            let message = format!("The Apache Avro library failed to {what}: {detail}");
            JobError::new("invalid", uri, message)
        };
        let header = Container::open(&input.bytes)
            .map_err(|detail| refused("parse the header with the following error", detail))?;
        let schema = schema::parse(header.schema)
            .map_err(|detail| refused("parse the schema with the following error", detail))?;
        let fields = derive
            .columns(&schema)
            .map_err(|detail| refused("convert the schema with the following error", detail))?;
        Ok(File { uri, header, schema, fields })
    };
    inputs.iter().map(open).collect()
}

impl File<'_> {
    /// Reads the file's rows. One bad datum fails the job: `maxBadRecords` is not for Avro.
    pub fn read(&self, rows: &mut Rows<'_>) -> Result<(), JobError> {
        let refused = |detail: String| {
            let message = format!(
                "Error while reading data, error message: The Apache Avro library failed to read data \
                 with the following error: {detail}"
            );
            JobError::new("invalid", self.uri, message)
        };
        let binding = Binding::of_row(&self.schema, rows.columns);
        if let Some(missing) = binding.missing(rows.columns).filter(|_| !rows.counts()) {
            return Err(refused(format!("Missing required field: {missing}.")));
        }
        let limit = rows.settings.load.avro_block_bytes_max;
        let mut blocks = Container::blocks(&self.header);
        while let Some((count, data)) = blocks.next_block().map_err(refused)? {
            if rows.counts() {
                rows.count(count, data.len());
                continue;
            }
            let data = codec::decompress(self.header.codec, data, limit).map_err(refused)?;
            let mut cursor = Cursor::new(&data);
            cursor.check_count(count).map_err(refused)?;
            for _ in 0..count {
                let before = cursor.rest();
                let row = binding.read(&mut cursor, &self.schema).map_err(refused)?;
                let Some(Value::Object(row)) = row else {
                    return Err(refused("a datum is not a record".to_owned()));
                };
                rows.push(row, before - cursor.rest()).map_err(refused)?;
            }
            if cursor.rest() > 0 {
                return Err(refused(format!("{} bytes are left over in a block", cursor.rest())));
            }
        }
        Ok(())
    }
}

/// A column's REST document.
fn field(name: &str, ty: &str, mode: &str) -> Value {
    json!({"name": name, "type": ty, "mode": mode})
}
