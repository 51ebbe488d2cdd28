//! A child process whose output is read while it runs, each line with its time of arrival, and
//! that cannot outlive its deadline. It refuses to know what is run.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Between being asked and being killed.
const GRACE: Duration = Duration::from_secs(5);
/// How often a condition is looked at.
const TICK: Duration = Duration::from_millis(5);

/// A line of output, with the time since the start at which its last byte arrived.
#[derive(Clone, Debug)]
pub struct Line {
    /// Since the process was started.
    pub at: Duration,
    /// Without its line end.
    pub text: String,
}

/// A child process, in a process group of its own.
pub struct Process {
    child: Child,
    started: Instant,
    stdout: Output,
    stderr: Output,
    what: String,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// After how long.
    pub elapsed: Duration,
    /// What it printed.
    pub stdout: Vec<Line>,
    /// What it complained of.
    pub stderr: Vec<Line>,
}

/// How many times slower than a developer's own machine this one is: POSTERN_TEST_SLOW, a whole number; 1 if it is not set.
/// An emulated guest sets it.
pub fn slowness() -> u32 {
    let factor = std::env::var("POSTERN_TEST_SLOW").ok();
    factor
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
        .max(1)
}

/// `time` on a machine that is [slower](slowness): deadlines, and pauses that have to be longer than what a client needs
/// to get going.
pub fn patient(time: Duration) -> Duration {
    time * slowness()
}

/// Says that this machine cannot show what the test that calls it is about, and why: in its output, and where
/// POSTERN_TEST_BEYOND names a file for it. The test ends with it, without having shown anything.
///
/// # Errors
/// When the file cannot be written.
pub fn beyond(why: &str) -> Result<()> {
    // The harness calls a thread as the test that runs in it.
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    println!("{test} cannot be shown here: {why}");
    remark(test, why)
}

/// As [`beyond`], for a part of the test that calls it: the rest is shown.
///
/// # Errors
/// When the file cannot be written.
pub fn partly_beyond(why: &str) -> Result<()> {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    println!("{test} is shown here but for {why}");
    remark(test, &format!("but for {why}"))
}

/// A line for `cargo xtask`: a reason that begins with "but for" leaves the test counted as what it is.
fn remark(test: &str, why: &str) -> Result<()> {
    if let Some(path) = std::env::var_os("POSTERN_TEST_BEYOND") {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(format!("{test}\t{why}\n").as_bytes())?;
    }
    Ok(())
}

/// What stands before a command line for it to have `hosts` as its `/etc/hosts`, in a mount namespace of its own.
pub fn with_hosts(hosts: &Path) -> Vec<String> {
    let resolved = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let hosts = hosts.display().to_string();
    ["unshare", "--mount", "sh", "-c", resolved]
        .map(str::to_owned)
        .into_iter()
        .chain([hosts])
        .collect()
}

/// How often something is repeated on a machine that is [slower](slowness): so much less often that it takes as long.
pub fn fewer(count: usize) -> usize {
    count / usize::try_from(slowness()).unwrap_or(usize::MAX)
}

impl Process {
    /// Starts `command`, giving it `input` and then the end of it.
    pub fn start(mut command: Command, input: &[u8]) -> Result<Self> {
        let what = format!("{command:?}");
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {what}"))?;
        let stdout = Output::of(child.stdout.take().context("no stdout")?, started);
        let stderr = Output::of(child.stderr.take().context("no stderr")?, started);
        let mut stdin = child.stdin.take().context("no stdin")?;
        let input = input.to_vec();
        std::thread::spawn(move || {
            // A child that does not read its input is no failure of the harness.
            drop(stdin.write_all(&input));
        });
        Ok(Self {
            child,
            started,
            stdout,
            stderr,
            what,
        })
    }

    /// Its process id on this host.
    pub fn id(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }

    /// Since its start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sends `signal` to the process alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.id()?, signal).with_context(|| format!("cannot signal {}", self.what))
    }

    /// Waits until a line of stdout or stderr satisfies `wanted`.
    pub fn wait_for_line(
        &mut self,
        deadline: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Line> {
        let deadline = patient(deadline);
        let begun = Instant::now();
        let (mut of_stdout, mut of_stderr) = (0, 0);
        loop {
            let ended = self.child.try_wait()?;
            let mut lines = self.stdout.lines_from(of_stdout);
            of_stdout += lines.len();
            let complaints = self.stderr.lines_from(of_stderr);
            of_stderr += complaints.len();
            lines.extend(complaints);
            if let Some(line) = lines.into_iter().find(|line| wanted(&line.text)) {
                return Ok(line);
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}) early:\n{}", self.what, self.said());
            }
            if begun.elapsed() > deadline {
                bail!(
                    "no such line from {} in {deadline:?}:\n{}",
                    self.what,
                    self.said()
                );
            }
            std::thread::sleep(TICK);
        }
    }

    /// Waits for its end; past `deadline` it is an error, and the process is killed.
    pub fn wait(mut self, deadline: Duration) -> Result<Ended> {
        let deadline = patient(deadline);
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                let elapsed = self.started.elapsed();
                // Somebody may have inherited the pipes; what came by now is what counts.
                self.stdout.join(GRACE);
                self.stderr.join(GRACE);
                return Ok(Ended {
                    status,
                    elapsed,
                    stdout: self.stdout.lines(),
                    stderr: self.stderr.lines(),
                });
            }
            if begun.elapsed() > deadline {
                self.end()?;
                bail!(
                    "{} did not end in {deadline:?}:\n{}",
                    self.what,
                    self.said()
                );
            }
            std::thread::sleep(TICK);
        }
    }

    /// What it has printed to stdout so far.
    pub fn stdout(&self) -> Vec<Line> {
        self.stdout.lines()
    }

    /// What it has printed to stderr so far.
    pub fn stderr(&self) -> Vec<Line> {
        self.stderr.lines()
    }

    /// As [`Process::stderr`], without the first `skipped` lines, for those who have seen them.
    pub fn stderr_from(&self, skipped: usize) -> Vec<Line> {
        self.stderr.lines_from(skipped)
    }

    fn said(&self) -> String {
        format!(
            "stdout:\n{}stderr:\n{}",
            join(&self.stdout.lines()),
            join(&self.stderr.lines())
        )
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        self.signal(Signal::SIGTERM)?;
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > GRACE {
                killpg(self.id()?, Signal::SIGKILL)?;
                self.child.wait()?;
                break;
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("cannot end {}: {error:#}", self.what);
        }
    }
}

impl Ended {
    /// The exit status as a shell gives it: 128 + N for signal N.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .or_else(|| self.status.signal().map(|signal| 128 + signal))
            .unwrap_or(-1)
    }

    /// stdout as one text.
    pub fn out(&self) -> String {
        join(&self.stdout)
    }

    /// stderr as one text.
    pub fn err(&self) -> String {
        join(&self.stderr)
    }
}

fn join(lines: &[Line]) -> String {
    lines
        .iter()
        .map(|line| format!("{}\n", line.text))
        .collect()
}

/// One stream of output.
struct Output {
    lines: Arc<Mutex<Vec<Line>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn of(stream: impl Read + Send + 'static, started: Instant) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let store = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut raw = Vec::new();
            while stream
                .read_until(b'\n', &mut raw)
                .is_ok_and(|count| count > 0)
            {
                let text = String::from_utf8_lossy(&raw);
                store
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Line {
                        at: started.elapsed(),
                        text: text.trim_end_matches(['\n', '\r']).to_owned(),
                    });
                raw.clear();
            }
        });
        Self {
            lines,
            reader: Some(reader),
        }
    }

    fn lines(&self) -> Vec<Line> {
        self.lines_from(0)
    }

    fn lines_from(&self, skipped: usize) -> Vec<Line> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.get(skipped..).unwrap_or_default().to_vec()
    }

    fn join(&mut self, deadline: Duration) {
        let begun = Instant::now();
        while let Some(reader) = &self.reader {
            if reader.is_finished() {
                self.reader = None;
            } else if begun.elapsed() > deadline {
                return;
            } else {
                std::thread::sleep(TICK);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Process> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(command, b"input\n")
    }

    #[test]
    fn lines_carry_their_time_and_the_status_is_a_shell_s() -> Result<()> {
        let ended = shell("cat; sleep 1; echo late; echo bad >&2; kill -TERM $$")?
            .wait(Duration::from_secs(5))?;
        assert_eq!(ended.code(), 128 + 15);
        assert_eq!(ended.out(), "input\nlate\n");
        assert_eq!(ended.err(), "bad\n");
        assert!(ended.stdout[1].at - ended.stdout[0].at > Duration::from_millis(150));
        Ok(())
    }

    #[test]
    fn nothing_outlives_its_deadline() -> Result<()> {
        let started = Instant::now();
        let error = shell("echo begun; sleep 60")?
            .wait(Duration::from_millis(200))
            .err()
            .context("it ended by itself")?;
        assert!(error.to_string().contains("begun"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
        Ok(())
    }
}
