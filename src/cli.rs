//! The command line, one file per subcommand.

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

pub mod check;
pub mod completions;
pub mod config;
#[cfg(feature = "sim")]
pub mod demo;
pub mod explain;
pub mod probe;
pub mod run;
pub mod shutdown;
#[cfg(feature = "sim")]
pub mod sim;

const EXIT_CODES: &str = "\
Exit codes:
  0  done; for `run`: drained after SIGTERM or SIGINT
  1  failed; for `check`: at least one problem was found; for `probe`: some assumption is wrong
  2  the command line is wrong; for `probe`: some probe could not be run

Environment:
  KCBQ_LOG  replaces the configuration's log.filter";

/// Kafka to BigQuery: consumer groups in, tables that look after themselves out, nothing lost.
#[derive(Debug, Parser)]
#[command(name = "kcbq", version, about, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the service until SIGTERM or SIGINT
    Run(run::Arguments),
    /// Looks for everything that can be wrong, all at once
    Check(check::Arguments),
    /// Says how each topic would be written now, and why
    Explain(explain::Arguments),
    /// Asks BigQuery and the brokers whether they do what the service assumes
    Probe(probe::Arguments),
    #[cfg(feature = "sim")]
    /// Shows the service at work, with nothing else installed
    Demo(demo::Arguments),
    #[cfg(feature = "sim")]
    /// Serves the BigQuery and Schema Registry simulator
    Sim(Box<sim::Arguments>),
    /// Prints the configuration's schema, an example, or the reference
    #[command(subcommand)]
    Config(config::Command),
    /// Prints a completion script for a shell
    Completions(completions::Arguments),
}

impl Arguments {
    /// Does what was asked for. Phase one: everything that needs no runtime.
    ///
    /// # Errors
    ///
    /// The error chain for the terminal; exit code 1.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(arguments) => arguments.execute(),
            Command::Check(arguments) => arguments.execute(),
            Command::Explain(arguments) => arguments.execute(),
            Command::Probe(arguments) => arguments.execute(),
            #[cfg(feature = "sim")]
            Command::Demo(arguments) => arguments.execute(),
            #[cfg(feature = "sim")]
            Command::Sim(arguments) => arguments.execute(),
            Command::Config(command) => command.execute(),
            Command::Completions(arguments) => arguments.execute(),
        }
    }
}

/// Phase two: the runtime, and `work` in it.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("kcbq-io")
        .build()
        .context("cannot start the runtime")?
        .block_on(work)
}

/// Prints to standard output; a reader that went away (`kcbq … | head`) is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
