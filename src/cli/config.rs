//! `kcbq config schema|example|reference`.

use std::process::ExitCode;

use clap::Subcommand;

use crate::{cli, config};

/// What to print.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// The JSON Schema of the configuration file, for editors
    Schema,
    /// An example to start from
    Example,
    /// Every key with its meaning and default, as Markdown
    Reference,
}

impl Command {
    pub(crate) fn execute(self) -> anyhow::Result<ExitCode> {
        cli::print(&match self {
            Self::Schema => config::schema_text(),
            Self::Example => config::EXAMPLE.to_owned(),
            Self::Reference => config::reference::reference(),
        })
    }
}
