//! Keep-alive requests on 32 connections: how many, and how long one takes at a rate that all but mitmproxy can hold. It
//! refuses to judge.

use anyhow::Result;

use super::Options;
use super::arena::{Arena, EVENTS, HOST};
use super::client::Client;
use super::load::{self, Arrival, Fixed};
use super::paths::{self, Path};
use super::upstream::{EVENTS_PER_RESPONSE, Upstream};

/// Requests a second of the latency measures.
const RATE: u32 = 3000;

pub(crate) fn run(arena: &Arena, options: &Options) -> Result<()> {
    for (name, ..) in SHAPES {
        let what = if *name == "sse" { "events" } else { "req" };
        println!("unit {name} {what}/s");
        println!("unit {name}_cpu us/request");
    }
    for (name, ..) in RATES {
        println!("unit {name}_p50 us");
        println!("unit {name}_p99 us");
    }
    let _upstream = Upstream::start(arena)?;
    let mut paths = paths::all(arena, options)?;
    paths::interleaved(arena, options, &mut paths, |path, seconds| {
        throughput(arena, path, seconds)
    })?;
    // At this rate mitmproxy would only be seen to queue.
    paths.retain(|path| path.name != "mitmproxy");
    paths::interleaved(arena, options, &mut paths, |path, seconds| {
        latencies(arena, path, seconds)
    })
}

pub(crate) fn throughput(
    arena: &Arena,
    path: &mut Path,
    seconds: u32,
) -> Result<Vec<(String, u64)>> {
    let bearer = path.bearer(arena);
    let mut samples = Vec::new();
    if path.name == "mitmproxy" {
        // An order of magnitude, of the shape that it is compared by; it takes a while to accept 32 connections.
        let shape = ("h1_1k", HOST, "1k", load::wrk as Load);
        return one(path, shape, bearer, seconds.max(4));
    }
    for shape in SHAPES {
        samples.extend(one(path, *shape, bearer, seconds)?);
    }
    Ok(samples)
}

/// What is asked of a tool: requests a second.
type Load = fn(&mut Client, &str, &str, u32) -> Result<u64>;
/// A measure, where it asks, and how.
type Shape = (&'static str, &'static str, &'static str, Load);

const SHAPES: &[Shape] = &[
    ("h1_1k", HOST, "1k", load::wrk),
    ("h2_1k", HOST, "1k", load::h2load),
    ("h1_64k", HOST, "64k", load::wrk),
    ("h2_64k", HOST, "64k", load::h2load),
    ("sse", EVENTS, "", load::wrk),
];

/// Latency measures: over HTTP/1.1 instead of HTTP/2, and how requests come.
const RATES: &[(&str, bool, Arrival)] = &[
    ("h1", true, Arrival::Evenly),
    ("h2", false, Arrival::Evenly),
    ("h1_bursts", true, Arrival::InBursts),
    ("h2_bursts", false, Arrival::InBursts),
];

/// The rate, and what a request costs the proxy.
fn one(path: &mut Path, shape: Shape, bearer: &str, seconds: u32) -> Result<Vec<(String, u64)>> {
    let (name, host, what, load) = shape;
    let before = path.spent()?;
    let rate = load(
        &mut path.client,
        &format!("https://{host}/{what}"),
        bearer,
        seconds,
    )?;
    let after = path.spent()?;
    let events = if name == "sse" {
        u64::from(EVENTS_PER_RESPONSE)
    } else {
        1
    };
    let mut samples = vec![(name.to_owned(), rate * events)];
    if let (Some(before), Some(after)) = (before, after) {
        let requests = (rate * u64::from(seconds)).max(1);
        samples.push((format!("{name}_cpu"), (after - before) / requests));
    }
    Ok(samples)
}

fn latencies(arena: &Arena, path: &mut Path, seconds: u32) -> Result<Vec<(String, u64)>> {
    let mut samples = Vec::new();
    for (name, http1, arrival) in RATES {
        let fixed = Fixed {
            url: &format!("https://{HOST}/1k"),
            bearer: path.bearer(arena),
            rate: RATE,
            seconds,
            http1: *http1,
            arrival: *arrival,
        };
        let found = load::latency(&mut path.client, &arena.path("work"), &fixed)?;
        samples.push((format!("{name}_p50"), found.p50));
        samples.push((format!("{name}_p99"), found.p99));
    }
    Ok(samples)
}
