//! The binary's commands as a user calls them: output, exit codes.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Output, Stdio},
};

/// Runs the binary with these arguments and waits.
pub(crate) fn kcbq(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kcbq"));
    command.args(arguments).env_remove("KCBQ_LOG").env_remove("KCBQ_CONFIG");
    command.output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A configuration file that is deleted when dropped.
pub(crate) fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// A simulator on free ports, killed when dropped.
pub(crate) struct Simulator {
    child: Child,
    pub(crate) rest: String,
    pub(crate) registry: String,
    pub(crate) gcs: String,
    pub(crate) grpc: String,
}

impl Simulator {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kcbq"))
            .args(["sim", "--rest", "127.0.0.1:0", "--registry", "127.0.0.1:0"])
            .args(["--gcs", "127.0.0.1:0", "--grpc", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = || {
            let line = lines.next().unwrap().unwrap();
            line.split_whitespace().last().unwrap().to_owned()
        };
        let (rest, registry, gcs, grpc) = (address(), address(), address(), address());
        Self { child, rest, registry, gcs, grpc }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn the_help_documents_the_exit_codes() {
    let output = kcbq(&["--help"]);
    assert!(output.status.success());
    let help = stdout(&output);
    for wanted in ["Exit codes:", "run", "check", "config", "completions", "KCBQ_LOG"] {
        assert!(help.contains(wanted), "{wanted}\nnot in\n{help}");
    }
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for arguments in [&["runn"][..], &["run"], &["check", "--confg", "x"], &["completions", "dos"]]
    {
        assert_eq!(kcbq(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_file_that_is_missing_exits_with_1_and_says_why() {
    let output = kcbq(&["run", "--config", "does-not-exist.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("error: cannot read does-not-exist.yaml\n  because: "), "{error}");
}

#[test]
fn the_schema_the_example_and_the_reference_are_printed() {
    let schema: serde_json::Value =
        serde_json::from_slice(&kcbq(&["config", "schema"]).stdout).unwrap();
    assert!(schema["properties"]["topics"].is_object());
    assert!(stdout(&kcbq(&["config", "reference"])).starts_with("# Configuration\n"));
    let example = file(&stdout(&kcbq(&["config", "example"])));
    let output = kcbq(&["check", "--offline", "--config", example.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert!(stdout(&kcbq(&["completions", "bash"])).contains("_kcbq"));
}

#[test]
fn a_simulator_stops_on_sigterm_with_0() {
    let mut simulator = Simulator::start();
    let pid = rustix::process::Pid::from_child(&simulator.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(simulator.child.wait().unwrap().code(), Some(0));
}
