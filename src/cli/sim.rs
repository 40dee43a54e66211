//! `kcbq sim`.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::ValueEnum;
use tokio_util::sync::CancellationToken;

use crate::{
    cli,
    ops::logging::LogSettings,
    sim::{
        self, FaultScript, SimOptions, SimSettings, StoreMode, TlsSettings, WireSettings,
        settings::LoadSettings,
    },
};

/// Arguments of `sim`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where BigQuery's REST API listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9050")]
    rest: SocketAddr,
    /// Where the Schema Registry listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    registry: SocketAddr,
    /// Where Cloud Storage's JSON API listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4443")]
    gcs: SocketAddr,
    /// Where BigQuery's Storage Write API listens (gRPC)
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9060")]
    grpc: SocketAddr,
    /// A certificate in PEM: all fronts but the Schema Registry's then speak TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// A bucket that exists; may be repeated. Without it every bucket does
    #[arg(long = "bucket", value_name = "NAME")]
    buckets: Vec<String>,
    /// How long a load job waits before it runs, such as `2s`
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = milliseconds)]
    load_pending: u64,
    /// How long a load job runs, such as `5s`
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = milliseconds)]
    load_running: u64,
    /// Load jobs that a table may have in a day
    #[arg(long, value_name = "JOBS", default_value = "1500")]
    load_jobs_per_table_day: usize,
    /// How long each answer takes at least, such as `50ms`
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = milliseconds)]
    answer_delay: u64,
    /// What one connection may carry, in bytes per second
    #[arg(long, value_name = "BYTES")]
    connection_bytes: Option<u64>,
    /// What is kept of the rows
    #[arg(long, value_enum, default_value = "rows")]
    store: Store,
    /// How long a created or changed table is not visible to inserts, such as `3m`
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = milliseconds)]
    schema_delay: u64,
    /// How long an insertId is remembered; `0ms` stores every row that is sent again
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = milliseconds)]
    dedupe: u64,
    /// What the Schema Registry demands by HTTP basic authentication
    #[arg(long, value_name = "USER:PASSWORD")]
    registry_auth: Option<String>,
    /// A fault script (YAML or JSON): which requests fail, and how
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
}

/// What is kept of the rows.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Store {
    /// Every cell
    Rows,
    /// Coordinates and a hash of each row
    Ledger,
    /// Numbers only; rows are not validated
    Count,
}

impl Arguments {
    pub(crate) fn execute(self) -> anyhow::Result<ExitCode> {
        LogSettings::default().install()?;
        let options = self.options()?;
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        cli::block_on(async {
            let stop = CancellationToken::new();
            let shutdown = cli::shutdown::requested()?;
            let running = sim::serve(options, stop.clone()).await?;
            cli::print(&format!(
                "BigQuery REST    {scheme}://{}\nSchema Registry  http://{}\nCloud Storage    {scheme}://{}\nStorage Write    {scheme}://{}\n",
                running.rest_addr, running.registry_addr, running.gcs_addr, running.grpc_addr
            ))?;
            shutdown.await;
            stop.cancel();
            running.stopped().await;
            Ok(ExitCode::SUCCESS)
        })
    }

    fn options(&self) -> anyhow::Result<SimOptions> {
        let faults = match &self.faults {
            None => FaultScript::default(),
            Some(path) => {
                let context = || format!("cannot read the fault script {}", path.display());
                let text = std::fs::read_to_string(path).with_context(context)?;
                serde_saphyr::from_str(&text).with_context(context)?
            }
        };
        let store = match self.store {
            Store::Rows => StoreMode::Rows,
            Store::Ledger => StoreMode::Ledger,
            Store::Count => StoreMode::Count,
        };
        let pair = self.tls_certificate.clone().zip(self.tls_key.clone());
        Ok(SimOptions {
            tls: pair.map(|(certificate, key)| TlsSettings { certificate, key }),
            rest: self.rest,
            registry: self.registry,
            gcs: self.gcs,
            grpc: self.grpc,
            settings: SimSettings {
                store,
                dedupe_ms: self.dedupe,
                create_delay_ms: self.schema_delay,
                alter_delay_ms: self.schema_delay,
                registry_basic_auth: self.registry_auth.clone(),
                buckets: self.buckets.clone(),
                load: LoadSettings {
                    pending_ms: self.load_pending,
                    running_ms: self.load_running,
                    per_table_max: self.load_jobs_per_table_day,
                    ..LoadSettings::default()
                },
                ..SimSettings::default()
            },
            faults,
            wire: WireSettings {
                answer_delay: Duration::from_millis(self.answer_delay),
                connection_bytes_per_s: self.connection_bytes,
            },
        })
    }
}

/// A time with its unit, in milliseconds.
fn milliseconds(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits).unwrap_or_default();
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err("write a number and a unit: `50ms`, `2s` or `3m`".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{error}"))?;
    number.checked_mul(factor).ok_or_else(|| "too long".to_owned())
}
