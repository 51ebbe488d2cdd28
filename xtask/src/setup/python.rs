//! A Python environment with the SDKs that the suites and the demo run unmodified.
//! And one with the proxies that benches compare with. It refuses to know which: lists in tests/ name them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Machine;
use crate::Failure;
use crate::console::Note;
use crate::process;

/// Creates or refreshes the environment `name` in the tools' folder, with what the checkout's file `list` names. A copy of
/// the list in it says what it holds.
pub(super) fn install(
    machine: &Machine<'_>,
    note: &Note,
    name: &str,
    list: &str,
) -> Result<String, Failure> {
    let requirements = machine.workspace.root.join(list);
    let wanted = read(&requirements)?;
    let venv = machine.workspace.tools.join(name);
    let stamp = venv.join(".requirements");
    let python = venv.join("bin/python");
    let runs = process::answer(Command::new(&python).args(["-m", "pip", "--version"])).is_some();
    if runs && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok("already there".to_owned());
    }
    if !runs {
        note.say("making an environment");
        let interpreter =
            interpreter().ok_or_else(|| Failure::failed("no python3 with its venv module"))?;
        machine.log.run(
            Command::new(interpreter)
                .args(["-m", "venv", "--clear"])
                .arg(&venv),
        )?;
    }
    note.say(&format!("installing {list}"));
    machine.log.run(
        Command::new(&python)
            .args(["-m", "pip", "install", "--requirement"])
            .arg(&requirements),
    )?;
    fs::write(&stamp, wanted)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", stamp.display())))?;
    Ok("installed".to_owned())
}

/// Puts what the checkout's file `list` names into `folder` of the environment `name`, where only those find it who look
/// there: it would not get on with what the environment has.
pub(super) fn install_beside(
    machine: &Machine<'_>,
    note: &Note,
    (name, folder): (&str, &str),
    list: &str,
) -> Result<String, Failure> {
    let requirements = machine.workspace.root.join(list);
    let wanted = read(&requirements)?;
    let venv = machine.workspace.tools.join(name);
    let folder = venv.join(folder);
    let stamp = folder.join(".requirements");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok("already there".to_owned());
    }
    note.say(&format!("installing {list}"));
    machine.log.run(
        Command::new(venv.join("bin/python"))
            .args(["-m", "pip", "install", "--no-deps", "--upgrade", "--target"])
            .arg(&folder)
            .arg("--requirement")
            .arg(&requirements),
    )?;
    fs::write(&stamp, wanted)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", stamp.display())))?;
    Ok("installed".to_owned())
}

fn read(requirements: &Path) -> Result<String, Failure> {
    fs::read_to_string(requirements).map_err(|error| {
        Failure::failed(format!("cannot read {}: {error}", requirements.display()))
    })
}

/// A Python that can make environments. The system's comes first: one from a home folder may be out of sight in a sandbox.
pub(super) fn interpreter() -> Option<PathBuf> {
    ["/usr/bin/python3", "python3"]
        .into_iter()
        .find(|python| {
            process::answer(Command::new(python).args(["-c", "import venv, ensurepip"])).is_some()
        })
        .map(PathBuf::from)
}
