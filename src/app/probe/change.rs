//! Upserts and deletes by sequence numbers.

use serde_json::json;

use crate::app::probe::{
    Outcome,
    appends::Request,
    lab::Lab,
    transcript::{Comparison, Question},
};

pub(crate) static TOMBSTONE: Question = Question {
    name: "delete-is-remembered",
    asks: "Does an upsert with a smaller _CHANGE_SEQUENCE_NUMBER bring back a row that was deleted?",
    assumes: "no; a greater one does. BigQuery remembers a deletion for two days, which cannot be waited for",
    rests: "nothing yet; upserts, which are not built, would be repeated after a crash and come late",
};

/// The pseudocolumns (<https://docs.cloud.google.com/bigquery/docs/change-data-capture>).
const COLUMNS: [&str; 2] = ["_CHANGE_TYPE", "_CHANGE_SEQUENCE_NUMBER"];

/// The changes of one row in the order in which they come: kind, sequence number, and how many rows there are then.
const CHANGES: [(&str, u64, i64); 4] =
    [("UPSERT", 2, 1), ("DELETE", 3, 0), ("UPSERT", 1, 0), ("UPSERT", 4, 1)];

pub(crate) async fn tombstone(lab: &Lab) -> Outcome {
    let keyed = json!({ "tableConstraints": { "primaryKey": { "columns": ["n"] } } });
    let table = lab.table("change", keyed).await?;
    let mut seen = Comparison::default();
    for (kind, sequence, rows) in CHANGES {
        let number = format!("{:016x}/{sequence:016x}", 1);
        let change = Request::of(7, &[kind, &number]);
        let (_, answer) = lab.open_with(&table.default_stream(), &COLUMNS, change).await?;
        answer?;
        let found = lab.count(&table).await?;
        seen.check(found == rows, || {
            format!(
                "after {kind} with sequence number {sequence} there are {found} rows, not {rows}"
            )
        });
    }
    Ok(seen.verdict())
}
