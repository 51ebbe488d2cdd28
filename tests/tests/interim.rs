//! What an upstream says before its answer (RFC 9110 §15.2, RFC 8297) reaches an HTTP/1.1 client at once, written anew; to
//! others, and where it is too much, it is as if it had not been said.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::World;
use e2e::policy;
use e2e::postern::Done;
use e2e::process::Process;
use e2e::world::random;
use serde_json::json;

const ADDRESS: &str = "127.0.0.26";
const HOST: &str = "hints.test";
const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n";
const DONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ndone\n";

struct Site {
    // Dropped first.
    _server: Process,
    key: String,
    world: World,
}

impl Site {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let key = random("hints-")?;
        world.secret("hints", "token", &key)?;
        let second = HINT.replace("a.css", "b.css");
        let many = format!("{HINT}\r\n").repeat(12);
        let told = json!({
            "/slow": [[0, format!("{HINT}\r\n")], [1500, format!("{second}\r\n")], [1500, DONE]],
            "/once": [[0, format!("{HINT}\r\n{second}\r\n{DONE}")]],
            "/echo": [[0, format!("{HINT}X-Echo: %KEY%\r\nX-%KEY%: 1\r\n\r\n")], [300, DONE]],
            "/hop": [[0, format!("{HINT}Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nContent-Length: 0\r\n\r\n")], [300, DONE]],
            "/odd": [[0, "HTTP/1.1 102 Whatever\r\n\r\nHTTP/1.1 199\r\nX-Odd: 1\r\n\r\n"], [300, DONE]],
            "/continue": [[0, "HTTP/1.1 100 Continue\r\n\r\n"], [0, format!("{HINT}\r\n{DONE}")]],
            "/many": [[0, many], [300, DONE]],
            "/split": [[0, "HTTP/1.1 103 Early Hints\r\nLink: x\nX: HTTP/1.1 200 OK\r\n\r\n"], [0, DONE]],
            "/body": [[0, "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello"], [0, DONE]],
            "/end": [[0, format!("{HINT}\r\n")], [100, "HTTP/1.1 200 Ok, but\nno\r\n\r\n"]],
        });
        let server = world.server("told_server.py", ADDRESS, &[HOST], &told)?;
        let mut documents = world.standard();
        policy::aliased(&mut documents, ADDRESS, &[HOST]);
        let target = "  secretRef: {name: hints}\n  target: Header\n  headerName: x-api-key\n";
        documents.extend(policy::credential("hints", &[HOST], target));
        world.write_policy(&documents)?;
        Ok(Self {
            _server: server,
            key,
            world,
        })
    }

    fn get(&self, path: &str, flags: &str) -> Result<(Done, String)> {
        let url = format!("https://{HOST}{path}");
        let flags: Vec<&str> = flags.split(' ').collect();
        let all = [&["-i", "-N", &url][..], &flags].concat();
        let done = self.world.curl(&all).succeed()?;
        let out = done.out().replace('\r', "");
        ensure!(!out.contains(&self.key), "the key was seen: {done}");
        Ok((done, out))
    }
}

#[test]
fn hints_arrive_while_the_answer_is_still_to_come() -> Result<()> {
    let site = Site::new()?;
    // What it writes there is not held back.
    let (done, out) = site.get("/slow", "--http1.1 -v")?;
    let at = |what: &str| -> Result<Duration> {
        let mut lines = done.ended.stderr.iter();
        let found = lines.find(|line| line.text.contains(what));
        Ok(found.with_context(|| format!("no {what}: {done}"))?.at)
    };
    let (first, second, last) = (at("a.css")?, at("b.css")?, at("200 OK")?);
    // Half of what the upstream pauses.
    let gap = Duration::from_millis(700);
    ensure!(
        second - first > gap && last - second > gap,
        "{first:?} {second:?} {last:?}"
    );
    let begin = "HTTP/1.1 103 Early Hints\nlink: </a.css>; rel=preload\n\nHTTP/1.1 103 Early Hints\n\
                 link: </b.css>; rel=preload\n\nHTTP/1.1 200 OK\n";
    ensure!(out.starts_with(begin), "{done}");
    ensure!(out.ends_with("\n\ndone\n"), "{done}");
    let record = done.record("request", |_| true)?;
    assert_eq!(
        (record.status(), &record.0["bytes_down"]),
        (Some(200), &json!(5))
    );
    // All in one piece with the answer, too.
    let (done, out) = site.get("/once", "--http1.1")?;
    ensure!(out.starts_with(begin), "{done}");
    Ok(())
}

#[test]
fn hints_are_written_anew_and_have_no_secret_in_them() -> Result<()> {
    let site = Site::new()?;
    let (done, out) = site.get("/echo", "--http1.1")?;
    let expected = "HTTP/1.1 103 Early Hints\nlink: </a.css>; rel=preload\nx-echo: [redacted]\n\n";
    ensure!(out.starts_with(expected), "{done}");
    assert_eq!(done.record("request", |_| true)?.0["scrubbed"], 2, "{done}");
    let (done, out) = site.get("/hop", "--http1.1")?;
    let expected = "HTTP/1.1 103 Early Hints\nlink: </a.css>; rel=preload\n\nHTTP/1.1 200 OK\n";
    ensure!(out.starts_with(expected), "{done}");
    let (done, out) = site.get("/odd", "--http1.1")?;
    let expected = "HTTP/1.1 102 Processing\n\nHTTP/1.1 199 \nx-odd: 1\n\nHTTP/1.1 200 OK\n";
    ensure!(out.starts_with(expected), "{done}");
    let (done, out) = site.get("/continue", "--http1.1")?;
    ensure!(out.starts_with("HTTP/1.1 103 Early Hints\n"), "{done}");
    let (done, out) = site.get("/many", "--http1.1")?;
    assert_eq!(out.matches("HTTP/1.1 103").count(), 8, "{done}");
    ensure!(out.ends_with("\n\ndone\n"), "{done}");
    Ok(())
}

#[test]
fn clients_that_cannot_have_hints_have_the_answer_alone() -> Result<()> {
    let site = Site::new()?;
    for flag in ["--http1.0 --no-alpn", "--http2"] {
        for path in ["/slow", "/once", "/many"] {
            let (done, out) = site.get(path, flag)?;
            ensure!(!out.contains("103"), "{flag}: {done}");
            ensure!(out.contains("200"), "{flag}: {done}");
            ensure!(out.ends_with("\n\ndone\n"), "{flag}: {done}");
        }
    }
    Ok(())
}

#[test]
fn hints_that_could_be_read_in_two_ways_end_the_exchange() -> Result<()> {
    let site = Site::new()?;
    for path in ["/split", "/body", "/end"] {
        let (done, out) = site.get(path, "--http1.1")?;
        ensure!(out.contains("HTTP/1.1 502 Bad Gateway\n"), "{done}");
        ensure!(!out.contains("200"), "{done}");
        let hints = usize::from(path == "/end");
        assert_eq!(out.matches("103").count(), hints, "{done}");
        let record = done.record("request", |_| true)?;
        assert_eq!(record.0["error"], "upstream_http", "{}", record.0);
    }
    Ok(())
}
