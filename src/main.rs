//! The `kcbq` binary: parse arguments, call the library, print the error chain, exit code.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use kcbq::cli::Arguments;

/// Batches of hundreds of tables grow and go, each at its own pace. The system's allocator keeps what they leave in pieces: with 300 tables
/// three times as much memory as was in use. It serves librdkafka, too, whose messages are freed by other threads than made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    no_huge_pages();
    match Arguments::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            // Where standard error is gone, the exit code is all there is to say.
            drop(writeln!(std::io::stderr(), "error: {}", chain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Where the system gives huge pages to everybody, a buffer of a few kilobytes is 2 MiB of resident memory, cleared at its first
/// touch: resident memory would be several times what is in use. Failing to say so changes nothing
/// else, as on a kernel that was built without them.
fn no_huge_pages() {
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(true).ok();
}

/// The error and what lies underneath, one per line; nothing is repeated that a cause said already.
fn chain(error: &anyhow::Error) -> String {
    let mut lines: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if !lines.last().is_some_and(|line| line.ends_with(&cause)) {
            lines.push(cause);
        }
    }
    lines.join("\n  because: ")
}
