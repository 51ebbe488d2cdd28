//! Network namespaces of an attached sandbox: loopback is its own business where nobody else is, and what
//! nobody is in any more is given back.
#![allow(
    clippy::print_stdout,
    reason = "a measurement is shown with the test that made it"
)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::cgroup::Cgroup;
use e2e::postern::Daemon;
use e2e::process::{Process, patient};
use e2e::{World, policy, postern};
use nix::sys::signal::Signal;

/// The gateway looks every five seconds.
const SOON: Duration = Duration::from_secs(30);
/// What `postern run` allows a sandbox (MOST_NAMESPACES).
const MOST: usize = 32;

/// Connections to the telemetry collector that refusals have the daemon open: some, where listeners in so many
/// namespaces would be 124 sockets.
const COLLECTOR: usize = 8;

/// Tries again and again, and says what came of it: a server of somebody else's on port 8000 of loopback, one of
/// its own on another port.
const CLIENT: &str = "
import socket, time
def attempt(port):
    try: return socket.create_connection(('127.0.0.1', port), 1).recv(9).decode()
    except OSError as error: return type(error).__name__
def own():
    server = socket.socket(); server.bind(('127.0.0.1', 0)); server.listen()
    try: client = socket.create_connection(server.getsockname(), 1)
    except OSError as error: return type(error).__name__
    server.settimeout(1)
    try: server.accept()
    except OSError as error: return type(error).__name__
    return 'own'
while True:
    print(attempt(8000), own(), flush=True)
    time.sleep(0.2)
";

const NEIGHBOUR: &str = "
import socket
server = socket.socket(); server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(('127.0.0.1', 8000)); server.listen()
print('listening', flush=True)
while True: server.accept()[0].sendall(b'neighbour')
";

#[test]
fn loopback_is_the_sandboxs_own_only_while_nobody_else_is_in_the_namespace() -> Result<()> {
    let world = World::new()?;
    let group = Cgroup::new("e2e-namespaces")?;
    let attach = format!("{}={}", group.path().display(), policy::GATEWAY);
    let up = [
        "unshare",
        "-n",
        "sh",
        "-c",
        "ip link set lo up && echo up && exec sleep 300",
    ];
    // As the pause container of a pod: somebody else's.
    let mut pause = start(&up)?;
    pause.wait_for_line(SOON, |line| line == "up")?;
    let net = format!("--net=/proc/{}/ns/net", pause.id()?);
    let neighbour = || -> Result<Process> {
        let mut neighbour = start(&["nsenter", &net, "python3", "-c", NEIGHBOUR])?;
        neighbour.wait_for_line(SOON, |line| line == "listening")?;
        Ok(neighbour)
    };
    let other = neighbour()?;
    let enter = ["nsenter", net.as_str(), "python3", "-c", CLIENT];
    let mut client = Process::start(group.command(enter), b"")?;
    client.wait_for_line(SOON, |line| line == "neighbour own")?;
    let daemon = world.daemon(&["--attach", &attach])?;

    // Long enough for the namespace to be found and looked at again.
    let shut = "PermissionError PermissionError";
    let begun = Instant::now();
    let mut read = client.stdout().len();
    said(&client, &mut read, |line| line == shut)?;
    while begun.elapsed() < Duration::from_secs(8) {
        assert_eq!(said(&client, &mut read, |_| true)?, shut);
    }
    other.signal(Signal::SIGKILL)?;
    pause.signal(Signal::SIGKILL)?;
    said(&client, &mut read, |line| {
        line == "ConnectionRefusedError own"
    })?;
    let net = format!("--net=/proc/{}/ns/net", client.id()?);
    let mut late = start(&["nsenter", &net, "python3", "-c", NEIGHBOUR])?;
    late.wait_for_line(SOON, |line| line == "listening")?;
    said(&client, &mut read, |line| line == shut)?;
    for one in [late, client] {
        one.signal(Signal::SIGKILL)?;
    }
    daemon.signal(Signal::SIGTERM)?;
    assert_eq!(daemon.wait(SOON)?.code(), 0);
    assert_eq!(postern::run(&["detach", "--all"])?.code(), 0);
    Ok(())
}

#[test]
fn namespaces_that_nobody_is_in_are_given_back_and_one_sandbox_has_not_too_many() -> Result<()> {
    let world = World::new()?;
    let group = Cgroup::new("e2e-namespaces")?;
    let attach = format!("{}={}", group.path().display(), policy::GATEWAY);
    let daemon = world.daemon(&["--attach", &attach])?;
    let before = sockets(&daemon)?;
    let pause = patient(Duration::from_millis(200)).as_secs_f64();
    let script = format!(
        "ip link set lo up; while :; do exec 3<>/dev/tcp/203.0.113.9/8443; sleep {pause}; done"
    );
    let loops = ["unshare", "-n", "bash", "-c", &script];
    let mut crowd = Vec::new();
    for _ in 0..MOST + 8 {
        crowd.push(Process::start(group.command(loops), b"")?);
    }
    until("all that it may have", || Ok(namespaces()? == MOST))?;
    // The host's is one of them.
    assert!(sockets(&daemon)? <= before + 4 * (MOST - 1) + COLLECTOR);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(namespaces()?, MOST);
    for one in crowd {
        one.signal(Signal::SIGKILL)?;
    }
    until("the host's alone", || Ok(namespaces()? == 1))?;
    until("hardly more sockets than before", || {
        let now = sockets(&daemon)?;
        println!("{now} sockets, {before} before");
        Ok(now <= before + COLLECTOR)
    })?;
    let again = Process::start(group.command(loops), b"")?;
    until("one more", || Ok(namespaces()? == 2))?;
    again.signal(Signal::SIGKILL)?;
    daemon.signal(Signal::SIGTERM)?;
    assert_eq!(daemon.wait(SOON)?.code(), 0);
    assert_eq!(postern::run(&["detach", "--all"])?.code(), 0);
    Ok(())
}

fn start(words: &[&str]) -> Result<Process> {
    let mut command = std::process::Command::new(words[0]);
    command.args(&words[1..]);
    Process::start(command, b"")
}

/// The next line that is wanted.
fn said(client: &Process, read: &mut usize, wanted: impl Fn(&str) -> bool) -> Result<String> {
    let begun = Instant::now();
    loop {
        let lines = client.stdout();
        for line in &lines[*read..] {
            *read += 1;
            if wanted(&line.text) {
                return Ok(line.text.clone());
            }
        }
        if begun.elapsed() > patient(SOON) {
            bail!("not said: {lines:#?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many namespaces the one sandbox has listeners in.
fn namespaces() -> Result<usize> {
    let status = postern::run(&["status", "--json"])?;
    let status: serde_json::Value = serde_json::from_str(&status.out())?;
    let all = status["sandboxes"][0]["namespaces"].as_array();
    Ok(all.context("no namespaces")?.len())
}

/// How many sockets the daemon has.
fn sockets(daemon: &Daemon) -> Result<usize> {
    let process = daemon.process.id()?;
    let mut count = 0;
    for entry in std::fs::read_dir(format!("/proc/{process}/fd"))? {
        let target = std::fs::read_link(entry?.path()).unwrap_or_default();
        count += usize::from(target.to_string_lossy().starts_with("socket:"));
    }
    Ok(count)
}

fn until(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !holds()? {
        if begun.elapsed() > patient(SOON) {
            bail!("never {what}: {} namespaces", namespaces()?);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
