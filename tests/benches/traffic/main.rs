//! What `cargo xtask bench` measures on the data path: `traffic MEMBER [--quick] [--rounds N] [--seconds N] [--peers BIN]`.
//! Says a line a sample; it refuses to judge: xtask puts samples together.
//!
//! ```text
//! unit MEASURE UNIT                    what the values of a measure are
//! sample MEASURE PATH ROUND VALUE      a whole number
//! ```
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints what it measures"
)]

mod arena;
mod client;
mod cold;
mod cold_client;
mod http;
mod idle_client;
mod load;
mod paths;
mod peers;
mod scale;
mod soak;
mod splice;
mod telemetry;
mod tls;
mod train;
mod upstream;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use arena::Arena;

/// How much is measured, and against whom.
pub(crate) struct Options {
    /// Rounds that are told.
    rounds: u32,
    /// Of one measurement.
    seconds: u32,
    /// Whether a glance is all that is wanted.
    quick: bool,
    /// Of the soak.
    minutes: u32,
    /// The folder with `envoy` and `mitmdump`.
    peers: Option<PathBuf>,
}

type Run = fn(&Arena, &Options) -> Result<()>;

const MEMBERS: &[(&str, Run)] = &[
    ("http", http::run),
    ("tls", tls::run),
    ("splice", splice::run),
    ("cold", cold::run),
    ("scale", scale::run),
    ("telemetry", telemetry::run),
    ("soak", soak::run),
    ("train", train::run),
];

fn main() -> Result<()> {
    if client::is_wanted() {
        return client::serve();
    }
    let (member, options) = parse(std::env::args().skip(1))?;
    let known = MEMBERS.iter().find(|(name, _)| *name == member);
    let (_, run) = known.with_context(|| format!("no such member: {member}"))?;
    run(&Arena::new()?, &options)
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<(String, Options)> {
    let mut member = None;
    let mut options = Options {
        rounds: 5,
        seconds: 3,
        quick: false,
        minutes: 30,
        peers: None,
    };
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} needs a value"))
        };
        match &*word {
            // What cargo tells every bench.
            "--bench" => {}
            "--quick" => {
                (options.rounds, options.seconds, options.minutes) = (2, 1, 1);
                options.quick = true;
            }
            "--rounds" => options.rounds = value()?.parse()?,
            "--seconds" => options.seconds = value()?.parse()?,
            "--minutes" => options.minutes = value()?.parse()?,
            "--peers" => options.peers = Some(value()?.into()),
            other if other.starts_with('-') || member.is_some() => bail!("what is {other}?"),
            _ => member = Some(word),
        }
    }
    Ok((member.context("which member?")?, options))
}
