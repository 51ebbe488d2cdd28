//! The gateway is killed while a sandbox tries everything: whoever it was attached for is cut off, or ends.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cgroup::Cgroup;
use e2e::policy;
use e2e::postern;
use e2e::process::{Process, patient};
use e2e::{World, world};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(20);
const TARGET: &str = "198.51.100.210";

/// The heartbeat of the storm, which must have begun.
fn beat(world: &World) -> Result<String> {
    fs::read_to_string(world.work("heartbeat")).context("no heartbeat")
}

#[test]
fn a_sandbox_of_exec_ends_with_its_gateway() -> Result<()> {
    for on_the_host_network in [false, true] {
        let world = World::new()?;
        let mut exec = world.script("escape/storm.py", &["60", TARGET])?;
        if on_the_host_network {
            exec = exec.on_the_host_network();
        }
        let sandbox = exec.start()?;
        world.wait_for_file("heartbeat")?;
        std::thread::sleep(patient(Duration::from_millis(500)));
        sandbox.process.signal(Signal::SIGKILL)?;
        std::thread::sleep(patient(Duration::from_millis(1500)));
        let last = beat(&world)?;
        std::thread::sleep(Duration::from_millis(700));
        ensure!(beat(&world)? == last, "the sandbox lives on");
        let done = sandbox.wait()?;
        // What it tried until then is on record, killed or not.
        ensure!(
            done.records("denied").iter().any(|record| {
                record.destination() == format!("{TARGET}:4444") && record.reason() == "no_rule"
            }),
            "{done}"
        );
        world.internet.saw_nothing()?;
    }
    Ok(())
}

#[test]
fn a_group_of_run_is_cut_off_when_the_gateway_is_killed() -> Result<()> {
    let world = World::new()?;
    let group = Cgroup::new("e2e-killed")?;
    let path = group.path().display().to_string();
    let daemon = world.daemon(&["--attach", &format!("{path}={}", policy::GATEWAY)])?;
    let script = world::script("escape/storm.py")?;
    let words = script.iter().map(String::as_str).chain(["5", TARGET]);
    let mut command = group.command(words);
    command.current_dir(world.path("work"));
    let storm = Process::start(command, b"")?;
    world.wait_for_file("heartbeat")?;
    std::thread::sleep(Duration::from_millis(500));
    daemon.signal(Signal::SIGKILL)?;
    let ended = storm.wait(SOON)?;
    let detached = postern::run(&["detach", &path])?;
    let done = daemon.wait(SOON)?;
    ensure!(
        ended.code() == 0 && detached.code() == 0,
        "{ended:?} {detached:?}"
    );
    for line in ended.stdout {
        let told: serde_json::Value = serde_json::from_str(&line.text)?;
        let outcome = told["outcome"].as_str().unwrap_or_default();
        let is_refusal = outcome.starts_with('E')
            || outcome.starts_with("ssl")
            || ["closed", "timeout", "rcode 3, 0 answers"].contains(&outcome);
        ensure!(is_refusal, "{told}");
    }
    ensure!(!done.records("denied").is_empty(), "{done}");
    world.internet.saw_nothing()
}
