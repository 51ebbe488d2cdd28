//! The cage against somebody who wants out, for real: needs root and Linux 5.15, and says so where it
//! has neither. Every test starts a whole sandbox from this very binary, which therefore is its own
//! `janitor`, `sandbox-init` and prober, and cannot use libtest's main function.
//!
//! No gateway and no eBPF here: what is tested is what holds without them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a failed unwrap is a failed test; this is a test program with its own output"
)]

mod escapes;
mod fixture;
mod lifecycle;
mod probe;
mod view;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A sentence and what makes it true.
pub(crate) type Test = (&'static str, fn());

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|name| name.to_str()) {
        Some(gateway::sandbox::janitor::SUBCOMMAND) => gateway::sandbox::janitor::run(),
        Some(gateway::sandbox::init::SUBCOMMAND) => gateway::sandbox::init::run(arguments),
        Some(fixture::EXEC) => fixture::exec(arguments),
        Some(probe::SUBCOMMAND) => probe::run(arguments),
        _ => run_tests(),
    }
}

fn run_tests() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let tests: Vec<Test> = [view::TESTS, escapes::TESTS, lifecycle::TESTS].concat();
    if arguments.iter().any(|argument| argument == "--list") {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: {} sandbox tests need root", tests.len());
        return ExitCode::SUCCESS;
    }
    let filters: Vec<_> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let mut failed = 0;
    for (name, test) in tests {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u8::from(!passed);
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        println!("{failed} failed");
        ExitCode::FAILURE
    }
}
