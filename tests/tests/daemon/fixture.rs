//! A daemon in a world of its own, and how its commands are given. It refuses to assert anything.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::cgroup::{self, Cgroup};
use e2e::postern::{self, Daemon};
use e2e::process::{Ended, Process, patient};
use e2e::{World, policy};
use nix::sys::signal::Signal;
use serde_json::Value;

pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Where the daemon listens unless it is told otherwise.
pub(crate) const SOCKET: &str = "/run/postern/admin.sock";

/// See the module. Dropped in the order of its fields: pins are let go of by nobody's daemon.
pub(crate) struct Site {
    pub(crate) daemon: Daemon,
    _free: Free,
    pub(crate) world: World,
}

struct Free;

impl Drop for Free {
    fn drop(&mut self) {
        match postern::run(&["detach", "--all"]) {
            Ok(ended) if ended.code() == 0 => {}
            failed => eprintln!("cannot let go of what is attached: {failed:?}"),
        }
    }
}

impl Site {
    /// The standard policy, and nothing attached.
    pub(crate) fn new() -> Result<Self> {
        Self::of(World::new()?)
    }

    pub(crate) fn of(world: World) -> Result<Self> {
        // What a killed run left would be in the way of numbers and names.
        ensure!(
            !Path::new(SOCKET).exists() || postern::run(&["status"])?.code() != 0,
            "a daemon runs on this machine already"
        );
        let free = Free;
        Ok(Self {
            daemon: world.daemon(&[])?,
            _free: free,
            world,
        })
    }

    /// The certificate of a gateway's authority, in a file that sandboxes can read.
    pub(crate) fn authority(&self, gateway: &str) -> Result<String> {
        let state = self.world.path("state").display().to_string();
        let order = ["ca", "export", "--gateway", gateway, "--state-dir", &state];
        let exported = succeed(&order)?;
        let path = self.world.work(&format!("{gateway}.pem"));
        std::fs::write(&path, exported.out())?;
        Ok(path.display().to_string())
    }

    /// `status --json`.
    pub(crate) fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(
            &succeed(&["status", "--json"])?.out(),
        )?)
    }

    /// What status says of the sandbox at this folder.
    pub(crate) fn sandbox(&self, folder: &Path) -> Result<Option<Value>> {
        let status = self.status()?;
        let all = status["sandboxes"].as_array().context("no list")?;
        let path = below(folder)?;
        Ok(all.iter().find(|one| one["cgroup"] == *path).cloned())
    }

    /// Waits until there is a sandbox at this folder, or none any more.
    pub(crate) fn await_sandbox(&self, folder: &Path, there: bool) -> Result<Value> {
        let begun = Instant::now();
        loop {
            match self.sandbox(folder)? {
                Some(found) if there && found["open"] == true => return Ok(found),
                None if !there => return Ok(Value::Null),
                other if begun.elapsed() > patient(SOON) => {
                    bail!("{}: {other:?}", folder.display())
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Ends the daemon and says what it recorded.
    pub(crate) fn stop(self) -> Result<(World, postern::Done)> {
        let Self {
            daemon,
            _free,
            world,
        } = self;
        daemon.signal(Signal::SIGTERM)?;
        let done = daemon.wait(SOON)?;
        Ok((world, done))
    }
}

/// Attaches a group to a gateway by its folder.
pub(crate) fn attach(group: &Cgroup, gateway: &str) -> Result<()> {
    let path = group.path().display().to_string();
    succeed(&["attach", &path, "--gateway", gateway]).map(drop)
}

/// A command that must succeed.
pub(crate) fn succeed(arguments: &[&str]) -> Result<Ended> {
    let ended = postern::run(arguments)?;
    ensure!(ended.code() == 0, "postern {arguments:?}: {ended:#?}");
    Ok(ended)
}

/// A command that must end so, with these words.
pub(crate) fn refused(arguments: &[&str], code: i32, words: &[&str]) -> Result<()> {
    let ended = postern::run(arguments)?;
    let said = ended.err();
    ensure!(
        ended.code() == code && words.iter().all(|word| said.contains(word)),
        "postern {arguments:?}, not {code} with {words:?}: {ended:#?}"
    );
    Ok(())
}

/// The path below the mount.
pub(crate) fn below(folder: &Path) -> Result<String> {
    let rest = folder.strip_prefix(cgroup::mount()?)?;
    Ok(format!("/{}", rest.display()))
}

/// Runs to the end in a group.
pub(crate) fn inside(group: &Cgroup, arguments: &[&str]) -> Result<Ended> {
    Process::start(group.command(arguments.iter().copied()), b"")?.wait(SOON * 2)
}

/// An HTTPS request from within a group.
pub(crate) fn curl(group: &Cgroup, authority: &str, arguments: &[&str]) -> Result<Ended> {
    let base = [
        "curl",
        "-sS",
        "--fail",
        "--max-time",
        "15",
        "--cacert",
        authority,
    ];
    inside(group, &[&base, arguments].concat())
}

/// May a process of this group connect to a foreign host? Only one that nobody guards may.
pub(crate) fn is_free(group: &Cgroup) -> Result<bool> {
    let connect = ["bash", "-c", "exec 3<>/dev/tcp/203.0.113.9/8443"];
    Ok(inside(group, &connect)?.code() == 0)
}

/// The slice of the system's services: systemd's own, or one that is made for the test.
pub(crate) fn system_slice() -> Result<(PathBuf, Option<Cgroup>)> {
    let path = cgroup::mount()?.join("system.slice");
    let made = match path.is_dir() {
        true => None,
        false => Some(Cgroup::inside(&cgroup::mount()?, "system.slice")?),
    };
    Ok((path, made))
}

/// A process in a group that does nothing until it is killed.
pub(crate) fn idle(group: &Cgroup) -> Result<Process> {
    let mut process = Process::start(group.command(["sh", "-c", "echo in; exec sleep 600"]), b"")?;
    process.wait_for_line(SOON, |line| line == "in")?;
    Ok(process)
}

/// A document of the standard policy for another gateway than the standard one.
pub(crate) fn of_gateway(gateway: &str, document: &str) -> String {
    document.replace(
        &format!("name: {}}}", policy::GATEWAY),
        &format!("name: {gateway}}}"),
    )
}

/// A `SandboxBinding` with this selector.
pub(crate) fn binding(name: &str, gateway: &str, selector: &str) -> String {
    format!(
        "apiVersion: postern.dev/v1alpha1
kind: SandboxBinding
metadata: {{name: {name}}}
spec:
  gatewayRef: {{name: {gateway}}}
  selector: {{{selector}}}
"
    )
}

/// As another user, who owns nothing.
pub(crate) fn as_nobody(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program)
        .args(arguments);
    command
}
