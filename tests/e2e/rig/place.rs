//! Where a run keeps its files, and where the installed parts lie.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// A folder for one scenario: data of servers, logs, configurations. Removed at the end unless
/// `KCBQ_E2E_KEEP` is set.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    _guard: Option<TempDir>,
}

impl Place {
    /// Makes a new folder.
    pub(crate) fn new(scenario: &str) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("kcbq-e2e-{scenario}-"))
            .tempdir()
            .context("making the scenario's folder")?;
        if std::env::var_os("KCBQ_E2E_KEEP").is_some() {
            let path = dir.keep();
            println!("keeping {}", path.display());
            return Ok(Self { path, _guard: None });
        }
        Ok(Self { path: dir.path().to_owned(), _guard: Some(dir) })
    }

    /// A path inside.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// `tests/e2e/env`, with the scripts that start the real parts.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/env")
}

/// The cache that the scripts installed into.
pub(crate) fn cache() -> PathBuf {
    match std::env::var_os("KCBQ_CACHE") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/kcbq-e2e"),
    }
}

/// A port of the loopback interface that nobody listens on at this moment.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}
