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
use std::fs::OpenOptions;
use std::io::Write;
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
        first => {
            let rest = arguments.collect::<Vec<_>>();
            let words = first.into_iter().chain(rest.iter().map(String::as_str));
            tests(&words.collect::<Vec<_>>())
        }
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
        return beyond(name, "Landlock is not in force");
    }
    match act(&place, &finder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("  {error}");
            ExitCode::FAILURE
        }
    }
}

/// The case has shown nothing on this machine, and says so where POSTERN_TEST_BEYOND names a file for it.
fn beyond(case: &str, why: &str) -> ExitCode {
    println!("  {case} cannot be shown here: {why}");
    if let Some(path) = std::env::var_os("POSTERN_TEST_BEYOND") {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(format!("{case}\t{why}\n").as_bytes())
            .unwrap();
    }
    ExitCode::SUCCESS
}

fn tests(arguments: &[&str]) -> ExitCode {
    if arguments.contains(&"--list") {
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
    let filters: Vec<&&str> = arguments
        .iter()
        .filter(|word| !word.starts_with('-'))
        .collect();
    let is_wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|part| name.contains(**part));
    let mut failed = 0;
    for (name, _) in acts::CASES.iter().filter(|(name, _)| is_wanted(name)) {
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
