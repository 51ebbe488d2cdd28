//! Connections that are opened, used once and then left alone. It refuses to close them before its program ends.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use e2e::client::{Connection, config, roots_of_environment};
use http_body_util::{BodyExt, Full};
use hyper::header::AUTHORIZATION;
use hyper::{Request, Uri};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// What is held.
#[derive(Default)]
pub(crate) struct Held {
    runtime: Option<Runtime>,
    connections: Vec<Connection>,
}

impl Held {
    /// Opens so many more, one after the other, with one request on each.
    pub(crate) fn open(&mut self, url: &str, connections: &str) -> Result<Value> {
        let (url, connections) = (url.parse::<Uri>()?, connections.parse::<usize>()?);
        if self.runtime.is_none() {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            self.runtime = Some(builder.worker_threads(1).enable_all().build()?);
        }
        let runtime = self.runtime.as_ref().context("no runtime")?;
        let config = config(roots_of_environment()?, &["http/1.1"])?;
        // Once: a sandbox has a ration of questions.
        let host = url.host().context("no host")?;
        let mut found = runtime.block_on(tokio::net::lookup_host((host, 443)))?;
        let address = found.next().context("no address")?;
        for number in 0..connections {
            let opened = runtime.block_on(open(address, &url, &config));
            let opened = opened.with_context(|| format!("connection {number}"))?;
            self.connections.push(opened);
        }
        Ok(json!(self.connections.len()))
    }
}

async fn open(
    address: SocketAddr,
    url: &Uri,
    config: &Arc<rustls::ClientConfig>,
) -> Result<Connection> {
    let host = url.host().context("no host")?;
    let mut connection = Connection::open(address, Some((host, Arc::clone(config)))).await?;
    let request = Request::get(url.clone())
        .header(AUTHORIZATION, format!("Bearer {}", e2e::world::PLACEHOLDER));
    let response = connection
        .send(request.body(Full::new(Bytes::new()))?)
        .await?;
    ensure!(response.status() == 200, "status {}", response.status());
    response.into_body().collect().await?;
    Ok(connection)
}
