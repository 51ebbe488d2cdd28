//! Some of everything that a gateway does for its sandboxes, so that a binary that counts has seen it: kept and new
//! connections of both HTTP versions, small bodies, large ones and events, calls of a model that are metered, what is
//! refused, what passes unread; with a collector and without. It measures nothing.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use e2e::ca::Alpn;
use e2e::mock::Mock;
use e2e::mock::anthropic::Anthropic;
use e2e::policy;

use super::Options;
use super::arena::{Arena, HOST, UPSTREAM, opaque};
use super::http;
use super::load::CONNECTIONS;
use super::paths::Path;
use super::splice::{FAR, PORT, far_host};
use super::upstream::Upstream;

/// Of each kind of traffic, seconds.
const SECONDS: u32 = 3;
/// The provider that is called, and where it is.
const MODEL: &str = "api.anthropic.com";
const MODEL_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 22);
/// What it is asked, at once and event by event.
const QUESTIONS: [(&str, &str); 2] = [
    (
        "question",
        r#"{"model":"claude-haiku-4-5","max_tokens":64,"messages":[{"role":"user","content":"Is the door open?"}]}"#,
    ),
    (
        "streamed-question",
        r#"{"model":"claude-haiku-4-5","max_tokens":64,"stream":true,"messages":[{"role":"user","content":"Is the door open?"}]}"#,
    ),
];

pub(crate) fn run(arena: &Arena, _: &Options) -> Result<()> {
    let _upstream = Upstream::start(arena)?;
    let key = arena.credential.clone();
    let _model = Mock::start(
        arena.runtime.handle(),
        (MODEL_SERVER, 443).into(),
        Some(arena.ca.server(&[MODEL], Alpn::Both)?),
        Anthropic { key },
    )?;
    far_host()?;
    for (name, question) in QUESTIONS {
        std::fs::write(arena.path("work").join(name), question)?;
    }
    let collector = format!("http://{UPSTREAM}:4318");
    for (name, otlp) in [("alone", None), ("told", Some(collector.as_str()))] {
        let mut documents = arena.policy(otlp);
        documents.push(policy::provider(
            "anthropic",
            &["/v1/messages"],
            "bench",
            "value",
        ));
        policy::aliased(&mut documents, &MODEL_SERVER.to_string(), &[MODEL]);
        opaque(&mut documents, &format!("{FAR}/32"), PORT);
        let mut path = Path::alone("postern", arena.sandboxed(name, &documents)?);
        http::throughput(arena, &mut path, SECONDS)?;
        let (connections, seconds) = (CONNECTIONS.to_string(), SECONDS.to_string());
        let url = format!("https://{HOST}/1k");
        let order = ["cold", &url, path.bearer(arena), &connections, &seconds];
        path.client.ask(&order)?;
        calls(&mut path)?;
        path.client.ask(&["read", &format!("{FAR}:{PORT}"), "1"])?;
    }
    Ok(())
}

/// Of the model, and of what is no call of it.
fn calls(path: &mut Path) -> Result<()> {
    let messages = format!("https://{MODEL}/v1/messages");
    for versions in ["http/1.1", "h2"] {
        for (question, _) in QUESTIONS {
            let said = post(path, versions, question, &messages)?;
            ensure!(said.contains(" 0 3xx, 0 4xx, 0 5xx"), "not served: {said}");
        }
    }
    let said = post(
        path,
        "h2",
        QUESTIONS[0].0,
        &format!("https://{MODEL}/v1/files"),
    )?;
    ensure!(
        said.contains(" 0 2xx,"),
        "a path that no rule has was served: {said}"
    );
    Ok(())
}

fn post(path: &mut Path, versions: &str, body: &str, url: &str) -> Result<String> {
    let (clients, seconds) = (CONNECTIONS.to_string(), SECONDS.to_string());
    let mut command = vec!["h2load", "--clients", &clients, "--duration", &seconds];
    command.extend(["--max-concurrent-streams", "1", "--data", body]);
    command.extend(["--header", "content-type: application/json", url]);
    command.extend(["--npn-list", versions]);
    path.client.run(SECONDS, &command)
}
