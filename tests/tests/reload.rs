//! The policy changes while the gateway runs: what is newly denied ends at once, what is allowed
//! before and after never notices, and a broken policy changes nothing.
#![allow(
    clippy::print_stdout,
    reason = "a measurement is shown with the test that made it"
)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::World;
use e2e::cgroup::Cgroup;
use e2e::policy::{self, Destinations};
use e2e::postern::{self, Daemon};
use e2e::process::{Ended, Process, fewer, patient};

const SOON: Duration = Duration::from_secs(20);
/// Changes of the policy under load; the whole measure is a thousand.
const RELOADS: usize = 1000;

/// A daemon that guards a fresh group.
struct Guarded {
    daemon: Daemon,
    group: Cgroup,
    ca: String,
    told: Mutex<Told>,
}

/// What was found in the daemon's log so far.
#[derive(Clone, Copy, Default)]
struct Told {
    lines: usize,
    taken: usize,
    refused: usize,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Killed, so that nothing is left that a detach could meet.
        drop(self.daemon.signal(nix::sys::signal::Signal::SIGKILL));
        let group = self.group.path().display().to_string();
        drop(postern::run(&["detach", &group]));
    }
}

impl Guarded {
    fn new(world: &World) -> Result<Self> {
        let group = Cgroup::new("e2e-reload")?;
        let attach = format!("{}={}", group.path().display(), policy::GATEWAY);
        // Requests are logged at the level `info`, and there will be many.
        let level = "warn,gateway::app=info";
        let daemon = world.daemon(&["--log-level", level, "--attach", &attach])?;
        let ca = world.gateway_ca()?;
        Ok(Self {
            daemon,
            group,
            ca: ca.display().to_string(),
            told: Mutex::default(),
        })
    }

    fn start<'a>(&self, command: impl IntoIterator<Item = &'a str>) -> Result<Process> {
        let mut command = self.group.command(command);
        command.env("SSL_CERT_FILE", &self.ca);
        Process::start(command, b"")
    }

    fn curl(&self, arguments: &[&str]) -> Result<Process> {
        let limit = patient(Duration::from_secs(60)).as_secs().to_string();
        let base = ["curl", "-sS", "--max-time", &limit, "--cacert", &self.ca];
        self.start(base.iter().chain(arguments).copied())
    }

    fn status(&self, url: &str) -> Result<String> {
        let arguments = ["-o", "/dev/null", "-w", "%{http_code}", url];
        // Resolved by the host: what is asked is the connection, not the name.
        let ended = self.curl(&arguments)?.wait(SOON)?;
        Ok(ended.out().trim().to_owned())
    }

    /// How many reloads the daemon has told of, good and bad. It looks at each line of the log once: there are many, and
    /// this is asked often.
    fn told(&self) -> (usize, usize) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for line in self.daemon.process.stderr_from(told.lines) {
            told.lines += 1;
            told.taken += usize::from(line.text.contains("policy reloaded"));
            told.refused += usize::from(line.text.contains("was not taken"));
        }
        (told.taken, told.refused)
    }

    fn wait_until(&self, what: &str, done: impl Fn((usize, usize)) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !done(self.told()) {
            ensure!(begun.elapsed() < patient(SOON), "never {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Resident kibibytes and open descriptors of the daemon.
    fn use_of_resources(&self) -> Result<(u64, usize)> {
        let process = format!("/proc/{}", self.daemon.process.id()?);
        let status = std::fs::read_to_string(Path::new(&process).join("status"))?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
            .context("no VmRSS")?;
        let open = std::fs::read_dir(Path::new(&process).join("fd"))?.count();
        Ok((resident, open))
    }
}

fn without(world: &World, name: &str) -> Vec<String> {
    let all = policy::join(&world.standard());
    vec![all.replace(&format!("\"{name}\", "), "")]
}

#[test]
fn a_new_policy_counts_from_the_next_connection_and_a_broken_one_never() -> Result<()> {
    let world = World::new()?;
    let guarded = Guarded::new(&world)?;
    let url = "https://echo.test/";
    let resolve = |answer: &str| -> Result<()> {
        // By address: the name is no longer answered.
        let arguments = ["--resolve", "echo.test:443:203.0.113.9"];
        let rest = ["-o", "/dev/null", "-w", "%{http_code}", url];
        let all: Vec<&str> = arguments.iter().chain(&rest).copied().collect();
        let ended = guarded.curl(&all)?.wait(SOON)?;
        ensure!(ended.out().trim() == answer, "{answer}: {ended:#?}");
        Ok(())
    };
    assert_eq!(guarded.status(url)?, "200");
    let broken = policy::join(&world.standard()).replace("deny-all", "deny-most");
    world.write_policy(&[broken])?;
    guarded.wait_until("refused", |(_, refused)| refused == 1)?;
    assert_eq!(guarded.status(url)?, "200");
    let log = guarded.daemon.process.stderr();
    let said = log.iter().find(|line| line.text.contains("was not taken"));
    let said = &said.context("nothing was said")?.text;
    assert!(
        said.contains("policy.yaml:5:") && said.contains("deny-most"),
        "{said}"
    );

    world.write_policy(&without(&world, "echo.test"))?;
    guarded.wait_until("narrowed", |(taken, _)| taken == 1)?;
    resolve("403")?;
    world.write_policy(&world.standard())?;
    guarded.wait_until("widened", |(taken, _)| taken == 2)?;
    assert_eq!(guarded.status(url)?, "200");

    // A gateway that is gone allows nothing, and one that comes back does what it did.
    let renamed = policy::join(&world.standard())
        .replace(&format!("name: {}", policy::GATEWAY), "name: another");
    world.write_policy(&[renamed])?;
    guarded.wait_until("renamed", |(taken, _)| taken == 3)?;
    assert_eq!(guarded.status(url)?, "000");
    world.write_policy(&world.standard())?;
    guarded.wait_until("restored", |(taken, _)| taken == 4)?;
    assert_eq!(guarded.status(url)?, "200");
    world.internet.saw_nothing()
}

#[test]
fn what_is_open_and_no_longer_allowed_ends_at_once_and_the_rest_goes_on() -> Result<()> {
    let world = World::new()?;
    let tcp = "    - {name: http, protocol: HTTP}\n    - {name: raw, protocol: TCP, port: 8443}\n";
    let documents = |names: &[&str], networks: &[&str]| {
        let gateway = world
            .documents(&policy::Gateway {
                default: "deny-all",
                otlp: None,
                capture: 0,
            })
            .remove(0)
            .replace("    - {name: http, protocol: HTTP}\n", tcp);
        vec![
            gateway,
            policy::test_ca(world.ca.pem()),
            policy::l4_route("names", &Destinations::Names(names), &[443]),
            policy::l4_route("networks", &Destinations::Networks(networks), &[8443]),
        ]
    };
    let raw = ["203.0.113.9/32", "198.51.100.53/32"];
    world.write_policy(&documents(&["echo.test", "h1.test"], &raw))?;
    let guarded = Guarded::new(&world)?;
    let begun = Instant::now();
    let slow = format!("/slow/{}", patient(Duration::from_secs(19)).as_millis());
    let waiting = guarded.curl(&[&format!("https://echo.test{slow}")])?;
    let streaming = guarded.curl(&["-N", "https://echo.test/sse/400/50"])?;
    let staying = guarded.curl(&["--fail", "-N", "https://h1.test/sse/60/50"])?;
    let mut copied = guarded.start(["python3", "-c", HOLD, "203.0.113.9", "8443"])?;
    let mut kept = guarded.start(["python3", "-c", HOLD, "198.51.100.53", "8443"])?;
    world.mocks.echo.seen().wait_for(&slow, SOON)?;
    world.mocks.echo.seen().wait_for("/sse/400/50", SOON)?;
    world.mocks.http1.seen().wait_for("/sse/60/50", SOON)?;
    for held in [&mut copied, &mut kept] {
        held.wait_for_line(SOON, |line| line == "open")?;
    }

    world.write_policy(&documents(&["h1.test"], &raw[1..]))?;
    let changed = Instant::now();
    let ends = |process: Process, what: &str| -> Result<Ended> {
        let ended = process.wait(SOON)?;
        let after = changed.elapsed();
        ensure!(
            after < patient(Duration::from_secs(5)),
            "{what} after {after:?}"
        );
        Ok(ended)
    };
    let waiting = ends(waiting, "the one that waits")?;
    assert!(waiting.out().contains("policy_changed"), "{waiting:#?}");
    let streaming = ends(streaming, "the one that streams")?;
    assert_ne!(streaming.code(), 0, "{streaming:#?}");
    let copied = ends(copied, "the one that is copied")?;
    assert!(copied.out().contains("closed"), "{copied:#?}");
    println!(
        "open connections ended {:?} after the change",
        changed.elapsed()
    );
    guarded.daemon.wait_for_record(SOON, |record| {
        record.reason() == "policy_changed" && record.host() == "echo.test"
    })?;
    // What is allowed before and after has not noticed.
    let staying = staying.wait(SOON)?;
    assert_eq!(staying.code(), 0, "{staying:#?}");
    assert!(begun.elapsed() > Duration::from_secs(3));
    kept.signal(nix::sys::signal::Signal::SIGTERM)?;
    let kept = kept.wait(SOON)?;
    assert!(!kept.out().contains("closed"), "{kept:#?}");
    Ok(())
}

/// Connects, says something that is neither TLS nor HTTP, and tells when the other side closes.
const HOLD: &str = "
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.sendall(b'SSH-2.0-hold\\r\\n')
print('open', flush=True)
try:
    while s.recv(4096): pass
except OSError: pass
print('closed', flush=True)
";

#[test]
fn a_thousand_reloads_under_load_change_no_answer_and_leak_nothing() -> Result<()> {
    let world = World::new()?;
    let guarded = Guarded::new(&world)?;
    let wide = world.standard();
    let narrow = without(&world, "h1.test");
    let client = env!("CARGO_BIN_EXE_load_client");
    let over = AtomicBool::new(false);
    // Both policies once, so that everything that is made once has been made.
    for (documents, count) in [(&narrow, 1), (&wide, 2)] {
        world.write_policy(documents)?;
        guarded.wait_until("warm", |(taken, _)| taken == count)?;
    }
    let load = || -> Result<u64> {
        let mut correct = 0;
        while !over.load(Ordering::Relaxed) {
            let run = [client, "https://injected.test/load", "4", "100"];
            let ended = guarded.start(run)?.wait(SOON)?;
            ensure!(ended.code() == 0, "{ended:#?}");
            let report: serde_json::Value = serde_json::from_str(&ended.out())?;
            ensure!(report["errors"] == serde_json::json!([]), "{report}");
            correct += report["correct"].as_u64().unwrap_or(0);
        }
        Ok(correct)
    };
    let reloads = fewer(RELOADS);
    // Pools and caches have what they will have by then.
    let settled = (reloads / 10).max(50);
    let (answers, before, after, took) = std::thread::scope(|scope| {
        let loading = scope.spawn(load);
        let change = || -> Result<_> {
            let begun = Instant::now();
            let mut before = (0, 0);
            for count in 0..reloads {
                let documents = if count % 2 == 0 { &narrow } else { &wide };
                world.write_policy(documents)?;
                guarded.wait_until("reloaded", |(taken, _)| taken == count + 3)?;
                if count % 50 < 2 {
                    // Just changed, and right at once; what neither policy allows stays denied.
                    let expected = if count % 2 == 0 { "000" } else { "200" };
                    let status = guarded.status("https://h1.test/")?;
                    ensure!(status == expected, "{count}: {status}, not {expected}");
                    ensure!(guarded.status("https://203.0.113.9/")? == "000", "let out");
                }
                if count == settled {
                    before = guarded.use_of_resources()?;
                }
            }
            Ok((before, guarded.use_of_resources()?, begun.elapsed()))
        };
        let changed = change();
        over.store(true, Ordering::Relaxed);
        let answers = loading.join().map_err(|_panic| anyhow::anyhow!("load"))??;
        let (before, after, took) = changed?;
        anyhow::Ok((answers, before, after, took))
    })?;
    println!(
        "{reloads} reloads in {took:.1?} under {answers} requests; resident {} to {} KiB, {} to {} descriptors",
        before.0, after.0, before.1, after.1
    );
    assert!(answers > 400, "no load: {answers}");
    assert!(
        after.0 < before.0 + 16 * 1024,
        "memory grows: {before:?} {after:?}"
    );
    assert!(
        after.1 < before.1 + 40,
        "descriptors grow: {before:?} {after:?}"
    );
    world.internet.saw_nothing()
}
