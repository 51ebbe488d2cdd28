//! A Python environment with the SDKs that the suites and the demo run unmodified.
//! And one with the proxies that benches compare with. It refuses to know which: requirements.txt names them.

use std::fs;
use std::path::PathBuf;
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
    let wanted = fs::read_to_string(&requirements).map_err(|error| {
        Failure::failed(format!("cannot read {}: {error}", requirements.display()))
    })?;
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

/// A Python that can make environments. The system's comes first: one from a home folder may be out of sight in a sandbox.
pub(super) fn interpreter() -> Option<PathBuf> {
    ["/usr/bin/python3", "python3"]
        .into_iter()
        .find(|python| {
            process::answer(Command::new(python).args(["-c", "import venv, ensurepip"])).is_some()
        })
        .map(PathBuf::from)
}
