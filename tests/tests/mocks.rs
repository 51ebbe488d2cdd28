//! The mocks are what they claim to be, and the clients of the suites work without a gateway: what
//! fails in another suite and not here is the gateway's. Nothing here runs `postern`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::mock::{anthropic, body::pattern, echo::CHECKSUM, openai, wiki};
use e2e::process::{Ended, Process, patient};
use e2e::world::{PLACEHOLDER, script};
use e2e::{World, digest, static_client};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde_json::Value;

fn run(command: Command, input: &[u8]) -> Result<Ended> {
    Process::start(command, input)?.wait(Duration::from_secs(30))
}

fn direct(world: &World, command: &[&str]) -> Result<Ended> {
    run(world.direct(command.iter().copied())?, b"")
}

fn direct_script(world: &World, script: &[&str], env: (&str, &str)) -> Result<Vec<Value>> {
    let [interpreter, path] = e2e::world::script(script[0])?;
    let all = [interpreter.as_str(), path.as_str()].into_iter();
    let mut command = world.direct(all.chain(script[1..].iter().copied()))?;
    command.env(env.0, env.1);
    let ended = run(command, b"")?;
    ensure!(ended.code() == 0, "{ended:#?}");
    let lines = ended.stdout.iter();
    Ok(lines
        .map(|line| serde_json::from_str(&line.text))
        .collect::<Result<_, _>>()?)
}

#[test]
fn anthropic_s_sdk_takes_the_mock_for_the_real_thing() -> Result<()> {
    let world = World::new()?;
    let key = ("ANTHROPIC_API_KEY", world.keys.anthropic.as_str());
    let told = direct_script(
        &world,
        &["anthropic_sdk.py", "create", "stream", "count"],
        key,
    )?;
    assert_eq!(told[0]["text"], anthropic::PIECES.concat());
    assert_eq!(told[0]["input_tokens"], anthropic::INPUT_TOKENS);
    assert_eq!(told[1]["pieces"], serde_json::json!(anthropic::PIECES));
    assert_eq!(told[1]["output_tokens"], anthropic::OUTPUT_TOKENS);
    assert!(told[1]["spread_ms"].as_u64() >= Some(200), "{told:?}");
    assert_eq!(told[2]["input_tokens"], anthropic::INPUT_TOKENS);
    assert_eq!(world.mocks.anthropic.seen().all().len(), 3);
    assert_eq!(
        world
            .mocks
            .anthropic
            .seen()
            .occurrences(&world.keys.anthropic),
        3
    );
    Ok(())
}

#[test]
fn openai_s_sdk_takes_the_mock_for_the_real_thing() -> Result<()> {
    let world = World::new()?;
    let key = ("OPENAI_API_KEY", world.keys.openai.as_str());
    let told = direct_script(&world, &["openai_sdk.py"], key)?;
    assert_eq!(told[0]["text"], openai::PIECES.concat());
    assert_eq!(told[1]["pieces"], serde_json::json!(openai::PIECES));
    assert_eq!(told[1]["output_tokens"], openai::OUTPUT_TOKENS);
    assert_eq!(told[2]["text"], openai::PIECES.concat());
    assert_eq!(told[3]["pieces"], serde_json::json!(openai::PIECES));
    assert_eq!(told[4]["vector"], serde_json::json!([0.25, -0.5, 1.0]));
    Ok(())
}

#[test]
fn nobody_gets_in_with_the_placeholder() -> Result<()> {
    let world = World::new()?;
    for (url, header) in [
        (
            "https://api.anthropic.com/v1/messages",
            format!("x-api-key: {PLACEHOLDER}"),
        ),
        (
            "https://api.openai.com/v1/responses",
            format!("authorization: Bearer {PLACEHOLDER}"),
        ),
        (
            "https://wiki.local/snippets/durability",
            "accept: */*".to_owned(),
        ),
    ] {
        let status = direct(
            &world,
            &[
                "curl",
                "-s",
                "-d",
                "{}",
                "-o",
                "answer",
                "-w",
                "%{http_code}",
                "-H",
                &header,
                url,
            ],
        )?;
        assert_eq!(status.out().trim(), "401", "{url}: {status:?}");
    }
    assert_eq!(world.mocks.anthropic.seen().occurrences(PLACEHOLDER), 1);
    Ok(())
}

#[test]
fn the_wiki_opens_to_its_token() -> Result<()> {
    let world = World::new()?;
    let token = format!("Authorization: Bearer {}", world.keys.wiki);
    let page = direct(
        &world,
        &[
            "curl",
            "-s",
            "-H",
            &token,
            "https://wiki.local/snippets/durability",
        ],
    )?;
    assert!(page.out().contains(wiki::SNIPPET), "{page:?}");
    let seen = world.mocks.wiki.seen().only()?;
    assert_eq!(seen.server_name.as_deref(), Some("wiki.local"));
    assert_eq!(seen.authority.as_deref(), Some("wiki.local"));
    Ok(())
}

#[test]
fn echo_says_what_it_saw_on_both_versions_and_in_plain_text() -> Result<()> {
    let world = World::new()?;
    for (url, flag, version) in [
        ("https://echo.test/a?b=c", "--http2", "HTTP/2.0"),
        ("https://echo.test/a?b=c", "--http1.1", "HTTP/1.1"),
        ("https://h1.test/a?b=c", "--http2", "HTTP/1.1"),
        ("https://h2.test/a?b=c", "--http2", "HTTP/2.0"),
        ("http://echo.test/a?b=c", "--http1.1", "HTTP/1.1"),
    ] {
        let answer = direct(
            &world,
            &[
                "curl", "-s", flag, "-d", "hello", "-H", "X-Two: 1", "-H", "x-two: 2", url,
            ],
        )?;
        let told: Value = serde_json::from_str(&answer.out())?;
        assert_eq!(told["version"], version, "{url}");
        assert_eq!(
            (&told["method"], &told["path"], &told["query"]),
            (&"POST".into(), &"/a".into(), &"b=c".into())
        );
        assert_eq!(told["body"]["sha256"], digest::sha256(b"hello"));
        let two = told["headers"]
            .as_array()
            .map(|headers| headers.iter().filter(|header| header[0] == "x-two").count());
        assert_eq!(two, Some(2), "{told}");
    }
    Ok(())
}

#[test]
fn echo_does_trailers_early_answers_lengths_and_events() -> Result<()> {
    let world = World::new()?;
    let trailers = direct(
        &world,
        &["curl", "-si", "--http2", "https://echo.test/trailers"],
    )?;
    assert!(
        trailers.out().contains(&format!("x-checksum: {CHECKSUM}")),
        "{trailers:?}"
    );
    let trailers = direct(
        &world,
        &[
            "curl",
            "-si",
            "--http1.1",
            "-H",
            "TE: trailers",
            "https://echo.test/trailers",
        ],
    )?;
    assert!(
        trailers.out().contains(&format!("x-checksum: {CHECKSUM}")),
        "{trailers:?}"
    );
    let head = direct(&world, &["curl", "-sI", "https://echo.test/bytes/1000"])?;
    assert!(head.out().contains("content-length: 1000"), "{head:?}");
    let bytes = direct(
        &world,
        &[
            "sh",
            "-c",
            "curl -s https://echo.test/bytes/100000 | sha256sum",
        ],
    )?;
    let expected: Vec<u8> = (0..100_000).map(pattern).collect();
    assert!(
        bytes.out().starts_with(&digest::sha256(&expected)),
        "{bytes:?}"
    );
    let events = direct(&world, &["curl", "-sN", "https://echo.test/sse/3/1000"])?;
    let at: Vec<Duration> = events
        .stdout
        .iter()
        .filter(|line| line.text.starts_with("data:"))
        .map(|line| line.at)
        .collect();
    assert_eq!(at.len(), 3, "{events:?}");
    assert!(
        at[2] - at[0] > patient(Duration::from_millis(300)),
        "{at:?}"
    );
    let expect = direct(
        &world,
        &[
            "curl",
            "-sv",
            "--http1.1",
            "-H",
            "Expect: 100-continue",
            "-d",
            "hello",
            "https://echo.test/",
        ],
    )?;
    assert!(expect.err().contains("HTTP/1.1 100 Continue"), "{expect:?}");
    let early = direct(
        &world,
        &[
            "curl",
            "-sv",
            "--http1.1",
            "-H",
            "Expect: 100-continue",
            "-d",
            "hello",
            "https://echo.test/early",
        ],
    )?;
    assert!(
        !early.err().contains("100 Continue") && early.err().contains("413"),
        "{early:?}"
    );
    std::fs::File::create(world.work("upload"))?.set_len(20 << 20)?;
    for host in ["h1.test", "h2.test"] {
        let url = format!("https://{host}/early");
        let early = [
            "curl",
            "-s",
            "-H",
            "Expect:",
            "-w",
            "%{http_code}",
            "-T",
            "upload",
            &url,
        ];
        let early = direct(&world, &early)?;
        assert!(early.out().contains("413"), "{early:?}");
    }
    let cut = direct(&world, &["curl", "-s", "https://echo.test/cut"])?;
    assert_ne!(cut.code(), 0, "{cut:?}");
    Ok(())
}

#[test]
fn a_websocket_says_back_what_it_was_told() -> Result<()> {
    let world = World::new()?;
    let [interpreter, path] = script("websocket.py")?;
    let ended = direct(&world, &[&interpreter, &path, "echo.test"])?;
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(ended.stdout.len(), 6, "{ended:?}");
    assert!(!ended.out().contains("false"), "{ended:?}");
    Ok(())
}

#[test]
fn git_lists_the_one_branch() -> Result<()> {
    let world = World::new()?;
    let refs = direct(&world, &["git", "ls-remote", "https://git.test/repo.git"])?;
    assert!(
        refs.out()
            .contains(&format!("{}\trefs/heads/main", world.git_head()?)),
        "{refs:?}"
    );
    let outside = direct(
        &world,
        &[
            "curl",
            "-s",
            "--path-as-is",
            "-w",
            "%{http_code}",
            "https://git.test/../../etc/passwd",
        ],
    )?;
    assert!(outside.out().ends_with("404\n"), "{outside:?}");
    Ok(())
}

#[test]
fn the_servers_that_must_not_be_trusted_are_not() -> Result<()> {
    let world = World::new()?;
    for url in ["https://rogue.test/", "https://misnamed.test/"] {
        let refused = direct(&world, &["curl", "-s", url])?;
        assert_eq!(refused.code(), 60, "{url}: {refused:?}");
    }
    Ok(())
}

#[test]
fn nodes_fetch_and_the_static_client_work_unaided() -> Result<()> {
    let world = World::new()?;
    let [interpreter, path] = script("fetch.mjs")?;
    let fetched = direct(
        &world,
        &[&interpreter, &path, "https://echo.test/x", "x-y=z"],
    )?;
    assert!(fetched.out().contains("\"status\":200"), "{fetched:?}");
    let client = static_client::build(env!("CARGO_BIN_EXE_load_client"))?;
    let fetched = direct(&world, &[&client.to_string_lossy(), "https://echo.test/x"])?;
    assert!(fetched.out().starts_with("HTTP/1.1 200 OK"), "{fetched:?}");
    Ok(())
}

#[test]
fn the_load_client_counts_right_answers_alone() -> Result<()> {
    let world = World::new()?;
    let client = env!("CARGO_BIN_EXE_load_client");
    let report = direct(&world, &[client, "https://echo.test/load", "20", "10"])?;
    let report: Value = serde_json::from_str(&report.out())?;
    assert_eq!(report["correct"], 200, "{report}");
    assert_eq!(report["versions"]["HTTP/2.0"], 100, "{report}");
    assert_eq!(report["errors"], serde_json::json!([]));
    let report = direct(&world, &[client, "https://echo.test/status/500", "2", "10"])?;
    let report: Value = serde_json::from_str(&report.out())?;
    assert_eq!(report["correct"], 0, "{report}");
    assert_eq!(
        report["errors"].as_array().map(Vec::len),
        Some(2),
        "{report}"
    );
    Ok(())
}

#[test]
fn the_collector_takes_spans_and_nothing_else() -> Result<()> {
    let world = World::new()?;
    let span = Span {
        name: "GET echo.test".to_owned(),
        ..Span::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: vec![span],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    std::fs::write(world.work("request"), request.encode_to_vec())?;
    let url = format!("{}/v1/traces", world.otlp.endpoint());
    let send = |kind: &str| {
        direct(
            &world,
            &[
                "curl",
                "-s",
                "-w",
                "%{http_code}",
                "-o",
                "answer",
                "-H",
                kind,
                "--data-binary",
                "@request",
                &url,
            ],
        )
    };
    assert_eq!(send("content-type: application/json")?.out().trim(), "415");
    assert!(world.otlp.spans().is_empty());
    assert_eq!(
        send("content-type: application/x-protobuf")?.out().trim(),
        "200"
    );
    let found = world.otlp.wait_for(Duration::from_secs(1), |span| {
        span.name() == "GET echo.test"
    })?;
    assert!(found.mentions("echo.test"));
    assert!(
        world
            .otlp
            .wait_for(Duration::ZERO, |span| span.name() == "x")
            .is_err()
    );
    Ok(())
}

#[test]
fn attempts_get_out_where_nobody_stops_them() -> Result<()> {
    let world = World::new()?;
    let [interpreter, path] = script("attempts.py")?;
    let tries = "tcp 203.0.113.9 443\ntcp 2001:db8::9 443\ntcp ::ffff:203.0.113.9 443\n\
                 tcp 169.254.169.254 80\nudp 203.0.113.9 443\nfastopen 203.0.113.9 80\n\
                 bound-elsewhere 127.0.0.5 443\ntwice 127.0.0.5 127.0.0.2 443\n\
                 http 127.0.0.5 80\nraw 203.0.113.9\nlookup echo.test\n";
    let ended = run(
        world.direct([interpreter.as_str(), path.as_str()])?,
        tries.as_bytes(),
    )?;
    let told: Vec<Value> = ended
        .stdout
        .iter()
        .map(|line| serde_json::from_str(&line.text))
        .collect::<Result<_, _>>()?;
    let outcomes: Vec<&str> = told
        .iter()
        .filter_map(|line| line["outcome"].as_str())
        .collect();
    assert_eq!(outcomes.len(), 11, "{ended:#?}");
    assert!(
        outcomes[..4]
            .iter()
            .all(|outcome| outcome.starts_with("connected")),
        "{ended:#?}"
    );
    assert!(
        outcomes[6..9]
            .iter()
            .all(|outcome| outcome.starts_with("said HTTP/1.1 ")),
        "{ended:#?}"
    );
    assert_eq!(outcomes[9..], ["sent", "1 addresses"], "{ended:#?}");
    let packets = world.internet.packets();
    for (protocol, port) in [(6, 443), (6, 80), (17, 443), (17, 53)] {
        assert!(
            packets
                .iter()
                .any(|packet| packet.protocol == protocol && packet.port == Some(port)),
            "{packets:?}"
        );
    }
    Ok(())
}
