//! `kcbq probe`.

use std::{
    fs::File,
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

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
    /// Where the transcript goes; by default `kcbq_probe_TIME.md`
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn execute(self) -> anyhow::Result<ExitCode> {
        let settings = config::load(&self.config, &config::Process)?;
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let output = self.output.unwrap_or_else(|| format!("{}.md", probe::prefix(began)).into());
        let context = || format!("cannot write {}", output.display());
        // Before anything is asked: an answer that cannot be kept need not be.
        let mut file = File::create(&output).with_context(context)?;
        let transcript = cli::block_on(run(settings, self.dataset.as_deref(), began))?;
        file.write_all(transcript.markdown().as_bytes()).with_context(context)?;
        cli::print(&format!("{}transcript: {}\n", transcript.summary(), output.display()))?;
        Ok(ExitCode::from(transcript.exit_code()))
    }
}

/// Asks until all is answered, or until a signal comes; then only tables are deleted.
async fn run(
    settings: Settings,
    dataset: Option<&str>,
    began: Duration,
) -> anyhow::Result<probe::transcript::Transcript> {
    let stop = CancellationToken::new();
    let shutdown = cli::shutdown::requested()?;
    let probing = probe::probe(&settings, dataset, began, &stop);
    tokio::pin!(probing);
    tokio::select! {
        transcript = &mut probing => return Ok(transcript),
        () = shutdown => stop.cancel(),
    }
    Ok(probing.await)
}
