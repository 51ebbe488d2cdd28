//! bpf-linker, compiled here against the system's LLVM: its bitcode reader must be at least as new as rustc's writer.
//! It refuses to know how rustc is found.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ebpf::Toolchain;
use super::{Machine, apt};
use crate::Failure;
use crate::console::Note;
use crate::process;
use crate::workspace::Workspace;

pub(super) const VERSION: &str = "0.13.0";
/// Within the tools' folder.
pub(super) const RELATIVE_PATH: &str = "bin/bpf-linker";
/// The LLVM versions that bpf-linker 0.13.0 has a feature for.
const LLVM_FEATURES: &[u32] = &[21, 22, 23];
/// What LLVM's own libraries link.
const LLVM_NEEDS: &[(&str, &str)] = &[
    ("zlib.h", "zlib1g-dev"),
    ("zstd.h", "libzstd-dev"),
    ("libxml2", "libxml2-dev"),
];

/// Whether some LLVM that bpf-linker can be built with reads what rustc's LLVM writes.
pub(super) fn supports(rustc_llvm: u32) -> bool {
    LLVM_FEATURES.iter().any(|feature| *feature >= rustc_llvm)
}

/// The oldest installed LLVM (with headers) that reads what rustc's LLVM writes.
pub(super) fn installed_llvm(rustc_llvm: u32) -> Option<u32> {
    LLVM_FEATURES
        .iter()
        .copied()
        .filter(|version| *version >= rustc_llvm)
        .find(|version| {
            let prefix = llvm_prefix(*version);
            prefix.join("bin/llvm-config").exists() && prefix.join("include/llvm-c").exists()
        })
}

/// Keeps the linker that is there if its version and its LLVM fit, or else compiles one.
pub(super) fn find_or_install(
    machine: &mut Machine<'_>,
    note: &Note,
    toolchain: &Toolchain,
) -> Result<String, Failure> {
    let needed = toolchain.rustc.llvm;
    if let Some(llvm) = installed(machine.workspace).filter(|llvm| *llvm >= needed) {
        return Ok(format!("already there: {VERSION} with LLVM {llvm}"));
    }
    let llvm = match installed_llvm(needed) {
        Some(llvm) => llvm,
        None => install_llvm(machine, note, needed)?,
    };
    let missing: Vec<&str> = LLVM_NEEDS
        .iter()
        .filter(|(header, _)| !Path::new("/usr/include").join(header).exists())
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        apt::install(machine, note, &missing)?;
    }
    note.say("compiling, about two minutes");
    let mut install = machine.workspace.cargo();
    install
        .args(["install", "bpf-linker", "--version", VERSION, "--locked"])
        .args(["--force", "--no-default-features", "--features"])
        .arg(format!("llvm-{llvm}"))
        .arg("--root")
        .arg(&machine.workspace.tools)
        .env("LLVM_PREFIX", llvm_prefix(llvm));
    machine.log.run(&mut install)?;
    match installed(machine.workspace) {
        Some(_) => Ok(format!("compiled {VERSION} with LLVM {llvm}")),
        None => Err(Failure::failed(format!(
            "{} was compiled but does not run",
            machine.workspace.tools.join(RELATIVE_PATH).display()
        ))),
    }
}

/// The LLVM of the linker in the tools' folder, if that linker is the right version and runs (which it does not
/// once the shared LLVM library it was linked with is gone).
fn installed(workspace: &Workspace) -> Option<u32> {
    let linker = workspace.tools.join(RELATIVE_PATH);
    let version = process::answer(Command::new(linker).arg("--version"))?;
    if version.trim() != format!("bpf-linker {VERSION}") {
        return None;
    }
    let record = fs::read_to_string(workspace.tools.join(".crates2.json")).ok()?;
    llvm_of_install(&record)
}

/// Reads cargo's own record of an installation: `"bpf-linker 0.13.0 (…)":{…,"features":["llvm-22"],…}`.
fn llvm_of_install(record: &str) -> Option<u32> {
    let (_, entry) = record.split_once(&format!("\"bpf-linker {VERSION} "))?;
    let (_, features) = entry.split_once("\"features\":[")?;
    let (features, _) = features.split_once(']')?;
    features.split(',').find_map(|feature| {
        feature
            .trim_matches('"')
            .strip_prefix("llvm-")?
            .parse()
            .ok()
    })
}

/// Where Debian, Ubuntu and apt.llvm.org put a version of LLVM.
fn llvm_prefix(version: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{version}"))
}

fn install_llvm(machine: &mut Machine<'_>, note: &Note, needed: u32) -> Result<u32, Failure> {
    for version in LLVM_FEATURES.iter().filter(|version| **version >= needed) {
        let package = format!("llvm-{version}-dev");
        if apt::unavailable(machine, note, &[&package]).is_empty() {
            apt::install(machine, note, &[&package])?;
            return Ok(*version);
        }
    }
    Err(Failure::failed(format!(
        "bpf-linker needs LLVM {needed} or newer with its headers; run, as root: apt-get install llvm-{needed}-dev"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"installs":{"other 1.0.0 (registry)":{"bins":["other"],"features":["llvm-21"]},"bpf-linker 0.13.0 (registry)":{"version_req":"=0.13.0","bins":["bpf-linker"],"features":["llvm-22"],"all_features":false}}}"#;

    #[test]
    fn the_llvm_of_an_installed_linker_is_read_from_its_own_entry() {
        assert_eq!(llvm_of_install(RECORD), Some(22));
    }

    #[test]
    fn another_version_of_the_linker_is_not_taken_for_ours() {
        assert_eq!(llvm_of_install(&RECORD.replace("0.13.0 ", "0.12.9 ")), None);
    }

    #[test]
    fn an_installation_without_llvm_is_not_taken_for_ours() {
        assert_eq!(llvm_of_install(&RECORD.replace("llvm-22", "other")), None);
    }

    #[test]
    fn a_compiler_newer_than_every_supported_llvm_is_refused() {
        assert!(supports(20));
        assert!(supports(23));
        assert!(!supports(24));
    }
}
