//! What the cgroup programs cost each socket call: `tests/benches/kernel.rs` measures, in two groups in turn.
//! It refuses to know how sockets are made.

use super::Order;
use super::report::{self, Bar, Samples};
use crate::Failure;
use crate::console::Console;
use crate::process::{answer_shown, command_line};
use crate::workspace::{Workspace, is_root};

/// What connect() may cost more with the hook than without, and what it should, nanoseconds.
const BAR: Bar = Bar {
    measure: "tcp_connect",
    most: 2000,
    aim: 1000,
};

pub(super) fn run(workspace: &Workspace, console: Console, order: &Order) -> Result<(), Failure> {
    if !is_root() {
        return Err(
            Failure::failed("the bench attaches programs to cgroups, which needs root")
                .hint("run: sudo -E env \"PATH=$PATH\" cargo xtask bench kernel"),
        );
    }
    let mut cargo = workspace.cargo();
    // What is measured runs in the kernel, and its programs are always optimised; the client only calls.
    cargo.args([
        "bench",
        "--quiet",
        "--profile",
        "dev",
        "--package",
        "e2e",
        "--bench",
        "kernel",
        "--",
    ]);
    if order.quick {
        cargo.arg("--quick");
    }
    if !order.json {
        console.heading(&command_line(&cargo));
    }
    let said = answer_shown(&mut cargo)?;
    let samples = Samples::read(&said)?;
    report::tell(console, "kernel", &samples, &[BAR], order.json)
}
