//! `kcbq demo`.

use std::process::ExitCode;

use crate::{
    app::{self, DemoOptions},
    cli,
    ops::logging::LogSettings,
};

/// rdkafka's drop closes a consumer that is closed already and logs the refusal as an error.
const FILTER: &str = "warn,rdkafka::consumer::base_consumer=off";

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Stay up at the end and print the admin address; Ctrl-C ends it
    #[arg(long)]
    keep: bool,
    /// Records in the backlog of each topic
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    records: u64,
}

impl Arguments {
    pub(crate) fn execute(self) -> anyhow::Result<ExitCode> {
        LogSettings { filter: FILTER.to_owned(), ..LogSettings::default() }.install()?;
        let options = DemoOptions { keep: self.keep, records: self.records };
        cli::block_on(async {
            let shutdown = cli::shutdown::requested()?;
            app::demo(options, shutdown).await
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
