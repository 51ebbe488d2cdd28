//! `cargo xtask`: set-up, build, demo and test commands, for people and for CI alike.
//! It refuses to know the gateway's code: it compiles in seconds without a dependency, and runs everything as a program.
#![allow(clippy::print_stderr, reason = "a command-line program")]

mod args;
mod bench;
mod binary;
mod console;
mod dist;
mod failure;
mod fuzz;
mod key;
mod process;
mod setup;
mod suites;
mod tidy;
mod vm;
mod workspace;

use std::env;
use std::process::ExitCode;

use args::Invocation;
use binary::Kind;
use console::{Console, Style};
pub(crate) use failure::Failure;
use workspace::Workspace;

fn main() -> ExitCode {
    let console = Console::new();
    match args::parse(env::args().skip(1)).and_then(|invocation| run(console, invocation)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{} {failure}", console.paint(Style::Bad, "error:"));
            failure.exit_code()
        }
    }
}

fn run(console: Console, invocation: Invocation) -> Result<(), Failure> {
    let workspace = Workspace::locate()
        .map_err(|error| Failure::failed(format!("cannot find the checkout: {error}")))?;
    match invocation {
        Invocation::Help(text) => {
            console::write(text);
            Ok(())
        }
        Invocation::Setup { route } => setup::run(&workspace, console, route),
        Invocation::Build { release } => {
            setup::run(&workspace, console, None)?;
            binary::build(&workspace, console, Kind::of(release)).map(drop)
        }
        Invocation::Dist => dist::run(&workspace, console).map(drop),
        Invocation::Demo { release } => binary::demo(&workspace, console, release),
        Invocation::ListSuites => {
            for suite in suites::ALL {
                console::line(format_args!("{:<8} {}", suite.name, suite.about));
            }
            Ok(())
        }
        Invocation::Test { only } => suites::run(&workspace, console, &only),
        Invocation::Bench(order) => bench::run(&workspace, console, &order),
        Invocation::Vm(order) => vm::run(&workspace, console, order),
        Invocation::Tidy => tidy::run(&workspace, console),
        Invocation::Fuzz { target, seconds } => {
            fuzz::run(&workspace, console, target.as_deref(), seconds)
        }
    }
}
