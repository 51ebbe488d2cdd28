//! The `postern` binary. Three of its subcommands are for itself: the sandbox's first process, the
//! janitor and the finder of namespaces. They must run before a thread exists, so they are told apart before anything else.

use gateway::{cli, sandbox};
use std::process::ExitCode;

/// Requests are many small allocations on two or more threads, which glibc's takes and frees a good deal slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next();
    match first.as_ref().and_then(|first| first.to_str()) {
        Some(sandbox::init::SUBCOMMAND) => sandbox::init::run(arguments),
        Some(sandbox::janitor::SUBCOMMAND) => sandbox::janitor::run(),
        Some(sandbox::namespaces::SUBCOMMAND) => sandbox::namespaces::run(),
        _ => cli::main(),
    }
}
