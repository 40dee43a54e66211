//! `kcbq explain`.

use std::{path::PathBuf, process::ExitCode};

use crate::{app::explain, cli, config};

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "KCBQ_CONFIG")]
    config: PathBuf,
}

impl Arguments {
    pub(crate) fn execute(self) -> anyhow::Result<ExitCode> {
        let settings = config::load(&self.config, &config::Process)?;
        let ask = move || explain::explain(&settings);
        let text = cli::block_on(async { tokio::task::spawn_blocking(ask).await? })?;
        cli::print(&text)
    }
}
