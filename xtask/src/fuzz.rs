//! Runs the fuzz targets of tests/fuzz with cargo-fuzz.
//! It refuses to install cargo-fuzz: fuzzing is for those who mean to.

use std::fs;
use std::process::Command;

use crate::Failure;
use crate::console::Console;
use crate::process;
use crate::workspace::Workspace;

/// Fuzzes `target`, or every target in turn, for `seconds` each. A crash fails, and cargo-fuzz says how to repeat it.
pub(crate) fn run(
    workspace: &Workspace,
    console: Console,
    target: Option<&str>,
    seconds: u32,
) -> Result<(), Failure> {
    let targets = targets(workspace)?;
    let chosen: Vec<&str> = match target {
        None => targets.iter().map(String::as_str).collect(),
        Some(name) if targets.iter().any(|known| known == name) => vec![name],
        Some(name) => {
            return Err(Failure::usage(format!("there is no fuzz target `{name}`"))
                .hint(&format!("there are: {}", targets.join(", "))));
        }
    };
    if process::answer(Command::new("rustup").args([
        "run",
        "nightly",
        "cargo",
        "fuzz",
        "--version",
    ]))
    .is_none()
    {
        return Err(Failure::failed("fuzzing needs a nightly toolchain and cargo-fuzz").hint(
            "run: rustup toolchain install nightly --profile minimal && cargo install cargo-fuzz --locked",
        ));
    }
    for name in chosen {
        console.heading(&format!("fuzz {name} for {seconds} s"));
        process::shown(
            Command::new("rustup")
                .current_dir(&workspace.root)
                .args(["run", "nightly", "cargo", "fuzz", "run"])
                .args(["--fuzz-dir", "tests/fuzz", name, "--"])
                .arg(format!("-max_total_time={seconds}")),
        )?;
    }
    Ok(())
}

/// The names of tests/fuzz/fuzz_targets/*.rs, sorted.
fn targets(workspace: &Workspace) -> Result<Vec<String>, Failure> {
    let folder = workspace.root.join("tests/fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder)
        .map_err(|error| Failure::failed(format!("cannot list {}: {error}", folder.display())))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_suffix(".rs").map(str::to_owned)
        })
        .collect();
    names.sort();
    Ok(names)
}
