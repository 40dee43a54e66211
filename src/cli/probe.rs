//! `kcbq probe`.

use std::{
    fs::File,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
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
    /// Where the transcript goes, a file that does not exist yet; by default `kcbq_probe_TIME.md`
    #[arg(long, value_name = "FILE", visible_alias = "output")]
    output_file: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn execute(self) -> anyhow::Result<ExitCode> {
        let settings = config::load(&self.config, &config::Process)?;
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let default = || format!("{}.md", probe::prefix(began)).into();
        let output = self.output_file.unwrap_or_else(default);
        let context = || format!("cannot write {}", output.display());
        // Before anything is asked: an answer that cannot be kept need not be.
        let mut file = new_file(&output).with_context(context)?;
        let transcript = cli::block_on(run(settings, self.dataset.as_deref(), began))?;
        file.write_all(transcript.markdown().as_bytes()).with_context(context)?;
        cli::print(&format!("{}transcript: {}\n", transcript.summary(), output.display()))?;
        Ok(ExitCode::from(transcript.exit_code()))
    }
}

/// A file that is made here: nothing is overwritten, and no link is followed, whoever has put it there.
fn new_file(path: &Path) -> anyhow::Result<File> {
    let made = File::options().write(true).create_new(true).open(path);
    made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            anyhow::anyhow!("it exists already; remove it, or name another with --output-file")
        }
        _ => error.into(),
    })
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Probe {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn the_transcript_is_a_new_file_and_never_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let dangling = folder.path().join("dangling");
        std::os::unix::fs::symlink(folder.path().join("none"), &dangling).unwrap();
        for path in [&target, &link, &dangling] {
            let error = new_file(path).unwrap_err().to_string();
            assert!(error.contains("exists already"), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
        assert!(!folder.path().join("none").exists());
        new_file(&folder.path().join("new")).unwrap().write_all(b"x").unwrap();
    }

    #[test]
    fn the_old_name_of_the_option_still_works() {
        for option in ["--output-file", "--output"] {
            let parsed = Probe::parse_from(["probe", "--config", "c.yaml", option, "x.md"]);
            assert_eq!(parsed.arguments.output_file, Some("x.md".into()));
        }
    }
}
