//! Debian's (and Ubuntu's) packages: what the build and the tests need, and how to install them with or without root.
//! It refuses to know what the packages are used for.

use std::path::Path;
use std::process::Command;

use super::Machine;
use crate::Failure;
use crate::console::Note;
use crate::process;
use crate::workspace::{find_command, is_root};

/// What the build, the demo and the suites call, and the package that brings it.
const BASE: &[(Probe, &str)] = &[
    (
        Probe::File("/etc/ssl/certs/ca-certificates.crt"),
        "ca-certificates",
    ),
    (Probe::Command("cc"), "gcc"),
    (Probe::File("/usr/include/stdio.h"), "libc6-dev"),
    // bpf-linker links LLVM's libstdc++.
    (Probe::Command("g++"), "g++"),
    (Probe::Command("curl"), "curl"),
    (Probe::Command("dig"), "bind9-dnsutils"),
    (Probe::Command("git"), "git"),
    (Probe::Command("ip"), "iproute2"),
    // Behind the gateway in the smuggling suite. Its package may start a server of its own: port 80.
    (Probe::File("/usr/sbin/nginx"), "nginx-light"),
    (Probe::Command("node"), "nodejs"),
    (Probe::Command("openssl"), "openssl"),
    (Probe::Command("ssh"), "openssh-client"),
    (Probe::File("/usr/sbin/sshd"), "openssh-server"),
    (Probe::Command("psql"), "postgresql-client"),
    (Probe::Command("python3"), "python3"),
    (Probe::PythonVenv, "python3-venv"),
    (Probe::Command("tcpdump"), "tcpdump"),
];

/// What benches call besides: most people never run one.
const FOR_BENCHES: &[(Probe, &str)] = &[
    // Counts the entries of maps.
    (Probe::File("/usr/sbin/bpftool"), "bpftool"),
    (Probe::Command("h2load"), "nghttp2-client"),
    (Probe::Command("wrk"), "wrk"),
    (Probe::File("/usr/sbin/nginx"), "nginx-light"),
    (Probe::Command("ip"), "iproute2"),
    (Probe::Command("curl"), "curl"),
    (Probe::PythonVenv, "python3-venv"),
];

/// Of [`BASE`], what compiles and calls nothing else: a guest gets what was compiled here.
const FOR_THE_BUILD: &[&str] = &["gcc", "libc6-dev", "g++", "python3-venv"];

/// The packages whose commands the suites call, wherever they run.
pub(crate) fn packages_of_suites() -> impl Iterator<Item = &'static str> {
    BASE.iter()
        .map(|(_, package)| *package)
        .filter(|package| !FOR_THE_BUILD.contains(package))
}

#[derive(Debug)]
enum Probe {
    Command(&'static str),
    File(&'static str),
    /// The interpreter is there without the modules that make environments: Debian splits them.
    PythonVenv,
}

impl Probe {
    fn is_met(&self) -> bool {
        match self {
            Self::Command(name) => find_command(name).is_some(),
            Self::File(path) => Path::new(path).exists(),
            Self::PythonVenv => super::python::interpreter().is_some(),
        }
    }
}

/// Installs the packages of [`BASE`] whose commands or files are absent.
pub(super) fn install_base(machine: &mut Machine<'_>, note: &Note) -> Result<String, Failure> {
    install_missing(machine, note, BASE)
}

/// The same of [`FOR_BENCHES`].
pub(super) fn install_for_benches(
    machine: &mut Machine<'_>,
    note: &Note,
) -> Result<String, Failure> {
    install_missing(machine, note, FOR_BENCHES)
}

fn install_missing(
    machine: &mut Machine<'_>,
    note: &Note,
    wanted: &[(Probe, &'static str)],
) -> Result<String, Failure> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(probe, _)| !probe.is_met())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok("already there".to_owned());
    }
    install(machine, note, &missing)?;
    Ok(format!("installed {}", missing.join(", ")))
}

/// apt's package lists, refreshed once a run and only if something is asked of them.
#[derive(Debug, Default)]
pub(super) struct Apt {
    updated: bool,
}

/// Installs `packages` with their hard dependencies. Never removes a package to make room: `rustc-web` conflicts with
/// `rustc`, and which of the two a machine keeps is its owner's choice.
pub(super) fn install(
    machine: &mut Machine<'_>,
    note: &Note,
    packages: &[&str],
) -> Result<(), Failure> {
    let by_hand = format!(
        "apt-get install --no-install-recommends {}",
        packages.join(" ")
    );
    update(machine, note).map_err(|failure| failure.hint(&format!("run: {by_hand}")))?;
    note.say(&format!("installing {}", packages.join(", ")));
    let mut command = apt_get()?;
    command
        .args([
            "install",
            "--yes",
            "--no-remove",
            "--no-install-recommends",
            "-o",
            "DPkg::Lock::Timeout=300",
        ])
        .args(packages);
    machine
        .log
        .run(&mut command)
        .map_err(|failure| failure.hint(&format!("run: {by_hand}")))
}

/// Which of `packages` apt cannot install here; all of them when there is no apt or no right to use it.
pub(super) fn unavailable<'a>(
    machine: &mut Machine<'_>,
    note: &Note,
    packages: &[&'a str],
) -> Vec<&'a str> {
    if update(machine, note).is_err() {
        return packages.to_vec();
    }
    let has_candidate = |package: &str| {
        process::answer(Command::new("apt-cache").args(["policy", package])).is_some_and(|policy| {
            policy
                .lines()
                .filter_map(|line| line.trim().strip_prefix("Candidate:"))
                .any(|candidate| candidate.trim() != "(none)")
        })
    };
    packages
        .iter()
        .copied()
        .filter(|package| !has_candidate(package))
        .collect()
}

fn update(machine: &mut Machine<'_>, note: &Note) -> Result<(), Failure> {
    if !machine.apt.updated {
        let mut command = apt_get()?;
        note.say("refreshing package lists");
        machine.log.run(command.arg("update"))?;
        machine.apt.updated = true;
    }
    Ok(())
}

/// `apt-get` as root, through a `sudo` that asks nothing when we are not.
fn apt_get() -> Result<Command, Failure> {
    if find_command("apt-get").is_none() {
        return Err(Failure::failed("there is no apt-get on this machine"));
    }
    let mut command = if is_root() {
        Command::new("env")
    } else if process::answer(Command::new("sudo").args(["-n", "true"])).is_some() {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "env"]);
        sudo
    } else {
        return Err(Failure::failed(
            "this needs root, and sudo is absent or asks for a password",
        ));
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"]);
    Ok(command)
}
