//! A new TLS connection for each request, towards the client; what is behind a proxy may be kept. It refuses to judge.

use anyhow::{Context, Result};

use super::Options;
use super::arena::{Arena, HOST};
use super::load::CONNECTIONS;
use super::paths;
use super::upstream::Upstream;

pub(crate) fn run(arena: &Arena, options: &Options) -> Result<()> {
    println!("unit cold_1k req/s");
    println!("unit cold_p50 us");
    println!("unit cold_p99 us");
    let _upstream = Upstream::start(arena)?;
    let mut paths = paths::all(arena, options)?;
    let url = format!("https://{HOST}/1k");
    paths::interleaved(arena, options, &mut paths, |path, seconds| {
        let (connections, seconds) = (CONNECTIONS.to_string(), seconds.to_string());
        let order = ["cold", &url, path.bearer(arena), &connections, &seconds];
        let found = path.client.ask(&order)?;
        let number = |name: &str| found[name].as_u64().context("no number");
        Ok(vec![
            ("cold_1k".to_owned(), number("rate")?),
            ("cold_p50".to_owned(), number("p50")?),
            ("cold_p99".to_owned(), number("p99")?),
        ])
    })
}
