//! Runs other programs: shown, logged or asked for one answer, with a time limit where a server may never answer.
//! It refuses to know why they are run.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::console::write;

/// Lines of a log shown when a logged program fails: enough for a compiler's or apt's last error.
const SHOWN_LINES: usize = 20;
/// How often a program with a time limit is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Runs a program whose output goes to our own terminal.
pub(crate) fn shown(command: &mut Command) -> Result<(), Failure> {
    let line = command_line(command);
    let status = command
        .status()
        .map_err(|error| Failure::failed(format!("cannot run `{line}`: {error}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::failed(format!("`{line}` failed ({status})")))
    }
}

/// As [`shown`], with each line of standard output given to `look` once it is shown.
pub(crate) fn watched(command: &mut Command, mut look: impl FnMut(&str)) -> Result<(), Failure> {
    let name = command_line(command);
    let fail = |what: String| Failure::failed(format!("`{name}` {what}"));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| fail(format!("cannot be run: {error}")))?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut bytes = Vec::new();
        // A program that closes its output early, or writes what is no text, is judged by its exit status.
        while reader
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&bytes);
            write(&text);
            look(&text);
            bytes.clear();
        }
    }
    let status = child
        .wait()
        .map_err(|error| fail(format!("cannot be waited for: {error}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(fail(format!("failed ({status})")))
    }
}

/// Runs a program for its standard output; `None` when it cannot be run or fails.
pub(crate) fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program for its standard output, with its errors on our own terminal.
pub(crate) fn answer_shown(command: &mut Command) -> Result<String, Failure> {
    let name = command_line(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::failed(format!("`{name}` cannot be run: {error}")))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Failure::failed(format!(
            "`{name}` failed ({})",
            output.status
        )))
    }
}

/// A file that collects what the programs of a set-up say.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
}

impl Log {
    /// Empties or creates the file, and the folders above it.
    pub(crate) fn create(path: PathBuf) -> Result<Self, Failure> {
        let log = Self { path };
        log.empty()?;
        Ok(log)
    }

    /// Goes on with the file, if there is one.
    pub(crate) fn open(path: PathBuf) -> Self {
        Self { path }
    }

    /// Forgets what is in it.
    pub(crate) fn empty(&self) -> Result<(), Failure> {
        let created = self
            .path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| File::create(&self.path));
        created.map(drop).map_err(|error| {
            Failure::failed(format!("cannot write {}: {error}", self.path.display()))
        })
    }

    /// Runs a program with its output in the log; a failure quotes the last lines of it.
    pub(crate) fn run(&self, command: &mut Command) -> Result<(), Failure> {
        self.run_within(command, None)
    }

    /// As [`Log::run`], killed after `limit`.
    pub(crate) fn run_within(
        &self,
        command: &mut Command,
        limit: Option<Duration>,
    ) -> Result<(), Failure> {
        let line = command_line(command);
        let fail = |what: String| {
            Failure::failed(format!(
                "`{line}` {what}; the end of {}:\n{}",
                self.path.display(),
                last_lines(&self.path)
            ))
        };
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .map_err(|error| fail(format!("has no log: {error}")))?;
        let streams = writeln!(log, "\n$ {line}").and_then(|()| Ok((log.try_clone()?, log)));
        let (stdout, stderr) = streams.map_err(|error| fail(format!("has no log: {error}")))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(|error| fail(format!("cannot be run: {error}")))?;
        let start = Instant::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(fail(format!("failed ({status})"))),
                Ok(None) => {}
                Err(error) => return Err(fail(format!("cannot be waited for: {error}"))),
            }
            if limit.is_some_and(|limit| start.elapsed() > limit) {
                // Either call fails only if the program has just ended by itself.
                drop(child.kill());
                drop(child.wait());
                return Err(fail("took too long".to_owned()));
            }
            thread::sleep(POLL);
        }
    }
}

/// The program (without its folder) and its arguments, as one would type them.
pub(crate) fn command_line(command: &Command) -> String {
    let program = command.get_program();
    std::iter::once(Path::new(program).file_name().unwrap_or(program))
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

fn last_lines(path: &Path) -> String {
    let text = fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(SHOWN_LINES);
    lines[from..]
        .iter()
        .map(|line| format!("  | {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
