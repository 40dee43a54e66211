//! `kcbq check`.

use std::{path::PathBuf, process::ExitCode};

use crate::{
    app::check::{self, Finding, Verdict},
    cli, config,
    config::ConfigError,
};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "KCBQ_CONFIG")]
    config: PathBuf,
    /// Check the file only; ask no remote
    #[arg(long)]
    offline: bool,
}

impl Arguments {
    pub(crate) fn execute(self) -> anyhow::Result<ExitCode> {
        let findings = match config::load(&self.config, &config::Process) {
            Ok(settings) => {
                let mut findings = vec![Finding::ok("file", "no mistakes")];
                if !self.offline {
                    findings.extend(cli::block_on(async { Ok(check::remotes(settings).await) })?);
                }
                findings
            }
            Err(ConfigError::Invalid(problems)) => {
                let finding =
                    |problem: &config::Problem| Finding::problem("file", problem.to_string());
                problems.iter().map(finding).collect()
            }
            Err(other) => return Err(other.into()),
        };
        let problems =
            findings.iter().filter(|finding| finding.verdict == Verdict::Problem).count();
        let mut text: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
        text.push_str(&match problems {
            0 => "no problem found\n".to_owned(),
            1 => "1 problem found\n".to_owned(),
            many => format!("{many} problems found\n"),
        });
        cli::print(&text)?;
        Ok(ExitCode::from(u8::from(problems > 0)))
    }
}
