//! The ways from a client to the upstream that are compared: directly, through Postern, through its peers. Each is warm for
//! a whole run and all are taken in turn. It refuses to know what is asked on them.

use anyhow::Result;
use e2e::process::Process;

use super::Options;
use super::arena::{Arena, EVENT_SERVER, UPSTREAM};
use super::client::Client;
use super::peers::{ENVOY, MITMPROXY, MITMPROXY_EVENTS, Peers};

/// A client, and what it goes through.
pub(crate) struct Path {
    /// `direct`, `postern`, `envoy`, `mitmproxy`.
    pub(crate) name: &'static str,
    pub(crate) client: Client,
    /// Kept for as long as the path is used.
    _proxies: Vec<Process>,
}

/// All paths that `options` has the programs for.
pub(crate) fn all(arena: &Arena, options: &Options) -> Result<Vec<Path>> {
    let mut paths = vec![
        Path {
            name: "direct",
            client: arena.client("direct", UPSTREAM, EVENT_SERVER)?,
            _proxies: Vec::new(),
        },
        Path {
            name: "postern",
            client: arena.sandboxed("postern", &arena.policy(None))?,
            _proxies: Vec::new(),
        },
    ];
    if let Some(bin) = &options.peers {
        let peers = Peers::new(bin);
        paths.push(Path {
            name: "envoy",
            _proxies: vec![peers.envoy(arena)?],
            client: arena.client("envoy", ENVOY, ENVOY)?,
        });
        paths.push(Path {
            name: "mitmproxy",
            _proxies: peers.mitmproxy(arena)?.into(),
            client: arena.client("mitmproxy", MITMPROXY, MITMPROXY_EVENTS)?,
        });
    }
    Ok(paths)
}

impl Path {
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
