//! Sockets that no hook saw open: from before the group was guarded, or handed in by somebody outside.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::audit::Record;
use e2e::cgroup::Cgroup;
use e2e::policy;
use e2e::postern::{self, Daemon};
use e2e::process::{Process, beyond};
use e2e::{World, world};

use crate::rows::has_bpf_lsm;

const SOON: Duration = Duration::from_secs(20);
const STREAM: &str = "198.51.100.201";
const CONNECTED: &str = "198.51.100.202";
const FREE: &str = "198.51.100.203";
const PASSED: &str = "198.51.100.204";
const WITHIN: &str = "198.51.100.205";
const NESTED: &str = "198.51.100.206";

/// A group that is not guarded yet.
struct Stage {
    world: World,
    group: Cgroup,
}

impl Stage {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let group = Cgroup::new("e2e-passed")?;
        Ok(Self { world, group })
    }

    /// `passed.py` in the group, or outside of it.
    fn start(&self, inside: bool, words: &[&str]) -> Result<Process> {
        let script = world::script("escape/passed.py")?;
        let all = script
            .iter()
            .map(String::as_str)
            .chain(words.iter().copied());
        let mut command = if inside {
            self.group.command(all)
        } else {
            let all: Vec<&str> = all.collect();
            let mut command = std::process::Command::new(all[0]);
            command.args(&all[1..]);
            command
        };
        command.current_dir(self.world.path("work"));
        Process::start(command, b"")
    }

    fn guard(&self) -> Result<Daemon> {
        let path = self.group.path().display();
        self.world
            .daemon(&["--attach", &format!("{path}={}", policy::GATEWAY)])
    }

    fn sent_to(&self, address: &str) -> Result<usize> {
        let address: std::net::IpAddr = address.parse()?;
        let packets = self.world.internet.packets();
        Ok(packets
            .iter()
            .filter(|packet| packet.destination == address)
            .count())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(postern::run(&[
            "detach",
            &self.group.path().display().to_string(),
        ]));
    }
}

fn is_denied(record: &Record, address: &str, reason: &str) -> bool {
    record.event() == "denied"
        && record.stage() == "kernel"
        && record.reason() == reason
        && record.destination().starts_with(address)
}

#[test]
fn a_socket_from_before_the_attach_is_cut_off() -> Result<()> {
    let stage = Stage::new()?;
    let sandbox = stage.start(true, &["before", STREAM, CONNECTED, FREE])?;
    stage.world.wait_for_file("opened")?;
    ensure!(stage.sent_to(STREAM)? > 0, "the stream was never connected");
    let daemon = stage.guard()?;
    let before = stage.sent_to(STREAM)?;
    std::fs::write(stage.world.work("attached"), "")?;
    let ended = sandbox.wait(SOON)?;
    ensure!(ended.code() == 0, "{ended:?}");
    for address in [STREAM, CONNECTED] {
        daemon
            .wait_for_record(SOON, |record| is_denied(record, address, "backstop"))
            .with_context(|| format!("{address}: {}", ended.out()))?;
    }
    daemon.wait_for_record(SOON, |record| {
        is_denied(record, FREE, "protocol_not_allowed")
    })?;
    ensure!(stage.sent_to(STREAM)? == before, "the stream goes on");
    ensure!(stage.sent_to(CONNECTED)? == 0 && stage.sent_to(FREE)? == 0);
    Ok(())
}

#[test]
fn a_socket_that_somebody_outside_hands_in_is_cut_off() -> Result<()> {
    if !has_bpf_lsm() {
        return beyond(
            "no BPF LSM: a socket belongs to the cgroup that made it, and no other program of the sandbox's sees one \
             that a process outside hands in",
        );
    }
    let stage = Stage::new()?;
    let daemon = stage.guard()?;
    let path = stage.world.work("giver.sock").display().to_string();
    let mut giver = stage.start(false, &["give", &path, PASSED])?;
    giver.wait_for_line(SOON, |line| line.contains("ready"))?;
    let before = stage.sent_to(PASSED)?;
    let ended = stage.start(true, &["take", &path])?.wait(SOON)?;
    ensure!(ended.out().contains("cut off"), "{ended:?}");
    ensure!(
        stage.sent_to(PASSED)? == before,
        "it was used: {}",
        ended.out()
    );
    daemon.wait_for_record(SOON, |record| is_denied(record, PASSED, "foreign_socket"))?;
    Ok(())
}

#[test]
fn what_a_sandbox_opened_may_be_passed_on_within_it() -> Result<()> {
    let stage = Stage::new()?;
    let daemon = stage.guard()?;
    let nested = stage.group.path().join("nested");
    std::fs::create_dir(&nested)?;
    let nested_path = nested.display().to_string();
    for (address, group) in [(WITHIN, None), (NESTED, Some(nested_path.as_str()))] {
        let words: Vec<&str> = ["share", address].into_iter().chain(group).collect();
        let ended = stage.start(true, &words)?.wait(SOON)?;
        // The socket, and all that came with it; then policy has its say.
        ensure!(
            ended.code() == 0 && ended.out().contains("\"descriptors\": 3"),
            "{ended:?}"
        );
        ensure!(ended.out().contains("not permitted"), "{ended:?}");
        daemon.wait_for_record(SOON, |record| {
            is_denied(record, address, "protocol_not_allowed")
        })?;
    }
    std::fs::remove_dir(&nested)?;
    Ok(())
}

/// Under `exec` there is no way for it to be handed in: what listens outside cannot be reached.
#[test]
fn nobody_outside_can_hand_a_socket_to_what_exec_runs() -> Result<()> {
    let stage = Stage::new()?;
    let path = stage.world.work("giver.sock").display().to_string();
    let mut giver = stage.start(false, &["give", &path, PASSED])?;
    giver.wait_for_line(SOON, |line| line.contains("ready"))?;
    let before = stage.sent_to(PASSED)?;
    for on_the_host_network in [false, true] {
        let mut exec = stage.world.script("escape/passed.py", &["take", &path])?;
        if on_the_host_network {
            exec = exec.on_the_host_network();
        }
        let done = exec.run()?;
        ensure!(done.code() != 0 && done.err().contains("refused"), "{done}");
    }
    ensure!(stage.sent_to(PASSED)? == before, "it was used");
    Ok(())
}
