//! Everything that can be wrong outside the file, found by independent probes that run at once.

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use crate::config::Settings;

mod bucket;
mod freshness;
pub mod probes;
mod storage;

/// How long one probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It will run; someone should know.
    Warning,
    /// It will not run, or not as configured.
    Problem,
}

/// One line of `kcbq check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `file`, `kafka`, `topics`, `group`, `registry`, `dataset`, ….
    pub area: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    /// Something is as it should be.
    pub fn ok(area: &'static str, message: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Ok, message: message.into(), remedy: None }
    }

    /// Something to know.
    pub fn warning(area: &'static str, message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, ..Self::ok(area, message) }
    }

    /// Something is wrong.
    pub fn problem(area: &'static str, message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Problem, ..Self::ok(area, message) }
    }

    /// The same finding with what to do about it.
    #[must_use]
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "PROBLEM",
        };
        write!(f, "{verdict:<8} {:<9} {}", self.area, self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, " – {remedy}"),
            None => Ok(()),
        }
    }
}

/// A probe: what it looks at, and the look.
pub type Probe = (&'static str, BoxFuture<'static, Vec<Finding>>);

/// Runs every probe at once, each within its time; findings in the probes' order.
pub async fn run(probes: Vec<Probe>, timeout: Duration) -> Vec<Finding> {
    let mut looks = JoinSet::new();
    for (index, (area, look)) in probes.into_iter().enumerate() {
        looks.spawn(async move {
            let late = || {
                let message = format!("no answer within {} s", timeout.as_secs());
                let remedy = "check the address, and that a firewall lets this machine through";
                vec![Finding::problem(area, message).remedy(remedy)]
            };
            (index, tokio::time::timeout(timeout, look).await.unwrap_or_else(|_| late()))
        });
    }
    let mut found = looks.join_all().await;
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().flat_map(|(_, findings)| findings).collect()
}

/// Asks every remote that `settings` name.
pub async fn remotes(settings: Settings) -> Vec<Finding> {
    let kafka = settings.clone();
    let probes: Vec<Probe> = vec![
        ("kafka", Box::pin(blocking("kafka", move || probes::kafka(&kafka)))),
        ("registry", Box::pin(probes::registry(settings.clone()))),
        ("bucket", Box::pin(bucket::bucket(settings.clone()))),
        ("storage", Box::pin(storage::storage(settings.clone()))),
        ("bigquery", Box::pin(probes::bigquery(settings))),
    ];
    run(probes, PROBE_TIMEOUT).await
}

async fn blocking(
    area: &'static str,
    look: impl FnOnce() -> Vec<Finding> + Send + 'static,
) -> Vec<Finding> {
    match tokio::task::spawn_blocking(look).await {
        Ok(findings) => findings,
        Err(error) => vec![Finding::problem(area, error.to_string())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_hangs_delays_and_hides_no_other() {
        let probes: Vec<Probe> = vec![
            ("kafka", Box::pin(std::future::pending())),
            ("dataset", Box::pin(async { vec![Finding::ok("dataset", "raw is there")] })),
        ];
        let findings = run(probes, Duration::from_secs(5)).await;
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(lines[0].starts_with("PROBLEM  kafka     no answer within 5 s – "), "{lines:?}");
        assert_eq!(lines[1], "ok       dataset   raw is there");
    }
}
