//! `kcbq run`.

use std::{path::PathBuf, process::ExitCode};

use crate::{app, cli, config};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration file; `kcbq config reference` describes it
    #[arg(long, value_name = "FILE", env = "KCBQ_CONFIG")]
    config: PathBuf,
}

impl Arguments {
    pub(crate) fn execute(self) -> anyhow::Result<ExitCode> {
        let settings = config::load(&self.config, &config::Process)?;
        settings.log.install()?;
        cli::block_on(async {
            let shutdown = cli::shutdown::requested()?;
            app::run(settings, shutdown).await
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
