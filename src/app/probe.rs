//! What the service takes for granted of BigQuery and of the brokers, asked once of the real ones.
//!
//! Each probe asks one question on a table of its own and compares the answer with what kcbq assumes. All run at
//! once, each within its time; one that cannot be run says why and stops no other. The tables are deleted at the
//! end, whatever happened, and expire after a day where even that fails.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, join_all};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio_util::sync::CancellationToken;

use crate::{app::check::probes::chain, config::Settings, gcp, rest::Rest, rpc::Rpc};

mod appends;
mod change;
mod jobs;
mod kafka;
mod lab;
mod noted;
mod race;
mod rpc;
mod schema;
mod streams;
pub mod transcript;

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests;

use lab::{Lab, Remotes};
use transcript::{Entry, Log, Question, Transcript, Trouble, Verdict};

/// How long one probe may take.
const PROBE_MAX: Duration = Duration::from_secs(360);
/// How long the deletion of a probe's tables may take.
const CLEAN_MAX: Duration = Duration::from_secs(30);

/// What a probe came to; an error where it could not be run.
type Outcome = Result<Verdict, Trouble>;
type Look = for<'a> fn(&'a Lab) -> BoxFuture<'a, Outcome>;

/// The probes of BigQuery.
const PROBES: [(&Question, Look); 11] = [
    (&streams::FINALIZED_TWICE, |lab| Box::pin(streams::finalized_twice(lab))),
    (&streams::FINALIZE_RACE, |lab| Box::pin(streams::finalize_race(lab))),
    (&streams::EXACT_COUNT, |lab| Box::pin(streams::exact_count(lab))),
    (&streams::COMMITTED_TWICE, |lab| Box::pin(streams::committed_twice(lab))),
    (&streams::FLUSHED_TWICE, |lab| Box::pin(streams::flushed_twice(lab))),
    (&streams::FLUSHED_LATE, |lab| Box::pin(streams::flushed_late(lab))),
    (&streams::STREAM_LIFE, |lab| Box::pin(streams::stream_life(lab))),
    (&jobs::TWINS, |lab| Box::pin(jobs::twins(lab))),
    (&jobs::BURNED, |lab| Box::pin(jobs::burned(lab))),
    (&schema::OLD_DESCRIPTOR, |lab| Box::pin(schema::old_descriptor(lab))),
    (&change::TOMBSTONE, |lab| Box::pin(change::tombstone(lab))),
];

/// What the names of a run's tables, jobs and transcript begin with, by the time since the epoch at which it began.
pub fn prefix(began: Duration) -> String {
    format!("kcbq_probe_{}", began.as_secs())
}

/// Asks all questions; those that are not answered when `stop` comes could not be run. `dataset` gets the tables,
/// in place of the configuration's. Must run inside a tokio runtime.
pub async fn probe(
    settings: &Settings,
    dataset: Option<&str>,
    began: Duration,
    stop: &CancellationToken,
) -> Transcript {
    let remotes = Arc::new(remotes(settings, dataset, began));
    let log = Log::default();
    let brokers = bounded(kafka::look(settings, &log), PROBE_MAX, stop);
    let bigquery = bigquery(&remotes, PROBE_MAX, stop);
    let ((mut entries, left), verdict) = tokio::join!(bigquery, brokers);
    entries.push(Entry { question: &kafka::METADATA, log, verdict });
    Transcript { head: head(settings, &remotes), entries, left }
}

/// The probes of BigQuery, each within its time; and what is left of them.
async fn bigquery(
    remotes: &Arc<Remotes>,
    limit: Duration,
    stop: &CancellationToken,
) -> (Vec<Entry>, Vec<String>) {
    let asked = PROBES.iter().map(|(question, look)| async move {
        let lab = Lab::new(Arc::clone(remotes));
        let verdict = bounded(look(&lab), limit, stop).await;
        let cleaned = tokio::time::timeout(CLEAN_MAX, lab.clean()).await;
        let late = |_| vec![format!("a table {}_*, for a day: no answer", remotes.prefix())];
        (Entry { question, log: lab.log, verdict }, cleaned.unwrap_or_else(late))
    });
    let (entries, left): (Vec<_>, Vec<_>) = join_all(asked).await.into_iter().unzip();
    (entries, left.concat())
}

async fn bounded(
    look: impl Future<Output = Outcome>,
    limit: Duration,
    stop: &CancellationToken,
) -> Verdict {
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(limit, look) => outcome.unwrap_or_else(|_| {
            let why = format!("it is not at its end after {} s", limit.as_secs());
            Err(Trouble::new(why, "see how far it came, in the transcript, and run it again"))
        }),
        () = stop.cancelled() => Err(Trouble::new("it was stopped by a signal", "run it again")),
    };
    outcome.unwrap_or_else(Verdict::NotRun)
}

fn remotes(settings: &Settings, dataset: Option<&str>, began: Duration) -> Remotes {
    let bigquery = &settings.bigquery;
    let trouble = |error: &dyn std::error::Error| {
        Trouble::new(
            chain(error),
            "check `bigquery.credentials`, `endpoint` and `storage_endpoint`",
        )
    };
    let rest = bigquery.connect(PROBES.len()).map(|rest| Arc::new(rest) as Arc<dyn Rest>);
    let rpc = match bigquery.has_storage() {
        true => bigquery
            .connect_storage()
            .map(|rpc| Arc::new(rpc) as Arc<dyn Rpc>)
            .map_err(|error| trouble(&error)),
        false => Err(Trouble::new(
            "`bigquery.endpoint` is an emulator without a Storage Write API",
            "set `bigquery.storage_endpoint`",
        )),
    };
    Remotes {
        rest: rest.map_err(|error| trouble(&error)),
        rpc,
        project: bigquery.project.as_str().into(),
        dataset: dataset.unwrap_or(&bigquery.dataset).into(),
        location: bigquery.location.clone(),
        began,
    }
}

fn head(settings: &Settings, remotes: &Remotes) -> Vec<(&'static str, String)> {
    let began = i64::try_from(remotes.began.as_secs()).unwrap_or_default();
    let began = OffsetDateTime::from_unix_timestamp(began).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let bigquery = &settings.bigquery;
    let endpoint =
        |set: &Option<String>, default: &str| set.as_deref().unwrap_or(default).to_owned();
    vec![
        ("time", began.format(&Rfc3339).unwrap_or_default()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("BigQuery", endpoint(&bigquery.endpoint, gcp::http::ENDPOINT)),
        ("Storage Write API", endpoint(&bigquery.storage_endpoint, gcp::grpc::ENDPOINT)),
        ("project", remotes.project.to_string()),
        ("dataset", remotes.dataset.to_string()),
        ("`bigquery.location`", endpoint(&remotes.location, "not set")),
        ("tables", format!("{}_*", remotes.prefix())),
        ("Kafka", settings.kafka.bootstrap_servers.join(", ")),
    ]
}
