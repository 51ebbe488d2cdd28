//! llvm-profdata, which puts together what counting binaries wrote: of the same LLVM as the compiler of the gateway, since
//! the form of the counts changes with it. It refuses to know what was counted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::rustc::Rustc;
use super::{Machine, apt};
use crate::Failure;
use crate::console::Note;
use crate::process;

/// For networks that swallow packets.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);

/// The compiler's own, Debian's (which comes with what bpf-linker is made from), or rustup's component.
pub(super) fn find_or_install(machine: &mut Machine<'_>, note: &Note) -> Result<PathBuf, Failure> {
    let rustc = machine.workspace.rustc();
    let known = Rustc::probe(Path::new(rustc.get_program()))
        .ok_or_else(|| Failure::failed("the compiler does not say its version, or is too old"))?;
    let own = process::answer(machine.workspace.rustc().args(["--print", "target-libdir"]))
        .map(|folder| Path::new(folder.trim()).with_file_name("bin/llvm-profdata"));
    let package = format!("llvm-{}", known.llvm);
    let debians = Path::new("/usr/lib")
        .join(&package)
        .join("bin/llvm-profdata");
    let places = || own.iter().chain([&debians]).find(|path| path.exists());
    if let Some(found) = places() {
        return Ok(found.clone());
    }
    let mut refusals = Vec::new();
    note.say(&format!("installing {package}"));
    if let Err(failure) = apt::install(machine, note, &[&package]) {
        refusals.push(failure.to_string());
    }
    if places().is_none() {
        note.say("adding rustup's llvm-tools");
        let mut add = Command::new("rustup");
        add.current_dir(&machine.workspace.root)
            .args(["component", "add", "llvm-tools"]);
        if let Err(failure) = machine.log.run_within(&mut add, Some(RUSTUP_LIMIT)) {
            refusals.push(failure.to_string());
        }
    }
    places().cloned().ok_or_else(|| {
        Failure::failed(format!(
            "there is no llvm-profdata of LLVM {}:\n{}",
            known.llvm,
            refusals.join("\n")
        ))
        .hint(&format!(
            "run: rustup component add llvm-tools, or as root: apt-get install {package}"
        ))
    })
}
