//! `cargo xtask bench`: what Postern costs, measured side by side within one run.
//! It refuses to measure anything itself: members run programs that say samples, and [`report`] and [`compare`] put them
//! together.

mod bars;
mod compare;
mod kernel;
mod plot;
mod report;
mod spread;
mod table;
mod traffic;

use std::path::Path;

use crate::Failure;
use crate::args::{take_flag, take_value, usage};
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
    /// Envoy and mitmproxy too.
    peers: bool,
    /// Instead of the member's own number.
    rounds: Option<u32>,
    /// How long `soak` takes.
    minutes: Option<u32>,
}

type Run = fn(&Workspace, Console, &Order) -> Result<(), Failure>;

/// Every member, by name.
const MEMBERS: &[(&str, Run)] = &[
    ("kernel", kernel::run),
    ("http", traffic::run),
    ("tls", traffic::run),
    ("splice", traffic::run),
    ("cold", traffic::run),
    ("policy", traffic::run),
    ("scale", traffic::run),
    ("telemetry", traffic::run),
    ("soak", traffic::run),
    ("plot", plot::run),
];

/// Reads what follows `bench`.
pub(crate) fn parse(rest: &mut Vec<String>) -> Result<Order, Failure> {
    let (json, quick) = (take_flag(rest, "--json"), take_flag(rest, "--quick"));
    let peers = take_flag(rest, "--peers");
    let (rounds, minutes) = (number(rest, "--rounds")?, number(rest, "--minutes")?);
    let names = MEMBERS.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let names = names.join(", ");
    if rest.is_empty() {
        return Err(usage(format!("`bench` needs one of: {names}")));
    }
    let wanted = rest.remove(0);
    let known = MEMBERS.iter().find(|(name, _)| *name == wanted);
    let (member, _) =
        known.ok_or_else(|| usage(format!("there is no bench `{wanted}`, only: {names}")))?;
    let has_peers = ["http", "tls"].contains(member);
    let has_rounds = !["plot", "soak", "kernel"].contains(member);
    for (given, taken, option) in [
        (peers, has_peers, "--peers"),
        (rounds.is_some(), has_rounds, "--rounds"),
        (minutes.is_some(), *member == "soak", "--minutes"),
    ] {
        if given && !taken {
            return Err(usage(format!("`bench {member}` does not take `{option}`")));
        }
    }
    Ok(Order {
        member,
        json,
        quick,
        peers,
        rounds,
        minutes,
    })
}

/// Measures and tells.
pub(crate) fn run(workspace: &Workspace, console: Console, order: &Order) -> Result<(), Failure> {
    let known = MEMBERS.iter().find(|(name, _)| *name == order.member);
    let (_, run) = known.ok_or_else(|| Failure::usage("no such bench"))?;
    run(workspace, console, order)
}

/// Sends some of everything through this binary, and measures nothing.
pub(crate) fn train(
    workspace: &Workspace,
    console: Console,
    postern: &Path,
) -> Result<(), Failure> {
    traffic::train(workspace, console, postern)
}

fn number(rest: &mut Vec<String>, option: &str) -> Result<Option<u32>, Failure> {
    let wrong = |text: &str| usage(format!("{option} is a number above 0, not `{text}`"));
    let Some(text) = take_value(rest, option)? else {
        return Ok(None);
    };
    match text.parse() {
        Ok(0) | Err(_) => Err(wrong(&text)),
        Ok(number) => Ok(Some(number)),
    }
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
            member: "http",
            json: true,
            quick: false,
            peers: true,
            rounds: Some(7),
            minutes: None,
        };
        assert_eq!(words("http --json --peers --rounds 7").unwrap(), expected);
        assert_eq!(words("--rounds=7 --json --peers http").unwrap(), expected);
        for wrong in [
            "",
            "--json",
            "everything",
            "kernel --peers",
            "http --minutes 3",
            "soak --rounds 3",
            "http --rounds 0",
            "http --rounds many",
        ] {
            assert!(words(wrong).is_err(), "{wrong}");
        }
    }
}
