//! The fault script: which requests go wrong, and how.
//!
//! ```json
//! {"seed": 7, "rules": [
//!   {"operation": "tabledata.insertAll", "table": "orders", "nth": 3, "times": 2,
//!    "fault": {"kind": "refuse", "status": 503, "reason": "backendError"}},
//!   {"operation": "tabledata.insertAll", "probability": 0.01, "fault": {"kind": "lose"}},
//!   {"operation": "tables.*", "every": 4, "fault": {"kind": "slow", "ms": 250}}
//! ]}
//! ```
//!
//! Rules are tried in order and the first that fires decides. A rule counts the requests that match
//! its `operation` and `table` and were not decided by an earlier rule. With neither `nth`, `every`
//! nor `probability` it fires at each of them; `times` bounds how often.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The whole script.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultScript {
    /// Seeds every `probability`.
    pub seed: u64,
    /// The rules, first match first.
    pub rules: Vec<FaultRule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// The operation: a REST method's name (`tabledata.insertAll`, `tables.get`, `jobs.insert`,
    /// `storage.objects.insert`, …), `registry.…`, or a prefix followed by `*`. A chunk of a
    /// resumable upload is `storage.objects.upload` or `jobs.upload`; `jobs.run` is not a request but
    /// a load job itself.
    pub operation: String,
    /// Only this table id, this object, this job id (`jobs.get`, `jobs.cancel`) or this registry
    /// subject; or a prefix of one, followed by `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Fire at the nth matching request, from 1 (with `times`: and at the following ones).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nth: Option<u64>,
    /// Fire at every kth matching request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// Fire with this probability, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Fire at most so often. Without it: once with `nth`, else without bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// What happens.
    pub fault: FaultAction,
}

/// What happens to a request, or, at `jobs.run`, to a load job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultAction {
    /// Nothing is applied; the answer is this error. A job fails with it.
    Refuse {
        /// The HTTP status.
        status: u16,
        /// BigQuery's reason; the registry gets it in its message.
        #[serde(default = "backend_error")]
        reason: String,
        /// The message.
        #[serde(default)]
        message: String,
    },
    /// The request is applied; the answer is this error all the same. A job succeeds, with the error
    /// among its `errors` but not as its `errorResult`: a warning.
    FailAfter {
        /// The HTTP status.
        #[serde(default = "internal_status")]
        status: u16,
        /// BigQuery's reason.
        #[serde(default = "backend_error")]
        reason: String,
        /// The message.
        #[serde(default)]
        message: String,
    },
    /// The request waits, then is applied, even if the client has gone. A job stays `PENDING`.
    Hold {
        /// Milliseconds; without them until `POST /sim/v1/release`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ms: Option<u64>,
    },
    /// The request is applied at once and answered late. A job stays `RUNNING` for longer.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
    /// The request is applied and never answered; the connection closes. A job stays `RUNNING` until
    /// it is cancelled or released.
    Lose,
    /// Of the request's body only the first bytes arrive, and there is no answer: a connection that
    /// breaks in a chunk. A job does not know it and runs as ever.
    Cut {
        /// Bytes.
        bytes: usize,
    },
    /// A job leaves its last rows out and is `DONE` without an error, `outputRows` saying so. A
    /// request does not know it and is applied as ever.
    Short {
        /// Rows.
        rows: u64,
    },
}

impl FaultAction {
    /// The kind's name in the script and in counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Refuse { .. } => "refuse",
            Self::FailAfter { .. } => "fail_after",
            Self::Hold { .. } => "hold",
            Self::Slow { .. } => "slow",
            Self::Lose => "lose",
            Self::Cut { .. } => "cut",
            Self::Short { .. } => "short",
        }
    }
}

fn backend_error() -> String {
    "backendError".to_owned()
}

fn internal_status() -> u16 {
    503
}

/// A script at work.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    script: FaultScript,
    progress: Vec<Progress>,
    random: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    matched: u64,
    fired: u64,
}

impl Faults {
    /// The script from its beginning.
    pub fn new(script: FaultScript) -> Self {
        let progress = vec![Progress::default(); script.rules.len()];
        Self { random: script.seed, progress, script }
    }

    /// The script.
    pub fn script(&self) -> &FaultScript {
        &self.script
    }

    /// Decides one request.
    pub fn decide(&mut self, operation: &str, table: &str) -> Option<FaultAction> {
        for (rule, progress) in self.script.rules.iter().zip(&mut self.progress) {
            if !rule.matches(operation, table) {
                continue;
            }
            progress.matched += 1;
            let limit = rule.times.unwrap_or(if rule.nth.is_some() { 1 } else { u64::MAX });
            let chance = || random_unit(&mut self.random);
            if rule.is_due(progress.matched, chance) && progress.fired < limit {
                progress.fired += 1;
                return Some(rule.fault.clone());
            }
        }
        None
    }
}

impl FaultRule {
    fn matches(&self, operation: &str, table: &str) -> bool {
        let fits = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        };
        fits(&self.operation, operation)
            && self.table.as_ref().is_none_or(|wanted| fits(wanted, table))
    }

    fn is_due(&self, matched: u64, chance: impl FnOnce() -> f64) -> bool {
        let by_number = self.nth.is_none_or(|nth| matched >= nth.max(1));
        let by_step = self.every.is_none_or(|every| matched.is_multiple_of(every.max(1)));
        // The draw happens for every match, so that one rule's luck does not shift another's.
        let by_chance = self.probability.is_none_or(|probability| chance() < probability);
        by_number && by_step && by_chance
    }
}

/// `SplitMix64`, as a number in [0, 1).
fn random_unit(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1_u64 << 53) as f64
}

/// How long a hold lasts from `now`; `None` until released.
pub fn held_until(ms: Option<u64>, now: Duration) -> Option<Duration> {
    ms.map(|ms| now + Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(script: &str, requests: usize) -> Vec<usize> {
        let mut faults = Faults::new(serde_json::from_str(script).unwrap());
        (1..=requests).filter(|_| faults.decide("tables.get", "t").is_some()).collect()
    }

    #[test]
    fn counted_rules() {
        let rule = |condition: &str| {
            format!(
                r#"{{"rules":[{{"operation":"tables.*",{condition}"fault":{{"kind":"lose"}}}}]}}"#
            )
        };
        assert_eq!(fired(&rule(r#""nth":3,"#), 6), [3]);
        assert_eq!(fired(&rule(r#""nth":3,"times":2,"#), 6), [3, 4]);
        assert_eq!(fired(&rule(r#""every":2,"#), 6), [2, 4, 6]);
        assert_eq!(fired(&rule(r#""times":2,"#), 6), [1, 2]);
        assert_eq!(fired(&rule(r#""table":"other","#), 6), [0; 0]);
    }

    #[test]
    fn a_seed_decides_the_same_every_time() {
        let script = |seed: u64| {
            format!(
                r#"{{"seed":{seed},"rules":[{{"operation":"*","probability":0.3,"fault":{{"kind":"lose"}}}}]}}"#
            )
        };
        let one = fired(&script(1), 1_000);
        assert_eq!(one, fired(&script(1), 1_000));
        assert_ne!(one, fired(&script(2), 1_000));
        assert!((200..400).contains(&one.len()), "{}", one.len());
    }

    #[test]
    fn unknown_keys_are_refused() {
        let script = r#"{"rules":[{"operation":"*","often":1,"fault":{"kind":"lose"}}]}"#;
        assert!(serde_json::from_str::<FaultScript>(script).is_err());
    }
}
