//! Every client that an agent may bring leaves by the same door, and none of them is configured:
//! the SDKs, git, Node, the usual Python libraries, a statically linked program.

use anyhow::Result;
use e2e::mock::{anthropic, openai};
use e2e::process::slowness;
use e2e::world::PLACEHOLDER;
use e2e::{World, static_client};
use serde_json::json;

#[test]
fn the_anthropic_sdk_asks_streams_and_counts() -> Result<()> {
    let world = World::new()?;
    let done = world
        .script("anthropic_sdk.py", &["create", "stream", "count"])?
        .succeed()?;
    let told = done.json_lines()?;
    assert_eq!(told[0]["text"], anthropic::PIECES.concat(), "{done}");
    assert_eq!(told[0]["input_tokens"], anthropic::INPUT_TOKENS);
    assert_eq!(told[1]["pieces"], json!(anthropic::PIECES));
    assert_eq!(told[1]["stop_reason"], "end_turn");
    let spread = told[1]["spread_ms"].as_u64().unwrap_or_default();
    assert!(
        spread >= 200 * u64::from(slowness()),
        "the events came at once: {spread} ms; {done}"
    );
    assert_eq!(told[2]["input_tokens"], anthropic::INPUT_TOKENS);
    let seen = world.mocks.anthropic.seen().all();
    assert_eq!(seen.len(), 3);
    for request in &seen {
        // The SDK may send its own key by either header: both are gone.
        assert_eq!(
            request.occurrences(&world.keys.anthropic),
            1,
            "{request:#?}"
        );
        assert_eq!(request.occurrences(PLACEHOLDER), 0, "{request:#?}");
    }
    assert_eq!(done.records("request").len(), 3, "{done}");
    done.nothing_was_denied()
}

#[test]
fn the_openai_sdk_chats_responds_and_embeds() -> Result<()> {
    let world = World::new()?;
    let done = world.script("openai_sdk.py", &[])?.succeed()?;
    let told = done.json_lines()?;
    assert_eq!(told[0]["text"], openai::PIECES.concat(), "{done}");
    assert_eq!(told[1]["pieces"], json!(openai::PIECES));
    assert_eq!(told[1]["output_tokens"], openai::OUTPUT_TOKENS);
    let spread = told[1]["spread_ms"].as_u64().unwrap_or_default();
    assert!(
        spread >= 100 * u64::from(slowness()),
        "the events came at once: {spread} ms; {done}"
    );
    assert_eq!(told[2]["text"], openai::PIECES.concat());
    assert_eq!(told[3]["pieces"], json!(openai::PIECES));
    assert_eq!(told[4]["vector"], json!([0.25, -0.5, 1.0]));
    let seen = world.mocks.openai.seen().all();
    assert_eq!(seen.len(), 5);
    for request in &seen {
        assert_eq!(request.occurrences(&world.keys.openai), 1, "{request:#?}");
        assert_eq!(request.occurrences(PLACEHOLDER), 0, "{request:#?}");
    }
    done.nothing_was_denied()
}

#[test]
fn git_lists_a_repository_over_https() -> Result<()> {
    let world = World::new()?;
    let done = world
        .exec(["git", "ls-remote", "https://git.test/repo.git"])
        .succeed()?;
    let branch = format!("{}\trefs/heads/main", world.git_head()?);
    assert!(done.out().contains(&branch), "{done}");
    let clone = [
        "git",
        "clone",
        "--quiet",
        "https://git.test/repo.git",
        "clone",
    ];
    world.exec(clone).succeed()?;
    // The working folder is the host's: the clone stays.
    assert!(world.work("clone/.git/HEAD").exists());
    Ok(())
}

#[test]
fn node_s_fetch_needs_no_configuration() -> Result<()> {
    let world = World::new()?;
    let wiki = "https://wiki.local/snippets/durability";
    let done = world.script("fetch.mjs", &[wiki])?.succeed()?;
    assert_eq!(done.json()?["status"], 200, "{done}");
    assert_eq!(
        world
            .mocks
            .wiki
            .seen()
            .only()?
            .occurrences(&world.keys.wiki),
        1
    );
    let request = done.record("request", |_| true)?;
    assert_eq!(
        (request.host(), request.status()),
        ("wiki.local", Some(200))
    );
    Ok(())
}

#[test]
fn urllib_requests_and_httpx_need_no_configuration() -> Result<()> {
    let world = World::new()?;
    let wiki = "https://wiki.local/snippets/durability";
    for library in ["urllib", "requests", "httpx"] {
        let done = world.script("get.py", &[library, wiki])?.succeed()?;
        assert_eq!(done.json()?["status"], 200, "{library}: {done}");
    }
    assert_eq!(world.mocks.wiki.seen().occurrences(&world.keys.wiki), 3);
    Ok(())
}

#[test]
fn a_statically_linked_client_is_redirected_as_well() -> Result<()> {
    let world = World::new()?;
    let client = static_client::build(env!("CARGO_BIN_EXE_load_client"))?;
    for exec in [
        world.exec([client.clone(), "https://injected.test/static".into()]),
        world
            .exec([client.clone(), "https://injected.test/static".into()])
            .on_the_host_network(),
    ] {
        let done = exec.succeed()?;
        assert!(done.out().starts_with("HTTP/1.1 200"), "{done}");
        let request = done.record("request", |_| true)?;
        assert_eq!(request.comm(), "static_client", "{done}");
    }
    for seen in world.mocks.echo.seen().of("/static") {
        assert_eq!(seen.header("x-api-key"), [&world.keys.injected]);
    }
    Ok(())
}

#[test]
fn a_proxy_variable_of_the_caller_or_the_sandbox_leads_nowhere_else() -> Result<()> {
    let world = World::new()?;
    let unset = "unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY; \
                 curl -s --noproxy '*' --fail https://echo.test/unset";
    let done = world.exec(["sh", "-c", unset]).succeed()?;
    assert_eq!(done.record("request", |_| true)?.host(), "echo.test");
    // A proxy of the sandbox's own choice is a foreign host like any other.
    let done = world
        .curl(&[
            "--proxy",
            "http://203.0.113.9:8443",
            "https://echo.test/proxied",
        ])
        .run()?;
    assert_ne!(done.code(), 0, "{done}");
    assert!(!done.records("denied").is_empty(), "{done}");
    assert!(world.mocks.echo.seen().of("/proxied").is_empty());
    world.internet.saw_nothing()
}
