//! A real Apache Kafka broker, started by `env/kafka/start` over a folder of the scenario.

use std::{
    path::PathBuf,
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use super::{
    place::{self, Place},
    process::{self, Process, Usage},
};

/// The broker.
#[derive(Debug)]
pub(crate) struct Broker {
    folder: PathBuf,
    port: u16,
    controller_port: u16,
    /// Broker properties beyond those of `env/kafka/start`.
    properties: Vec<String>,
    starts: u32,
    process: Process,
}

impl Broker {
    /// Whether the broker's class path is installed.
    pub(crate) fn installed() -> bool {
        place::cache().join("kafka/libs").is_dir()
    }

    /// Starts a broker over a new folder and waits until it answers.
    pub(crate) fn start(place: &Place) -> Result<Self> {
        Self::start_with(place, |_, _| Vec::new())
    }

    /// The same with further properties, `name=value`, given the listener's and the controller's
    /// ports.
    pub(crate) fn start_with(
        place: &Place,
        properties: impl FnOnce(u16, u16) -> Vec<String>,
    ) -> Result<Self> {
        let (port, controller_port) = (place::free_port()?, place::free_port()?);
        let folder = place.path().to_owned();
        let properties = properties(port, controller_port);
        let process = spawn(&folder, (port, controller_port), &properties, 0)?;
        let mut broker = Self { folder, port, controller_port, properties, starts: 1, process };
        broker.wait_ready()?;
        Ok(broker)
    }

    /// `host:port` of the listener.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sends SIGKILL to the broker.
    pub(crate) fn kill(&mut self) -> Result<ExitStatus> {
        self.process.kill()
    }

    /// Kills the broker and starts it over the same folder and ports; the time it was away.
    pub(crate) fn restart(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.kill()?;
        let ports = (self.port, self.controller_port);
        self.process = spawn(&self.folder, ports, &self.properties, self.starts)?;
        self.starts += 1;
        self.wait_ready()?;
        Ok(began.elapsed())
    }

    /// CPU time and peak memory so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        self.process.usage()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let address = self.address();
        self.process.until("\"Kafka Server started\"", Duration::from_secs(90), |process| {
            process.stdout().contains("Kafka Server started")
        })?;
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &address)
            .set("log_level", "0")
            .create()
            .context("creating a client to ask the broker for its metadata")?;
        let end = Instant::now() + Duration::from_secs(30);
        while client.fetch_metadata(None, Duration::from_secs(2)).is_err() {
            if Instant::now() > end {
                bail!("the broker at {address} answers no metadata request");
            }
        }
        Ok(())
    }
}

/// A file per start: the readiness line of the run before must not be seen.
fn spawn(
    folder: &std::path::Path,
    (port, controller_port): (u16, u16),
    properties: &[String],
    start: u32,
) -> Result<Process> {
    let mut command = process::command(&place::scripts().join("kafka/start"));
    command
        .arg(folder.join("kafka"))
        .args([port.to_string(), controller_port.to_string()])
        .args(properties)
        .env("KCBQ_CACHE", place::cache());
    Process::spawn(&format!("kafka-{start}"), &mut command, folder)
}
