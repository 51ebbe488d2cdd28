//! Keep-alive requests on 32 connections: how many, and how long one takes at a rate that all but mitmproxy can hold. It
//! refuses to judge.

use anyhow::Result;

use super::Options;
use super::arena::{Arena, EVENTS, HOST};
use super::load::{self, Fixed};
use super::paths::{self, Path};
use super::upstream::{EVENTS_PER_RESPONSE, Upstream};

/// Requests a second of the latency measures.
const RATE: u32 = 3000;

pub(crate) fn run(arena: &Arena, options: &Options) -> Result<()> {
    println!("unit h1_1k req/s");
    println!("unit h1_64k req/s");
    println!("unit h2_1k req/s");
    println!("unit h2_64k req/s");
    println!("unit sse events/s");
    for version in ["h1", "h2"] {
        println!("unit {version}_p50 us");
        println!("unit {version}_p99 us");
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

fn throughput(arena: &Arena, path: &mut Path, seconds: u32) -> Result<Vec<(String, u64)>> {
    let bearer = path.bearer(arena);
    let mut samples = Vec::new();
    for size in ["1k", "64k"] {
        let url = format!("https://{HOST}/{size}");
        let h1 = load::wrk(&mut path.client, &url, bearer, seconds)?;
        samples.push((format!("h1_{size}"), h1));
        let h2 = load::h2load(&mut path.client, &url, bearer, seconds)?;
        samples.push((format!("h2_{size}"), h2));
    }
    let url = format!("https://{EVENTS}/");
    let responses = load::wrk(&mut path.client, &url, bearer, seconds)?;
    let events = responses * u64::from(EVENTS_PER_RESPONSE);
    samples.push(("sse".to_owned(), events));
    Ok(samples)
}

fn latencies(arena: &Arena, path: &mut Path, seconds: u32) -> Result<Vec<(String, u64)>> {
    let mut samples = Vec::new();
    for (version, http1) in [("h1", true), ("h2", false)] {
        let fixed = Fixed {
            url: &format!("https://{HOST}/1k"),
            bearer: path.bearer(arena),
            rate: RATE,
            seconds,
            http1,
        };
        let found = load::latency(&mut path.client, &arena.path("work"), &fixed)?;
        samples.push((format!("{version}_p50"), found.p50));
        samples.push((format!("{version}_p99"), found.p99));
    }
    Ok(samples)
}
