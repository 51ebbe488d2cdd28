//! A client that waits for orders: this program again, on the host or in a sandbox. The same process serves a whole run,
//! so that neither side of a comparison pays for starts. It refuses to know who is on the other side of a connection.

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{cold_client, idle_client, splice};

/// The word by which this program runs as a client.
const CLIENT: &str = "--client";
/// What a client gets to end by itself, and its sandbox with it.
const GRACE: Duration = Duration::from_secs(10);

/// What a program gets beyond the time that it was told to take, seconds: some wait for ever for a server that is slow.
const LATE: u32 = 20;

/// A client process, and the ends of its pipes.
pub(crate) struct Client {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Client {
    /// What makes this program a client.
    pub(crate) fn program() -> Result<[String; 2]> {
        let program = std::env::current_exe()?;
        Ok([program.display().to_string(), CLIENT.to_owned()])
    }

    /// `command` has to end in [`Client::program`].
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        let mut client = Self {
            orders: process.stdin.take(),
            answers: BufReader::new(process.stdout.take().context("no stdout")?),
            process,
        };
        client.ask(&["ready"])?;
        Ok(client)
    }

    /// The process that was started: of a sandboxed client, the gateway.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Runs a program to its end, which has to be a good one and come within `seconds` and [`LATE`]; its standard output.
    pub(crate) fn run(&mut self, seconds: u32, command: &[&str]) -> Result<String> {
        let limit = (seconds + LATE).to_string();
        let limited = ["run", "timeout", "--kill-after=2", &limit];
        let answer = self.ask(&[&limited, command].concat())?;
        Ok(answer.as_str().context("no output")?.to_owned())
    }

    /// An order and its answer.
    pub(crate) fn ask(&mut self, order: &[&str]) -> Result<Value> {
        let orders = self.orders.as_mut().context("the client has ended")?;
        writeln!(orders, "{}", json!(order))?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let mut answer: Value = serde_json::from_str(&line)
            .with_context(|| format!("{order:?}: the client said {line:?}"))?;
        match answer["error"].as_str() {
            Some(error) => bail!("{order:?}: {error}"),
            None => Ok(answer["value"].take()),
        }
    }

    fn has_ended(&mut self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < GRACE {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.orders.take());
        if self.has_ended() {
            return;
        }
        let id = i32::try_from(self.process.id()).map(Pid::from_raw);
        let asked = id.is_ok_and(|id| kill(id, Signal::SIGTERM).is_ok());
        if !asked || !self.has_ended() {
            drop(self.process.kill());
            drop(self.process.wait());
        }
    }
}

/// Whether this process is a client.
pub(crate) fn is_wanted() -> bool {
    std::env::args().any(|word| word == CLIENT)
}

/// A client's life: an order a line, an answer a line.
pub(crate) fn serve() -> Result<()> {
    let mut idle = idle_client::Held::default();
    for line in stdin().lines() {
        let words: Vec<String> = serde_json::from_str(&line?)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let done = match words.as_slice() {
            ["ready"] => Ok(json!(true)),
            ["run", command @ ..] => run(command),
            ["cold", url, bearer, connections, seconds] => {
                cold_client::measure(url, bearer, connections, seconds)
            }
            ["read", address, seconds] => splice::read(address, seconds),
            ["hold", url, connections] => idle.open(url, connections),
            other => Err(anyhow::anyhow!("no such order: {other:?}")),
        };
        let answer = match done {
            Ok(value) => json!({"value": value}),
            Err(error) => json!({"error": format!("{error:#}")}),
        };
        println!("{answer}");
        stdout().flush()?;
    }
    Ok(())
}

fn run(command: &[&str]) -> Result<Value> {
    let (program, arguments) = command.split_first().context("no program")?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{}: {said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(json!(said))
}
