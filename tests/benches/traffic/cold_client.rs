//! Requests of which each has a TLS connection of its own, with a full handshake: what short-lived programs do. wrk would
//! resume sessions. It refuses to know of any proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use e2e::client::{Connection, config, roots_of_environment};
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONNECTION};
use hyper::{Request, Uri};
use rustls::client::Resumption;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// For `seconds`, `connections` at a time: requests a second and the percentiles of one, microseconds.
pub(crate) fn measure(url: &str, bearer: &str, connections: &str, seconds: &str) -> Result<Value> {
    let (url, connections) = (url.parse::<Uri>()?, connections.parse::<u32>()?);
    let authorization = format!("Bearer {bearer}");
    let time = Duration::from_secs(seconds.parse()?);
    let mut config = config(roots_of_environment()?, &["http/1.1"])?;
    Arc::make_mut(&mut config).resumption = Resumption::disabled();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Once: what is measured is TLS, and a sandbox has a ration of questions.
        let host = url.host().context("no host")?;
        let mut found = tokio::net::lookup_host((host, 443)).await?;
        let address = found.next().context("no address")?;
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let (url, config) = (url.clone(), Arc::clone(&config));
            let authorization = authorization.clone();
            tasks.spawn(async move {
                let mut took = Vec::new();
                while begun.elapsed() < time {
                    let started = Instant::now();
                    one(address, &url, &authorization, &config).await?;
                    took.push(started.elapsed());
                }
                anyhow::Ok(took)
            });
        }
        let mut took = Vec::new();
        while let Some(done) = tasks.join_next().await {
            took.extend(done??);
        }
        let elapsed = begun.elapsed();
        took.sort_unstable();
        let at = |percent: usize| -> Result<u64> {
            let index = (took.len() * percent / 100).min(took.len().saturating_sub(1));
            let value = took.get(index).context("no request was answered")?;
            Ok(u64::try_from(value.as_micros())?)
        };
        let count = u128::try_from(took.len())?;
        Ok(json!({
            "rate": u64::try_from(count * 1_000_000 / elapsed.as_micros().max(1))?,
            "p50": at(50)?,
            "p99": at(99)?,
        }))
    })
}

/// Everything of one request, from connect() to the end of the body.
async fn one(
    address: SocketAddr,
    url: &Uri,
    authorization: &str,
    config: &Arc<rustls::ClientConfig>,
) -> Result<()> {
    let host = url.host().context("no host")?;
    let mut connection = Connection::open(address, Some((host, Arc::clone(config)))).await?;
    let request = Request::get(url.clone())
        .header(AUTHORIZATION, authorization)
        .header(CONNECTION, "close");
    let response = connection
        .send(request.body(Full::new(Bytes::new()))?)
        .await?;
    ensure!(response.status() == 200, "status {}", response.status());
    response.into_body().collect().await?;
    Ok(())
}
