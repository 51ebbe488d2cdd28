//! A gateway under everything at once, for a long time: HTTP/1.1, HTTP/2, streams of events, opaque bytes and denials, while
//! its policy is reloaded, its secret rotated and its upstream killed. After each phase memory, descriptors and map entries
//! are counted; it fails if they grow, or if a kind of traffic does not get through. It refuses to measure speed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::process::Process;
use serde_json::Value;

use super::Options;
use super::arena::{Arena, EVENTS, HOST, opaque};
use super::client::Client;
use super::scale::resident;
use super::splice::{FAR, PORT, far_host};
use super::upstream::{Upstream, nginx};

/// Of load, before something is counted.
const PHASE: Duration = Duration::from_secs(10);
/// Without load, so that what ends by itself has ended.
const REST: Duration = Duration::from_secs(2);
/// Phases that fill caches and pools and are not judged.
const WARM_UP: usize = 3;
/// How much more than at the start of what is judged there may be at its end: a tenth, and these.
const MORE_KIB: u64 = 8 << 10;
/// Of descriptors and map entries: what a moment's connections come to.
const MORE_THINGS: u64 = 40;

/// What is counted after a phase.
struct Count {
    rss: u64,
    fds: u64,
    entries: u64,
}

pub(crate) fn run(arena: &Arena, options: &Options) -> Result<()> {
    println!("unit soak_rss KiB\nunit soak_fds descriptors\nunit soak_entries entries");
    println!("unit soak_requests requests");
    let mut upstream = Upstream::start(arena)?;
    far_host()?;
    let mut documents = arena.policy(None);
    opaque(&mut documents, &format!("{FAR}/32"), PORT);
    let mut client = arena.sandboxed("postern", &documents)?;
    std::fs::write(arena.path("work").join("soak.sh"), script()?)?;
    let until = Instant::now() + Duration::from_secs(60 * u64::from(options.minutes));
    let mut counts = Vec::new();
    while Instant::now() < until {
        arena.go_on()?;
        let requests = phase(arena, &mut client, &mut upstream, &documents)?;
        std::thread::sleep(REST);
        let count = Count::of(client.id())?;
        let round = counts.len();
        for (name, value) in [
            ("rss", count.rss),
            ("fds", count.fds),
            ("entries", count.entries),
            ("requests", requests),
        ] {
            println!("sample soak_{name} postern {round} {value}");
        }
        counts.push(count);
    }
    drop(client);
    denials_are_recorded(&arena.path("audit-postern"))?;
    flat("KiB of memory", MORE_KIB, &counts, |count| count.rss)?;
    flat("descriptors", MORE_THINGS, &counts, |count| count.fds)?;
    flat("map entries", MORE_THINGS, &counts, |count| count.entries)
}

/// All kinds of load at once, with a file of what each came to.
fn script() -> Result<String> {
    let [program, client] = Client::program()?;
    let seconds = seconds(PHASE);
    let bearer = e2e::world::PLACEHOLDER;
    Ok(format!(
        "wrk -t1 -c16 -d{seconds}s -H 'Authorization: Bearer {bearer}' https://{HOST}/1k > h1 2>&1 &
wrk -t1 -c4 -d{seconds}s -H 'Authorization: Bearer {bearer}' https://{EVENTS}/ > sse 2>&1 &
h2load -c8 -m4 -D{seconds} -H 'authorization: Bearer {bearer}' https://{HOST}/64k > h2 2>&1 &
(while :; do echo '[\"read\",\"{FAR}:{PORT}\",\"1\"]' | {program} {client}; done) > opaque 2>&1 &
opaque=$!
(while :; do curl -s -m 1 https://denied.test/; curl -s -m 1 http://198.51.100.77/; sleep 0.05; done) > denied 2>&1 &
denied=$!
sleep {seconds}
kill $opaque $denied
sleep 1
cat h1 h2 sse
echo opaque $(grep -c value opaque)
"
    ))
}

/// Load, and what goes wrong meanwhile; the requests that were answered.
fn phase(
    arena: &Arena,
    client: &mut Client,
    upstream: &mut Upstream,
    documents: &[String],
) -> Result<u64> {
    let said = std::thread::scope(|scope| {
        let load = scope.spawn(|| client.run(seconds(PHASE), &["sh", "soak.sh"]));
        let trouble = trouble(arena, upstream, documents);
        let said = load
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        trouble.and(said)
    })?;
    let mut requests = 0;
    let rates: Vec<&str> = said
        .lines()
        .filter(|line| line.contains(" requests in ") || line.starts_with("requests: "))
        .collect();
    for rate in &rates {
        let words: Vec<&str> = rate.split_whitespace().collect();
        let done = match words.as_slice() {
            ["requests:", ..] => words.iter().position(|word| *word == "done,"),
            _ => Some(1),
        };
        let count = done.and_then(|at| words.get(at.checked_sub(1)?));
        let count: u64 = count.context("no count")?.parse()?;
        ensure!(count > 0, "a kind of request did not get through: {said}");
        requests += count;
    }
    ensure!(rates.len() == 3, "a load did not run: {said}");
    ensure!(!said.contains("opaque 0"), "no opaque bytes: {said}");
    Ok(requests)
}

/// Reloads, rotations and a dead upstream, spread over a phase.
fn trouble(arena: &Arena, upstream: &mut Upstream, documents: &[String]) -> Result<()> {
    let step = PHASE / 8;
    let pause = || std::thread::sleep(step);
    let mut more = documents.to_vec();
    more.push(e2e::policy::proxy_rule(
        "more",
        "more.test",
        &[("X-More", "{{ bench.value }}")],
    ));
    pause();
    arena.write_policy("postern", &more)?;
    pause();
    arena.write_secret("another-credential-of-no-worth")?;
    pause();
    arena.write_secret(&arena.credential)?;
    pause();
    arena.write_policy("postern", documents)?;
    pause();
    upstream.replace_nginx(|old: Process| {
        drop(old);
        pause();
        nginx(arena)
    })
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

impl Count {
    fn of(process: u32) -> Result<Self> {
        let fds = std::fs::read_dir(format!("/proc/{process}/fd"))?.count();
        Ok(Self {
            rss: resident(process)?,
            fds: u64::try_from(fds)?,
            entries: entries(process)?,
        })
    }
}

/// Of all maps that the process holds and whose entries come and go. Not of a cache, which fills up and has a bound: what it
/// keeps of the programs that this starts by the hundred is all that grew in half an hour, and to that bound.
fn entries(process: u32) -> Result<u64> {
    // linux/bpf.h: HASH, PERCPU_HASH, LPM_TRIE.
    const KINDS: [&str; 3] = ["1", "5", "11"];
    let mut maps = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/fdinfo"))? {
        // Descriptors come and go while they are listed.
        let Ok(info) = std::fs::read_to_string(entry?.path()) else {
            continue;
        };
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().to_owned())
        };
        if field("map_type:").is_some_and(|kind| KINDS.contains(&&*kind)) {
            maps.extend(field("map_id:"));
        }
    }
    ensure!(!maps.is_empty(), "process {process} holds no maps");
    let mut total = 0;
    for map in maps {
        let output = Command::new("/usr/sbin/bpftool")
            .args(["--json", "map", "dump", "id", &map])
            .output()
            .context("cannot run bpftool")?;
        let dump: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("bpftool: {}", String::from_utf8_lossy(&output.stderr)))?;
        let dumped = dump.as_array().context("no array of entries")?;
        total += u64::try_from(dumped.len())?;
    }
    Ok(total)
}

fn denials_are_recorded(folder: &Path) -> Result<()> {
    let text = std::fs::read_to_string(folder.join("audit.jsonl"))?;
    ensure!(text.contains("\"denied\""), "no denial is on record");
    Ok(())
}

/// The median of the last third against that of the first, warm-up left out.
fn flat(what: &str, more: u64, counts: &[Count], of: impl Fn(&Count) -> u64) -> Result<()> {
    let judged: Vec<u64> = counts.iter().skip(WARM_UP).map(of).collect();
    let third = judged.len() / 3;
    if third == 0 {
        eprintln!("too short to judge {what}: {judged:?}");
        return Ok(());
    }
    let [before, after] = [&judged[..third], &judged[judged.len() - third..]].map(|part| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2]
    });
    let most = before + before / 10 + more;
    eprintln!("{what}: {before} at first, {after} at last, {most} allowed");
    if after > most {
        bail!("{what} grew from {before} to {after}; {most} would be flat: {judged:?}");
    }
    Ok(())
}
