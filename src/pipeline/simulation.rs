//! Seeded simulation of delivery: the production code against a simulated Kafka group and the BigQuery
//! simulator's core, in virtual time, under faults.
//!
//! One seed is one whole history, and the same seed is always the same history: three to five processes,
//! each an async runtime's tasks in paused time, and an event queue for everything outside them.
//!
//! * `cargo test --lib simulation` runs [`HISTORIES`] seeds.
//! * `KCBQ_SIM_HISTORIES=100000 cargo test --release --lib simulation::histories -- --nocapture` runs more,
//!   and prints what they reached; `KCBQ_SIM_FIRST=5000` starts at another seed.
//! * `KCBQ_SIM_SEED=17 cargo test --lib simulation::one_seed -- --nocapture` prints the events of one
//!   history; `KCBQ_SIM_DEFECT=NackDoesNotBlock` switches a defect on in it.
//!
//! # What is production code, and what is not
//!
//! Production: the delivery core, the topic encoder (records are Avro and JSON bytes, plans are compiled),
//! the preparer, the schema gate, the catalog adapter, the insertAll path with its retries, framing and
//! classifier, the load path with its chains, staged objects and jobs (each topic is loaded in a third of
//! the histories), the commit book and loop, ownership, the final commits of a revoke, the meaning of commit
//! errors, the commit metadata, the decision where a lane begins.
//!
//! Not: the threads and channels around them (the poll loop, the worker's and the dispatcher's loops, whose
//! order [`worker`], [`replica`] and [`revoking`] follow), librdkafka and the brokers ([`group`]), HTTP, the
//! registry's and the dead-letter producer's clients. `tests/it` and `tests/e2e` run those.
//!
//! # Faults
//!
//! By the numbers of the design's fault list, as `docs/regressions.md` has it; every one has a counter
//! ([`coverage`]) that a run of many seeds must have reached.
//!
//! | fault | how | counter |
//! |---|---|---|
//! | 1 broker down | a third of the lanes gives no records | `BrokerDown` |
//! | 2 coordinator away | neither heartbeats nor commits are answered | `CoordinatorAway`, `CommitRefused` |
//! | 3 rebalance storm | lanes move for no reason | `Storm`, `Rebalance` |
//! | 4 partition lost | a process stops for longer than its session, or misses a rebalance | `Lost`, `Zombie`, `ZombieAnswer` |
//! | 5 commit unknown | lost, late, or its answer lost | `CommitUnknown`, `CommitLate`, `CommitBehindUnknown` |
//! | 6 commit fenced | by membership and generation | `CommitFenced`, `CommitRefused` |
//! | 9 partitions added | one more while it runs | `NewPartition` |
//! | 12, 14 registry | 503, 429, silence; a schema that it learns of late | `RegistryFault`, `UnknownSchemaId` |
//! | 15 corrupt Avro | magic byte, trailing and missing bytes | `LetterDecode` |
//! | 16 schema race | processes add columns, widen and create at once | `SchemaRace`, `CreateRace` |
//! | 17, 18 stale metadata | a table, a column, a wider type that streaming sees late | `TableNotVisible`, `StaleSchema`, `StaleType` |
//! | 19, 31 rows refused | `invalid` and `stopped` per row | `RowsRejected`, `RowsStopped` |
//! | 23 quotas | rate limit and quota on rows and tables | `Throttled`, `QuotaExceeded` |
//! | 26 server errors | 503 before or after the rows were stored | `Refused`, `AmbiguousAnswer` |
//! | 28 answer lost | also requests that arrive after the client has given up | `StoredWithoutAnswer`, `LateArrival` |
//! | 33 token expired | 401 although the token was renewed, on rows, tables, jobs and objects | `TokenRefused` |
//! | 35 GCS 412 | an upload that is repeated finds its object stored | `ObjectExists` |
//! | 36 GCS | uploads that fail (503, 403, 429), are stored without an answer, or late; objects that nobody needs | `StageFault`, `ObjectDeleted` |
//! | 37 load jobs fail | `backendError`, `quotaExceeded`, warnings, long runs | `JobFailed` |
//! | 25, 37 job ids | jobs that are asked for twice, by one owner or two, whose answer is lost or that arrive late | `JobExists`, `JobUnknown`, `LaneRestarted` |
//! | 39 clock skew | the wall clock of a process is wrong by up to an hour, and by another time in its next life | `SkewedClock` |
//! | 42 SIGTERM | drains, commits, leaves | `Shutdown` |
//! | 43 dead letters fail | refused, or stored without an answer | `DeadLetterFault`, `DeadLetterUnknown` |
//! | no dead-letter topic | two topics have none until faults end: their lanes halt, try again, are given up | `Halt`, `HaltTried`, `DrainHeld` |
//! | kill | with requests under way | `Kill`, `KillWithUnacknowledged` |
//!
//! Not simulated, of those that the design would have simulated: 27, 29 (gRPC), which this service does not
//! use yet; 40 (disk full): there is no local state; 45 (reload): there is none. Nor is a job that drops rows
//! (38), which waits for a person for ever (`write::load::run`). That a token is renewed before it is
//! refused lies below the REST port (`gcp::auth`, `gcp::http`). The wall clock deals load jobs their turns
//! (`write::load::pace`) and decides nothing else. Retention, truncation and recreated topics (7, 8, 10) are
//! `kafka::start`'s and `tests/it`'s.

mod avro;
mod bigquery;
mod cells;
mod checkers;
mod commits;
mod coverage;
mod day;
mod doubts;
mod env;
mod group;
mod history;
mod letters;
mod line;
mod plan;
mod process;
mod records;
mod recovery;
mod replica;
mod revoking;
mod rng;
mod topics;
mod wire;
mod worker;
mod world;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use self::{
    coverage::{Coverage, Mark},
    world::{Report, run},
};
use crate::delivery::defect::Defect;

/// Histories in an ordinary `cargo test`.
const HISTORIES: u64 = 2_000;

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
    let total = Mutex::new(Total::default());
    let start = Instant::now();
    run_all(first, count, |report| total.lock().unwrap().add(&report));
    let Total { coverage, mut failures, events, mut settled_ms } = total.into_inner().unwrap();
    settled_ms.sort_unstable();
    let settled = |per_mille: usize| settled_ms[(settled_ms.len() - 1) * per_mille / 1_000].0;
    let slowest = settled_ms.iter().rev().take(5).map(|(_, seed)| seed).collect::<Vec<_>>();
    println!(
        "{count} histories from seed {first}, {events} events, {:.1} s\n\
         settled after the faults within {} ms of virtual time (half), {} ms (99 %), {} ms (all); \
         slowest seeds: {slowest:?}\n\
         {coverage:?}\n{} failed",
        start.elapsed().as_secs_f64(),
        settled(500),
        settled(990),
        settled(1_000),
        failures.len()
    );
    let missing = coverage.missing(&Mark::SET);
    failures.sort();
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
    assert!(missing.is_empty(), "the set never reached {missing:?}");
}

/// What many histories came to.
#[derive(Default)]
struct Total {
    coverage: Coverage,
    failures: Vec<String>,
    events: u64,
    settled_ms: Vec<(u64, u64)>,
}

impl Total {
    fn add(&mut self, report: &Report) {
        let seed = report.seed;
        self.coverage.add(&report.coverage);
        self.events += report.fingerprint.1;
        self.settled_ms.push((report.settled_ms, seed));
        let missing = report.coverage.missing(&Mark::EACH);
        if !missing.is_empty() {
            self.failures.push(format!("seed {seed}: never reached {missing:?}"));
        }
        if let Some(violation) = report.violations.first() {
            let again = run(seed, None, false).fingerprint == report.fingerprint;
            self.failures.push(format!("seed {seed} (replays: {again}): {violation}"));
        }
    }
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
    let mut survivors = Vec::new();
    for defect in Defect::ALL {
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
    let defect = std::env::var("KCBQ_SIM_DEFECT").ok().map(|name| {
        let found = Defect::ALL.into_iter().find(|defect| format!("{defect:?}") == name);
        found.unwrap_or_else(|| panic!("no such defect: {name}"))
    });
    let report = run(seed, defect, true);
    for line in &report.trace {
        println!("{line}");
    }
    println!("{:?}\n{:?}", report.coverage, report.violations);
    assert!(report.violations.is_empty(), "seed {seed}");
}
