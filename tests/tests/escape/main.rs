//! What a sandbox tries to get out, and what must come of it. A row of attempts is a line of code each:
//! what is tried, and the verdict. Every attempt is made where nothing is in its way (so that it is known
//! to be one), then in a sandbox with a network namespace of its own, in one on the host's network as root
//! and as nobody, and in a cgroup under `postern run --attach`. Each must be refused, nothing of it may be
//! seen outside, and the denial must be on record with its reason and stage.
//!
//! Reading order: [`attempt`], [`rows`], [`run`], [`judge`]; attempts that need a stage of their own are in
//! [`passed`], [`killed`], [`crowds`] and [`neighbours`].
#![allow(
    clippy::print_stdout,
    reason = "tells what this machine cannot try, and why"
)]

mod attempt;
mod crowds;
mod judge;
mod killed;
mod nameserver;
mod neighbours;
mod passed;
mod rows;
mod run;

#[test]
fn nothing_but_the_attempts_was_seen_outside_and_no_service_or_key_was_reached()
-> anyhow::Result<()> {
    judge::nothing_else()
}

#[test]
fn what_another_device_would_carry_off_is_dropped_and_on_record() -> anyhow::Result<()> {
    judge::carried_off()
}

#[test]
fn there_are_as_many_attempts_as_promised_and_no_two_are_alike() {
    let table = run::table();
    assert!(table.len() >= 300, "{}", table.len());
    let mut names: Vec<_> = table.iter().map(|(_, attempt)| attempt.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), table.len());
}
