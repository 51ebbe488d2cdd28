//! The whole path: an unmodified HTTPS client in a real sandbox leaves through the gateway, with
//! the key it never had.

use std::fs;

use anyhow::Result;
use e2e::policy::{self, ANTHROPIC};
use e2e::world::PLACEHOLDER;
use e2e::{World, mock::anthropic, mock::wiki, worked_example};
use serde_json::{Value, json};

const MESSAGES: &str = "https://api.anthropic.com/v1/messages";

fn ask() -> String {
    let messages = json!([{"role": "user", "content": "Hello"}]);
    json!({"model": "claude-haiku-4-5", "max_tokens": 16, "messages": messages}).to_string()
}

#[test]
fn curl_under_the_worked_example_s_documents_gets_200_with_a_key_it_never_had() -> Result<()> {
    let world = World::new()?;
    // The documents stay as they are: the key comes from the secrets folder.
    let documents = worked_example::with(
        &worked_example::documents()?,
        &worked_example::Additions {
            hosts: &[ANTHROPIC],
            endpoint: &world.otlp.endpoint(),
        },
    )?;
    fs::write(world.path("policy").join("policy.yaml"), documents)?;
    fs::write(
        world.path("policy").join("test-ca.yaml"),
        policy::test_ca(world.ca.pem()),
    )?;
    let (name, key) = worked_example::SECRET;
    world.secret(name, key, &world.keys.anthropic)?;
    let placeholder = format!("x-api-key: {PLACEHOLDER}");
    let done = world
        .curl(&[
            "-w",
            "\n%{http_code}",
            "-H",
            &placeholder,
            MESSAGES,
            "-d",
            &ask(),
        ])
        .flag("--gateway", worked_example::GATEWAY)
        .succeed()?;
    let (answer, status) = done.out().trim_end().rsplit_once('\n').map_or_else(
        || (done.out(), String::new()),
        |(answer, status)| (answer.to_owned(), status.to_owned()),
    );
    assert_eq!(status, "200", "{done}");
    let answer: Value = serde_json::from_str(&answer)?;
    assert_eq!(answer["content"][0]["text"], anthropic::PIECES.concat());

    let seen = world.mocks.anthropic.seen().only()?;
    assert_eq!(seen.header("x-api-key"), [&world.keys.anthropic]);
    assert_eq!(seen.occurrences(&world.keys.anthropic), 1, "{seen:#?}");
    assert_eq!(seen.occurrences(PLACEHOLDER), 0, "{seen:#?}");

    let request = done.record("request", |_| true)?;
    assert_eq!(request.host(), "api.anthropic.com");
    assert_eq!(request.status(), Some(200));
    assert!(
        request.rule().contains("AIProviderRoute/anthropic"),
        "{done}"
    );
    assert_eq!(request.comm(), "curl");
    done.nothing_was_denied()
}

#[test]
fn with_one_gateway_its_name_may_be_left_out_and_a_client_without_any_key_is_served() -> Result<()>
{
    let world = World::new()?;
    let done = world.curl(&["--fail", MESSAGES, "-d", &ask()]).succeed()?;
    assert_eq!(done.json()?["type"], "message", "{done}");
    let seen = world.mocks.anthropic.seen().only()?;
    assert_eq!(seen.header("x-api-key"), [&world.keys.anthropic]);
    Ok(())
}

#[test]
fn the_wiki_is_read_with_a_token_that_only_the_gateway_has() -> Result<()> {
    let world = World::new()?;
    let page = "https://wiki.local/snippets/durability";
    let done = world.curl(&["--fail", page]).succeed()?;
    assert_eq!(done.json()?["text"], wiki::SNIPPET);
    let seen = world.mocks.wiki.seen().only()?;
    let bearer = format!("Bearer {}", world.keys.wiki);
    assert_eq!(seen.header("authorization"), [bearer.as_str()]);
    assert_eq!(seen.occurrences(&world.keys.wiki), 1);
    let request = done.record("request", |_| true)?;
    assert!(
        request.rule().contains("SandboxProxyRule/wiki-auth"),
        "{done}"
    );
    Ok(())
}

#[test]
fn the_same_path_holds_on_the_host_s_network() -> Result<()> {
    let world = World::new()?;
    let done = world
        .curl(&["--fail", MESSAGES, "-d", &ask()])
        .on_the_host_network()
        .succeed()?;
    assert_eq!(done.json()?["type"], "message", "{done}");
    let seen = world.mocks.anthropic.seen().only()?;
    assert_eq!(seen.header("x-api-key"), [&world.keys.anthropic]);
    Ok(())
}

#[test]
fn the_client_believes_that_it_talks_to_the_address_it_asked_for() -> Result<()> {
    let world = World::new()?;
    // The record of the connection has the address that the sandbox dialled; curl tells the peer
    // it sees. Both are the same, whatever listener stands in between.
    let done = world
        .curl(&[
            "-o",
            "/dev/null",
            "-w",
            "%{remote_ip}:%{remote_port}",
            "https://echo.test/",
        ])
        .succeed()?;
    let connection = done.record("request", |record| record.host() == "echo.test")?;
    assert_eq!(done.out().trim(), connection.destination(), "{done}");
    assert!(
        connection.process("pid").is_some_and(|pid| pid > 0),
        "{done}"
    );
    assert!(
        connection.process("tgid").is_some_and(|tgid| tgid > 0),
        "{done}"
    );
    assert!(connection.process("uid").is_some(), "{done}");
    Ok(())
}
