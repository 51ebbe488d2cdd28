//! The ways from a client to the upstream that are compared: directly, through Postern, through its peers. Each is warm for
//! a whole run and all are taken in turn. It refuses to know what is asked on them.

use anyhow::{Context, Result};
use e2e::process::Process;

use super::Options;
use super::arena::{Arena, EVENT_SERVER, UPSTREAM};
use super::client::Client;
use super::peers::{ENVOY, MITMPROXY, Peers};

/// A client, and what it goes through.
pub(crate) struct Path {
    /// `direct`, `postern`, `envoy`, `mitmproxy`.
    pub(crate) name: &'static str,
    pub(crate) client: Client,
    /// Kept for as long as the path is used.
    proxy: Option<Process>,
}

/// All paths that `options` has the programs for.
pub(crate) fn all(arena: &Arena, options: &Options) -> Result<Vec<Path>> {
    let mut paths = vec![
        Path::alone("direct", arena.client("direct", UPSTREAM, EVENT_SERVER)?),
        Path::alone("postern", arena.sandboxed("postern", &arena.policy(None))?),
    ];
    if let Some(bin) = &options.peers {
        let peers = Peers::new(bin);
        paths.push(Path {
            name: "envoy",
            proxy: Some(peers.envoy(arena)?),
            client: arena.client("envoy", ENVOY, ENVOY)?,
        });
        paths.push(Path {
            name: "mitmproxy",
            proxy: Some(peers.mitmproxy(arena)?),
            client: arena.client("mitmproxy", MITMPROXY, MITMPROXY)?,
        });
    }
    Ok(paths)
}

/// What `sysconf(_SC_CLK_TCK)` says on every architecture of Linux: /proc counts in hundredths of a second.
const TICK_US: u64 = 10_000;

impl Path {
    /// What the proxy has spent in its life, microseconds of a processor: where others keep the machine busy, it says more
    /// than the time that passes. `None` where there is no proxy.
    pub(crate) fn spent(&self) -> Result<Option<u64>> {
        let process = match (self.name, &self.proxy) {
            ("direct", _) => return Ok(None),
            (_, Some(proxy)) => u32::try_from(proxy.id()?.as_raw())?,
            (_, None) => self.client.id(),
        };
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The name, second of the fields, may hold anything: what counts follows its closing bracket (proc(5)).
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |number: usize| -> Result<u64> {
            let text = fields.get(number - 3).context("a short stat")?;
            Ok(text.parse()?)
        };
        Ok(Some((field(14)? + field(15)?) * TICK_US))
    }

    /// Without a proxy beside it.
    pub(crate) fn alone(name: &'static str, client: Client) -> Self {
        Self {
            name,
            client,
            proxy: None,
        }
    }

    /// What the client says where the credential is wanted: the real one where nobody puts it there.
    pub(crate) fn bearer<'a>(&self, arena: &'a Arena) -> &'a str {
        match self.name {
            "direct" => &arena.credential,
            _ => e2e::world::PLACEHOLDER,
        }
    }
}

/// Takes `measure` on every path in turn, another one first each round, after a round that warms up and is not told.
/// `measure` says its samples as (measure, value).
pub(crate) fn interleaved(
    arena: &Arena,
    options: &Options,
    paths: &mut [Path],
    mut measure: impl FnMut(&mut Path, u32) -> Result<Vec<(String, u64)>>,
) -> Result<()> {
    for round in 0..=options.rounds {
        let count = paths.len();
        for index in 0..count {
            arena.go_on()?;
            let first = usize::try_from(round)?;
            let path = &mut paths[(index + first) % count];
            let seconds = if round == 0 { 1 } else { options.seconds };
            let samples = measure(path, seconds)?;
            if let Some(told) = round.checked_sub(1) {
                for (name, value) in samples {
                    println!("sample {name} {} {told} {value}", path.name);
                }
            }
        }
    }
    Ok(())
}
