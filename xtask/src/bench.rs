//! `cargo xtask bench`: what Postern costs, measured side by side within one run.
//! It refuses to measure anything itself: members run programs that say samples, and [`report`] puts them together.

mod kernel;
mod report;

use crate::Failure;
use crate::args::{take_flag, usage};
use crate::console::Console;
use crate::workspace::Workspace;

/// What is measured, and how it is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Order {
    member: &'static str,
    /// One JSON object instead of a table.
    json: bool,
    /// Two rounds: enough to see that it works, and not for figures.
    quick: bool,
}

type Run = fn(&Workspace, Console, &Order) -> Result<(), Failure>;

/// Every member, by name.
const MEMBERS: &[(&str, Run)] = &[("kernel", kernel::run)];

/// Reads what follows `bench`.
pub(crate) fn parse(rest: &mut Vec<String>) -> Result<Order, Failure> {
    let (json, quick) = (take_flag(rest, "--json"), take_flag(rest, "--quick"));
    let names = MEMBERS.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let names = names.join(", ");
    if rest.is_empty() {
        return Err(usage(format!("`bench` needs one of: {names}")));
    }
    let wanted = rest.remove(0);
    let known = MEMBERS.iter().find(|(name, _)| *name == wanted);
    let (member, _) =
        known.ok_or_else(|| usage(format!("there is no bench `{wanted}`, only: {names}")))?;
    Ok(Order {
        member,
        json,
        quick,
    })
}

/// Measures and tells.
pub(crate) fn run(workspace: &Workspace, console: Console, order: &Order) -> Result<(), Failure> {
    let known = MEMBERS.iter().find(|(name, _)| *name == order.member);
    let (_, run) = known.ok_or_else(|| Failure::usage("no such bench"))?;
    run(workspace, console, order)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn words(line: &str) -> Result<Order, Failure> {
        parse(&mut line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn a_member_is_named_and_its_options_may_come_first() {
        let expected = Order {
            member: "kernel",
            json: true,
            quick: false,
        };
        assert_eq!(words("kernel --json").unwrap(), expected);
        assert_eq!(words("--json kernel").unwrap(), expected);
        for wrong in ["", "--json", "everything"] {
            assert!(words(wrong).is_err(), "{wrong}");
        }
    }
}
