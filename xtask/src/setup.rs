//! `cargo xtask setup`: brings a machine to where `build`, `demo` and `test` work, and does nothing the second time.
//! The order of the steps is here; what each of them installs is in its own module. It refuses to know what is built later.

mod apt;
mod ebpf;
mod linker;
mod profdata;
mod python;
mod rustc;

use std::path::PathBuf;
use std::process::Command;

use crate::Failure;
use crate::console::Console;
use crate::process::{self, Log};
use crate::workspace::{Workspace, cargo_path};
use apt::Apt;
pub(crate) use apt::packages_of_suites;

pub(crate) use ebpf::Route;

/// What the steps share: the checkout, the log of everything they run, and the package manager.
#[derive(Debug)]
struct Machine<'a> {
    workspace: &'a Workspace,
    log: Log,
    apt: Apt,
}

/// Installs what is missing. `route` insists on one source of the eBPF compiler; without it the best one is taken.
pub(crate) fn run(
    workspace: &Workspace,
    console: Console,
    route: Option<Route>,
) -> Result<(), Failure> {
    let mut machine = Machine {
        workspace,
        log: Log::create(workspace.tools.join("setup.log"))?,
        apt: Apt::default(),
    };
    console.step("system packages", |note| {
        apt::install_base(&mut machine, &note)
    })?;
    console.step("rustfmt and clippy", |note| components(&machine, &note))?;
    let mut found = None;
    console.step("eBPF compiler", |note| {
        let toolchain = ebpf::find_or_install(&mut machine, &note, route)?;
        let summary = toolchain.to_string();
        found = Some(toolchain);
        Ok(summary)
    })?;
    // The step above returned early if it found nothing.
    if let Some(toolchain) = found {
        console.step("bpf-linker", |note| {
            linker::find_or_install(&mut machine, &note, &toolchain)
        })?;
        ebpf::record(workspace, &toolchain)?;
    }
    console.step("Python clients", |note| {
        python::install(&machine, &note, "venv", "tests/requirements.txt")
    })?;
    console.step("HTTP/3 client", |note| {
        python::install_beside(&machine, &note, ("venv", HTTP3), HTTP3_LIST)
    })
}

/// Where in the Python environment the HTTP/3 client is, and what belongs to it.
pub(crate) const HTTP3: &str = "http3";
pub(crate) const HTTP3_LIST: &str = "tests/http3.txt";

/// Installs what benches call, and with `peers` the proxies that they compare with.
pub(crate) fn for_benches(
    workspace: &Workspace,
    console: Console,
    peers: bool,
) -> Result<(), Failure> {
    let mut machine = Machine {
        workspace,
        log: Log::create(workspace.tools.join("setup-bench.log"))?,
        apt: Apt::default(),
    };
    console.step("load generators", |note| {
        apt::install_for_benches(&mut machine, &note)
    })?;
    if peers {
        console.step("Envoy and mitmproxy", |note| {
            python::install(&machine, &note, PEERS, "tests/benches/requirements.txt")
        })?;
    }
    Ok(())
}

/// Installs what a profile is made with, and says where that is.
pub(crate) fn for_dist(workspace: &Workspace, console: Console) -> Result<PathBuf, Failure> {
    let mut machine = Machine {
        workspace,
        log: Log::create(workspace.tools.join("setup-dist.log"))?,
        apt: Apt::default(),
    };
    let mut found = Err(Failure::failed("there is no llvm-profdata"));
    console.step("llvm-profdata", |note| {
        let path = profdata::find_or_install(&mut machine, &note)?;
        let said = path.display().to_string();
        found = Ok(path);
        Ok(said)
    })?;
    found
}

/// The environment with the proxies, in the tools' folder.
pub(crate) const PEERS: &str = "peers";

/// `cargo fmt` and `cargo clippy`, which a minimal rustup profile leaves out.
fn components(machine: &Machine<'_>, note: &crate::console::Note) -> Result<String, Failure> {
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(subcommand, _)| {
            process::answer(Command::new(cargo_path()).args([subcommand, "--version"])).is_none()
        })
        .map(|(_, component)| component)
        .collect();
    if missing.is_empty() {
        return Ok("already there".to_owned());
    }
    note.say(&format!("adding {}", missing.join(", ")));
    machine
        .log
        .run(
            Command::new("rustup")
                .args(["component", "add"])
                .args(missing),
        )
        .map_err(|failure| failure.hint("without rustup, install rustfmt and clippy by hand"))?;
    Ok("added".to_owned())
}
