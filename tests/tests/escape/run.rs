//! Runs every attempt of the table once in each mode, one sandbox a mode, and before that where nothing
//! is in the way; keeps what each said and what was seen of it from outside. The tests, one a row, look
//! their attempts up in it. It refuses to judge.

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::World;
use e2e::audit::Record;
use e2e::cgroup::Cgroup;
use e2e::internet::Packet;
use e2e::mock::Seen;
use e2e::policy::{self, Destinations, Gateway};
use e2e::postern;
use e2e::process::{Process, fewer, patient};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::attempt::{Attempt, Control, EVERYWHERE, Mode, Own};
use crate::nameserver::{self, NameServer};
use crate::rows;

/// One mode's attempts, all together.
/// So many attempts at a time. The gateway waits no longer for an opening where every process is slow.
const TOGETHER: usize = 12;
const DEADLINE: Duration = Duration::from_secs(600);
/// Where nothing is in the way, nobody answers: not much patience is needed with what shall only arrive.
const CONTROL_SECONDS: f64 = 1.7;
/// The host's own service, which nobody may reach.
pub(crate) const TRAPS: [&str; 4] = [
    "127.0.0.1:8080",
    "127.0.0.99:8080",
    "127.0.0.99:443",
    "[::1]:8080",
];
/// The same, by a name in the network namespace.
pub(crate) const ABSTRACT_TRAP: &str = "postern-escape-trap";
/// The same where the host's services have theirs.
const PATH_TRAP: &str = "/run/postern-escape-trap.sock";

/// What came of the attempts in one mode.
pub(crate) struct Results {
    /// By tag: what it said, and after how many milliseconds.
    pub(crate) outcomes: HashMap<String, (String, f64)>,
    /// What the gateway recorded.
    pub(crate) records: Vec<Record>,
    /// What arrived in the internet.
    pub(crate) packets: Vec<Packet>,
    /// What the name server was asked.
    pub(crate) asked: Vec<String>,
    /// What the mocks saw.
    pub(crate) seen: Vec<Seen>,
    /// How often a service of the host was reached.
    pub(crate) trapped: usize,
    /// Whatever was printed.
    pub(crate) output: String,
}

/// Everything.
pub(crate) struct Run {
    /// Where nothing is in the way.
    pub(crate) control: Results,
    /// By mode.
    pub(crate) modes: Vec<(Mode, Results)>,
    /// Credentials that must be nowhere in any output.
    pub(crate) keys: Vec<String>,
}

static RUN: LazyLock<Result<Run, String>> = LazyLock::new(|| {
    Fixture::new()
        .and_then(|fixture| fixture.run())
        .map_err(|error| format!("{error:#}"))
});

/// The run, which the first test to ask for it makes.
pub(crate) fn run() -> Result<&'static Run> {
    RUN.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// The table with what is each attempt's own.
pub(crate) fn table() -> Vec<(Own, Attempt)> {
    let all = rows::all().into_iter().flat_map(|row| row.attempts);
    (1..=Own::MOST)
        .zip(all)
        .map(|(number, attempt)| (Own::new(number, attempt.control), attempt))
        .collect()
}

struct Fixture {
    world: World,
    nameserver: NameServer,
    traps: Vec<TcpListener>,
    abstract_trap: UnixListener,
    path_trap: PathTrap,
    table: Vec<(Own, Attempt)>,
    programs: [PathBuf; 2],
    /// `{policy}` and the like, in the attempts' words.
    places: Vec<(&'static str, String)>,
}

/// Leaves no file behind.
struct PathTrap(UnixListener);

impl PathTrap {
    fn bind() -> Result<Self> {
        // What a run that was killed left.
        drop(fs::remove_file(PATH_TRAP));
        let trap = UnixListener::bind(PATH_TRAP).context(PATH_TRAP)?;
        trap.set_nonblocking(true)?;
        // Not the mode is to keep nobody out.
        fs::set_permissions(PATH_TRAP, fs::Permissions::from_mode(0o666))?;
        Ok(Self(trap))
    }
}

impl Drop for PathTrap {
    fn drop(&mut self) {
        drop(fs::remove_file(PATH_TRAP));
    }
}

impl Fixture {
    fn new() -> Result<Self> {
        let world = World::new()?;
        // As most distributions have it, so that pings can be tried at all.
        write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
        let nameserver = NameServer::start()?;
        let traps = TRAPS.iter().map(TcpListener::bind);
        let traps: Vec<_> = traps.collect::<Result<_, _>>().context("no trap")?;
        for trap in &traps {
            trap.set_nonblocking(true)?;
        }
        let name = SocketAddr::from_abstract_name(ABSTRACT_TRAP)?;
        let abstract_trap = UnixListener::bind_addr(&name)?;
        abstract_trap.set_nonblocking(true)?;
        let path_trap = PathTrap::bind()?;
        world.write_policy(&policy(&world))?;
        let programs = [c_program(&world)?, rust_program(&world)?];
        let path = |name: &str| world.path(name).display().to_string();
        let places = vec![
            ("{policy}", path("policy/policy.yaml")),
            ("{secret}", path("secrets/wiki-token/value")),
            ("{state}", path("state")),
            ("{trap}", ABSTRACT_TRAP.to_owned()),
            ("{path-trap}", PATH_TRAP.to_owned()),
        ];
        let table = table();
        ensure!(
            table.len()
                == rows::all()
                    .iter()
                    .map(|row| row.attempts.len())
                    .sum::<usize>(),
            "more attempts than addresses"
        );
        Ok(Self {
            world,
            nameserver,
            traps,
            abstract_trap,
            path_trap,
            table,
            programs,
            places,
        })
    }

    fn run(self) -> Result<Run> {
        let control = self.watched(|fixture| fixture.unhindered())?;
        let mut modes = Vec::new();
        for &mode in EVERYWHERE {
            let results = match mode {
                Mode::Attached => self.watched(Self::attached),
                _ => self.watched(|fixture| fixture.caged(mode)),
            };
            modes.push((mode, results.with_context(|| format!("{mode:?}"))?));
        }
        let keys = self.world.keys.all().map(str::to_owned).to_vec();
        Ok(Run {
            control,
            modes,
            keys,
        })
    }

    /// Runs something and gathers what was seen of it from outside.
    fn watched(&self, act: impl FnOnce(&Self) -> Result<(String, Vec<Record>)>) -> Result<Results> {
        let mocks = &self.world.mocks;
        let all = [
            &mocks.anthropic,
            &mocks.openai,
            &mocks.wiki,
            &mocks.echo,
            &mocks.plain,
            &mocks.git,
            &mocks.http1,
            &mocks.http2,
            &mocks.rogue,
            &mocks.misnamed,
        ];
        let packets = self.world.internet.packets().len();
        let asked = self.nameserver.asked().len();
        let seen: Vec<usize> = all.iter().map(|mock| mock.seen().all().len()).collect();
        self.trapped();
        let begun = Instant::now();
        let (output, records) = act(self)?;
        println!(
            "{} outcomes in {:.1?}",
            outcomes(&output).len(),
            begun.elapsed()
        );
        Ok(Results {
            outcomes: outcomes(&output),
            records,
            packets: self.world.internet.packets().split_off(packets),
            asked: self.nameserver.asked().split_off(asked),
            seen: all
                .iter()
                .zip(seen)
                .flat_map(|(mock, before)| mock.seen().all().split_off(before))
                .collect(),
            trapped: self.trapped(),
            output,
        })
    }

    /// As root of the host, with no gateway.
    fn unhindered(&self) -> Result<(String, Vec<Record>)> {
        let script = self.script()?;
        let mut command = Command::new(&script[0]);
        command
            .args(&script[1..])
            .current_dir(self.world.path("work"));
        let jobs = self.jobs(|attempt| match attempt.control {
            Control::Arrives | Control::ArrivesAt(_) => Some(CONTROL_SECONDS),
            Control::Says(_) => Some(attempt.seconds.into()),
            Control::Not => None,
        });
        let ended = Process::start(command, jobs.as_bytes())?.wait(DEADLINE)?;
        ensure!(ended.code() == 0, "{}{}", ended.out(), ended.err());
        Ok((ended.out(), Vec::new()))
    }

    fn caged(&self, mode: Mode) -> Result<(String, Vec<Record>)> {
        let jobs = self.jobs(|attempt| in_mode(attempt, mode));
        // The world numbers them in the order of the sandboxes.
        let number = EVERYWHERE.iter().position(|other| *other == mode);
        let audit = self
            .world
            .path(&format!("audit-{}.jsonl", number.context("no mode")?));
        let jobs = jobs.replace("{audit}", &audit.display().to_string());
        let mut exec = self
            .world
            .exec(self.script()?)
            .input(jobs)
            .deadline(DEADLINE)
            .log("error");
        if mode != Mode::Private {
            exec = exec.on_the_host_network();
        }
        if mode == Mode::Nobody {
            exec = exec.flag("--user", "nobody");
        }
        let done = exec.succeed()?;
        let output = done.out() + &done.err();
        Ok((output, done.audit))
    }

    fn attached(&self) -> Result<(String, Vec<Record>)> {
        let group = Cgroup::new("e2e-escape")?;
        let path = group.path().display().to_string();
        let attach = format!("{path}={}", policy::GATEWAY);
        let daemon = self.world.daemon(&["--attach", &attach])?;
        let script = self.script()?;
        let mut command = group.command(script.iter().map(String::as_str));
        command.current_dir(self.world.path("work"));
        let jobs = self.jobs(|attempt| in_mode(attempt, Mode::Attached));
        let ended = Process::start(command, jobs.as_bytes())?.wait(DEADLINE)?;
        // The kernel's refusals are read by a thread of their own.
        std::thread::sleep(patient(Duration::from_millis(300)));
        daemon.signal(Signal::SIGTERM)?;
        let done = daemon.wait(DEADLINE)?;
        let detached = postern::run(&["detach", &path])?;
        remove_nested(group.path())?;
        ensure!(ended.code() == 0, "{}{}", ended.out(), ended.err());
        ensure!(detached.code() == 0, "{}", detached.err());
        Ok((ended.out() + &done.err(), done.audit))
    }

    fn script(&self) -> Result<Vec<String>> {
        let mut words = e2e::world::script("escape/run.py")?.to_vec();
        words.extend(self.programs.iter().map(|path| path.display().to_string()));
        words.push(fewer(TOGETHER).max(6).to_string());
        Ok(words)
    }

    /// The input of `run.py`: the attempts that get any seconds.
    fn jobs(&self, seconds: impl Fn(&Attempt) -> Option<f64>) -> String {
        let slow = patient(Duration::from_secs(1)).as_secs_f64();
        let mut jobs = String::new();
        for (own, attempt) in &self.table {
            let Some(seconds) = seconds(attempt) else {
                continue;
            };
            let template = self
                .places
                .iter()
                .fold(attempt.words.clone(), |words, (from, to)| {
                    words.replace(from, to)
                });
            let job = json!({
                "tag": own.tag,
                "words": own.words(&template),
                "seconds": seconds * slow,
                "timed": attempt.within.is_some(),
            });
            jobs.push_str(&format!("{job}\n"));
        }
        jobs
    }

    /// How many connections the traps took since they were looked at last.
    fn trapped(&self) -> usize {
        let by_network: usize = self
            .traps
            .iter()
            .map(|trap| std::iter::from_fn(|| trap.accept().ok()).count())
            .sum();
        let by_name: usize = [&self.abstract_trap, &self.path_trap.0]
            .iter()
            .map(|trap| std::iter::from_fn(|| trap.accept().ok()).count())
            .sum();
        by_network + by_name
    }
}

/// The seconds of an attempt that is made in this mode.
fn in_mode(attempt: &Attempt, mode: Mode) -> Option<f64> {
    attempt.verdict(mode).map(|_| attempt.seconds.into())
}

/// The standard policy, the names that lead astray, and a name server that knows them.
fn policy(world: &World) -> Vec<String> {
    let mut documents = world.documents(&Gateway {
        default: "deny-all",
        otlp: None,
        capture: 0,
    });
    documents[0].push_str(&format!(
        "  dns: {{upstreams: [\"udp://{}\"]}}\n  limits: {{maxConnectionsPerSandbox: 512}}\n",
        nameserver::ADDRESS
    ));
    documents.push(policy::l4_route(
        "rebinding",
        &Destinations::Names(&["*.rebind.test"]),
        &[443, 80],
    ));
    documents
}

fn outcomes(output: &str) -> HashMap<String, (String, f64)> {
    output
        .lines()
        .filter_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let tag = line["tag"].as_str()?.to_owned();
            let outcome = line["outcome"].as_str()?.to_owned();
            Some((tag, (outcome, line["ms"].as_f64()?)))
        })
        .collect()
}

/// The program of POSTERN_E2E_CALLS, for machines without a compiler, or one that is compiled here. Where there
/// is neither, the attempts in C cannot be made, and nobody shall think they were.
fn c_program(world: &World) -> Result<PathBuf> {
    let path = world.work("calls");
    if let Some(built) = std::env::var_os("POSTERN_E2E_CALLS") {
        fs::copy(&built, &path).context("POSTERN_E2E_CALLS")?;
        return Ok(path);
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/escape/calls.c");
    let output = Command::new("cc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&path, &source])
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(path),
        Ok(output) => bail!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => Err(error).context("cannot run cc; `cargo xtask setup` installs it"),
    }
}

/// Into the working folder, where every user can run it.
fn rust_program(world: &World) -> Result<PathBuf> {
    let path = world.work("escape_client");
    fs::copy(env!("CARGO_BIN_EXE_escape_client"), &path)?;
    Ok(path)
}

fn remove_nested(group: &Path) -> Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::write(entry.path().join("cgroup.kill"), "1")?;
            let begun = Instant::now();
            // Who is killed is in the group until it is gone.
            while let Err(error) = fs::remove_dir(entry.path()) {
                ensure!(begun.elapsed() < patient(Duration::from_secs(5)), error);
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    Ok(())
}

fn write(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {path}"))
}
