//! Many clients at once: `load_client URL CLIENTS REQUESTS` sends REQUESTS requests on each of
//! CLIENTS connections (every other one HTTP/2), all at the same time, checks that each answer of
//! the echo server is the one to its own question, and prints the count as JSON. A wrong answer is
//! reported and counted; it refuses to retry.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use e2e::client::{Connection, config, roots_of_environment};
use e2e::digest::sha256;
use e2e::process::patient;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Uri};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// No request of a healthy gateway takes so long, however loaded the machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, clients, requests] = arguments.as_slice() else {
        anyhow::bail!("usage: load_client URL CLIENTS REQUESTS");
    };
    let (url, clients, requests) = (url.parse()?, clients.parse()?, requests.parse()?);
    let report = tokio::runtime::Runtime::new()?.block_on(load(url, clients, requests))?;
    println!("{report}");
    Ok(())
}

async fn load(url: Uri, clients: usize, requests: usize) -> Result<Value> {
    let roots = roots_of_environment()?;
    let configs = [
        config(roots.clone(), &["http/1.1"])?,
        config(roots, &["h2", "http/1.1"])?,
    ];
    // Nobody sends before everybody is connected: the connections are truly concurrent.
    let together = Arc::new(Barrier::new(clients));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        let config = Arc::clone(&configs[number % 2]);
        tasks.spawn(client(
            url.clone(),
            config,
            number,
            requests,
            Arc::clone(&together),
        ));
    }
    let mut correct = 0;
    let mut versions = BTreeMap::<String, usize>::new();
    let mut errors = Vec::new();
    let mut slowest = Duration::ZERO;
    while let Some(done) = tasks.join_next().await {
        let done = done?;
        correct += done.correct;
        slowest = slowest.max(done.slowest);
        *versions.entry(done.version).or_default() += done.correct;
        errors.extend(done.error);
    }
    Ok(json!({
        "correct": correct,
        "versions": versions,
        "errors": errors,
        "slowest_ms": u64::try_from(slowest.as_millis())?,
        "elapsed_ms": u64::try_from(started.elapsed().as_millis())?,
    }))
}

#[derive(Default)]
struct Done {
    correct: usize,
    version: String,
    slowest: Duration,
    error: Option<String>,
}

/// One client, until its last answer or its first error.
async fn client(
    url: Uri,
    config: Arc<ClientConfig>,
    number: usize,
    requests: usize,
    together: Arc<Barrier>,
) -> Done {
    let mut done = Done::default();
    let connected = tokio::time::timeout(patient(DEADLINE), connect(&url, config)).await;
    together.wait().await;
    let mut connection = match connected {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            done.error = Some(format!("client {number}: {error:#}"));
            return done;
        }
        Err(_) => {
            done.error = Some(format!("client {number}: not connected in {DEADLINE:?}"));
            return done;
        }
    };
    for request in 0..requests {
        let begun = Instant::now();
        let asked = ask(&mut connection, &url, number, request);
        match tokio::time::timeout(patient(DEADLINE), asked).await {
            Ok(Ok(version)) => {
                done.version = version;
                done.correct += 1;
                done.slowest = done.slowest.max(begun.elapsed());
            }
            Ok(Err(error)) => {
                done.error = Some(format!("client {number}, request {request}: {error:#}"));
                return done;
            }
            Err(_) => {
                done.error = Some(format!("client {number}, request {request}: too late"));
                return done;
            }
        }
    }
    done
}

async fn connect(url: &Uri, config: Arc<ClientConfig>) -> Result<Connection> {
    let host = url.host().context("no host")?;
    let port = url.port_u16().unwrap_or(443);
    Connection::open((host, port), Some((host, config))).await
}

/// One question, and whether the answer is to it; the version it came by.
async fn ask(
    connection: &mut Connection,
    url: &Uri,
    client: usize,
    request: usize,
) -> Result<String> {
    let body = format!("client {client} request {request} ").repeat(32);
    let question = format!("client={client}&request={request}");
    let response = connection
        .send(
            Request::post(format!("{url}?{question}"))
                .header("x-client", client)
                .body(Full::new(Bytes::from(body.clone())))?,
        )
        .await?;
    let version = format!("{:?}", response.version());
    ensure!(response.status() == 200, "status {}", response.status());
    let answer = response.into_body().collect().await?.to_bytes();
    let answer: Value = serde_json::from_slice(&answer)?;
    ensure!(
        answer["query"] == question.as_str() && answer["body"]["sha256"] == sha256(body.as_bytes()),
        "the answer to another question: {answer}"
    );
    Ok(version)
}
