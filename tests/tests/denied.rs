//! What the policy does not name is refused: each refusal is on record with its reason, and a
//! capture in the internet sees no packet.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::World;
use e2e::audit::Record;
use e2e::policy::{self, Destinations, Gateway};
use e2e::postern::Done;
use e2e::process::patient;
use serde_json::Value;

/// Runs `attempts.py` on `tries`, one a line, on either kind of network.
fn attempt(world: &World, on_the_host_network: bool, tries: &[&str]) -> Result<Attempts> {
    let exec = world.script("attempts.py", &[])?.input(tries.join("\n"));
    let done = if on_the_host_network {
        exec.on_the_host_network().succeed()?
    } else {
        exec.succeed()?
    };
    Ok(Attempts {
        told: done.json_lines()?,
        done,
    })
}

struct Attempts {
    told: Vec<Value>,
    done: Done,
}

impl Attempts {
    fn outcome(&self, attempt: &str) -> Result<&str> {
        self.told
            .iter()
            .find(|line| line["attempt"] == attempt)
            .and_then(|line| line["outcome"].as_str())
            .with_context(|| format!("no outcome of {attempt:?}: {}", self.done))
    }

    /// One record at least that refuses `address`, whole.
    fn is_on_record(&self, address: &str) -> Result<()> {
        let address: SocketAddr = address.parse()?;
        let denied = self.done.records("denied");
        let record = denied
            .iter()
            .find(|record| record.is_to(address))
            .with_context(|| format!("no denial of {address} on record: {}", self.done))?;
        assert!(!record.reason().is_empty(), "{}", record.0);
        assert!(!record.stage().is_empty(), "{}", record.0);
        assert!(!record.comm().is_empty(), "{}", record.0);
        assert!(
            record.process("pid").is_some_and(|pid| pid > 0),
            "{}",
            record.0
        );
        Ok(())
    }
}

/// Only networks are named, so that the kernel alone can decide.
fn by_address_alone(world: &World) -> Result<()> {
    let gateway = Gateway {
        default: "deny-all",
        otlp: None,
        capture: 0,
    };
    world.write_policy(&[
        gateway.document(),
        policy::test_ca(world.ca.pem()),
        policy::l4_route(
            "docs",
            &Destinations::Networks(&["192.0.2.0/24", "3fff::/20"]),
            &[443],
        ),
    ])
}

const FOREIGN: [(&str, &str); 4] = [
    ("tcp 203.0.113.9 443", "203.0.113.9:443"),
    ("tcp 2001:db8::9 443", "[2001:db8::9]:443"),
    ("tcp ::ffff:203.0.113.9 443", "203.0.113.9:443"),
    ("tcp 169.254.169.254 80", "169.254.169.254:80"),
];

#[test]
fn a_foreign_address_is_refused_in_connect_itself() -> Result<()> {
    let world = World::new()?;
    by_address_alone(&world)?;
    for on_the_host_network in [false, true] {
        let attempts = attempt(&world, on_the_host_network, &FOREIGN.map(|(one, _)| one))?;
        for (one, address) in FOREIGN {
            assert_eq!(attempts.outcome(one)?, "EPERM", "{one}: {}", attempts.done);
            attempts.is_on_record(address)?;
        }
        for record in attempts.done.records("denied") {
            assert_eq!(record.stage(), "kernel", "{}", record.0);
            assert!(record.comm().starts_with("python"), "{}", record.0);
        }
        // The mapped form has a record of its own.
        let v4: SocketAddr = "203.0.113.9:443".parse()?;
        let denied = attempts.done.records("denied");
        assert_eq!(denied.iter().filter(|record| record.is_to(v4)).count(), 2);
    }
    world.internet.saw_nothing()
}

#[test]
fn a_foreign_address_on_a_port_with_named_hosts_gets_no_further_than_the_gateway() -> Result<()> {
    let world = World::new()?;
    let tries = [
        ("tls 203.0.113.9 443", "203.0.113.9:443"),
        ("tls 2001:db8::9 443", "[2001:db8::9]:443"),
        ("tls ::ffff:203.0.113.9 443", "203.0.113.9:443"),
        ("tls 169.254.169.254 443", "169.254.169.254:443"),
        ("http 203.0.113.9 80", "203.0.113.9:80"),
        ("http 169.254.169.254 80", "169.254.169.254:80"),
        ("tcp 203.0.113.9 22", "203.0.113.9:22"),
        ("tcp 2001:db8::9 8443", "[2001:db8::9]:8443"),
    ];
    for on_the_host_network in [false, true] {
        let attempts = attempt(&world, on_the_host_network, &tries.map(|(one, _)| one))?;
        for (one, address) in tries {
            let outcome = attempts.outcome(one)?;
            assert!(is_refusal(outcome), "{one}: {outcome}");
            attempts.is_on_record(address)?;
        }
        assert_eq!(attempts.outcome("tcp 203.0.113.9 22")?, "EPERM");
        assert_eq!(attempts.outcome("http 169.254.169.254 80")?, "EPERM");
    }
    world.internet.saw_nothing()
}

/// An error, an end without a word, or the gateway's own refusal in plain HTTP.
fn is_refusal(outcome: &str) -> bool {
    [
        "EPERM",
        "EACCES",
        "ECONNRESET",
        "ECONNREFUSED",
        "EPIPE",
        "closed",
    ]
    .contains(&outcome)
        || outcome.starts_with("ssl ")
        || outcome.starts_with("said HTTP/1.1 403")
        || outcome.starts_with("said HTTP/1.1 421")
}

#[test]
fn the_gateway_s_own_listener_and_the_host_s_services_are_closed() -> Result<()> {
    let world = World::new()?;
    for on_the_host_network in [false, true] {
        let attempts = attempt(&world, on_the_host_network, &["listeners"])?;
        let found: Vec<&Value> = attempts
            .told
            .iter()
            .filter(|line| line["port"].is_u64())
            .collect();
        assert!(
            !found.is_empty(),
            "no listener was found: {}",
            attempts.done
        );
        for line in found {
            let outcome = line["outcome"].as_str().unwrap_or_default();
            assert!(is_refusal(outcome), "{line}: {}", attempts.done);
            let address = line["address"].as_str().unwrap_or_default();
            let address = format!("[{address}]:{}", line["port"]);
            let address = match address.parse::<SocketAddr>() {
                Ok(_) => address,
                Err(_) => address.replace(['[', ']'], ""),
            };
            attempts.is_on_record(&address)?;
        }
    }
    assert!(
        world
            .otlp
            .mock()
            .seen()
            .all()
            .iter()
            .all(|seen| seen.method == "POST")
    );
    assert!(world.mocks.plain.seen().all().is_empty());
    Ok(())
}

#[test]
fn allow_all_does_not_mean_the_host_nor_metadata() -> Result<()> {
    let world = World::new()?;
    let gateway = Gateway {
        default: "allow-all",
        otlp: None,
        capture: 0,
    };
    world.write_policy(&[gateway.document(), policy::test_ca(world.ca.pem())])?;
    // A service of the host that no alias names.
    let own = std::net::TcpListener::bind("127.0.0.99:8080")?;
    let tries = [
        ("http 169.254.169.254 80", "169.254.169.254:80"),
        ("http ::ffff:169.254.169.254 80", "169.254.169.254:80"),
        ("http 100.100.100.200 80", "100.100.100.200:80"),
        ("http 127.0.0.99 8080", "127.0.0.99:8080"),
        ("http ::ffff:127.0.0.99 8080", "127.0.0.99:8080"),
        ("http 0.0.0.0 8080", "0.0.0.0:8080"),
        ("http fd00:ec2::254 80", "[fd00:ec2::254]:80"),
    ];
    let attempts = attempt(&world, true, &tries.map(|(one, _)| one))?;
    for (one, address) in tries {
        assert_eq!(attempts.outcome(one)?, "EPERM", "{one}: {}", attempts.done);
        attempts.is_on_record(address)?;
    }
    own.set_nonblocking(true)?;
    assert!(own.accept().is_err(), "the host's service was reached");
    world.internet.saw_nothing()
}

#[test]
fn a_foreign_name_gets_a_problem_document_over_tls_and_in_plain_text() -> Result<()> {
    let world = World::new()?;
    for (url, resolve) in [
        ("https://foreign.test/path", "foreign.test:443:203.0.113.9"),
        ("http://foreign.test/path", "foreign.test:80:203.0.113.9"),
    ] {
        let done = world.curl(&["-i", "--resolve", resolve, url]).run()?;
        let answer = done.out().to_lowercase();
        let status = answer.lines().next().unwrap_or_default();
        assert!(status.contains(" 403"), "{url}: {done}");
        assert!(
            answer.contains("content-type: application/problem+json"),
            "{url}: {done}"
        );
        let body = done.out();
        let body = body.lines().last().unwrap_or_default();
        let body: Value = serde_json::from_str(body).context("no JSON")?;
        assert_eq!(body["status"], 403, "{body}");
        assert!(
            body["title"].is_string() && body["detail"].is_string(),
            "{body}"
        );
        // The connection is refused, and so is the request that the refusal is told to.
        let denied = done.records("denied");
        assert!(!denied.is_empty(), "{done}");
        for record in denied {
            assert_eq!(record.host(), "foreign.test", "{done}");
            assert_eq!(record.comm(), "curl", "{done}");
            assert_eq!(body["reason"], record.reason(), "{done}");
        }
    }
    world.internet.saw_nothing()
}

#[test]
fn a_name_outside_the_policy_is_not_looked_up_anywhere() -> Result<()> {
    let world = World::new()?;
    let servers = ["198.51.100.53", "203.0.113.9", "2001:db8::9"];
    let mut tries = vec![
        "lookup foreign.test".to_owned(),
        "lookup echo.test".to_owned(),
    ];
    for server in servers {
        tries.push(format!("dns-udp {server} secret-data.foreign.test 16"));
        tries.push(format!("dns-udp {server} foreign.test 1"));
        tries.push(format!("dns-udp {server} echo.test 1"));
    }
    tries.push("dns-tcp 198.51.100.53 foreign.test 1".to_owned());
    let tries: Vec<&str> = tries.iter().map(String::as_str).collect();
    for on_the_host_network in [false, true] {
        let attempts = attempt(&world, on_the_host_network, &tries)?;
        assert!(attempts.outcome("lookup foreign.test")?.starts_with("gai"));
        assert_ne!(attempts.outcome("lookup echo.test")?, "0 addresses");
        assert!(
            !attempts.outcome("lookup echo.test")?.starts_with("gai"),
            "{}",
            attempts.done
        );
        for line in &attempts.told {
            let one = line["attempt"].as_str().unwrap_or_default();
            let outcome = line["outcome"].as_str().unwrap_or_default();
            if one.starts_with("dns") && one.contains("foreign") {
                let answered = outcome.starts_with("rcode") && !outcome.ends_with(" 0 answers");
                assert!(!answered, "{line}");
            }
        }
        // Whichever server is asked, the gateway's own answers for the names it allows.
        let asked = attempts.outcome("dns-udp 198.51.100.53 echo.test 1")?;
        assert!(
            asked.starts_with("rcode 0") && !asked.ends_with(" 0 answers"),
            "{asked}"
        );
        let denied = attempts.done.records("denied");
        assert!(
            denied
                .iter()
                .any(|record| record.stage() == "dns" && record.host() == "foreign.test"),
            "{}",
            attempts.done
        );
    }
    world.internet.saw_nothing()
}

#[test]
fn nothing_but_tcp_leaves_and_quic_fails_at_once() -> Result<()> {
    let world = World::new()?;
    let tries = [
        "udp 203.0.113.9 443",
        "udp-connected 203.0.113.9 443",
        "udp 2001:db8::9 443",
        "udp-connected ::ffff:203.0.113.9 443",
        "sendmsg 203.0.113.9 123",
        "ping 203.0.113.9",
        "ping 2001:db8::9",
        "raw 203.0.113.9",
        "sctp 203.0.113.9 443",
        "dccp 203.0.113.9 443",
        "udplite 203.0.113.9 443",
        "l2tp 203.0.113.9",
        "packet",
        "vsock",
        "io-uring",
        // AF_ALG, AF_XDP, AF_BLUETOOTH, AF_TIPC
        "family 38",
        "family 44",
        "family 31",
        "family 30",
    ];
    for on_the_host_network in [false, true] {
        let attempts = attempt(&world, on_the_host_network, &tries)?;
        for one in tries {
            let outcome = attempts.outcome(one)?;
            // An errno's name, and neither an answer nor a silence.
            assert!(
                outcome.starts_with('E')
                    && outcome.chars().all(|letter| letter.is_ascii_uppercase()),
                "{one}: {outcome}"
            );
        }
        for line in &attempts.told {
            let took = Duration::from_millis(line["ms"].as_u64().context("no time")?);
            assert!(took < patient(Duration::from_secs(1)), "a stall: {line}");
        }
        attempts.is_on_record("203.0.113.9:443")?;
    }
    // The loopback of a private network is the sandbox's own; the host's is not.
    let quic = "udp 127.0.0.5 443";
    let attempts = attempt(&world, true, &[quic])?;
    assert_eq!(attempts.outcome(quic)?, "EPERM", "{}", attempts.done);
    world.internet.saw_nothing()
}

#[test]
fn odd_ways_to_connect_are_plain_connects() -> Result<()> {
    let world = World::new()?;
    by_address_alone(&world)?;
    let tries = [
        "nonblocking 203.0.113.9 443",
        "fastopen 203.0.113.9 80",
        "mptcp 203.0.113.9 443",
        "bound-elsewhere 203.0.113.9 443",
        "new-namespace 203.0.113.9 443",
        "child-cgroup 203.0.113.9 443",
        "daemon 203.0.113.9 443",
        "twice 192.0.2.1 203.0.113.9 443",
    ];
    for on_the_host_network in [false, true] {
        for one in tries {
            // One a sandbox: some change the process they run in.
            let attempts = attempt(&world, on_the_host_network, &[one])?;
            let outcome = attempts.outcome(one)?;
            assert!(
                !outcome.starts_with("said") && !outcome.starts_with("connected"),
                "{one}: {outcome}"
            );
        }
    }
    world.internet.saw_nothing()
}

#[test]
fn a_second_connect_of_one_socket_goes_where_it_says() -> Result<()> {
    let world = World::new()?;
    // Both addresses are aliases, without a server name: only the record of the first flow could
    // lead the second one astray.
    let attempts = attempt(&world, false, &["twice 192.0.2.1 203.0.113.9 443"])?;
    let outcome = attempts.outcome("twice 192.0.2.1 203.0.113.9 443")?;
    assert!(is_refusal(outcome), "{outcome}");
    attempts.is_on_record("203.0.113.9:443")?;
    world.internet.saw_nothing()
}

#[test]
fn a_class_of_traffic_without_a_listener_is_refused() -> Result<()> {
    let world = World::new()?;
    let document = world.standard().join("---\n");
    let document = document.replace("    - {name: http, protocol: HTTP}\n", "");
    world.write_policy(&[document])?;
    let done = world.curl(&["http://echo.test/"]).run()?;
    let denied = done.record("denied", |record| record.host() == "echo.test")?;
    assert_eq!(denied.reason(), "no_listener", "{}", denied.0);
    assert!(world.mocks.plain.seen().all().is_empty());
    Ok(())
}

#[test]
fn an_allowed_name_with_an_attacker_s_address_goes_to_the_name() -> Result<()> {
    let world = World::new()?;
    let done = world
        .curl(&[
            "--resolve",
            "echo.test:443:203.0.113.9",
            "--fail",
            "https://echo.test/mine",
        ])
        .succeed()?;
    assert_eq!(done.json()?["path"], "/mine");
    assert_eq!(world.mocks.echo.seen().of("/mine").len(), 1);
    world.internet.saw_nothing()
}

#[test]
fn a_flood_of_refused_requests_is_cut_short_and_counted() -> Result<()> {
    let world = World::new()?;
    let long = "x".repeat(4000);
    let all = 4000;
    let url = format!("https://api.anthropic.com/{long}/[1-{all}]");
    let done = world
        .curl(&["-o", "/dev/null", "-w", "%{http_code}\n", &url])
        .deadline(Duration::from_secs(120))
        .succeed()?;
    assert_eq!(done.out().matches("403").count(), all, "{}", done.err());
    let recorded = done.records("denied");
    // Two thousand at once, and twenty more each second.
    let earned = 20 * (usize::try_from(done.ended.elapsed.as_secs())? + 1);
    let rationed = 2000..=2000 + earned;
    assert!(rationed.contains(&recorded.len()), "{}", recorded.len());
    for record in &recorded {
        let path = record.0["path"].as_str().unwrap_or_default();
        assert!(path.len() < 2100 && path.ends_with(" bytes)"), "{path}");
    }
    let counted = done.records("denials_not_recorded");
    let counted: u64 = counted
        .iter()
        .filter_map(|one| one.0["count"].as_u64())
        .sum();
    assert_eq!(recorded.len() as u64 + counted, all as u64);
    Ok(())
}

#[test]
fn a_client_that_speaks_http3_is_told_of_none_and_refused_at_once() -> Result<()> {
    let world = World::new()?;
    let client = |on_the_host_network, paths: &[&str]| {
        let arguments = [&["echo.test", "203.0.113.9"], paths].concat();
        let exec = world.script("http3_client.py", &arguments)?;
        if on_the_host_network {
            exec.on_the_host_network().succeed()
        } else {
            exec.succeed()
        }
    };
    let quic = |record: &Record| {
        record.reason() == "protocol_not_allowed" && record.destination() == "203.0.113.9:443"
    };
    for on_the_host_network in [false, true] {
        // The server says that it speaks it. The client does not hear that, and goes on over TCP.
        let done = client(on_the_host_network, &["/elsewhere", "/"])?;
        for told in done.json_lines()? {
            assert_eq!(
                (&told["status"], &told["version"]),
                (&200.into(), &20.into()),
                "{done}"
            );
        }
        done.nothing_was_denied()?;
        // One that knows from elsewhere is not left to wait.
        let done = client(on_the_host_network, &[])?;
        let told = done.json()?;
        let took = told["ms"].as_u64().context("no time")?;
        let patience = patient(Duration::from_secs(1)).as_millis();
        assert!(u128::from(took) < patience, "{told}");
        assert!(told["error"].is_string(), "{told}");
        done.record("denied", quic)?;
    }
    world.internet.saw_nothing()
}
