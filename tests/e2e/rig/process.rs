//! A child process that never outlives the run, with its output in files and its cost in numbers.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// `sysconf(_SC_CLK_TCK)` on every Linux that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running child. It is killed by its process id when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time, in seconds.
    pub(crate) cpu_seconds: f64,
    /// The most memory it ever had resident, in bytes.
    pub(crate) rss_max_bytes: u64,
}

/// A command that dies with this process even if that is killed, where `setpriv` is there.
pub(crate) fn command(program: &Path) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.exists() {
        return Command::new(program);
    }
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

impl Process {
    /// Starts `command`; its output goes to `folder/name.out` and `folder/name.err`, made anew.
    pub(crate) fn spawn(name: &str, command: &mut Command, folder: &Path) -> Result<Self> {
        let stdout = folder.join(format!("{name}.out"));
        let stderr = folder.join(format!("{name}.err"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, ended: None, stdout, stderr })
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// The end of its output, for an error message.
    pub(crate) fn tail(&self) -> String {
        let text = self.stdout() + &self.stderr();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Sends SIGKILL and collects it.
    pub(crate) fn kill(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.exited()? {
            return Ok(status);
        }
        self.child.kill()?;
        let status = self.child.wait()?;
        self.ended = Some(status);
        Ok(status)
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends SIGSTOP: nothing of it runs until [`thaw`](Self::thaw), and nobody is told.
    pub(crate) fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Sends SIGCONT.
    pub(crate) fn thaw(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.exited()?.is_none()
            && let Some(pid) = Pid::from_raw(i32::try_from(self.pid())?)
        {
            kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// Waits for its end, at most `timeout`.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("{} did not end within {timeout:?}\n{}", self.name, self.tail());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until `ready` says so; fails if the process ends first.
    pub(crate) fn until(
        &mut self,
        what: &str,
        timeout: Duration,
        mut ready: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + timeout;
        while !ready(self) {
            if let Some(status) = self.exited()? {
                bail!("{} ended ({status}) before {what}\n{}", self.name, self.tail());
            }
            if Instant::now() > end {
                bail!("{}: no {what} within {timeout:?}\n{}", self.name, self.tail());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// CPU time and peak memory so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        usage_of(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{}: could not be killed: {error:#}", self.name);
        }
    }
}

/// CPU time and peak memory of process `pid` so far, from `/proc`.
pub(crate) fn usage_of(pid: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("malformed /proc/PID/stat")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .context("no VmHWM in /proc/PID/status")?;
    Ok(Usage { cpu_seconds: ticks as f64 / TICKS_PER_SECOND, rss_max_bytes: kilobytes << 10 })
}
