//! HTTP/2 connections that end while requests are on them: what the upstream has provably not begun with is sent once more,
//! on another connection, and nothing else is; and the gateway's own connections let what they carry finish.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::World;
use e2e::cgroup::Cgroup;
use e2e::policy;
use e2e::postern::{self, Done};
use e2e::process::{Process, with_hosts};
use e2e::world::script;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const ADDRESS: &str = "127.0.0.25";
const HOST: &str = "leaving.test";
const SOON: Duration = Duration::from_secs(20);
/// The last stream of a connection that names none (RFC 9113 §6.8).
const ANY: u32 = u32::MAX >> 1;
const GOAWAY: u32 = 7;
const RST_STREAM: u32 = 3;
const REFUSED_STREAM: u32 = 7;

/// What came of one burst.
struct Burst {
    done: Done,
    /// Of each request, in the order of their bodies.
    told: Vec<Value>,
    /// Connection, stream and body of each that the upstream had whole.
    seen: Vec<(u64, u64, String)>,
}

impl Burst {
    /// Sends `bodies` by `method` at once to an upstream that does as it is `told`.
    fn run(told: &Value, method: &str, length: usize, bodies: &[&str]) -> Result<Self> {
        let world = World::new()?;
        let server = world.server("leaving_server.py", ADDRESS, &[HOST], told)?;
        let mut documents = world.standard();
        policy::aliased(&mut documents, ADDRESS, &[HOST]);
        let names = policy::Destinations::Names(&[HOST]);
        documents.push(policy::l4_route("leaving", &names, &[443]));
        world.write_policy(&documents)?;
        let length = length.to_string();
        let arguments = [&[HOST, method, &length], bodies].concat();
        let done = world.script("burst.py", &arguments)?.succeed()?;
        let mut told = done.json_lines()?;
        told.sort_by_key(|facts| facts["body"].as_str().map(str::to_owned));
        let lines = server.stdout().into_iter();
        let seen = lines.map(|line| serde_json::from_str::<Value>(&line.text));
        let seen: Vec<Value> = seen.collect::<Result<_, _>>()?;
        let seen = seen
            .iter()
            .filter(|facts| facts["stream"].is_number())
            .map(|facts| {
                let number = |name: &str| facts[name].as_u64().unwrap_or_default();
                let body = facts["body"].as_str().unwrap_or_default();
                let body = body.trim_end_matches('.').to_owned();
                (number("connection"), number("stream"), body)
            })
            .collect();
        Ok(Self { done, told, seen })
    }

    /// The statuses, by body.
    fn statuses(&self) -> Vec<u64> {
        let told = self.told.iter();
        told.map(|facts| facts["status"].as_u64().unwrap_or_default())
            .collect()
    }

    /// On which connections a body came whole.
    fn connections_of(&self, body: &str) -> Vec<u64> {
        let of = self.seen.iter().filter(|(_, _, seen)| seen == body);
        of.map(|(connection, _, _)| *connection).collect()
    }

    /// The body on a stream of the first connection.
    fn first(&self, stream: u64) -> &str {
        let mut seen = self.seen.iter();
        seen.find(|(connection, found, _)| (*connection, *found) == (1, stream))
            .map_or("", |(_, _, body)| body)
    }
}

#[test]
fn what_goaway_leaves_out_is_sent_again_once_and_what_it_covers_is_not() -> Result<()> {
    for answer in [vec![1], vec![]] {
        let told = json!({"on": 1, "wait": 3, "say": [[GOAWAY, 1, 0]], "answer": answer});
        let burst = Burst::run(&told, "POST", 5, &["a", "b", "c"])?;
        let processed = burst.first(1);
        for (body, status) in ["a", "b", "c"].iter().zip(burst.statuses()) {
            let connections = burst.connections_of(body);
            if *body != processed {
                assert_eq!((status, connections), (200, vec![1, 2]), "{}", burst.done);
            } else if answer.is_empty() {
                // It was begun with, and what came of it nobody knows.
                assert_eq!((status, connections), (502, vec![1]), "{}", burst.done);
                let record = burst.done.record("request", |r| r.status() == Some(502))?;
                assert_eq!(record.0["error"], "upstream_http", "{}", record.0);
            } else {
                assert_eq!((status, connections), (200, vec![1]), "{}", burst.done);
            }
        }
        assert_eq!(burst.done.records("request").len(), 3, "one record each");
        for record in burst.done.records("request") {
            assert_eq!(record.0["bytes_up"], 5, "counted once: {}", record.0);
        }
    }
    Ok(())
}

#[test]
fn a_stream_that_is_refused_is_sent_again_once() -> Result<()> {
    for on in [1, 9] {
        let say = [[RST_STREAM, 1, REFUSED_STREAM], [RST_STREAM, 3, 8]];
        let told = json!({"on": on, "wait": 2, "say": say, "answer": [5]});
        // The second connection has one request: it waits for no other.
        let told = match on {
            1 => told,
            _ => {
                json!({"on": on, "wait": 1, "say": [[RST_STREAM, 1, REFUSED_STREAM]], "answer": [5]})
            }
        };
        let bodies: &[&str] = if on == 1 { &["a", "b"] } else { &["a"] };
        let burst = Burst::run(&told, "POST", 5, bodies)?;
        if on == 1 {
            // The other one was reset for another reason: it may have been begun with.
            let (refused, reset) = (burst.first(1), burst.first(3));
            assert_eq!(burst.connections_of(refused), [1, 2], "{}", burst.done);
            assert_eq!(burst.connections_of(reset), [1], "{}", burst.done);
            let mut statuses = burst.statuses();
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 502], "{}", burst.done);
        } else {
            assert_eq!(burst.statuses(), [502], "{}", burst.done);
            assert_eq!(burst.connections_of("a"), [1, 2], "{}", burst.done);
        }
    }
    Ok(())
}

#[test]
fn a_long_body_is_not_sent_again_and_a_request_without_one_is() -> Result<()> {
    let told = json!({"on": 1, "wait": 1, "say": [[GOAWAY, 0, 0]], "answer": []});
    let long = Burst::run(&told, "POST", 100_000, &["a"])?;
    assert_eq!(long.statuses(), [502], "{}", long.done);
    assert_eq!(long.connections_of("a"), [1], "{}", long.done);
    let short = Burst::run(&told, "POST", 60_000, &["a"])?;
    assert_eq!(short.statuses(), [200], "{}", short.done);
    let none = Burst::run(&told, "GET", 0, &[""])?;
    assert_eq!(none.statuses(), [200], "{}", none.done);
    assert_eq!(none.connections_of(""), [1, 2], "{}", none.done);
    Ok(())
}

#[test]
fn a_graceful_end_lets_what_is_under_way_finish_and_the_next_goes_elsewhere() -> Result<()> {
    let world = World::new()?;
    let say = [[GOAWAY, ANY, 0]];
    let told = json!({"on": 1, "wait": 1, "say": say, "until": world.work("over"), "answer": [1]});
    let mut server = world.server("leaving_server.py", ADDRESS, &[HOST], &told)?;
    let mut documents = world.standard();
    policy::aliased(&mut documents, ADDRESS, &[HOST]);
    let names = policy::Destinations::Names(&[HOST]);
    documents.push(policy::l4_route("leaving", &names, &[443]));
    world.write_policy(&documents)?;
    let ask = format!("curl -s --fail --max-time 20 https://{HOST}/");
    let second = format!("while [ ! -e heard ]; do sleep 0.05; done; {ask} -d second; echo");
    let both = format!("{ask} -d first & {second}; touch over; wait");
    let running = world.exec(["sh", "-c", &both]).start()?;
    server.wait_for_line(SOON, |line| line.contains("\"heard\""))?;
    std::fs::write(world.work("heard"), "")?;
    let done = running.wait()?;
    ensure!(done.code() == 0, "{done}");
    let told: Vec<Value> = done.json_lines()?;
    // The second is answered while the first is still under way.
    assert_eq!(told[0]["connection"], 2, "{done}");
    assert_eq!(told[1]["connection"], 1, "{done}");
    let seen = server.stdout();
    let seen = seen.iter().filter(|line| line.text.contains("stream"));
    assert_eq!(seen.count(), 2, "each once: {done}");
    done.nothing_was_denied()
}

#[test]
fn a_gateway_that_ends_says_goaway_and_lets_what_is_under_way_finish() -> Result<()> {
    let world = World::new()?;
    let group = Cgroup::new("e2e-goaway")?;
    let path = group.path().display().to_string();
    let daemon = world.daemon(&["--attach", &format!("{path}={}", policy::GATEWAY)])?;
    let ca = world.gateway_ca()?;
    let [interpreter, script] = script("goaway.mjs")?;
    let hosts = world.path("hosts");
    std::fs::write(&hosts, format!("{} echo.test\n", policy::ECHO.address))?;
    let mut client = with_hosts(&hosts);
    client.extend([&*interpreter, &script, "echo.test", "/slow/2500"].map(str::to_owned));
    let mut command = group.command(client.iter().map(String::as_str));
    command.env("NODE_EXTRA_CA_CERTS", &ca);
    let client = Process::start(command, b"")?;
    world.mocks.echo.seen().wait_for("/slow/2500", SOON)?;
    daemon.signal(Signal::SIGTERM)?;
    let ended = client.wait(SOON)?;
    let told = ended.stdout.iter().map(|line| line.text.as_str());
    let told: Vec<Value> = told.map(serde_json::from_str).collect::<Result<_, _>>()?;
    let (goaway, answer) = (
        json!({"goaway": 0}),
        json!({"status": 200, "body": "at last\n"}),
    );
    let at = |facts: &Value| told.iter().position(|found| found == facts);
    ensure!(
        at(&goaway).is_some() && at(&goaway) < at(&answer),
        "{ended:#?}"
    );
    let done = daemon.wait(SOON)?;
    assert_eq!(done.code(), 0, "{done}");
    assert_eq!(done.record("request", |_| true)?.status(), Some(200));
    postern::run(&["detach", &path])?;
    Ok(())
}
