//! Which attempts are repeated, and when.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tower::{BoxError, retry::Policy, timeout::error::Elapsed};

use crate::{
    fault::{Certainty, Fault, FaultKind},
    jitter::Jitter,
    table::TableRef,
    write::{WriteOutcome, stack::Attempt},
};

/// How often, and for how long, a request is repeated as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// Attempts in all. Default: 6.
    pub attempts_max: u32,
    /// No attempt starts later than this many milliseconds after the first. BigQuery remembers
    /// insertIds for about a minute: later repetitions are likelier to be stored twice.
    /// Default: 45,000.
    pub elapsed_max_ms: u64,
    /// The pause before the second attempt, in milliseconds; it doubles from attempt to attempt,
    /// and each is shortened by chance by up to one half. Default: 200.
    pub backoff_initial_ms: u64,
    /// The longest pause between two attempts, in milliseconds. Default: 10,000.
    pub backoff_max_ms: u64,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            attempts_max: 6,
            elapsed_max_ms: 45_000,
            backoff_initial_ms: 200,
            backoff_max_ms: 10_000,
        }
    }
}

impl RetrySettings {
    /// What is wrong with the values, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let backoff = self.backoff_initial_ms;
        let rules = [
            (
                (1..=100).contains(&self.attempts_max),
                "retry.attempts_max must lie between 1 and 100",
            ),
            (
                backoff >= 1 && backoff <= self.backoff_max_ms,
                "retry.backoff_initial_ms must lie between 1 and retry.backoff_max_ms",
            ),
        ];
        rules.iter().filter(|(holds, _)| !holds).map(|(_, text)| (*text).to_owned()).collect()
    }
}

/// Called before each pause, with what made the retry necessary: for metrics and logs.
pub type OnRetry = Arc<dyn Fn(&TableRef, &Fault) + Send + Sync>;

/// Repeats requests that met a passing fault, with the same body.
///
/// Everything else (an expired quota, a missing table, a schema that lags) takes longer than a
/// request may hold its slot, or another body: the caller decides.
#[derive(Clone)]
pub struct RetryPolicy {
    settings: RetrySettings,
    attempts: u32,
    on_retry: OnRetry,
    jitter: Jitter,
}

impl RetryPolicy {
    /// A policy whose first attempt is still to come.
    pub fn new(settings: RetrySettings, on_retry: OnRetry, jitter: Jitter) -> Self {
        Self { settings, attempts: 0, on_retry, jitter }
    }

    /// The pause before the next attempt; `None` if there is none.
    fn pause(&self, fault: &Fault, elapsed: Duration) -> Option<Duration> {
        let passing = matches!(fault.kind, FaultKind::Transient | FaultKind::Throttled);
        if !passing || self.attempts >= self.settings.attempts_max {
            return None;
        }
        let doublings = self.attempts.saturating_sub(1).min(20);
        let backoff = self.settings.backoff_initial_ms.saturating_mul(1 << doublings);
        let backoff = Duration::from_millis(backoff.min(self.settings.backoff_max_ms));
        let pause = backoff
            .mul_f64(1.0 - self.jitter.unit() / 2.0)
            .max(fault.retry_after.unwrap_or_default());
        (elapsed + pause <= Duration::from_millis(self.settings.elapsed_max_ms)).then_some(pause)
    }
}

impl std::fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RetryPolicy").field("attempts", &self.attempts).finish_non_exhaustive()
    }
}

impl Policy<Attempt, WriteOutcome, BoxError> for RetryPolicy {
    type Future = BoxFuture<'static, ()>;

    fn retry(
        &mut self,
        attempt: &mut Attempt,
        result: &mut Result<WriteOutcome, BoxError>,
    ) -> Option<Self::Future> {
        self.attempts += 1;
        if let Err(error) = result {
            *result = Ok(WriteOutcome::Unknown(lost(error)));
        }
        let fault = match result {
            Ok(WriteOutcome::Refused(fault) | WriteOutcome::Unknown(fault)) => fault,
            _ => return None,
        };
        if fault.certainty == Certainty::Unknown {
            attempt.doubt();
        }
        let pause = self.pause(fault, attempt.elapsed())?;
        (self.on_retry)(&attempt.request.table, fault);
        Some(Box::pin(sleep(pause)))
    }

    fn clone_request(&mut self, attempt: &Attempt) -> Option<Attempt> {
        Some(attempt.clone())
    }
}

/// An attempt that ended without an outcome.
fn lost(error: &BoxError) -> Fault {
    let message = if error.is::<Elapsed>() {
        "BigQuery did not answer in time"
    } else {
        "the request was given up"
    };
    Fault::unknown(FaultKind::Transient, "noAnswer", message)
}
