//! Throughput with traces, logs and metrics on their way to a collector, against a gateway without: both with their audit
//! log. The collector is the upstream's nginx, which reads and forgets. It refuses to judge.

use anyhow::{Result, ensure};

use super::Options;
use super::arena::{Arena, HOST, UPSTREAM};
use super::load;
use super::paths::{self, Path};
use super::upstream::Upstream;

pub(crate) fn run(arena: &Arena, options: &Options) -> Result<()> {
    println!("unit traced_1k req/s");
    let _upstream = Upstream::start(arena)?;
    let collector = format!("http://{UPSTREAM}:4318");
    let mut paths = vec![
        Path::alone("off", arena.sandboxed("off", &arena.policy(None))?),
        Path::alone(
            "postern",
            arena.sandboxed("on", &arena.policy(Some(&collector)))?,
        ),
    ];
    let url = format!("https://{HOST}/1k");
    paths::interleaved(arena, options, &mut paths, |path, seconds| {
        let bearer = path.bearer(arena);
        let rate = load::wrk(&mut path.client, &url, bearer, seconds)?;
        Ok(vec![("traced_1k".to_owned(), rate)])
    })?;
    let seen = std::fs::read_to_string(arena.path("collector.log"))?;
    for signal in ["/v1/traces", "/v1/logs"] {
        let posts = seen.lines().filter(|line| line.contains(signal)).count();
        ensure!(posts > 0, "the collector got nothing at {signal}: {seen}");
        eprintln!("{signal}: {posts} times");
    }
    Ok(())
}
