//! What the data path costs: `tests/benches/traffic` measures, against direct connections and against other proxies. What
//! it said is kept for the plot. It refuses to know what a request is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::compare::Samples;
use super::{Order, table};
use crate::Failure;
use crate::binary::{self, Kind};
use crate::console::{self, Console, line};
use crate::process::{answer_shown, command_line};
use crate::workspace::{Workspace, is_root};
use crate::{dist, setup};

/// Where the samples of the last run of each member are.
pub(super) fn kept(workspace: &Workspace) -> PathBuf {
    workspace.root.join("target/bench")
}

/// The program that has a member, and its name.
fn program(workspace: &Workspace, member: &str) -> Command {
    let mut cargo = workspace.cargo();
    // Decisions are measured in the program itself, which is then optimised as the gateway is; the others only ask.
    let (program, profile) = match member {
        "policy" => ("policy", "release"),
        _ => ("traffic", "bench"),
    };
    cargo.args(["bench", "--quiet", "--profile", profile]);
    cargo.args(["--package", "e2e", "--bench", program, "--", member]);
    cargo
}

/// See [`super::train`].
pub(super) fn train(
    workspace: &Workspace,
    console: Console,
    postern: &Path,
) -> Result<(), Failure> {
    setup::for_benches(workspace, console, false)?;
    let mut cargo = program(workspace, "train");
    console.heading(&command_line(&cargo));
    answer_shown(cargo.env("POSTERN_BIN", postern)).map(drop)
}

pub(super) fn run(workspace: &Workspace, console: Console, order: &Order) -> Result<(), Failure> {
    let member = order.member;
    if !is_root() {
        return Err(
            Failure::failed("the bench makes namespaces and cgroups, which needs root").hint(
                &format!("run: sudo -E env \"PATH=$PATH\" cargo xtask bench {member}"),
            ),
        );
    }
    if order.json {
        console::divert();
    }
    setup::for_benches(workspace, console, order.peers)?;
    let mut cargo = program(workspace, member);
    if member != "policy" {
        let postern = if order.quick {
            binary::build(workspace, console, Kind::Release)?
        } else {
            dist::run(workspace, console)?
        };
        cargo.env("POSTERN_BIN", postern);
    }
    if order.quick {
        cargo.arg("--quick");
    }
    for (option, value) in [("--rounds", order.rounds), ("--minutes", order.minutes)] {
        if let Some(value) = value {
            cargo.args([option, &value.to_string()]);
        }
    }
    if order.peers {
        let bin = workspace.tools.join(setup::PEERS).join("bin");
        cargo.arg("--peers").arg(bin);
    }
    console.heading(&command_line(&cargo));
    let said = answer_shown(&mut cargo)?;
    let samples = Samples::read(&said)?;
    table::tell(console, member, &samples, order.json);
    if order.quick {
        return Ok(());
    }
    let file = kept(workspace).join(format!("{member}.txt"));
    let written = fs::create_dir_all(kept(workspace)).and_then(|()| fs::write(&file, &said));
    written
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.display())))?;
    line(format_args!(
        "kept for `cargo xtask bench plot`: {}",
        file.display()
    ));
    Ok(())
}
