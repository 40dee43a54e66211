//! The `kcbq` binary: parse arguments, call the library, print the error chain, exit code.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use kcbq::cli::Arguments;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Arguments::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            // Where standard error is gone, the exit code is all there is to say.
            drop(writeln!(std::io::stderr(), "error: {}", chain(&error)));
            ExitCode::FAILURE
        }
    }
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
