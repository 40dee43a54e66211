//! Kafka's own command line tools: the JVM's producer, and what the broker has on its disk.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::place::{self, Place};

fn tool(class: &str) -> Command {
    let mut command = Command::new(place::scripts().join("kafka/tool"));
    command.arg(class).env("KCBQ_CACHE", place::cache()).stdin(Stdio::null());
    command
}

fn run(mut command: Command) -> Result<String> {
    let output = command.output().context("running one of Kafka's tools")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    Ok(text(&output.stdout))
}

/// Has the JVM's producer send the lines of a file, as one batch where `batch_bytes` are enough.
pub(crate) fn produce(
    address: &str,
    topic: &str,
    codec: &str,
    lines: &Path,
    batch_bytes: u64,
) -> Result<()> {
    let mut command = tool("org.apache.kafka.tools.ConsoleProducer");
    command.args(["--bootstrap-server", address, "--topic", topic, "--compression-codec", codec]);
    command.args(["--batch-size", &batch_bytes.to_string()]);
    command.args(["--max-memory-bytes", &(3 * batch_bytes).to_string()]);
    command.args(["--command-property", &format!("max.request.size={batch_bytes}")]);
    // What waits is sent when the input ends.
    command.args(["--timeout", "600000"]).stdin(File::open(lines)?);
    run(command).map(drop)
}

/// A batch as the broker stores it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredBatch {
    /// Its records.
    pub(crate) records: u64,
    /// Its bytes on the disk.
    pub(crate) bytes: u64,
}

/// The batches of the first segments of these topics' partition 0, topic by topic.
pub(crate) fn batches(place: &Place, topics: &[String]) -> Result<Vec<Vec<StoredBatch>>> {
    let segment = |topic: &String| place.join(&format!("kafka/log/{topic}-0/{:020}.log", 0));
    let segments: Vec<PathBuf> = topics.iter().map(segment).collect();
    let files: Vec<String> = segments.iter().map(|path| path.display().to_string()).collect();
    let mut command = tool("org.apache.kafka.tools.DumpLogSegments");
    command.args(["--files", &files.join(",")]);
    let mut stored = Vec::new();
    for line in run(command)?.lines() {
        if line.starts_with("Dumping ") {
            stored.push(Vec::new());
        }
        let number = |name: &str| line.split_once(name)?.1.split(' ').next()?.parse().ok();
        if let (Some(records), Some(bytes), Some(last)) =
            (number(" count: "), number(" size: "), stored.last_mut())
        {
            last.push(StoredBatch { records, bytes });
        }
    }
    Ok(stored)
}

/// Lets everybody see a topic and not read it, or lets all be as it was. Where a resource has an ACL, what none
/// allows is denied; without one everything is allowed (`allow.everyone.if.no.acl.found`).
pub(crate) fn deny_read(address: &str, topic: &str, denied: bool) -> Result<()> {
    let mut command = tool("org.apache.kafka.tools.AclCommand");
    command.args(["--bootstrap-server", address, "--topic", topic, "--operation", "Describe"]);
    command.args(["--allow-principal", "User:ANONYMOUS", "--force"]);
    command.arg(if denied { "--add" } else { "--remove" });
    run(command).map(drop)
}
