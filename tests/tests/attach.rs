//! `postern run`: a daemon that guards control groups which somebody else made, and that drains
//! when it is told to go.
#![allow(clippy::print_stderr, reason = "a clean-up that fails says so")]

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::cgroup::Cgroup;
use e2e::postern::Daemon;
use e2e::process::{Ended, Process, patient};
use e2e::{World, policy, postern};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(20);

/// A daemon that guards a fresh group, and the authority its clients must trust.
struct Guarded {
    daemon: Daemon,
    // Declared before the group: let go of before the group is removed.
    _detach: Detach,
    group: Cgroup,
    ca: String,
}

/// What an ended daemon leaves shut is let go of.
struct Detach(String);

impl Drop for Detach {
    fn drop(&mut self) {
        match postern::run(&["detach", &self.0]) {
            Ok(ended) if ended.code() == 0 || !std::path::Path::new(&self.0).exists() => {}
            failed => eprintln!("cannot detach {}: {failed:?}", self.0),
        }
    }
}

impl Guarded {
    fn new(world: &World) -> Result<Self> {
        let group = Cgroup::new("e2e-attached")?;
        let attach = format!("{}={}", group.path().display(), policy::GATEWAY);
        let daemon = world.daemon(&["--attach", &attach])?;
        let ca = world.gateway_ca()?;
        Ok(Self {
            daemon,
            _detach: Detach(group.path().display().to_string()),
            group,
            ca: ca.display().to_string(),
        })
    }

    fn curl(&self, arguments: &[&str]) -> Result<Process> {
        let limit = patient(SOON).as_secs().to_string();
        let base = ["curl", "-s", "--max-time", &limit, "--cacert", &self.ca];
        let all = base.iter().chain(arguments).copied();
        Process::start(self.group.command(all), b"")
    }

    fn ask(&self, arguments: &[&str]) -> Result<Ended> {
        self.curl(arguments)?.wait(SOON)
    }
}

#[test]
fn a_process_of_an_attached_group_leaves_through_the_gateway() -> Result<()> {
    let world = World::new()?;
    let guarded = Guarded::new(&world)?;
    let answer = guarded.ask(&["--fail", "https://injected.test/attached"])?;
    assert_eq!(answer.code(), 0, "{answer:#?}");
    let seen = world.mocks.echo.seen().of("/attached");
    assert_eq!(seen[0].header("x-api-key"), [&world.keys.injected]);
    let record = guarded
        .daemon
        .wait_for_record(SOON, |record| record.event() == "request")?;
    assert_eq!((record.host(), record.comm()), ("injected.test", "curl"));
    for address in [
        "https://203.0.113.9/",
        "https://[2001:db8::9]:8443/",
        "http://169.254.169.254/",
    ] {
        let refused = guarded.ask(&[address])?;
        assert_ne!(refused.code(), 0, "{address}: {refused:#?}");
    }
    guarded.daemon.wait_for_record(SOON, |record| {
        record.event() == "denied" && record.destination() == "169.254.169.254:80"
    })?;
    world.internet.saw_nothing()
}

#[test]
fn a_nested_group_is_inside_too_and_the_host_is_not() -> Result<()> {
    let world = World::new()?;
    let guarded = Guarded::new(&world)?;
    let script = "mkdir \"$0/inner\" && echo 0 > \"$0/inner/cgroup.procs\" && \
                  exec curl -s --max-time 5 http://203.0.113.9:8443/";
    let group = guarded.group.path().display().to_string();
    let nested = guarded.group.command(["sh", "-c", script, &group]);
    let refused = Process::start(nested, b"")?.wait(SOON)?;
    assert_eq!(refused.code(), 7, "{refused:#?}");
    world.internet.saw_nothing()?;
    std::fs::remove_dir(guarded.group.path().join("inner"))?;
    // Outside of the group nothing is guarded.
    std::net::TcpStream::connect("203.0.113.9:8443")?;
    assert!(world.internet.saw_nothing().is_err());
    Ok(())
}

#[test]
fn sigterm_lets_requests_finish() -> Result<()> {
    let world = World::new()?;
    let guarded = Guarded::new(&world)?;
    let slow = guarded.curl(&["--fail", "https://echo.test/slow/2500"])?;
    world.mocks.echo.seen().wait_for("/slow/2500", SOON)?;
    guarded.daemon.signal(Signal::SIGTERM)?;
    let answer = slow.wait(SOON)?;
    assert_eq!(answer.out().trim(), "at last", "{answer:#?}");
    let done = guarded.daemon.wait(SOON)?;
    assert_eq!(done.code(), 0, "{done}");
    assert!(done.errors().is_empty(), "{done}");
    let request = done.record("request", |_| true)?;
    assert_eq!(request.status(), Some(200));
    Ok(())
}

#[test]
fn a_second_signal_does_not_wait() -> Result<()> {
    let world = World::new()?;
    let guarded = Guarded::new(&world)?;
    // Longer than the test may take, shorter than curl's own limit.
    let path = format!("/slow/{}", patient(Duration::from_secs(19)).as_millis());
    let slow = guarded.curl(&["--fail", &format!("https://echo.test{path}")])?;
    world.mocks.echo.seen().wait_for(&path, SOON)?;
    guarded.daemon.signal(Signal::SIGTERM)?;
    std::thread::sleep(Duration::from_millis(500));
    guarded.daemon.signal(Signal::SIGTERM)?;
    let done = guarded.daemon.wait(Duration::from_secs(3))?;
    assert!(
        done.ended.elapsed < patient(Duration::from_secs(15)),
        "{done}"
    );
    let answer = slow.wait(SOON)?;
    assert_ne!(answer.code(), 0, "{answer:#?}");
    Ok(())
}

#[test]
fn a_daemon_killed_outright_leaves_its_sandbox_cut_off() -> Result<()> {
    let world = World::new()?;
    let guarded = Guarded::new(&world)?;
    guarded.daemon.signal(Signal::SIGKILL)?;
    let Guarded {
        daemon,
        group,
        ca,
        _detach,
    } = guarded;
    daemon.wait(SOON)?;
    for url in [
        "https://203.0.113.9/",
        "http://203.0.113.9:8443/",
        "https://echo.test/",
    ] {
        let curl = ["curl", "-s", "--max-time", "3", "--cacert", &ca, url];
        let refused = Process::start(group.command(curl), b"")?.wait(SOON)?;
        assert_ne!(refused.code(), 0, "{url}: {refused:#?}");
    }
    world.internet.saw_nothing()?;

    // The next daemon takes it over; only an operator sets it free.
    let path = group.path().display().to_string();
    let attach = format!("{path}={}", policy::GATEWAY);
    let next = world.daemon(&["--attach", &attach])?;
    let curl = [
        "curl",
        "-s",
        "--fail",
        "--cacert",
        &ca,
        "https://echo.test/again",
    ];
    let answer = Process::start(group.command(curl), b"")?.wait(SOON)?;
    assert_eq!(answer.code(), 0, "{answer:#?}");
    next.signal(Signal::SIGTERM)?;
    assert_eq!(next.wait(SOON)?.code(), 0);
    world.internet.saw_nothing()?;
    assert_eq!(postern::run(&["detach", &path])?.code(), 0);
    let free = ["bash", "-c", "exec 3<>/dev/tcp/203.0.113.9/8443"];
    let free = Process::start(group.command(free), b"")?.wait(SOON)?;
    assert_eq!(free.code(), 0, "{free:#?}");
    Ok(())
}

#[test]
fn a_group_or_a_gateway_that_is_not_there_is_an_error_at_the_start() -> Result<()> {
    let world = World::new()?;
    let group = Cgroup::new("e2e-attached")?;
    let group = group.path().display().to_string();
    for (attach, named) in [
        (format!("{group}=another"), "another"),
        (format!("{group}-missing={}", policy::GATEWAY), "missing"),
    ] {
        let error = world.daemon(&["--attach", &attach]).err();
        let error = error.context("it started")?.to_string();
        assert!(error.contains("ended") && error.contains(named), "{error}");
    }
    Ok(())
}
