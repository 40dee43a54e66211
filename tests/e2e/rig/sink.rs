//! One replica of the product: `kcbq run` with a configuration file and an admin port.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::{
    clients::Lane,
    http::Http,
    place::{self, Place},
    process::{self, Process, Usage},
};

/// What a replica is to do. Every field goes into the configuration file as it is; what is left at its default does
/// not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// The product's binary.
    pub(crate) binary: PathBuf,
    /// The broker.
    pub(crate) bootstrap: String,
    /// The consumer group.
    pub(crate) group: String,
    /// BigQuery's address, a simulator's or an emulator's.
    pub(crate) endpoint: String,
    /// The Storage Write API's.
    pub(crate) storage: Option<String>,
    /// The project.
    pub(crate) project: String,
    /// The dataset.
    pub(crate) dataset: String,
    /// The registry's address.
    pub(crate) registry: Option<String>,
    /// The entries of `topics`.
    pub(crate) topics: Vec<Value>,
    /// Further keys of the section `kafka`.
    pub(crate) kafka: Value,
    /// Properties of librdkafka.
    pub(crate) properties: Vec<(&'static str, String)>,
    /// The section `limits`.
    pub(crate) limits: Value,
    /// The write paths' sections of `bigquery`: `streaming`, `storage`, `load`.
    pub(crate) paths: Value,
    /// The section `gcs`.
    pub(crate) gcs: Value,
}

/// A running replica.
#[derive(Debug)]
pub(crate) struct Sink {
    name: String,
    admin: String,
    process: Process,
}

/// A lane of `/status`.
#[derive(Clone, Debug)]
pub(crate) struct LaneState {
    /// Which.
    pub(crate) lane: Lane,
    /// What it does.
    pub(crate) state: String,
    /// Records read and not acknowledged.
    pub(crate) in_flight_records: u64,
}

impl Plan {
    /// The configuration file, without the admin port. JSON is YAML.
    fn file(&self) -> Value {
        let properties: Map<String, Value> =
            self.properties.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let mut file = json!({
            "kafka": {
                "bootstrap_servers": self.bootstrap,
                "group_id": self.group,
                "properties": properties,
            },
            "bigquery": {
                "project": self.project,
                "dataset": self.dataset,
                "endpoint": self.endpoint,
            },
            "topics": self.topics,
        });
        if let Some(storage) = &self.storage {
            file["bigquery"]["storage_endpoint"] = json!(storage);
        }
        if let Some(registry) = &self.registry {
            file["schema_registry"] = json!({"url": registry});
        }
        for (key, value) in self.kafka.as_object().into_iter().flatten() {
            file["kafka"][key] = value.clone();
        }
        if !self.limits.is_null() {
            file["limits"] = self.limits.clone();
        }
        for (section, value) in self.paths.as_object().into_iter().flatten() {
            file["bigquery"][section] = value.clone();
        }
        if !self.gcs.is_null() {
            file["gcs"] = self.gcs.clone();
        }
        file
    }

    /// Starts replica `name`, which is to kill itself at `failpoint` if one is given.
    pub(crate) fn start(&self, place: &Place, name: &str, failpoint: Option<&str>) -> Result<Sink> {
        Sink::start(&self.binary, self.file(), place, name, failpoint)
    }

    /// Starts replica `name`, which trusts the authority of this file and no other.
    pub(crate) fn start_trusting(
        &self,
        place: &Place,
        name: &str,
        authority: &Path,
    ) -> Result<Sink> {
        Sink::start_trusting(&self.binary, self.file(), place, name, authority)
    }
}

/// The environment in which the authority of this file is trusted, and no other.
pub(crate) fn trust(authority: &Path) -> [(&'static str, &OsStr); 1] {
    [("SSL_CERT_FILE", authority.as_os_str())]
}

/// Runs a command of the product with a configuration file of its own.
pub(crate) fn spawn(
    binary: &Path,
    (name, words): (&str, &[&str]),
    file: &Value,
    place: &Place,
    environment: &[(&str, &OsStr)],
) -> Result<Process> {
    let path = place.join(&format!("{name}.yaml"));
    std::fs::write(&path, serde_json::to_string_pretty(file)?)?;
    let mut command = process::command(binary);
    command.args(words).arg("--config").arg(&path);
    command.envs(environment.iter().copied());
    Process::spawn(name, &mut command, place.path())
}

impl Sink {
    /// Starts a replica with this configuration and an admin port of its own.
    pub(crate) fn start(
        binary: &Path,
        file: Value,
        place: &Place,
        name: &str,
        failpoint: Option<&str>,
    ) -> Result<Self> {
        let failpoint = failpoint.map(|failpoint| ("KCBQ_FAILPOINT", OsStr::new(failpoint)));
        Self::start_with(binary, file, place, name, failpoint.as_slice())
    }

    /// Starts a replica that trusts the authority of this file and no other.
    pub(crate) fn start_trusting(
        binary: &Path,
        file: Value,
        place: &Place,
        name: &str,
        authority: &Path,
    ) -> Result<Self> {
        Self::start_with(binary, file, place, name, &trust(authority))
    }

    fn start_with(
        binary: &Path,
        mut file: Value,
        place: &Place,
        name: &str,
        environment: &[(&str, &OsStr)],
    ) -> Result<Self> {
        let admin = format!("127.0.0.1:{}", place::free_port()?);
        file["admin"] = json!({"listen": admin});
        let process = spawn(binary, (name, &["run"]), &file, place, environment)?;
        Ok(Self { name: name.to_owned(), admin, process })
    }

    /// The name it was started with.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What `/status` says of its lanes; an error where it does not answer.
    pub(crate) fn lanes(&self, http: &Http) -> Result<Vec<LaneState>> {
        let status = self.status(http)?;
        let lanes = status.get("lanes").and_then(Value::as_array).context("no lanes in /status")?;
        lanes.iter().map(read_lane).collect()
    }

    /// `/status`.
    pub(crate) fn status(&self, http: &Http) -> Result<Value> {
        http.get(&format!("http://{}/status", self.admin))?.json()
    }

    /// `/metrics`.
    pub(crate) fn metrics(&self, http: &Http) -> Result<String> {
        Ok(http.get(&format!("http://{}/metrics", self.admin))?.body)
    }

    /// Waits until it owns a lane that is past its start.
    pub(crate) fn wait_owning(&mut self, http: &Http, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        loop {
            if self.is_owning(http) {
                return Ok(());
            }
            if let Some(status) = self.exited()? {
                bail!("{} ended ({status}) before it owned a lane\n{}", self.name, self.tail());
            }
            if Instant::now() > end {
                bail!("{} owns no lane after {timeout:?}\n{}", self.name, self.tail());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whether it owns a lane that is past its start.
    pub(crate) fn is_owning(&self, http: &Http) -> bool {
        let lanes = self.lanes(http).unwrap_or_default();
        lanes.iter().any(|lane| lane.state != "recovering")
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.process.exited()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<ExitStatus> {
        self.process.kill()
    }

    /// SIGTERM, which must drain and end with 0.
    pub(crate) fn stop(&mut self, timeout: Duration) -> Result<()> {
        self.process.terminate()?;
        let status = self.process.wait(timeout)?;
        if !status.success() {
            bail!("{} ended with {status} on SIGTERM\n{}", self.name, self.tail());
        }
        Ok(())
    }

    /// SIGSTOP.
    pub(crate) fn freeze(&mut self) -> Result<()> {
        self.process.freeze()
    }

    /// SIGCONT.
    pub(crate) fn thaw(&mut self) -> Result<()> {
        self.process.thaw()
    }

    /// What the failpoint said before it killed the process: lanes and records in flight.
    pub(crate) fn failpoint_line(&self) -> Option<(u64, u64)> {
        let stderr = self.process.stderr();
        let line = stderr.lines().rev().find(|line| line.starts_with("failpoint "))?;
        let number = |key: &str| {
            line.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse::<u64>().ok())
        };
        Some((number("lanes=")?, number("in_flight_records=")?))
    }

    /// All that it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.process.stderr()
    }

    /// The end of its output.
    pub(crate) fn tail(&self) -> String {
        self.process.tail()
    }

    /// Whether `/livez` answers 200.
    pub(crate) fn is_live(&self, http: &Http) -> Result<bool> {
        Ok(http.get(&format!("http://{}/livez", self.admin))?.status == 200)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// CPU time and peak memory so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        self.process.usage()
    }
}

fn read_lane(lane: &Value) -> Result<LaneState> {
    let text = |key: &str| lane.get(key).and_then(Value::as_str);
    let number = |key: &str| lane.get(key).and_then(Value::as_i64);
    Ok(LaneState {
        lane: (
            text("topic").context("a lane without a topic")?.to_owned(),
            i32::try_from(number("partition").context("a lane without a partition")?)?,
        ),
        state: text("state").context("a lane without a state")?.to_owned(),
        in_flight_records: lane.get("in_flight_records").and_then(Value::as_u64).unwrap_or(0),
    })
}

/// The product's binary: `$KCBQ_BIN`, or the one that Cargo built for this target.
pub(crate) fn binary(built: &str) -> PathBuf {
    std::env::var_os("KCBQ_BIN").map_or_else(|| Path::new(built).to_owned(), PathBuf::from)
}
