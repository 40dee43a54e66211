//! Whether load jobs and commits can bring rows as fresh as their topics ask for.

use std::time::Duration;

use crate::{
    app::{
        check::{Finding, probes::Found},
        pace::Pace,
    },
    config::Settings,
    pipeline::paths,
    write::load::pace::JOB_TIME_MAX,
};

/// Topics that are loaded or committed, and whether the quotas allow what they ask for.
pub(super) fn freshness(settings: &Settings, fed: &Found) -> Vec<Finding> {
    let paced = fed.iter().filter_map(|(topic, partitions)| {
        let partitions = u32::try_from(*partitions).unwrap_or(u32::MAX);
        let entry = settings.topic(topic)?;
        let pace = Pace::of(entry, partitions, settings.gcs.is_some())?;
        Some((topic, pace, paths::soonest(entry, partitions)))
    });
    let mut findings = Vec::new();
    for (topic, pace, soonest) in paced {
        let note = pace.note().map_or_else(String::new, |note| format!("; {note}"));
        let sum = format!("`{topic}`: {}: {pace}{note}", pace.what());
        findings.push(match pace.remedy() {
            None => Finding::ok("freshness", sum),
            Some(remedy) => Finding::warning("freshness", sum).remedy(remedy),
        });
        if pace.is_of_commits() {
            continue;
        }
        let Some(gcs) = &settings.gcs else {
            findings.push(kept_in_memory(settings, topic, soonest));
            continue;
        };
        let needed = pace.interval + JOB_TIME_MAX;
        if needed > gcs.orphan_age {
            let hours = needed.as_secs().div_ceil(3_600);
            let message =
                format!("`{topic}`: staged rows may wait {hours} h until their job is done");
            let remedy =
                format!("set `gcs.orphan_age: {hours}h` or more, or another replica sweeps them");
            findings.push(Finding::problem("freshness", message).remedy(remedy));
        }
    }
    findings
}

/// What a topic's jobs can bring where there is no bucket: memory bounds it.
fn kept_in_memory(settings: &Settings, topic: &str, soonest: Duration) -> Finding {
    // At half of the budget reading is held back.
    let megabytes = settings.limits.bytes_in_flight / 2_000_000;
    let rate = megabytes as f64 / soonest.as_secs_f64().max(1.0);
    let seconds = soonest.as_secs();
    let message = format!(
        "`{topic}`: there is no bucket, so rows wait in memory: a process brings {megabytes} MB every \
         {seconds} s at most, {rate:.2} MB/s"
    );
    Finding::warning("freshness", message)
        .remedy("add `gcs: {bucket: …}` for a topic that may write more")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::check::probes::tests::{found, settings};

    #[test]
    fn a_freshness_that_load_jobs_cannot_meet_is_said_with_what_to_do() {
        let lines = |gcs: &str| {
            let mut settings = settings(
                "  - {match: a, value_format: json, write: load, freshness: 15m}\n\
                 \x20 - {match: b, value_format: json}\n\
                 \x20 - {match: c, value_format: json, write: streaming}\n\
                 gcs: {bucket: staging}\n",
            );
            settings.gcs = serde_json::from_str(gcs).unwrap();
            let fed = found(&[("a", 64), ("b", 4), ("c", 1)]);
            let findings = freshness(&settings, &fed);
            findings.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let [load, auto] = lines(r#"{"bucket": "staging"}"#).try_into().unwrap();
        let wanted = "warning  freshness `a`: load jobs: one of each partition every 4096 s: 64 × 86,400 / 4096 = 1350 a day of 1500; a loaded row may be 4156 s old when it is visible, more than the `freshness` of 900 s: the quota of the table – set `freshness: 69m`, or `write: auto`";
        assert!(load.starts_with(wanted), "{load}");
        assert!(auto.starts_with("ok       freshness `b`: load jobs: "), "{auto}");
        assert!(auto.ends_with("once the backlog is small, rows are streamed"), "{auto}");
        let [load, memory] = lines("null").try_into().unwrap();
        assert!(load.starts_with(wanted), "{load}");
        let wanted = "warning  freshness `a`: there is no bucket, so rows wait in memory: a process brings 134 MB every 4096 s at most, 0.03 MB/s – add `gcs: {bucket: …}`";
        assert!(memory.starts_with(wanted), "{memory}");
        let [_, swept, _] =
            lines(r#"{"bucket": "staging", "orphan_age": "25h"}"#).try_into().unwrap();
        let wanted = "PROBLEM  freshness `a`: staged rows may wait 26 h until their job is done – set `gcs.orphan_age: 26h`";
        assert!(swept.starts_with(wanted), "{swept}");
    }
}
