//! Where a run keeps its files, and where the installed parts lie.

use std::{
    net::TcpListener,
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail};
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

/// Ports that no system gives to a client's end of a connection by itself (Linux: from 32768 on, others: from 49152 on):
/// one of those, free when it is looked for, may be taken before its server starts.
const PORTS: Range<u16> = 15_000..32_000;

/// How many were looked at.
static LOOKED_AT: AtomicU32 = AtomicU32::new(0);

/// A port of the loopback interface that nobody listens on at this moment, and another each time. Each process begins
/// elsewhere, so that two that run beside each other hardly meet.
pub(crate) fn free_port() -> Result<u16> {
    for _ in PORTS {
        let start = std::process::id().wrapping_mul(101);
        let next = start.wrapping_add(LOOKED_AT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + u16::try_from(next % PORTS.len() as u32)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free")
}
