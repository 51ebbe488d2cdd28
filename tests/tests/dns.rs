//! The name service of a sandbox: what policy names is looked up and answered from whatever server was
//! asked; nothing else leaves, however it is asked.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::World;
use e2e::mock::dns::{A, NameServer};
use e2e::policy::{self, Destinations, GATEWAY};
use e2e::postern::Done;
use serde_json::Value;

/// Where the gateway asks. Sandboxes that ask there themselves must not get there.
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
const SERVED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const TABLE: [(&str, Ipv4Addr); 5] = [
    ("named.test", SERVED),
    ("*.wild.test", SERVED),
    ("inside.wild.test", Ipv4Addr::new(169, 254, 169, 254)),
    ("*.attacker.example", SERVED),
    ("attacker.example", SERVED),
];
const TEXT: u16 = 16;

/// A world whose gateway asks a name server, and allows `named.test` and what is under `wild.test`.
fn world() -> Result<(World, NameServer)> {
    let world = World::new()?;
    let upstream = NameServer::start(&world.handle(), (UPSTREAM, 53).into(), &TABLE)?;
    let gateway = format!(
        "apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {{name: {GATEWAY}}}
spec:
  listeners: [{{name: tls, protocol: TLS}}]
  dns: {{upstreams: [\"udp://{UPSTREAM}\"]}}
"
    );
    let names = Destinations::Names(&["named.test", "**.wild.test"]);
    world.write_policy(&[gateway, policy::l4_route("names", &names, &[443])])?;
    Ok((world, upstream))
}

fn ask(world: &World, on_the_host_network: bool, tries: &[String]) -> Result<(Done, Vec<Value>)> {
    let mut exec = world.script("resolver.py", &[])?.input(tries.join("\n"));
    if on_the_host_network {
        exec = exec.on_the_host_network();
    }
    let done = exec.succeed()?;
    let told = done.json_lines()?;
    assert_eq!(told.len(), tries.len(), "{done}");
    Ok((done, told))
}

#[test]
fn an_answer_comes_from_the_server_that_was_asked() -> Result<()> {
    let (world, upstream) = world()?;
    let servers = [
        "198.51.100.53",
        "203.0.113.9",
        "127.0.0.53",
        "2001:db8::9",
        "::1",
    ];
    let ways = ["unconnected", "connected", "connected-twice"];
    let mut tries: Vec<String> = servers
        .iter()
        .flat_map(|server| ways.map(|way| format!("{way} {server} named.test")))
        .collect();
    tries.extend(ways.map(|way| format!("{way} ::ffff:198.51.100.53 named.test")));
    for on_the_host_network in [false, true] {
        let (done, told) = ask(&world, on_the_host_network, &tries)?;
        for line in told {
            let attempt = line["attempt"].as_str().unwrap_or_default();
            let server = attempt.split(' ').nth(1).unwrap_or_default();
            assert_eq!(line["source"], server, "{line}: {done}");
            assert_eq!(line["again"], server, "{line}");
            assert_eq!(line["port"], 53, "{line}");
            assert_eq!(line["rcode"], 0, "{line}");
            assert_eq!(line["answers"], 1, "{line}");
        }
        done.nothing_was_denied()?;
    }
    // Every sandbox has a gateway of its own here: each asked once, and then remembered.
    let asked = upstream.asked();
    assert_eq!(asked, vec![("named.test".to_owned(), A); 2], "{asked:?}");
    world.internet.saw_nothing()
}

/// `dig` in a sandbox: its output, once it has ended well.
fn dig(world: &World, arguments: &[&str]) -> Result<Done> {
    let base = [
        "dig",
        "+time=3",
        "+tries=1",
        "+noall",
        "+comments",
        "+answer",
        "+question",
    ];
    world.exec(base.iter().chain(arguments).copied()).succeed()
}

#[test]
fn dig_gets_nothing_out_whatever_it_asks_for() -> Result<()> {
    let (world, upstream) = world()?;
    let foreign = "secret.attacker.example";
    for (arguments, status, kind) in [
        (&["TXT", foreign, "@198.51.100.53"][..], "NXDOMAIN", "TXT"),
        (
            &["+tcp", "TXT", foreign, "@198.51.100.53"],
            "NXDOMAIN",
            "TXT",
        ),
        (&["A", foreign, "@2001:db8::9"], "NXDOMAIN", "A"),
        (
            &["+nocookie", "+noedns", "A", foreign, "@127.0.0.53"],
            "NXDOMAIN",
            "A",
        ),
        (
            &["CH", "TXT", "version.bind", "@198.51.100.53"],
            "REFUSED",
            "CH TXT",
        ),
        (&["-x", "10.0.0.1", "@198.51.100.53"], "NXDOMAIN", "PTR"),
        (&["-x", "fd00::1", "@198.51.100.53"], "NXDOMAIN", "PTR"),
    ] {
        let done = dig(&world, arguments)?;
        assert!(
            done.out().contains(&format!("status: {status}")),
            "{arguments:?}: {done}"
        );
        let denied = done.record("denied", |record| record.stage() == "dns")?;
        assert_eq!(denied.0["detail"], kind, "{done}");
        let reason = if status == "REFUSED" {
            "dns_type_not_allowed"
        } else {
            "name_not_allowed"
        };
        assert_eq!(denied.reason(), reason, "{done}");
    }
    for kind in [
        "TXT",
        "HTTPS",
        "SVCB",
        "MX",
        "NULL",
        "ANY",
        "CNAME",
        "SRV",
        "TYPE65534",
    ] {
        // ANY goes over TCP by itself.
        let done = dig(&world, &[kind, "named.test", "@198.51.100.53"])?;
        assert!(done.out().contains("status: NOERROR"), "{kind}: {done}");
        assert!(done.out().contains("ANSWER: 0"), "{kind}: {done}");
        let denied = done.record("denied", |record| record.host() == "named.test")?;
        assert_eq!(denied.reason(), "dns_type_not_allowed", "{done}");
    }
    assert!(upstream.asked().is_empty(), "{:?}", upstream.asked());

    let done = dig(&world, &["A", "NaMeD.tEsT", "@198.51.100.53"])?;
    assert!(
        done.out().contains("NaMeD.tEsT."),
        "the case is the client's: {done}"
    );
    assert!(done.out().contains(&SERVED.to_string()), "{done}");
    let over_tcp = dig(&world, &["+tcp", "named.test", "@2001:db8::9"])?;
    assert!(over_tcp.out().contains(&SERVED.to_string()), "{over_tcp}");
    let (names, kinds): (Vec<String>, Vec<u16>) = upstream.asked().into_iter().unzip();
    assert!(names.iter().all(|name| name == "named.test"), "{names:?}");
    assert!(!kinds.contains(&TEXT), "{kinds:?}");
    world.internet.saw_nothing()
}

#[test]
fn ten_thousand_names_are_answered_and_hardly_any_leaves() -> Result<()> {
    let (world, upstream) = world()?;
    let foreign = ["flood 198.51.100.53 attacker.example 10000".to_owned()];
    let (done, told) = ask(&world, false, &foreign)?;
    let codes = &told[0];
    let count = |code: &str| codes[code].as_u64().unwrap_or_default();
    assert_eq!(
        count("3") + count("5"),
        10_000,
        "NXDOMAIN or REFUSED: {codes}"
    );
    assert!(upstream.asked().is_empty(), "{:?}", upstream.asked());
    let reasons = reasons(&done);
    assert!(reasons.contains(&"name_not_allowed"), "{reasons:?}");
    let is_limited = reasons.contains(&"dns_rate_limited");
    assert_eq!(count("5") > 0, is_limited, "{codes} {reasons:?}");
    // Five thousand at once are let through, and one more each millisecond.
    let seconds = codes["seconds"].as_f64().context("no seconds")?;
    let earned = Duration::from_secs_f64(seconds).as_millis() + 1;
    assert!(u128::from(count("5")) + 5000 + earned >= 10_000, "{codes}");
    // The log says of every question that it was refused, and is no ten thousand lines.
    let earned = 21 * (usize::try_from(done.ended.elapsed.as_secs())? + 2);
    let lines = done.audit.len();
    assert!(lines <= 200 + earned, "{lines} lines");
    let uncounted = done.records("denials_not_recorded");
    let uncounted: u64 = uncounted
        .iter()
        .filter_map(|record| record.0["count"].as_u64())
        .sum();
    let recorded = u64::try_from(done.records("denied").len())?;
    assert_eq!(recorded + uncounted, 10_000);

    let begun = Instant::now();
    let wild = ["flood 198.51.100.53 wild.test 10000".to_owned()];
    let (done, told) = ask(&world, false, &wild)?;
    // 200 at once, and one more each 300 ms.
    let most = 200 + begun.elapsed().as_millis() / 300 + 1;
    let asked = upstream.asked();
    let under = asked
        .iter()
        .filter(|(name, kind)| name.ends_with(".wild.test") && *kind == A);
    assert_eq!(under.count(), asked.len(), "{asked:?}");
    assert!(
        (200..=most).contains(&u128::try_from(asked.len())?),
        "{} of {most}",
        asked.len()
    );
    assert_eq!(
        told[0]["0"].as_u64(),
        Some(u64::try_from(asked.len())?),
        "{}",
        told[0]
    );
    assert!(self::reasons(&done).contains(&"dns_rate_limited"));
    world.internet.saw_nothing()
}

/// Names in ClientHellos, one connection each, to an address that anybody may connect to.
const HELLOS: &str = "
import socket, ssl, sys
context = ssl.create_default_context()
for number in range(int(sys.argv[1])):
    with socket.create_connection(('192.0.2.8', 443), 10) as one:
        try: context.wrap_socket(one, server_hostname=f'd{number}.wild.test')
        except (OSError, ssl.SSLError): pass
";

#[test]
fn names_that_are_dialled_are_rationed_as_those_that_are_asked() -> Result<()> {
    let (world, upstream) = world()?;
    // Refuses at once rather than in ten seconds.
    let served = format!("{SERVED}/32");
    let added = std::process::Command::new("ip")
        .args(["addr", "add", &served, "dev", "lo"])
        .status()?;
    assert!(added.success());
    let begun = Instant::now();
    let done = world.exec(["python3", "-c", HELLOS, "400"]).succeed()?;
    let most = 200 + begun.elapsed().as_millis() / 300 + 1;
    let asked = upstream.asked();
    let names: std::collections::BTreeSet<&str> =
        asked.iter().map(|(name, _)| name.as_str()).collect();
    assert!(
        (200..=most).contains(&u128::try_from(names.len())?),
        "{} of {most}",
        names.len()
    );
    let denied = done.record("denied", |record| record.host() == "d399.wild.test")?;
    assert_eq!(
        (denied.reason(), denied.stage()),
        ("dns_rate_limited", "dial"),
        "{denied:?}"
    );
    world.internet.saw_nothing()
}

fn reasons(done: &Done) -> Vec<&str> {
    let denied = done.records("denied");
    denied.iter().map(|record| record.reason()).collect()
}

#[test]
fn a_name_under_a_wildcard_carries_no_message() -> Result<()> {
    let (world, upstream) = world()?;
    let label = "a".repeat(60);
    let long = format!("{label}.{label}.wild.test");
    let done = dig(&world, &["A", &long, "@198.51.100.53"])?;
    assert!(done.out().contains("status: REFUSED"), "{done}");
    let denied = done.record("denied", |record| record.host() == long)?;
    assert_eq!(denied.reason(), "dns_name_too_long", "{done}");
    assert!(upstream.asked().is_empty(), "{:?}", upstream.asked());
    Ok(())
}

#[test]
fn an_address_close_to_the_sandbox_is_not_told() -> Result<()> {
    let (world, _upstream) = world()?;
    let done = dig(&world, &["A", "inside.wild.test", "@198.51.100.53"])?;
    assert!(done.out().contains("status: NOERROR"), "{done}");
    // The table has a public address of the name too.
    assert!(done.out().contains(&SERVED.to_string()), "{done}");
    assert!(!done.out().contains("169.254"), "{done}");
    let denied = done.record("denied", |record| record.host() == "inside.wild.test")?;
    assert_eq!(
        (denied.reason(), denied.stage()),
        ("address_guard", "dns"),
        "{done}"
    );
    Ok(())
}

#[test]
fn malformed_questions_are_told_so_and_answers_are_not_answered() -> Result<()> {
    let (world, upstream) = world()?;
    let name = "05 6e616d65 64 04 74657374 00 0001 0001".replace(' ', "");
    let header = |flags: &str, questions: &str| format!("1234{flags}{questions}000000000000");
    let tries = [
        // A response; too short for an id; STATUS; two questions; none; a name in circles; cut off.
        (format!("{}{name}", header("8180", "0001")), None),
        ("1234".to_owned(), None),
        (format!("{}{name}", header("1100", "0001")), Some(4)),
        (format!("{}{name}{name}", header("0100", "0002")), Some(1)),
        (header("0100", "0000"), Some(1)),
        (format!("{}c00c00010001", header("0100", "0001")), Some(1)),
        (format!("{}056e61", header("0100", "0001")), Some(1)),
        (format!("{}{name}", header("0100", "0001")), Some(0)),
    ];
    let lines: Vec<String> = tries
        .iter()
        .map(|(message, _)| format!("raw 198.51.100.53 {message}"))
        .collect();
    let (done, told) = ask(&world, false, &lines)?;
    for ((message, code), line) in tries.iter().zip(&told) {
        let found = line
            .get("rcode")
            .with_context(|| format!("{line}: {done}"))?;
        assert_eq!(found.as_u64(), *code, "{message}: {line}");
    }
    assert_eq!(upstream.asked(), [("named.test".to_owned(), A)]);
    Ok(())
}
