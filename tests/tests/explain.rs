//! What `postern explain` foretells of some forty destinations is what one sandbox then meets, on both kinds of
//! network, through the real kernel programs.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::World;
use e2e::ca::Alpn;
use e2e::mock::Mock;
use e2e::mock::echo::Echo;
use e2e::policy::{self, Destinations, ECHO, Gateway};
use e2e::postern;
use serde_json::Value;

/// What is tried in the sandbox, and what is asked of `explain`.
const TRIES: &[(&str, &[&str])] = &[
    ("url GET https://echo.test/", &["https://echo.test/"]),
    ("url GET http://echo.test/", &["http://echo.test/"]),
    (
        "url POST https://api.anthropic.com/v1/messages",
        &["https://api.anthropic.com/v1/messages", "--method", "POST"],
    ),
    (
        "url GET https://api.anthropic.com/v1/models",
        &["https://api.anthropic.com/v1/models"],
    ),
    (
        "url TRACE https://api.anthropic.com/v1/messages",
        &["https://api.anthropic.com/v1/messages", "--method", "TRACE"],
    ),
    (
        "url GET http://api.anthropic.com/v1/messages",
        &["http://api.anthropic.com/v1/messages"],
    ),
    (
        "url GET https://api.openai.com/v1/models",
        &["https://api.openai.com/v1/models"],
    ),
    (
        "url GET https://api.openai.com/v2/x",
        &["https://api.openai.com/v2/x"],
    ),
    (
        "url GET https://api.openai.com/v1/../v2",
        &["https://api.openai.com/v1/../v2"],
    ),
    (
        "url POST https://api.openai.com/v1/batches",
        &["https://api.openai.com/v1/batches", "--method", "POST"],
    ),
    (
        "url GET https://wiki.local/snippets/durability",
        &["https://wiki.local/snippets/durability"],
    ),
    ("url GET http://wiki.local/", &["http://wiki.local/"]),
    (
        "url GET https://injected.test/",
        &["https://injected.test/"],
    ),
    (
        "url TRACE https://injected.test/",
        &["https://injected.test/", "--method", "TRACE"],
    ),
    ("url GET https://missing.test/", &["https://missing.test/"]),
    ("url GET https://h1.test/", &["https://h1.test/"]),
    ("url GET https://h2.test/", &["https://h2.test/"]),
    ("url GET https://rogue.test/", &["https://rogue.test/"]),
    (
        "url GET https://misnamed.test/",
        &["https://misnamed.test/"],
    ),
    ("url GET https://foreign.test/", &["https://foreign.test/"]),
    (
        "url GET https://foreign.test/ 203.0.113.9",
        &["https://foreign.test/", "--address", "203.0.113.9"],
    ),
    (
        "url GET http://foreign.test/ 203.0.113.9",
        &["http://foreign.test/", "--address", "203.0.113.9"],
    ),
    (
        "url GET https://foreign.test:444/ 203.0.113.9",
        &["https://foreign.test:444/", "--address", "203.0.113.9"],
    ),
    ("url GET https://203.0.113.9/", &["https://203.0.113.9/"]),
    ("url GET http://203.0.113.9/", &["http://203.0.113.9/"]),
    (
        "url GET https://[2001:db8::9]/",
        &["https://[2001:db8::9]/"],
    ),
    (
        "url GET http://169.254.169.254/",
        &["http://169.254.169.254/"],
    ),
    (
        "url GET http://100.100.100.200/",
        &["http://100.100.100.200/"],
    ),
    ("url GET https://127.0.0.5/", &["https://127.0.0.5/"]),
    ("url GET https://127.0.0.99/", &["https://127.0.0.99/"]),
    (
        "url GET https://echo.test:8443/",
        &["https://echo.test:8443/"],
    ),
    (
        "url GET https://wiki.local:8443/ 203.0.113.9",
        &["https://wiki.local:8443/", "--address", "203.0.113.9"],
    ),
    ("tcp echo.test 7000", &["tcp://echo.test:7000"]),
    ("tcp 127.0.0.5 7001", &["tcp://127.0.0.5:7001"]),
    ("tcp 127.0.0.6 7001", &["tcp://127.0.0.6:7001"]),
    ("tcp 203.0.113.9 7000", &["tcp://203.0.113.9:7000"]),
    ("tcp 203.0.113.9 22", &["tcp://203.0.113.9:22"]),
    ("tcp 203.0.113.9 443", &["tcp://203.0.113.9:443"]),
    ("dns echo.test", &["dns:echo.test"]),
    ("dns foreign.test", &["dns:foreign.test"]),
    ("udp 198.51.100.53 53", &["udp:198.51.100.53:53"]),
    ("udp 203.0.113.9 443", &["udp:203.0.113.9:443"]),
];

/// The standard policy with TLS that is passed through on 8443 and opaque TCP on two ports, one of them opened by
/// name and one by address.
fn write_policy(world: &World) -> Result<()> {
    let gateway = Gateway {
        default: "deny-all",
        otlp: None,
        capture: 0,
    };
    let mut documents = world.documents(&gateway);
    let openai = "provider: openai, endpoints: [/v1/**]}]\n";
    let budget = "      filters: [{type: TokenBudget, tokenBudget: {maxTokensPerDay: 1000}}]\n";
    for document in &mut documents {
        *document = document.replace(openai, &format!("{openai}{budget}"));
    }
    let http = "    - {name: http, protocol: HTTP}\n";
    let more = "    - {name: spliced, protocol: TLS, port: 8443}
    - {name: tcp, protocol: TCP, port: 7000}
    - {name: more, protocol: TCP, port: 7001}\n";
    documents[0] = documents[0].replace(http, &format!("{http}{more}"));
    let echo = Destinations::Names(&[ECHO.name]);
    documents.push(policy::l4_route("by-name", &echo, &[7000, 8443]));
    let address = Destinations::Networks(&["127.0.0.5/32"]);
    documents.push(policy::l4_route("by-address", &address, &[7001]));
    world.write_policy(&documents)
}

/// A server that is neither TLS nor HTTP: it hears something and says hello.
fn greet(port: u16) -> Result<()> {
    let listener = TcpListener::bind((ECHO.address, port))?;
    // It ends with the test's process.
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut heard = [0; 100];
            let heard = client
                .set_read_timeout(Some(Duration::from_secs(5)))
                .and_then(|()| client.read(&mut heard));
            // A client that has gone is told nothing, and misses its greeting.
            if heard.is_ok() {
                client.write_all(b"hello").unwrap_or_default();
            }
        }
    });
    Ok(())
}

fn explain(world: &World, question: &[&str]) -> Result<Value> {
    let (policy, secrets) = (world.path("policy"), world.path("secrets"));
    let (policy, secrets) = (policy.display().to_string(), secrets.display().to_string());
    let mut arguments = vec![
        "explain",
        "--json",
        "--policy",
        &policy,
        "--secrets",
        &secrets,
    ];
    arguments.extend(question);
    let ended = postern::run(&arguments)?;
    let answer: Value = serde_json::from_str(&ended.out())
        .with_context(|| format!("{question:?}: {}{}", ended.out(), ended.err()))?;
    let status = if answer["allowed"] == true { 0 } else { 1 };
    assert_eq!(ended.code(), status, "{question:?}: {answer}");
    Ok(answer)
}

/// What the sandbox meets if it goes as foretold; several where the network decides which.
fn foretold(answer: &Value, on_the_host_network: bool) -> Vec<String> {
    if answer["allowed"] == true {
        return vec!["reached".to_owned()];
    }
    let reason = answer["reason"].as_str().unwrap_or_default();
    match answer["stage"].as_str() {
        Some("dns") => vec!["no such name".to_owned()],
        // Loopback in a namespace of the sandbox's own is its own business, and nobody listens there.
        Some("kernel") if !on_the_host_network => {
            vec!["EPERM".to_owned(), "ECONNREFUSED".to_owned()]
        }
        Some("kernel") => vec!["EPERM".to_owned()],
        // Told where a client can be told; the reason is the same.
        Some("sniff") => vec![format!("problem {reason}"), "closed".to_owned()],
        _ => vec![format!("problem {reason}")],
    }
}

#[test]
fn what_is_foretold_of_forty_destinations_is_what_a_sandbox_meets() -> Result<()> {
    let world = World::new()?;
    write_policy(&world)?;
    let certificate = world.ca.server(&[ECHO.name], Alpn::Both)?;
    let spliced = (ECHO.address, 8443).into();
    let _spliced = Mock::start(&world.handle(), spliced, Some(certificate), Echo)?;
    greet(7000)?;
    greet(7001)?;
    let tries: Vec<&str> = TRIES.iter().map(|(one, _)| *one).collect();
    for on_the_host_network in [false, true] {
        let exec = world.script("reach.py", &[])?.input(tries.join("\n"));
        let done = if on_the_host_network {
            exec.on_the_host_network().succeed()?
        } else {
            exec.succeed()?
        };
        let met = done.json_lines()?;
        assert_eq!(met.len(), TRIES.len(), "{done}");
        let (mut differences, mut denied, mut unmetered) = (Vec::new(), 0, 0);
        for ((one, question), met) in TRIES.iter().zip(&met) {
            let answer = explain(&world, question)?;
            denied += usize::from(answer["allowed"] == false);
            unmetered += usize::from(answer["reason"] == "not_metered");
            let outcome = match (met["outcome"].as_str(), met["reason"].as_str()) {
                (Some("problem"), Some(reason)) => format!("problem {reason}"),
                (outcome, _) => outcome.unwrap_or_default().to_owned(),
            };
            if !foretold(&answer, on_the_host_network).contains(&outcome) {
                differences.push(format!("{one}: {met}\n  foretold: {answer:#}"));
            }
        }
        assert!(differences.is_empty(), "{}\n{done}", differences.join("\n"));
        assert_eq!(unmetered, 1, "{done}");
        // Both answers occur often, or the comparison says little.
        assert!(
            denied >= 15 && TRIES.len() - denied >= 12,
            "{denied} denied"
        );
    }
    world.internet.saw_nothing()
}

#[test]
fn the_answer_for_people_is_plain_text_and_holds_no_secret() -> Result<()> {
    let world = World::new()?;
    let policy = world.path("policy").display().to_string();
    let asked = "https://api.anthropic.com/v1/messages";
    let ended = postern::run(&["explain", "--policy", &policy, asked])?;
    assert_eq!(ended.code(), 0);
    let told = ended.out();
    assert!(told.starts_with("allowed  https://"), "{told}");
    assert!(told.contains("AIProviderRoute/anthropic#1 ("), "{told}");
    assert!(
        told.contains(
            "sets     header x-api-key by anthropic-key, from secret anthropic-credentials/api-key"
        ),
        "{told}"
    );
    assert!(!told.contains('\u{1b}'), "{told}");
    for key in world.keys.all() {
        assert!(!told.contains(key), "{told}");
    }
    for (arguments, status) in [
        (
            &["explain", "--policy", &policy, "https://other.test/"][..],
            1,
        ),
        (
            &["explain", "--policy", &policy, "--gateway", "nobody", asked],
            2,
        ),
        (&["explain", "--policy", "/nonexistent", asked], 2),
        (&["explain", "--policy", &policy, "ftp://a.example/"], 2),
        (&["explain", "--policy", &policy], 2),
        (&["schema", "Nobody"], 2),
        (&["schema", "EgressGateway"], 0),
        (&["check", "--format", "github", &policy], 0),
    ] {
        let ended = postern::run(arguments)?;
        assert_eq!(ended.code(), status, "{arguments:?}: {}", ended.err());
    }
    Ok(())
}
