//! Leaving the cgroup, or having somebody outside act in one's place. Each attempt ends in a connection:
//! from outside it would arrive, from inside it is denied, and that is on record. `attach` confines no
//! process: these are for what `exec` makes.

use anyhow::Result;

use super::Row;
use crate::attempt::{Attempt, CAGED, Control, Verdict, attempt, denied, refused};
use crate::judge::held;

pub(crate) fn rows() -> Vec<Row> {
    vec![groups(), helpers()]
}

fn inside() -> Verdict {
    denied("no_rule", "kernel").saying(&["EPERM"])
}

/// Tried on the host it would do to the host what it is meant to.
fn one(name: &'static str, words: &str) -> Attempt {
    attempt(name, words, inside())
        .only(CAGED)
        .control(Control::Not)
}

fn groups() -> Row {
    Row {
        name: "leaving the cgroup",
        attempts: vec![
            one("every cgroup.procs", "by-procs {v4} 4444"),
            one("every cgroup.threads", "by-threads {v4} 4444"),
            one("mounting cgroup2", "mounted 0 {v4} 4444"),
            one(
                "mounting cgroup2 in a user namespace",
                "mounted 0x10020000 {v4} 4444",
            ),
            one(
                "mounting cgroup2 in a cgroup namespace",
                "mounted 0x12020000 {v4} 4444",
            ),
            one("remounting cgroup2", "remounted {v4} 4444"),
            one("setns to a mount namespace", "entered mnt {v4} 4444"),
            one("setns to a network namespace", "entered net {v4} 4444"),
            one("setns to a cgroup namespace", "entered cgroup {v4} 4444"),
            one("setns by a pidfd", "entered-by-pidfd {v4} 4444"),
            one("clone3 into a cgroup", "cloned-into {v4} 4444"),
        ],
    }
}

fn helpers() -> Row {
    Row {
        name: "somebody in one's place",
        attempts: vec![
            one("tracing the first process", "traced {v4} 4444"),
            one("taking descriptors", "taken-descriptor {v4} 4444"),
            one("the first process's root", "through-root {v4} 4444"),
            one("a file by its handle", "by-handle {v4} 4444"),
            one("a set-user-id program", "set-user-id {v4} 4444"),
            one("the core pattern", "core-pattern {v4} 4444"),
            one("the kernel's helpers", "helper {v4} 4444"),
            one("addresses, devices, routes", "interfaces {v4} 4444"),
            one("detaching the programs", "detached-programs {v4} 4444"),
            one("signals to everybody", "killed-gateway {v4} 4444"),
            attempt(
                "descriptors that came along",
                "leftover bpf socket: /run /var/lib",
                refused(&["held"]),
            )
            .only(CAGED)
            .control(Control::Not),
            attempt("standard streams", "streams", refused(&["held"]))
                .only(CAGED)
                .control(Control::Not),
            attempt("the gateway's memory", "memory", refused(&["held"]))
                .only(CAGED)
                .control(Control::Not),
        ],
    }
}

#[test]
fn the_cgroup_cannot_be_left() -> Result<()> {
    held(&groups())
}

#[test]
fn nobody_outside_acts_in_the_sandbox_s_place() -> Result<()> {
    held(&helpers())
}
