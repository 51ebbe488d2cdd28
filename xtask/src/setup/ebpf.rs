//! The compiler of the kernel programs: any rustc with the sources of its libraries and an LLVM that bpf-linker can match.
//! It refuses to know how the programs are compiled: gateway/build.rs reads what is recorded here.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::rustc::Rustc;
use super::{Machine, apt, linker};
use crate::Failure;
use crate::console::Note;
use crate::process;
use crate::workspace::{Workspace, find_command};

/// Debian's compiler and its library sources, vendored crates included. Debian keeps it current for browsers.
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "rust-web-src"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// rustup gives up by itself where there is no route; this is for networks that swallow packets.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);
/// The file in the tools' folder that gateway/build.rs reads.
const RECORD: &str = "ebpf-toolchain";

/// Where the compiler comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// A rustup toolchain with its `rust-src` component.
    Rustup,
    /// `rustc-web` and `rust-web-src`.
    Debian,
}

impl Route {
    /// As on the command line and in the record.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "rustup" => Some(Self::Rustup),
            "debian" => Some(Self::Debian),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Rustup => "rustup",
            Self::Debian => "debian",
        }
    }
}

/// A compiler that can compile `core` for eBPF.
#[derive(Debug, Clone)]
pub(super) struct Toolchain {
    pub(super) route: Route,
    pub(super) rustc: Rustc,
    /// rustup toolchains bring the cargo that fits; Debian's compiler works with the one that runs us.
    cargo: Option<PathBuf>,
}

impl Display for Toolchain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rustc {} from {} (LLVM {})",
            self.rustc.release,
            self.route.name(),
            self.rustc.llvm
        )
    }
}

/// Takes, in this order: what an earlier run recorded, a complete compiler, Debian's packages, rustup's sources.
///
/// Debian's come before rustup's download since they are one matching set with their LLVM, and since asking the
/// package lists takes a second where an unreachable server can take minutes to be given up.
pub(super) fn find_or_install(
    machine: &mut Machine<'_>,
    note: &Note,
    route: Option<Route>,
) -> Result<Toolchain, Failure> {
    let wanted = |offered: Route| route.is_none_or(|route| route == offered);
    let mut complete = find_complete();
    complete.retain(|toolchain| wanted(toolchain.route));
    let recorded = recorded_rustc(machine.workspace);
    complete.sort_by_key(|toolchain| {
        let is_recorded = recorded.as_deref() == Some(toolchain.rustc.path.as_path());
        // Installed LLVM libraries decide before taste: without them there is another package to install.
        (
            !is_recorded,
            linker::installed_llvm(toolchain.rustc.llvm).is_none(),
        )
    });
    if let Some(toolchain) = complete.into_iter().next() {
        return Ok(toolchain);
    }

    let mut refusals = Vec::new();
    if wanted(Route::Debian) {
        match install_debian(machine, note) {
            Ok(toolchain) => return Ok(toolchain),
            Err(failure) => refusals.push(failure.to_string()),
        }
    }
    if wanted(Route::Rustup) {
        match install_rustup(machine, note) {
            Ok(toolchain) => return Ok(toolchain),
            Err(failure) => refusals.push(failure.to_string()),
        }
    }
    Err(Failure::failed(format!(
        "no compiler for the kernel programs:\n{}\nrun, as root: apt-get install --no-install-recommends {}\nor: rustup component add rust-src",
        refusals.join("\n"),
        DEBIAN_PACKAGES.join(" "),
    )))
}

/// Writes down what gateway/build.rs will use. Paths within the tools' folder are relative, so that it can be moved.
pub(super) fn record(workspace: &Workspace, toolchain: &Toolchain) -> Result<(), Failure> {
    let path = workspace.tools.join(RECORD);
    let mut text = format!(
        "route={}\nrustc={}\n",
        toolchain.route.name(),
        toolchain.rustc.path.display()
    );
    if let Some(cargo) = &toolchain.cargo {
        text.push_str(&format!("cargo={}\n", cargo.display()));
    }
    text.push_str(&format!("linker={}\n", linker::RELATIVE_PATH));
    // An untouched file keeps its time stamp, and cargo the object that it built.
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(&path, text)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
}

fn recorded_rustc(workspace: &Workspace) -> Option<PathBuf> {
    let text = fs::read_to_string(workspace.tools.join(RECORD)).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("rustc="))?;
    Some(PathBuf::from(path))
}

fn find_complete() -> Vec<Toolchain> {
    rustup_toolchains()
        .iter()
        .filter_map(|name| rustup_toolchain(name))
        .chain(debian_toolchain())
        .filter(|toolchain| {
            toolchain.rustc.has_library_sources() && linker::supports(toolchain.rustc.llvm)
        })
        .collect()
}

fn debian_toolchain() -> Option<Toolchain> {
    Some(Toolchain {
        route: Route::Debian,
        rustc: Rustc::probe(Path::new(DEBIAN_RUSTC))?,
        cargo: None,
    })
}

/// Installed toolchains, nightlies first: they are where `-Z build-std` is at home.
fn rustup_toolchains() -> Vec<String> {
    let mut names: Vec<String> =
        process::answer(Command::new("rustup").args(["toolchain", "list"]))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
            .collect();
    names.sort_by_key(|name| !name.starts_with("nightly"));
    names
}

fn rustup_toolchain(name: &str) -> Option<Toolchain> {
    let which = |tool: &str| {
        process::answer(Command::new("rustup").args(["which", "--toolchain", name, tool]))
            .map(|path| PathBuf::from(path.trim()))
    };
    Some(Toolchain {
        route: Route::Rustup,
        rustc: Rustc::probe(&which("rustc")?)?,
        cargo: Some(which("cargo")?),
    })
}

fn install_debian(machine: &mut Machine<'_>, note: &Note) -> Result<Toolchain, Failure> {
    let unavailable = apt::unavailable(machine, note, DEBIAN_PACKAGES);
    if !unavailable.is_empty() {
        return Err(Failure::failed(format!(
            "apt cannot install {} here",
            unavailable.join(", ")
        )));
    }
    apt::install(machine, note, DEBIAN_PACKAGES)?;
    debian_toolchain()
        .filter(|toolchain| {
            toolchain.rustc.has_library_sources() && linker::supports(toolchain.rustc.llvm)
        })
        .ok_or_else(|| {
            Failure::failed(format!(
                "{DEBIAN_RUSTC} is too old, too new for bpf-linker {}, or has no library sources",
                linker::VERSION
            ))
        })
}

/// Adds the sources to the toolchain that compiles the workspace: a few megabytes, and its LLVM is known to be served.
fn install_rustup(machine: &mut Machine<'_>, note: &Note) -> Result<Toolchain, Failure> {
    if find_command("rustup").is_none() {
        return Err(Failure::failed("rustup is not installed"));
    }
    let active = process::answer(
        Command::new("rustup")
            .current_dir(&machine.workspace.root)
            .args(["show", "active-toolchain"]),
    )
    .and_then(|line| Some(line.split_whitespace().next()?.to_owned()))
    .ok_or_else(|| Failure::failed("rustup has no active toolchain"))?;
    note.say(&format!("adding rust-src to {active}"));
    let mut add = Command::new("rustup");
    add.args(["component", "add", "rust-src", "--toolchain", &active]);
    machine.log.run_within(&mut add, Some(RUSTUP_LIMIT))?;
    rustup_toolchain(&active)
        .filter(|toolchain| {
            toolchain.rustc.has_library_sources() && linker::supports(toolchain.rustc.llvm)
        })
        .ok_or_else(|| {
            Failure::failed(format!(
                "{active} is too old, or its LLVM too new for bpf-linker {}",
                linker::VERSION
            ))
        })
}
