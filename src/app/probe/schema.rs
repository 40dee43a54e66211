//! Rows on their way while the table gets a column.

use std::time::Duration;

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::storage_error::StorageErrorCode;
use serde_json::json;
use tokio::time::Instant;

use crate::app::probe::{
    Outcome,
    appends::Request,
    lab::{Lab, ProbeTable},
    rpc::{Answer, Refusal},
    transcript::{Comparison, Question, Trouble, Verdict},
};

/// How long the new column is waited for; BigQuery says minutes.
const COLUMN_WAIT: Duration = Duration::from_secs(240);
const COLUMN_PAUSE: Duration = Duration::from_secs(2);

pub(crate) static OLD_DESCRIPTOR: Question = Question {
    name: "old-descriptor",
    asks: "Are rows accepted that are described as the table was before a column was added, and when is the new column known?",
    assumes: "old rows are accepted, on an open connection and on a new one; rows with the new column are refused with \
              SCHEMA_MISMATCH_EXTRA_FIELDS until it is known, and never stored without it",
    rests: "`write::storage::connection` and `write::storage::classify`: batches made before the change are sent after \
            it, those made for it wait",
};

pub(crate) async fn old_descriptor(lab: &Lab) -> Outcome {
    let table = lab.table("column", json!({})).await?;
    let stream = table.default_stream();
    let (mut before, first) = lab.open_with(&stream, &[], Request::of(1, &[])).await?;
    first?;
    lab.add_column(&table).await?;
    let mut seen = Comparison::default();
    let old = before.append(Request::of(2, &[])).await?;
    seen.check(old.is_ok(), || format!("on the open connection: {}", refused(&old)));
    let old = lab.open(&stream, &[]).await?.append(Request::of(3, &[])).await?;
    seen.check(old.is_ok(), || format!("on a new connection: {}", refused(&old)));
    let is_known = match wait_for_column(lab, &stream).await? {
        Ok(is_known) => is_known,
        Err(refusal) => {
            seen.check(false, || format!("with the new column: {refusal}"));
            true
        }
    };
    check_rows(lab, &table, is_known, &mut seen).await?;
    match (seen.verdict(), is_known) {
        (Verdict::AsAssumed, false) => {
            let seconds = COLUMN_WAIT.as_secs();
            Ok(Verdict::NotSeen(format!(
                "the new column is not known after {seconds} s; all else is as assumed"
            )))
        }
        (verdict, _) => Ok(verdict),
    }
}

/// Appends a row with the new column until it is accepted; whether it was, or how it was refused otherwise than
/// for the column.
async fn wait_for_column(lab: &Lab, stream: &str) -> Result<Result<bool, Refusal>, Trouble> {
    let (began, end) = (Instant::now(), Instant::now() + COLUMN_WAIT);
    loop {
        let mut appends = lab.open(stream, &["later"]).await?;
        match appends.append(Request::of(4, &["x"])).await? {
            Ok(_) => {
                lab.log.note("when the new column is known", "after", began.elapsed());
                return Ok(Ok(true));
            }
            Err(refusal) if refusal.detail != StorageErrorCode::SchemaMismatchExtraFields => {
                return Ok(Err(refusal));
            }
            Err(_) if Instant::now() >= end => return Ok(Ok(false)),
            Err(_) => tokio::time::sleep(COLUMN_PAUSE).await,
        }
    }
}

async fn check_rows(
    lab: &Lab,
    table: &ProbeTable,
    is_known: bool,
    seen: &mut Comparison,
) -> Result<(), Trouble> {
    if !is_known {
        return Ok(());
    }
    let (all, later) = (lab.count(table).await?, lab.count_of(table, "later").await?);
    seen.check(all == 4, || format!("4 rows were acknowledged, a query finds {all}"));
    seen.check(later == 1, || {
        format!("1 value of the new column was acknowledged, a query finds {later}")
    });
    Ok(())
}

fn refused<T>(answer: &Answer<T>) -> String {
    answer.as_ref().err().map(ToString::to_string).unwrap_or_default()
}
