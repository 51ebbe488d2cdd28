//! Builds the `postern` binary and runs the demo with it.
//! It refuses to know what the demo shows.

use std::env;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Failure;
use crate::console::{Console, Style, line, seconds};
use crate::process::{self, command_line};
use crate::setup;
use crate::workspace::{Workspace, is_root};

/// How the binary is compiled.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind<'a> {
    Debug,
    Release,
    /// As the release, with more to tell the compiler and products of its own.
    Told {
        /// For code that runs on the machine it is made for, and no build script.
        flag: &'a str,
        host: &'a str,
        folder: &'a Path,
    },
}

impl Kind<'_> {
    /// As `--release` says.
    pub(crate) fn of(release: bool) -> Self {
        if release { Self::Release } else { Self::Debug }
    }
}

/// Compiles `postern` and says where it is and how large. Cargo's own progress is shown.
pub(crate) fn build(
    workspace: &Workspace,
    console: Console,
    kind: Kind<'_>,
) -> Result<PathBuf, Failure> {
    let start = Instant::now();
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--package", "gateway", "--bin", "postern"]);
    match kind {
        Kind::Debug => {}
        Kind::Release => {
            cargo.arg("--release");
        }
        Kind::Told { flag, host, folder } => {
            // Flags are build scripts' too, unless a target is named.
            cargo.args(["--release", "--target", host, "--target-dir"]);
            cargo.arg(folder).env(FLAGS, flags_with(flag));
        }
    }
    console.heading(&command_line(&cargo));
    // The target folder can be set in four places: cargo itself knows where the executable went.
    cargo
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    let output = cargo
        .output()
        .map_err(|error| Failure::failed(format!("cannot run cargo: {error}")))?;
    if !output.status.success() {
        return Err(Failure::failed("postern did not compile"));
    }
    let binary = executable(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| Failure::failed("cargo named no executable"))?;
    let size = fs::metadata(&binary)
        .map_err(|error| Failure::failed(format!("cannot read {}: {error}", binary.display())))?
        .len();
    line(format_args!(
        "{} {} {}",
        console.paint(Style::Good, &binary.display().to_string()),
        mebibytes(size),
        console.paint(Style::Dim, &format!("({})", seconds(start.elapsed()))),
    ));
    Ok(binary)
}

/// Sets up, builds, and runs the demo, as root: by `sudo` when a person is there to type a password.
pub(crate) fn demo(workspace: &Workspace, console: Console, release: bool) -> Result<(), Failure> {
    if !is_root() {
        return demo_as_root(release);
    }
    setup::run(workspace, console, None)?;
    let binary = build(workspace, console, Kind::of(release))?;
    let mut demo = workspace.cargo();
    demo.args(["run", "--quiet", "--package", "e2e", "--bin", "demo", "--"])
        .arg("--postern")
        .arg(binary);
    process::shown(&mut demo)
}

fn demo_as_root(release: bool) -> Result<(), Failure> {
    // sudo resets PATH even with -E, and rustup's cargo is in the user's home.
    let path = env::var("PATH").unwrap_or_default();
    let mut sudo = Command::new("sudo");
    sudo.args([
        "-E",
        "env",
        &format!("PATH={path}"),
        "cargo",
        "xtask",
        "demo",
    ]);
    if release {
        sudo.arg("--release");
    }
    if !io::stdin().is_terminal() {
        return Err(
            Failure::failed("the demo makes namespaces and cgroups, which needs root")
                .hint("run: sudo -E env \"PATH=$PATH\" cargo xtask demo"),
        );
    }
    line("the demo makes namespaces and cgroups, which needs root: asking sudo");
    process::shown(&mut sudo)
}

/// Flags for rustc, separated by [`BETWEEN`]: blanks are part of them (cargo's "Environment variables").
const FLAGS: &str = "CARGO_ENCODED_RUSTFLAGS";
const BETWEEN: &str = "\x1f";

/// What the environment says to rustc, and `flag`. What cargo's files say does not count where the environment says
/// something: a binary that is shipped does not depend on them.
pub(crate) fn flags_with(flag: &str) -> String {
    let plain = || env::var("RUSTFLAGS").unwrap_or_default();
    let before = env::var(FLAGS)
        .unwrap_or_else(|_| plain().split_whitespace().collect::<Vec<_>>().join(BETWEEN));
    let all = [before.as_str(), flag].into_iter();
    all.filter(|flags| !flags.is_empty())
        .collect::<Vec<_>>()
        .join(BETWEEN)
}

/// The last executable among cargo's messages: one JSON object a line, `"executable":"/path"` or `null`.
fn executable(messages: &str) -> Option<PathBuf> {
    let (_, rest) = messages.rsplit_once("\"executable\":\"")?;
    let mut path = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return Some(PathBuf::from(path)),
            // A path has no control characters that would need more than one character after the backslash.
            '\\' => path.push(characters.next()?),
            plain => path.push(plain),
        }
    }
}

/// `12.3 MiB`, rounded down, without floating point.
fn mebibytes(bytes: u64) -> String {
    const MEBIBYTE: u64 = 1 << 20;
    let tenths = bytes * 10 / MEBIBYTE;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_the_last_that_cargo_names() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","executable":"/t/debug/build/x"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","executable":"/t/a \"b\"/postern","fresh":true}"#,
        );
        assert_eq!(
            executable(messages),
            Some(PathBuf::from("/t/a \"b\"/postern"))
        );
        assert_eq!(executable(r#"{"executable":null}"#), None);
    }

    #[test]
    fn sizes_are_in_binary_units() {
        assert_eq!(mebibytes(12 * (1 << 20) + (1 << 19)), "12.5 MiB");
        assert_eq!(mebibytes(0), "0.0 MiB");
    }
}
