//! The command lines of wrk and h2load, and what their reports say. A report of anything but success is an error: a proxy that
//! refuses is fast. It refuses to know what the requests pass through.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::client::Client;

/// Keep-alive connections of every measurement.
pub(crate) const CONNECTIONS: u32 = 32;

/// Requests a second of wrk (HTTP/1.1), on as many connections as always.
pub(crate) fn wrk(client: &mut Client, url: &str, bearer: &str, seconds: u32) -> Result<u64> {
    let said = client.run(
        seconds,
        &[
            "wrk",
            "--threads",
            "1",
            "--connections",
            &CONNECTIONS.to_string(),
            "--duration",
            &format!("{seconds}s"),
            "--header",
            &format!("Authorization: Bearer {bearer}"),
            url,
        ],
    )?;
    requests_per_second_of_wrk(&said)
}

/// Requests a second of h2load over HTTP/2, one stream a connection at a time.
pub(crate) fn h2load(client: &mut Client, url: &str, bearer: &str, seconds: u32) -> Result<u64> {
    let said = client.run(
        seconds,
        &[
            "h2load",
            "--clients",
            &CONNECTIONS.to_string(),
            "--max-concurrent-streams",
            "1",
            "--duration",
            &seconds.to_string(),
            "--warm-up-time",
            "200ms",
            "--header",
            &format!("authorization: Bearer {bearer}"),
            url,
        ],
    )?;
    requests_per_second_of_h2load(&said)
}

/// A fixed rate, and how long its requests took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Latency {
    /// Microseconds.
    pub(crate) p50: u64,
    /// Microseconds.
    pub(crate) p99: u64,
}

/// What a fixed rate is asked with.
pub(crate) struct Fixed<'a> {
    pub(crate) url: &'a str,
    pub(crate) bearer: &'a str,
    /// Requests a second, over all connections.
    pub(crate) rate: u32,
    pub(crate) seconds: u32,
    /// Instead of HTTP/2.
    pub(crate) http1: bool,
    pub(crate) arrival: Arrival,
}

/// How the requests of a fixed rate come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// One by one, as far apart as the rate says: what one takes is what the path takes.
    Evenly,
    /// Connections begin together and stay in step: as many at once as there are connections, and then none for a while.
    /// What one takes is mostly what those before it take.
    InBursts,
}

/// h2load's `--log-file`, in the folder `work` that client and bench share.
pub(crate) fn latency(client: &mut Client, work: &Path, fixed: &Fixed<'_>) -> Result<Latency> {
    const LOG: &str = "h2load.log";
    let log = work.join(LOG);
    // h2load appends.
    drop(std::fs::remove_file(&log));
    let clients = CONNECTIONS.to_string();
    let requests = (fixed.rate * fixed.seconds).to_string();
    let rate = format!("{:.3}", f64::from(fixed.rate) / f64::from(CONNECTIONS));
    let header = format!("authorization: Bearer {}", fixed.bearer);
    let log_file = format!("--log-file={LOG}");
    let rps = format!("--rps={rate}");
    // select(2) rather than epoll(7): its timers are exact to the microsecond, those of libev's epoll to the millisecond, which
    // would send three requests at a time.
    let mut command = vec!["env", "LIBEV_FLAGS=1", "h2load", "--clients", &clients];
    command.extend(["--requests", &requests]);
    command.extend(["--max-concurrent-streams", "1", &rps, &log_file]);
    if fixed.http1 {
        command.push("--h1");
    }
    // A connection asks every CONNECTIONS / rate seconds from when it is there. Each a rate-th of a second later within
    // that time than the one before it: the requests of all of them are as far apart.
    let (apart, rest) = (
        1000 * (CONNECTIONS + 1) / fixed.rate,
        1000 * (CONNECTIONS + 1) % fixed.rate,
    );
    ensure!(rest == 0, "h2load knows no part of a millisecond");
    let period = format!("--rate-period={apart}ms");
    // Of the beginning, while connections are made, and of the end, which they reach as they began.
    let mut left_out = Duration::ZERO;
    if fixed.arrival == Arrival::Evenly {
        command.extend(["--rate=1", &period]);
        left_out = Duration::from_millis((CONNECTIONS * apart).into());
    }
    command.extend(["--header", &header, fixed.url]);
    let said = client.run(fixed.seconds, &command)?;
    requests_per_second_of_h2load(&said)?;
    let text = std::fs::read_to_string(&log).context("h2load wrote no log")?;
    percentiles(&text, left_out)
}

fn requests_per_second_of_wrk(said: &str) -> Result<u64> {
    ensure!(
        !said.contains("Non-2xx") && !said.contains("Socket errors"),
        "wrk was not served: {said}"
    );
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    whole(line.with_context(|| format!("no report of wrk's: {said}"))?)
}

fn requests_per_second_of_h2load(said: &str) -> Result<u64> {
    let counts = said
        .lines()
        .find_map(|line| line.strip_prefix("requests: "));
    let counts = counts.with_context(|| format!("no report of h2load's: {said}"))?;
    ensure!(
        counts.contains(" 0 failed, 0 errored, 0 timeout") && said.contains(" 0 3xx, 0 4xx, 0 5xx"),
        "h2load was not served: {said}"
    );
    let rate = said
        .lines()
        .find_map(|line| line.strip_prefix("finished in "))
        .and_then(|line| line.split(", ").nth(1))
        .and_then(|rate| rate.strip_suffix(" req/s"));
    whole(rate.with_context(|| format!("no rate: {said}"))?)
}

/// `12345.67`, without what is behind the point.
fn whole(text: &str) -> Result<u64> {
    let text = text.trim();
    let before = text.split('.').next().unwrap_or(text);
    before.parse().with_context(|| format!("no number: {text}"))
}

/// Of lines of start, status and duration, separated by tabs, times in microseconds. Requests that start in the first or
/// the last `left_out` do not count.
fn percentiles(log: &str, left_out: Duration) -> Result<Latency> {
    let mut requests = Vec::new();
    for line in log.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [start, "200", took] = columns.as_slice() else {
            anyhow::bail!("h2load logged {line:?}");
        };
        requests.push((start.parse::<u64>()?, took.parse::<u64>()?));
    }
    let starts = || requests.iter().map(|(start, _)| *start);
    let (first, last) = starts().min().zip(starts().max()).unwrap_or_default();
    let left_out = u64::try_from(left_out.as_micros())?;
    let counts = first + left_out..=last.saturating_sub(left_out);
    let counted = requests.iter().filter(|(start, _)| counts.contains(start));
    let mut took: Vec<u64> = counted.map(|(_, took)| *took).collect();
    took.sort_unstable();
    let at = |percent: usize| {
        let index = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        took.get(index).copied().context("h2load logged nothing")
    };
    Ok(Latency {
        p50: at(50)?,
        p99: at(99)?,
    })
}
