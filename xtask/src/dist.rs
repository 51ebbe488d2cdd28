//! `cargo xtask dist`: the binary as it is shipped. It is compiled twice: first so that it counts what it does, then, when
//! traffic has passed through that one, by what it counted: what is done often lies together and is written out, the rest
//! is out of the way (profile-guided optimization, as the rustc book has it). It refuses to know what the traffic is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench;
use crate::binary::{self, Kind};
use crate::console::{Console, Style, line};
use crate::failure::{Failure, fail};
use crate::key::Key;
use crate::process;
use crate::setup;
use crate::workspace::{Workspace, is_root};

/// What the binary and its profile are made of, and the traffic.
const SOURCES: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "gateway",
    "gateway-common",
    "gateway-ebpf",
    "tests/benches/traffic",
];

/// Makes `target/dist/postern`, unless it is there, and says where it is. What was counted is kept until something that
/// matters changes.
pub(crate) fn run(workspace: &Workspace, console: Console) -> Result<PathBuf, Failure> {
    let folder = workspace.root.join("target/dist");
    let rustc = rustc(workspace)?;
    let key = key(workspace, &rustc)?;
    let profile = folder.join(format!("{key}.profdata"));
    setup::run(workspace, console, None)?;
    // Optimised the same both times: what is counted is known by names that depend on it.
    let told = |flag: &str, name: &str| {
        let kind = Kind::Told {
            flag,
            host: &rustc.host,
            folder: &folder.join("build"),
        };
        let built = binary::build(workspace, console, kind)?;
        let binary = folder.join(name);
        // In one piece or not at all, and also while the one before it is running.
        let draft = binary.with_extension("draft");
        let copied = parent(&binary)
            .and_then(|()| fs::copy(&built, &draft))
            .and_then(|_| fs::rename(&draft, &binary));
        copied.map_err(|error| fail("write", &binary, &error))?;
        Ok::<_, Failure>(binary)
    };
    if !profile.exists() {
        if !is_root() {
            return Err(Failure::failed(
                "what is shipped is compiled by what it does under load, and the load makes namespaces and cgroups, which needs root",
            )
            .hint("run: sudo -E env \"PATH=$PATH\" cargo xtask dist, or, a fifth slower: cargo xtask build --release"));
        }
        line(
            "there is no profile of these sources yet: two builds with a minute of load between them, a quarter of an hour",
        );
        let merge = setup::for_dist(workspace, console)?;
        let counts = folder.join("counts");
        emptied(&counts)?;
        let flag = format!("-Cprofile-generate={}", counts.display());
        let counting = told(&flag, "counting/postern")?;
        bench::train(workspace, console, &counting)?;
        console.step("what was counted", |_| {
            merged(&folder, &merge, &counts, &profile)
        })?;
    }
    let flag = format!("-Cprofile-use={}", profile.display());
    let binary = told(&flag, "postern")?;
    line(format_args!(
        "{} as it is shipped",
        console.paint(Style::Good, &binary.display().to_string())
    ));
    Ok(binary)
}

/// Puts the counts of all processes together. Those of other keys are of no more use.
fn merged(folder: &Path, merge: &Path, counts: &Path, profile: &Path) -> Result<String, Failure> {
    let files = files_in(counts).map_err(|error| fail("read", counts, &error))?;
    if files.is_empty() {
        return Err(Failure::failed("nothing was counted"));
    }
    for old in files_in(folder).map_err(|error| fail("read", folder, &error))? {
        if old.extension().is_some_and(|kind| kind == "profdata") {
            fs::remove_file(&old).map_err(|error| fail("remove", &old, &error))?;
        }
    }
    // In one piece or not at all.
    let draft = profile.with_extension("draft");
    let mut command = Command::new(merge);
    command.args(["merge", "--output"]).arg(&draft).args(&files);
    process::shown(&mut command)?;
    fs::rename(&draft, profile).map_err(|error| fail("write", profile, &error))?;
    let said = process::answer(Command::new(merge).arg("show").arg(profile)).unwrap_or_default();
    let functions = said
        .lines()
        .find_map(|line| line.strip_prefix("Total functions: "));
    Ok(format!("{} functions", functions.unwrap_or("?")))
}

/// The compiler of the gateway.
struct Rustc {
    /// All that it says of itself.
    version: String,
    host: String,
}

fn rustc(workspace: &Workspace) -> Result<Rustc, Failure> {
    let version = process::answer(workspace.rustc().arg("-vV"))
        .ok_or_else(|| Failure::failed("rustc does not say its version"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host
        .ok_or_else(|| Failure::failed(format!("rustc names no host: {version}")))?
        .to_owned();
    Ok(Rustc { version, host })
}

fn key(workspace: &Workspace, rustc: &Rustc) -> Result<Key, Failure> {
    let mut parts = vec![rustc.version.clone(), binary::flags_with("")];
    for source in SOURCES {
        read(&workspace.root.join(source), &mut parts)?;
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Ok(Key::of(&parts))
}

/// A file, or all files below a folder, each with its path, in an order that is always the same.
fn read(path: &Path, parts: &mut Vec<String>) -> Result<(), Failure> {
    let failed = |error| fail("read", path, &error);
    if !path.is_dir() {
        parts.push(path.display().to_string());
        parts.push(String::from_utf8_lossy(&fs::read(path).map_err(failed)?).into_owned());
        return Ok(());
    }
    let mut entries = files_in(path).map_err(failed)?;
    entries.retain(|entry| is_source(entry));
    entries.sort();
    entries.iter().try_for_each(|entry| read(entry, parts))
}

/// Is it neither an editor's own nor a product of a build that was started in a folder of its own?
fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !(name.starts_with('.') || name.ends_with('~') || name == "target")
}

fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn emptied(folder: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(fail("empty", folder, &error));
        }
        _ => {}
    }
    fs::create_dir_all(folder).map_err(|error| fail("make", folder, &error))
}

fn parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_editors_and_builds_leave_is_no_source() {
        let is = |name: &str| is_source(&Path::new("gateway").join(name));
        assert!(is("src") && is("lib.rs") && is("targets"));
        assert!(!(is(".lib.rs.swp") || is(".#lib.rs") || is("lib.rs~") || is("target")));
    }
}
