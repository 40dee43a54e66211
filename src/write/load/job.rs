//! A load job: what is asked for, and what is read back.
//!
//! Everything that another owner must know of a job stands in its configuration, which `jobs.get`
//! gives back: the end of its slot and its rows, as labels.

use serde_json::{Value, json};

use crate::{fault::Fault, table::TableRef, write::load::content::Content};

/// Labels: lower-case letters, digits, dashes, underscores
/// (<https://docs.cloud.google.com/bigquery/docs/labels-intro#requirements>).
const END: &str = "kcbq_end";
const ROWS: &str = "kcbq_rows";

/// How staged rows stand, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LoadFormat {
    /// One JSON object a line, in objects gzipped.
    NdjsonGz,
    /// Avro object containers of one schema.
    Avro(SchemaIx),
    /// Protobuf rows in PENDING streams: a commit makes them visible, and no load job.
    Pending(SeriesIx),
}

/// A container's schema by its number in the worker's encoder. Rows of two schemas never go by one job:
/// no document says what BigQuery makes of their files together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaIx(pub u32);

/// PENDING streams that are committed together, by their number in the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesIx(pub u32);

/// A job to be created, or streams to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadJob {
    /// The id; see [`super::chain::ChainId::job`] and [`super::chain::ChainId::commit`].
    pub id: String,
    /// Where the rows go. The job runs in the table's project.
    pub table: TableRef,
    /// The objects, `gs://…`, or the streams, at most 10,000.
    pub sources: Vec<String>,
    /// The rows themselves where there is no bucket, all of one format and schema: they go with the
    /// job's creation.
    pub rows_here: Vec<Content>,
    /// How the rows stand in either.
    pub format: LoadFormat,
    /// The slot's end: the offset behind its last record.
    pub end: i64,
    /// How many rows there are.
    pub rows: u64,
}

impl LoadJob {
    /// The body of `jobs.insert`.
    ///
    /// Nothing that drops data is switched on: no bad records, no unknown values. The table exists and
    /// has its columns: the schema gate has seen to it. Ids are unique within a location only, so that
    /// the dataset's must be given where it is known.
    pub fn document(&self, location: Option<&str>) -> Value {
        let mut load = json!({
            "destinationTable": {
                "projectId": *self.table.project,
                "datasetId": *self.table.dataset,
                "tableId": *self.table.table,
            },
            "sourceFormat": self.format.source_format(),
            "writeDisposition": "WRITE_APPEND",
            "createDisposition": "CREATE_NEVER",
            "maxBadRecords": 0,
            "ignoreUnknownValues": false,
        });
        if let Some(load) = load.as_object_mut() {
            if self.rows_here.is_empty() {
                load.insert("sourceUris".to_owned(), json!(self.sources));
            }
            if let LoadFormat::Avro(_) = self.format {
                load.insert("useAvroLogicalTypes".to_owned(), true.into());
                load.insert("decimalTargetTypes".to_owned(), json!(["NUMERIC", "BIGNUMERIC"]));
            }
        }
        let project = &*self.table.project;
        let reference = match location {
            Some(location) => {
                json!({ "projectId": project, "jobId": self.id, "location": location })
            }
            None => json!({ "projectId": project, "jobId": self.id }),
        };
        let labels = json!({ END: self.end.to_string(), ROWS: self.rows.to_string() });
        json!({
            "jobReference": reference,
            "configuration": { "labels": labels, "load": load },
        })
    }
}

impl LoadFormat {
    /// BigQuery's name; `None` for rows that no load job reads.
    pub fn source_format(self) -> Option<&'static str> {
        match self {
            Self::NdjsonGz => Some("NEWLINE_DELIMITED_JSON"),
            Self::Avro(_) => Some("AVRO"),
            Self::Pending(_) => None,
        }
    }

    /// Whether the rows are in PENDING streams.
    pub fn is_pending(self) -> bool {
        matches!(self, Self::Pending(_))
    }
}

/// Where a job stands.
#[derive(Clone, Debug)]
pub enum JobState {
    /// It waits (`PENDING`) or works.
    Active {
        /// Whether it has begun.
        running: bool,
    },
    /// It is done without an error result: its rows are in the table, all at once.
    Loaded {
        /// Rows that BigQuery says it has written.
        output_rows: Option<u64>,
    },
    /// It is done with an error result: nothing of it is in the table, and its id is used up.
    Failed(Fault),
}

/// A job as it was read.
#[derive(Clone, Debug)]
pub struct JobView {
    /// Where it stands.
    pub state: JobState,
    /// The end of its slot.
    pub end: i64,
    /// The rows that were staged for it.
    pub rows: u64,
}

/// The slot's end and rows from a job's document; `None` for a job that is not ours.
pub fn labels(document: &Value) -> Option<(i64, u64)> {
    let labels = document.pointer("/configuration/labels")?;
    let number = |label: &str| labels.get(label).and_then(Value::as_str);
    Some((number(END)?.parse().ok()?, number(ROWS)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_says_where_its_slot_ends() {
        let job = LoadJob {
            id: "kcbq-x-0-0-a0".to_owned(),
            table: TableRef { project: "p".into(), dataset: "d".into(), table: "t".into() },
            sources: vec!["gs://b/o".to_owned()],
            rows_here: Vec::new(),
            format: LoadFormat::NdjsonGz,
            end: 17,
            rows: 9,
        };
        let document = job.document(Some("EU"));
        assert_eq!(labels(&document), Some((17, 9)));
        assert_eq!(document["jobReference"]["location"], "EU");
        let load = &document["configuration"]["load"];
        assert_eq!(load["sourceFormat"], "NEWLINE_DELIMITED_JSON");
        assert_eq!(
            (&load["maxBadRecords"], &load["ignoreUnknownValues"]),
            (&0.into(), &false.into())
        );
        assert_eq!(load["createDisposition"], "CREATE_NEVER");
        assert_eq!(labels(&json!({"configuration": {"labels": {"kcbq_end": "x"}}})), None);
    }
}
