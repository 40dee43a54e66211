//! `kcbq probe`.

use std::{fs::File, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::{app::probe, cli, config, config::Settings};

/// Arguments of `probe`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "KCBQ_CONFIG")]
    config: PathBuf,
    /// The dataset that gets the tables, in place of the configuration's
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Where the transcript goes
    #[arg(long, value_name = "FILE", default_value = "kcbq-probe.md")]
    output: PathBuf,
}

impl Arguments {
    pub(crate) fn execute(self) -> anyhow::Result<ExitCode> {
        let settings = config::load(&self.config, &config::Process)?;
        let context = || format!("cannot write {}", self.output.display());
        // Before anything is asked: an answer that cannot be kept need not be.
        let mut file = File::create(&self.output).with_context(context)?;
        let transcript = cli::block_on(run(settings, self.dataset.as_deref()))?;
        file.write_all(transcript.markdown().as_bytes()).with_context(context)?;
        cli::print(&transcript.summary())?;
        Ok(ExitCode::from(transcript.exit_code()))
    }
}

/// Asks until all is answered, or until a signal comes; then only tables are deleted.
async fn run(
    settings: Settings,
    dataset: Option<&str>,
) -> anyhow::Result<probe::transcript::Transcript> {
    let stop = CancellationToken::new();
    let shutdown = cli::shutdown::requested()?;
    let probing = probe::probe(&settings, dataset, &stop);
    tokio::pin!(probing);
    tokio::select! {
        transcript = &mut probing => return Ok(transcript),
        () = shutdown => stop.cancel(),
    }
    Ok(probing.await)
}
