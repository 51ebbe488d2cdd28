//! What a confined gateway can no longer do, and what it still can, on this kernel. Confining is for good
//! and wants a process of one thread, so every case is a process of its own: this very binary, which is
//! the finder of namespaces as well and cannot use libtest's main function.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap is a failed test; this is a test program with its own output"
)]

mod acts;
mod code;
mod place;

use gateway::privileges::{Confinement, confine};
use gateway::sandbox::namespaces::{self, Finder};
use place::Place;
use std::process::{Command, ExitCode};

/// The subcommand by which this binary is the confined process: a case and the place to do it in.
const CONFINED: &str = "confined";

/// Prepared while it still may, done when it may no longer. Says what went wrong.
type Case = (&'static str, fn(&Place, &Finder) -> Result<(), String>);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(namespaces::SUBCOMMAND) => namespaces::run(),
        Some(CONFINED) => confined(&arguments.collect::<Vec<_>>()),
        first => tests(first),
    }
}

fn confined(arguments: &[String]) -> ExitCode {
    let [name, place] = arguments else {
        return ExitCode::FAILURE;
    };
    let place = Place::at(place.into());
    let Some((_, act)) = acts::CASES.iter().find(|(case, _)| case == name) else {
        return ExitCode::FAILURE;
    };
    let finder = Finder::spawn().unwrap();
    let report = confine(&Confinement::gateway(place.files())).unwrap();
    for layer in &report.layers {
        if !layer.active {
            println!("  {} is not in force: {}", layer.name, layer.detail);
        }
    }
    // A kernel without Landlock keeps the rest; the cases about files are then no cases.
    let landlock = report
        .layers
        .iter()
        .any(|layer| layer.name == "landlock" && layer.active);
    if !landlock && name.contains("file") {
        return ExitCode::SUCCESS;
    }
    match act(&place, &finder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("  {error}");
            ExitCode::FAILURE
        }
    }
}

fn tests(filter: Option<&str>) -> ExitCode {
    if filter == Some("--list") {
        for (name, _) in acts::CASES {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        println!(
            "skipped: {} tests of a confined gateway need root",
            acts::CASES.len()
        );
        return ExitCode::SUCCESS;
    }
    let filter = filter
        .filter(|filter| !filter.starts_with('-'))
        .unwrap_or("");
    let mut failed = 0;
    for (name, _) in acts::CASES.iter().filter(|(name, _)| name.contains(filter)) {
        let place = Place::make();
        let status = Command::new("/proc/self/exe")
            .args([CONFINED, name])
            .arg(place.root())
            .status()
            .unwrap();
        println!(
            "test {name} ... {}",
            if status.success() { "ok" } else { "FAILED" }
        );
        failed += u8::from(!status.success());
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        println!("{failed} failed");
        ExitCode::FAILURE
    }
}
