//! Memory of the gateway: idle, and with ten thousand connections that have each been used once and are then left alone,
//! TLS ended, HTTP/1.1. It refuses to judge.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Options;
use super::arena::{Arena, HOST, limited};
use super::upstream::Upstream;

/// Of clients, in the sandbox.
const CONNECTIONS: u64 = 10_000;
/// The same where only a glance is wanted.
const FEW: u64 = 500;
/// Before their memory is looked at: what is measured is idle.
const LEFT_ALONE: Duration = Duration::from_secs(3);

pub(crate) fn run(arena: &Arena, options: &Options) -> Result<()> {
    println!("unit rss_idle KiB");
    println!("unit rss_idle_own KiB");
    println!("unit rss_per_connection bytes");
    let _upstream = Upstream::start(arena)?;
    let connections = if options.quick { FEW } else { CONNECTIONS };
    let url = format!("https://{HOST}/1k");
    let mut documents = arena.policy(None);
    limited(&mut documents, CONNECTIONS + 100);
    // Each is a gateway of its own: one that has served does not go back to what it was.
    for round in 0..options.rounds.min(3) {
        let mut client = arena.sandboxed("postern", &documents)?;
        let idle = resident(client.id())?;
        println!("sample rss_idle postern {round} {idle}");
        // Without the pages of the program's own file, which the kernel may drop and all gateways share.
        let own = field(client.id(), "RssAnon:")?;
        println!("sample rss_idle_own postern {round} {own}");
        // What is made once, for the first connections, is not theirs.
        client.ask(&["hold", &url, "50"])?;
        let before = resident(client.id())?;
        let mut held = 0;
        while held < connections {
            arena.go_on()?;
            let more = (connections - held).min(500);
            client.ask(&["hold", &url, &more.to_string()])?;
            held += more;
        }
        std::thread::sleep(LEFT_ALONE);
        let after = resident(client.id())?;
        let each = after.saturating_sub(before) * 1024 / connections;
        println!("sample rss_per_connection postern {round} {each}");
    }
    Ok(())
}

/// Of a process, KiB.
pub(crate) fn resident(process: u32) -> Result<u64> {
    field(process, "VmRSS:")
}

/// A field of `/proc/PID/status`, KiB.
fn field(process: u32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    let kib = word.with_context(|| format!("no {name}"))?.parse()?;
    ensure!(kib > 0, "no memory");
    Ok(kib)
}
