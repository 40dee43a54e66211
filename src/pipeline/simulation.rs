//! Seeded simulation of delivery: production cores, commit book, framing and classifier against a
//! simulated Kafka group and the BigQuery simulator's core, in virtual time, under faults.
//!
//! One seed is one whole history, and the same seed is always the same history.
//!
//! * `cargo test --lib simulation` runs [`HISTORIES`] seeds; `KCBQ_SIM_HISTORIES=100000` runs more.
//! * `KCBQ_SIM_FIRST=5000` starts at another seed.
//! * `KCBQ_SIM_SEED=17 cargo test --lib simulation::one_seed -- --nocapture` prints the events of one
//!   history; `KCBQ_SIM_DEFECT=NackDoesNotBlock` switches a defect on in it.

mod bigquery;
mod checkers;
mod commits;
mod coverage;
mod encoder;
mod env;
mod group;
mod history;
mod ownership;
mod plan;
mod records;
mod replica;
mod rng;
mod wire;
mod worker;
mod world;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use self::{
    coverage::{Coverage, Mark},
    world::{Report, run},
};
use crate::delivery::defect::Defect;

/// Histories in an ordinary `cargo test`.
const HISTORIES: u64 = 1_000;

/// Seeds that are tried until a defect is found.
const DEFECT_SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs seeds on all processors; the reports come in no order.
fn run_all(first: u64, count: u64, each: impl Fn(Report) + Sync) {
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    each(run(seed, None, false));
                }
            });
        }
    });
}

#[test]
fn histories() {
    let count = number("KCBQ_SIM_HISTORIES").unwrap_or(HISTORIES);
    let first = number("KCBQ_SIM_FIRST").unwrap_or(0);
    let total = std::sync::Mutex::new((Coverage::default(), Vec::new(), 0, 0));
    let start = Instant::now();
    run_all(first, count, |report| {
        let missing = report.coverage.missing(&Mark::EACH);
        let mut total = total.lock().unwrap();
        total.0.add(&report.coverage);
        total.2 += report.fingerprint.1;
        total.3 = total.3.max(report.settled_ms);
        if !missing.is_empty() {
            total.1.push(format!("seed {}: never reached {missing:?}", report.seed));
        }
        if let Some(violation) = report.violations.first() {
            let again = run(report.seed, None, false).fingerprint == report.fingerprint;
            total.1.push(format!("seed {} (replays: {again}): {violation}", report.seed));
        }
    });
    let (coverage, mut failures, events, settled_ms) = total.into_inner().unwrap();
    println!(
        "{count} histories, {events} events, settled within {settled_ms} ms of virtual time, \
         {:.1} s\n{coverage:?}",
        start.elapsed().as_secs_f64()
    );
    let missing = coverage.missing(&Mark::SET);
    failures.sort();
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
    assert!(missing.is_empty(), "the set never reached {missing:?}");
}

#[test]
fn a_seed_is_one_history() {
    for seed in 0..10 {
        let (first, second) = (run(seed, None, true), run(seed, None, true));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first.fingerprint, second.fingerprint);
    }
    assert_ne!(run(0, None, false).fingerprint, run(1, None, false).fingerprint);
}

#[test]
fn every_defect_is_found() {
    let defects = [
        Defect::CommitBeforeAcknowledgement,
        Defect::IdentityWithoutTopic,
        Defect::NackDoesNotBlock,
        Defect::CommitAfterRevoke,
        Defect::AnswerLostTakenForRefused,
        Defect::StaleAfterResume,
    ];
    let mut survivors = Vec::new();
    for defect in defects {
        let found = (0..DEFECT_SEEDS).find_map(|seed| {
            let violations = run(seed, Some(defect), false).violations;
            violations.into_iter().next().map(|violation| (seed, violation))
        });
        match found {
            Some((seed, violation)) => {
                println!("{defect:?}: found after {} seeds: {violation}", seed + 1);
            }
            None => survivors.push(defect),
        }
    }
    assert!(survivors.is_empty(), "not found in {DEFECT_SEEDS} seeds: {survivors:?}");
}

#[test]
fn one_seed() {
    let Some(seed) = number("KCBQ_SIM_SEED") else { return };
    let defect = match std::env::var("KCBQ_SIM_DEFECT").as_deref() {
        Ok("CommitBeforeAcknowledgement") => Some(Defect::CommitBeforeAcknowledgement),
        Ok("IdentityWithoutTopic") => Some(Defect::IdentityWithoutTopic),
        Ok("NackDoesNotBlock") => Some(Defect::NackDoesNotBlock),
        Ok("CommitAfterRevoke") => Some(Defect::CommitAfterRevoke),
        Ok("AnswerLostTakenForRefused") => Some(Defect::AnswerLostTakenForRefused),
        Ok("StaleAfterResume") => Some(Defect::StaleAfterResume),
        _ => None,
    };
    let report = run(seed, defect, true);
    for line in &report.trace {
        println!("{line}");
    }
    println!("{:?}\n{:?}", report.coverage, report.violations);
    assert!(report.violations.is_empty(), "seed {seed}");
}
