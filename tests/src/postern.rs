//! The `postern` binary, by its command line: `exec` with everything it printed and recorded,
//! `run` as a daemon that is waited for. It refuses to know how any of it works.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::audit::{self, Record};
use crate::process::{Ended, Line, Process, patient};

/// What a sandboxed command gets before it is taken for stuck.
const DEADLINE: Duration = Duration::from_secs(60);
/// What the daemon gets to say that it is ready.
const READY: Duration = Duration::from_secs(20);

/// The binary: POSTERN_BIN, or the debug build of this workspace.
pub fn binary() -> Result<PathBuf> {
    let path = match std::env::var_os("POSTERN_BIN") {
        Some(path) => PathBuf::from(path),
        None => workspace().join("target/debug/postern"),
    };
    // `exec` runs in other folders than we do.
    std::path::absolute(&path)
        .ok()
        .filter(|path| path.is_file())
        .with_context(|| format!("no {}: run `cargo xtask build` first", path.display()))
}

/// The folder of the workspace.
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// Whether an optimised binary is tried: the big transfers are as big as promised then.
pub fn is_release() -> bool {
    binary().is_ok_and(|path| {
        path.parent()
            .is_some_and(|folder| folder.ends_with("release"))
    })
}

/// One `postern exec`, being put together.
pub struct Exec {
    flags: Vec<OsString>,
    command: Vec<OsString>,
    folder: PathBuf,
    audit: PathBuf,
    input: Vec<u8>,
    deadline: Duration,
    log: &'static str,
}

/// A sandbox that runs.
pub struct Sandbox {
    /// The `postern exec` process.
    pub process: Process,
    audit: PathBuf,
    deadline: Duration,
}

/// A sandbox that has ended.
#[derive(Debug)]
pub struct Done {
    /// Output and status.
    pub ended: Ended,
    /// The audit log.
    pub audit: Vec<Record>,
}

impl Exec {
    /// `command` in `folder` under `policy`, recorded in `audit`.
    pub fn new(
        policy: &Path,
        audit: PathBuf,
        folder: &Path,
        command: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        let exec = Self {
            flags: Vec::new(),
            command: command.into_iter().map(Into::into).collect(),
            folder: folder.to_owned(),
            audit,
            input: Vec::new(),
            deadline: DEADLINE,
            log: "warn",
        };
        exec.flag("--policy", policy)
    }

    /// A flag of `postern exec` and its value.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.flags.extend([name.into(), value.into()]);
        self
    }

    /// `--env NAME=VALUE`.
    #[must_use]
    pub fn env(self, name: &str, value: &str) -> Self {
        self.flag("--env", format!("{name}={value}"))
    }

    /// `--netns host`: the sandbox shares the host's network, and only the kernel programs stand
    /// between it and the internet.
    #[must_use]
    pub fn on_the_host_network(self) -> Self {
        self.flag("--netns", "host")
    }

    /// What the command reads from stdin.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Another deadline than a minute.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Another `--log-level` than `warn`.
    #[must_use]
    pub fn log(mut self, level: &'static str) -> Self {
        self.log = level;
        self
    }

    /// The whole command line, for those who wrap it.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command
            .arg("exec")
            .args(&self.flags)
            .arg("--audit")
            .arg(&self.audit)
            .args(["--log-level", self.log, "--"])
            .args(&self.command)
            .current_dir(&self.folder);
        quiet(&mut command);
        Ok(command)
    }

    /// Starts it.
    pub fn start(self) -> Result<Sandbox> {
        Ok(Sandbox {
            process: Process::start(self.command()?, &self.input)?,
            audit: self.audit,
            deadline: self.deadline,
        })
    }

    /// Runs it to its end, whichever that is.
    pub fn run(self) -> Result<Done> {
        self.start()?.wait()
    }

    /// Runs it to its end, which must be status 0.
    pub fn succeed(self) -> Result<Done> {
        let done = self.run()?;
        ensure!(done.code() == 0, "it failed: {done}");
        Ok(done)
    }
}

impl Sandbox {
    /// Waits for its end.
    pub fn wait(self) -> Result<Done> {
        let ended = self.process.wait(self.deadline)?;
        Ok(Done {
            ended,
            audit: audit::read(&self.audit)?,
        })
    }

    /// Waits until the gateway, which logs at `info`, says that it has the new value of `secret`, a NAME/KEY.
    pub fn wait_for_secret(&mut self, secret: &str) -> Result<()> {
        let said = |line: &str| line.contains("secret changed") && line.contains(secret);
        self.process.wait_for_line(READY, said).map(drop)
    }

    /// The audit log so far.
    pub fn audit(&self) -> Result<Vec<Record>> {
        audit::read(&self.audit)
    }
}

impl Done {
    /// The exit status of `postern exec`.
    pub fn code(&self) -> i32 {
        self.ended.code()
    }

    /// stdout.
    pub fn out(&self) -> String {
        self.ended.out()
    }

    /// stderr: the command's and the gateway's log.
    pub fn err(&self) -> String {
        self.ended.err()
    }

    /// stdout as one JSON document.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.out()).with_context(|| format!("no JSON: {self}"))
    }

    /// stdout's lines as JSON documents.
    pub fn json_lines(&self) -> Result<Vec<serde_json::Value>> {
        let lines = self.ended.stdout.iter();
        lines
            .map(|line| {
                serde_json::from_str(&line.text).with_context(|| format!("no JSON: {self}"))
            })
            .collect()
    }

    /// The records of `event`.
    pub fn records(&self, event: &str) -> Vec<&Record> {
        let records = self.audit.iter();
        records.filter(|record| record.event() == event).collect()
    }

    /// The one record of `event` that `wanted` accepts.
    pub fn record(&self, event: &str, wanted: impl Fn(&Record) -> bool) -> Result<&Record> {
        let mut found = self.records(event);
        found.retain(|record| wanted(record));
        match found.as_slice() {
            [record] => Ok(record),
            _ => bail!("{} such records of {event:?}, not one: {self}", found.len()),
        }
    }

    /// Fails if anything was refused.
    pub fn nothing_was_denied(&self) -> Result<()> {
        let denied = self.records("denied");
        ensure!(denied.is_empty(), "refused: {self}");
        Ok(())
    }

    /// The lines of the gateway's log at ERROR.
    pub fn errors(&self) -> Vec<&Line> {
        let lines = self.ended.stderr.iter();
        lines.filter(|line| line.text.contains("ERROR")).collect()
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(out, "status {}", self.code())?;
        writeln!(out, "stdout:\n{}", self.out())?;
        writeln!(out, "stderr:\n{}", self.err())?;
        writeln!(out, "audit:")?;
        self.audit
            .iter()
            .try_for_each(|record| writeln!(out, "{}", record.0))
    }
}

/// A `postern run` that has said it is ready.
pub struct Daemon {
    /// The process.
    pub process: Process,
    audit: PathBuf,
}

impl Daemon {
    /// Starts `postern run` with `flags` and waits for its ready line.
    pub fn start(policy: &Path, audit: PathBuf, flags: &[OsString]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.arg("run");
        if !flags.iter().any(|flag| flag == "--log-level") {
            command.args(["--log-level", "info"]);
        }
        command
            .arg("--policy")
            .arg(policy)
            .arg("--audit")
            .arg(&audit)
            .args(flags);
        quiet(&mut command);
        let mut process = Process::start(command, b"")?;
        process.wait_for_line(READY, |line| {
            line.split(|letter: char| !letter.is_alphanumeric())
                .any(|word| word.eq_ignore_ascii_case("ready"))
        })?;
        Ok(Self { process, audit })
    }

    /// Sends `signal`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits for its end.
    pub fn wait(self, deadline: Duration) -> Result<Done> {
        Ok(Done {
            ended: self.process.wait(deadline)?,
            audit: audit::read(&self.audit)?,
        })
    }

    /// What is on record so far.
    pub fn records(&self) -> Result<Vec<Record>> {
        audit::read(&self.audit)
    }

    /// The first record that `wanted` accepts, waiting at most `deadline` for it.
    pub fn wait_for_record(
        &self,
        deadline: Duration,
        wanted: impl Fn(&Record) -> bool,
    ) -> Result<Record> {
        let deadline = patient(deadline);
        let begun = Instant::now();
        loop {
            let records = self.records()?;
            if let Some(record) = records.iter().find(|record| wanted(record)) {
                return Ok(record.clone());
            }
            if begun.elapsed() > deadline {
                bail!("no such record in {deadline:?}: {records:#?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs a short-lived subcommand to its end.
pub fn run(arguments: &[&str]) -> Result<Ended> {
    let mut command = Command::new(binary()?);
    command.args(arguments);
    quiet(&mut command);
    Process::start(command, b"")?.wait(DEADLINE)
}

/// No colours, and nothing of the developer's own shell that would change what is tested.
fn quiet(command: &mut Command) {
    command.env("NO_COLOR", "1");
    for name in [
        "RUST_LOG",
        "POSTERN_LOG",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    ] {
        command.env_remove(name);
    }
}
