//! WebSockets over HTTP/2 (RFC 8441): a client that opens them on a stream gets what one gets that opens them on a
//! connection, judged by the same rules, with the same credential, and seen by the same upstream as the same request.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::World;
use e2e::cgroup::Cgroup;
use e2e::policy;
use e2e::postern::{self, Done};
use e2e::process::{Process, patient, with_hosts};
use e2e::world::{random, script};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const ADDRESS: &str = "127.0.0.24";
const HOST: &str = "ws.test";
const SOON: Duration = Duration::from_secs(20);

/// A world with an upstream of WebSockets, to which requests that match `rule` may go, with a key.
struct Site {
    // Dropped first.
    server: Process,
    key: String,
    world: World,
}

impl Site {
    fn new(rule: &str) -> Result<Self> {
        let world = World::new()?;
        let key = random("ws-")?;
        world.secret("ws", "token", &key)?;
        let server = world.server("websocket_server.py", ADDRESS, &[HOST], &json!({}))?;
        let this = Self { server, key, world };
        this.world.write_policy(&this.documents(rule))?;
        Ok(this)
    }

    fn documents(&self, rule: &str) -> Vec<String> {
        let mut documents = self.world.standard();
        policy::aliased(&mut documents, ADDRESS, &[HOST]);
        let injected = policy::credential(
            "ws",
            &[HOST],
            "  secretRef: {name: ws}
  target: Header
  headerName: x-api-key
",
        );
        let all = "path: {type: PathPrefix, value: /}";
        documents.extend(injected.into_iter().map(|d| d.replace(all, rule)));
        documents
    }

    fn run(&self, scenario: &str) -> Result<(Done, Vec<Value>)> {
        let arguments = [HOST, scenario, "x-api-key=mine", "x-mine=kept"];
        let done = self
            .world
            .script("websocket_h2.mjs", &arguments)?
            .succeed()?;
        let told = done.json_lines()?;
        ensure!(!done.out().contains(&self.key), "the key was seen: {done}");
        Ok((done, told))
    }

    /// What the upstream told of, by the field that it begins with.
    fn seen(&self, what: &str) -> Result<Vec<Value>> {
        let lines = self.server.stdout().into_iter();
        let seen = lines.map(|line| serde_json::from_str(&line.text));
        let seen: Vec<Value> = seen.collect::<Result<_, _>>()?;
        Ok(seen
            .into_iter()
            .filter(|facts| !facts[what].is_null())
            .collect())
    }

    /// Waits until so many WebSockets have ended for the upstream.
    fn ended(&self, count: usize) -> Result<Vec<Value>> {
        let begun = std::time::Instant::now();
        loop {
            let ended = self.seen("ended")?;
            if ended.len() >= count {
                return Ok(ended);
            }
            ensure!(begun.elapsed() < patient(SOON), "still open: {ended:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn of<'a>(told: &'a [Value], field: &str, value: &Value) -> Result<&'a Value> {
    let found = told.iter().find(|facts| facts[field] == *value);
    found.with_context(|| format!("nothing of {field} {value}: {told:?}"))
}

#[test]
fn a_websocket_over_http_2_opens_with_the_gateway_s_key_echoes_and_closes() -> Result<()> {
    let site = Site::new("path: {type: PathPrefix, value: /}")?;
    let (done, told) = site.run("talk")?;
    assert_eq!(told[0], json!({"enabled": true}));
    let head = of(&told, "protocol", &json!("chat"))?;
    assert_eq!(head["status"], 200, "{done}");
    let extensions = head["extensions"].as_str().context("no extension")?;
    ensure!(extensions.starts_with("permessage-deflate"), "{extensions}");
    let names = json!(["sec-websocket-extensions", "sec-websocket-protocol"]);
    assert_eq!(head["names"], names);
    of(&told, "early", &json!("early"))?;
    for length in [5, 1000, 65_536, 3_000_000] {
        assert_eq!(of(&told, "sent", &json!(length))?["same"], true, "{done}");
    }
    assert_eq!(of(&told, "get", &json!("/refused"))?["status"], 404);
    of(&told, "pong", &json!(true))?;
    assert_eq!(of(&told, "close", &json!(true))?["end"], true, "{done}");

    let asked = site.seen("asked")?;
    let asked = of(&asked, "asked", &json!("/ws?x=1"))?;
    let expected = json!({
        "asked": "/ws?x=1", "keys": 1, "x-api-key": [site.key], "x-mine": ["kept"], "host": [HOST],
        "sec-websocket-version": ["13"], "sec-websocket-protocol": ["other, chat"], "upgrade": ["websocket"],
        "cookie": ["a=1; b=2"],
    });
    assert_eq!(asked, &expected);
    assert_eq!(site.ended(1)?[0]["code"], 1000);
    let record = done.record("request", |record| record.0["path"] == "/ws")?;
    assert_eq!(
        (record.host(), record.status()),
        (HOST, Some(200)),
        "{done}"
    );
    assert_eq!(record.0["method"], "GET");
    ensure!(record.0["error"].is_null(), "{done}");
    let down = record.0["bytes_down"].as_u64().context("no bytes")?;
    let up = record.0["bytes_up"].as_u64().context("no bytes")?;
    ensure!(up > 3_066_541 && down > 3_000_000, "{}", record.0);
    done.nothing_was_denied()
}

#[test]
fn a_client_that_leaves_when_all_is_said_has_not_failed() -> Result<()> {
    let site = Site::new("path: {type: PathPrefix, value: /}")?;
    let (done, told) = site.run("left")?;
    assert_eq!(of(&told, "close", &json!(true))?["end"], true, "{done}");
    let record = done.record("request", |record| record.0["path"] == "/ws")?;
    assert_eq!(record.status(), Some(200), "{done}");
    ensure!(record.0["error"].is_null(), "{done}");
    Ok(())
}

#[test]
fn what_is_no_websocket_passes_for_none() -> Result<()> {
    let site = Site::new("path: {type: PathPrefix, value: /}")?;
    let (done, told) = site.run("refused")?;
    let refused = of(&told, "path", &json!("/refused"))?;
    assert_eq!(
        (&refused["status"], &refused["body"]),
        (&json!(404), &json!("nor here\n"))
    );
    // 200 would say that the stream is a WebSocket.
    for path in ["/plain", "/liar"] {
        let told = of(&told, "path", &json!(path))?;
        assert_eq!(told["status"], 502, "{done}");
        let body = told["body"].as_str().unwrap_or_default();
        ensure!(body.contains("no WebSocket was opened"), "{body}");
        let record = done.record("request", |record| record.0["path"] == path)?;
        assert_eq!(record.status(), Some(502));
        assert_eq!(record.0["error"], "upstream_http", "{}", record.0);
    }
    let statuses: Vec<&Value> = told
        .iter()
        .filter(|facts| facts["path"] == "/ws")
        .map(|facts| &facts["status"])
        .collect();
    assert_eq!(statuses, [501, 421], "{done}");
    done.record("denied", |r| r.reason() == "protocol_not_implemented")?;
    done.record("denied", |r| r.reason() == "authority_mismatch")?;
    // Nothing of them went upstream, and the connection is as good as before.
    let asked = site.seen("asked")?;
    ensure!(
        !asked.iter().any(|facts| facts["asked"] == "/ws"),
        "{asked:?}"
    );
    assert_eq!(of(&told, "get", &json!("/refused"))?["status"], 404);
    Ok(())
}

#[test]
fn the_rules_of_a_get_are_those_of_a_websocket() -> Result<()> {
    let rule = "methods: [GET], path: {type: PathPrefix, value: /allowed}";
    let site = Site::new(rule)?;
    let (done, told) = site.run("denied")?;
    for path in ["/denied", "/allowed/../x"] {
        assert_eq!(of(&told, "path", &json!(path))?["status"], 403, "{done}");
    }
    assert_eq!(of(&told, "path", &json!("/allowed/ws"))?["status"], 200);
    assert_eq!(site.seen("asked")?.len(), 1, "{done}");
    let denied = done.records("denied");
    assert_eq!(denied.len(), 2, "{done}");
    for record in denied {
        assert_eq!(record.reason(), "request_not_allowed", "{done}");
        assert_eq!(record.0["method"], "GET", "{done}");
    }
    // By another method the same is refused, WebSocket or not.
    let site_key = &site.key;
    site.world
        .write_policy(&site.documents(&rule.replace("GET", "POST")))?;
    let (done, told) = site.run("denied")?;
    assert_eq!(of(&told, "path", &json!("/allowed/ws"))?["status"], 403);
    ensure!(!done.out().contains(site_key), "{done}");
    Ok(())
}

#[test]
fn a_credential_that_is_not_there_opens_nothing() -> Result<()> {
    let site = Site::new("path: {type: PathPrefix, value: /}")?;
    std::fs::remove_file(site.world.path("secrets").join("ws/token"))?;
    let (done, told) = site.run("missing")?;
    assert_eq!(of(&told, "path", &json!("/ws"))?["status"], 503, "{done}");
    ensure!(site.seen("asked")?.is_empty(), "{done}");
    done.record("denied", |r| r.reason() == "secret_missing")?;
    Ok(())
}

#[test]
fn a_stream_that_is_reset_ends_for_the_upstream_and_its_connection_goes_on() -> Result<()> {
    let site = Site::new("path: {type: PathPrefix, value: /}")?;
    let (done, told) = site.run("reset")?;
    of(&told, "back", &json!("hello"))?;
    assert_eq!(of(&told, "get", &json!("/refused"))?["status"], 404);
    for facts in site.ended(2)? {
        assert_eq!(facts["code"], 1006, "{done}");
    }
    for path in ["/ws", "/silent"] {
        let record = done.record("request", |record| record.0["path"] == path)?;
        assert_eq!(record.0["error"], "tunnel", "{}", record.0);
        assert_eq!(record.0["bytes_up"], 11, "{}", record.0);
    }
    Ok(())
}

#[test]
fn an_upstream_that_vanishes_ends_the_stream() -> Result<()> {
    let site = Site::new("path: {type: PathPrefix, value: /}")?;
    let (done, told) = site.run("vanish")?;
    assert_eq!(of(&told, "ended", &json!(true))?["soon"], true, "{done}");
    let record = done.record("request", |record| record.0["path"] == "/vanish")?;
    assert_eq!(record.status(), Some(200), "{}", record.0);
    assert_eq!(record.0["error"], "tunnel", "{}", record.0);
    Ok(())
}

#[test]
fn a_websocket_that_policy_no_longer_allows_ends() -> Result<()> {
    let site = Site::new("path: {type: PathPrefix, value: /}")?;
    let group = Cgroup::new("e2e-websocket")?;
    let path = group.path().display().to_string();
    let attach = format!("{path}={}", policy::GATEWAY);
    let daemon = site.world.daemon(&["--attach", &attach])?;
    let ca = site.world.gateway_ca()?;
    let [interpreter, script] = script("websocket_h2.mjs")?;
    let hosts = site.world.path("hosts");
    std::fs::write(&hosts, format!("{ADDRESS} {HOST}\n"))?;
    let mut client = with_hosts(&hosts);
    client.extend([&*interpreter, &script, HOST, "linger"].map(str::to_owned));
    let mut command = group.command(client.iter().map(String::as_str));
    command.env("NODE_EXTRA_CA_CERTS", &ca);
    let mut client = Process::start(command, b"")?;
    client.wait_for_line(SOON, |line| line.contains("lingering"))?;
    let all = site.documents("methods: [POST], path: {type: PathPrefix, value: /}");
    site.world.write_policy(&all)?;
    let record = daemon.wait_for_record(SOON, |record| {
        record.event() == "denied" && record.0["path"] == "/ws"
    })?;
    assert_eq!(record.reason(), "policy_changed", "{}", record.0);
    let ended = client.wait(SOON)?;
    ensure!(ended.out().contains("\"ended\":true"), "{ended:#?}");
    assert_eq!(site.ended(1)?[0]["code"], 1006);
    daemon.signal(Signal::SIGTERM)?;
    daemon.wait(SOON)?;
    postern::run(&["detach", &path])?;
    Ok(())
}

#[test]
fn a_websocket_on_which_nothing_moves_ends() -> Result<()> {
    let rule = "path: {type: PathPrefix, value: /}";
    let site = Site::new(rule)?;
    let mut documents = site.documents(rule);
    documents[0] += "  limits: {idleTimeout: 2s}\n";
    site.world.write_policy(&documents)?;
    let (done, told) = site.run("linger")?;
    assert_eq!(told.last(), Some(&json!({"closed": "/ws", "code": 0})));
    of(&told, "ended", &json!(true))?;
    assert_eq!(site.ended(1)?[0]["code"], 1006);
    let record = done.record("request", |record| record.0["path"] == "/ws")?;
    assert_eq!(record.0["error"], "tunnel", "{}", record.0);
    let took = record.0["duration_ms"].as_f64().context("no time")?;
    ensure!((2_000.0..20_000.0).contains(&took), "{took} ms");
    Ok(())
}

#[test]
fn what_a_client_never_reads_of_a_websocket_ends_with_its_connection() -> Result<()> {
    let rule = "path: {type: PathPrefix, value: /}";
    let site = Site::new(rule)?;
    let mut documents = site.documents(rule);
    documents[0] += "  limits: {idleTimeout: 2s}\n";
    site.world.write_policy(&documents)?;
    let (done, told) = site.run("unread")?;
    let gone = of(&told, "gone", &json!(true))?;
    let after = gone["after"].as_f64().context("no time")?;
    // The WebSocket is idle for two seconds, and then what is left of it is.
    ensure!((4_000.0..20_000.0).contains(&after), "{after} ms: {done}");
    let record = done.record("request", |record| record.0["path"] == "/ws")?;
    assert_eq!(record.0["error"], "tunnel", "{}", record.0);
    let took = record.0["duration_ms"].as_f64().context("no time")?;
    ensure!(took + 1_000.0 < after, "it was told late: {took} ms");
    Ok(())
}

#[test]
fn a_key_among_the_subprotocols_never_arrives() -> Result<()> {
    let site = Site::new("path: {type: PathPrefix, value: /}")?;
    let (done, told) = site.run("keyed")?;
    assert_eq!(of(&told, "path", &json!("/ws"))?["protocol"], "chat");
    // And over HTTP/1.1.
    let url = format!("https://{HOST}/refused");
    let own = "Sec-WebSocket-Protocol: openai-insecure-api-key.mine";
    let headers = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        own,
    ];
    let mut arguments = vec!["--http1.1", "-o", "/dev/null", &url];
    for header in &headers {
        arguments.extend(["-H", header]);
    }
    site.world.curl(&arguments).succeed()?;
    let asked = site.seen("asked")?;
    let over_http2 = of(&asked, "asked", &json!("/ws"))?;
    assert_eq!(
        over_http2["sec-websocket-protocol"],
        json!(["chat"]),
        "{done}"
    );
    let over_http1 = of(&asked, "asked", &json!("/refused"))?;
    assert_eq!(over_http1["sec-websocket-protocol"], json!([]), "{done}");
    Ok(())
}
