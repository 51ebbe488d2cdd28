//! What the data path costs: `tests/benches/traffic` measures, against direct connections and against other proxies. What
//! it said is kept for the plot. It refuses to know what a request is.

use std::fs;
use std::path::PathBuf;

use super::compare::Samples;
use super::{Order, table};
use crate::Failure;
use crate::console::{self, Console, line};
use crate::process::{answer_shown, command_line};
use crate::workspace::{Workspace, is_root};
use crate::{binary, setup};

/// Where the samples of the last run of each member are.
pub(super) fn kept(workspace: &Workspace) -> PathBuf {
    workspace.root.join("target/bench")
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
    let postern = binary::build(workspace, console, true)?;
    let mut cargo = workspace.cargo();
    // The gateway's own profile: its crates are compiled already.
    cargo.args(["bench", "--quiet", "--profile", "release"]);
    let program = if member == "policy" {
        "policy"
    } else {
        "traffic"
    };
    cargo.args(["--package", "e2e", "--bench", program, "--", member]);
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
    let said = answer_shown(cargo.env("POSTERN_BIN", postern))?;
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
