//! What the collector is told: who, what, how many tokens, which rule; and never a credential.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::World;
use e2e::mock::otlp::Span;
use e2e::mock::{anthropic, openai};
use e2e::policy::Gateway;
use e2e::process::patient;
use e2e::world::PLACEHOLDER;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(5);
const MODEL: &str = "claude-haiku-4-5";

fn ask(model: &str, stream: bool) -> String {
    json!({
        "model": model,
        "max_tokens": 16,
        "stream": stream,
        "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "Hello"}],
    })
    .to_string()
}

/// Whatever it says elsewhere, no span holds a key.
fn without_keys(world: &World) -> Result<()> {
    for span in world.otlp.spans() {
        for key in world.keys.all() {
            let encoded = STANDARD.encode(key);
            anyhow::ensure!(!span.mentions(key), "a key in {}", span.name());
            anyhow::ensure!(!span.mentions(&encoded), "a key in {}", span.name());
        }
    }
    let seen = world.otlp.mock().seen();
    for key in world.keys.all() {
        anyhow::ensure!(
            seen.occurrences(key) == 0,
            "a key on the wire to the collector"
        );
    }
    Ok(())
}

fn on_path(path: &'static str) -> impl Fn(&Span) -> bool {
    move |span| span.text("url.path") == Some(path)
}

#[test]
fn a_span_tells_who_asked_what_and_redacts_the_key() -> Result<()> {
    let world = World::new()?;
    let done = world
        .curl(&[
            "--fail",
            "-H",
            &format!("x-api-key: {PLACEHOLDER}"),
            "-H",
            "X-Own: visible",
            "https://api.anthropic.com/v1/messages?beta=true",
            "-d",
            &ask(MODEL, false),
        ])
        .succeed()?;
    let span = world.otlp.wait_for(SOON, on_path("/v1/messages"))?;
    assert_eq!(span.name(), format!("chat {MODEL}"));
    assert!(span.is_server());
    assert_eq!(span.text("http.request.method"), Some("POST"));
    assert_eq!(span.number("http.response.status_code"), Some(200));
    assert_eq!(span.text("server.address"), Some("api.anthropic.com"));
    assert_eq!(span.number("server.port"), Some(443));
    assert_eq!(span.text("url.scheme"), Some("https"));
    assert_eq!(span.text("url.query"), Some("beta=true"));
    assert_eq!(span.text("process.executable.name"), Some("curl"));
    let curl = fs::canonicalize("/usr/bin/curl")?;
    assert_eq!(span.text("process.executable.path"), curl.to_str());
    assert!(span.number("process.pid").is_some_and(|pid| pid > 0));
    assert!(span.attribute("postern.rule").is_some());
    assert!(span.attribute("postern.generation").is_some());
    assert!(span.attribute("postern.decision").is_some());
    assert!(span.attribute("postern.cgroup.id").is_some());
    let injected = span
        .attribute("postern.credential.injected")
        .context("no policy name")?;
    assert!(injected.to_string().contains("anthropic-key"), "{injected}");
    let request = span
        .event("http.request.headers")
        .context("no request headers")?;
    let shown = |name: &str| {
        request
            .get(&format!("http.request.header.{name}"))
            .map(ToString::to_string)
    };
    assert!(
        shown("x-api-key").is_some_and(|value| value.contains("[redacted]")),
        "{request:?}"
    );
    assert!(
        shown("x-own").is_some_and(|value| value.contains("visible")),
        "{request:?}"
    );
    assert!(span.event("http.response.headers").is_some());
    // The bodies are captured on demand only.
    assert!(span.event("http.request.body").is_none());
    assert_eq!(span.resource("service.name"), Some("postern"));
    assert!(span.resource("service.version").is_some());
    assert!(!span.mentions(PLACEHOLDER));
    assert_eq!(done.records("request").len(), 1);
    without_keys(&world)
}

#[test]
fn anthropic_s_tokens_are_counted_whole_and_streamed() -> Result<()> {
    let world = World::new()?;
    for stream in [false, true] {
        let query = format!("https://api.anthropic.com/v1/messages?stream={stream}");
        world
            .curl(&["--fail", "-N", &query, "-d", &ask(MODEL, stream)])
            .succeed()?;
        let query = format!("stream={stream}");
        let span = world
            .otlp
            .wait_for(SOON, |span| span.text("url.query") == Some(&query))?;
        assert_eq!(span.text("gen_ai.provider.name"), Some("anthropic"));
        assert_eq!(span.text("gen_ai.operation.name"), Some("chat"));
        assert_eq!(span.text("gen_ai.request.model"), Some(MODEL));
        assert_eq!(span.text("gen_ai.response.model"), Some(MODEL));
        for (name, expected) in [
            ("input_tokens", anthropic::INPUT_TOKENS),
            ("output_tokens", anthropic::OUTPUT_TOKENS),
            ("cache_read.input_tokens", anthropic::CACHE_READ_TOKENS),
            (
                "cache_creation.input_tokens",
                anthropic::CACHE_CREATION_TOKENS,
            ),
        ] {
            let name = format!("gen_ai.usage.{name}");
            assert_eq!(
                span.number(&name),
                Some(expected),
                "{name}: {:#}",
                span.to_json()
            );
        }
        let reasons = span.attribute("gen_ai.response.finish_reasons");
        assert_eq!(reasons, Some(json!(["end_turn"])));
        if stream {
            assert!(
                span.duration() >= patient(anthropic::PAUSE * 5),
                "{:?}",
                span.duration()
            );
        }
    }
    without_keys(&world)
}

#[test]
fn openai_s_tokens_are_counted_in_every_form() -> Result<()> {
    let world = World::new()?;
    let model = "gpt-4.1-mini";
    for (path, stream) in [
        ("chat/completions", false),
        ("chat/completions", true),
        ("responses", false),
        ("responses", true),
    ] {
        let query = format!("path={}&stream={stream}", path.replace('/', "-"));
        let url = format!("https://api.openai.com/v1/{path}?{query}");
        world
            .curl(&["--fail", "-N", &url, "-d", &ask(model, stream)])
            .succeed()?;
        let span = world
            .otlp
            .wait_for(SOON, |span| span.text("url.query") == Some(&query))?;
        assert_eq!(span.text("gen_ai.provider.name"), Some("openai"));
        assert_eq!(span.text("gen_ai.request.model"), Some(model));
        let input = span.number("gen_ai.usage.input_tokens");
        let output = span.number("gen_ai.usage.output_tokens");
        assert_eq!(
            input,
            Some(openai::INPUT_TOKENS),
            "{query}: {:#}",
            span.to_json()
        );
        assert_eq!(
            output,
            Some(openai::OUTPUT_TOKENS),
            "{query}: {:#}",
            span.to_json()
        );
    }
    let body = json!({"model": "text-embedding-3-small", "input": "x"}).to_string();
    world
        .curl(&[
            "--fail",
            "https://api.openai.com/v1/embeddings",
            "-d",
            &body,
        ])
        .succeed()?;
    let span = world.otlp.wait_for(SOON, on_path("/v1/embeddings"))?;
    assert_eq!(span.text("gen_ai.operation.name"), Some("embeddings"));
    assert_eq!(
        span.number("gen_ai.usage.input_tokens"),
        Some(openai::INPUT_TOKENS)
    );
    without_keys(&world)
}

#[test]
fn another_request_is_named_after_its_method_and_host() -> Result<()> {
    let world = World::new()?;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let header = format!("traceparent: {parent}");
    world
        .curl(&["--fail", "-H", &header, "https://echo.test/traced"])
        .succeed()?;
    world
        .curl(&["--fail", "https://echo.test/untraced"])
        .succeed()?;
    let span = world.otlp.wait_for(SOON, on_path("/traced"))?;
    assert_eq!(span.name(), "GET echo.test");
    assert_eq!(span.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(span.parent_id(), "00f067aa0ba902b7");
    let span = world.otlp.wait_for(SOON, on_path("/untraced"))?;
    let seen = world.mocks.echo.seen().of("/untraced");
    let sent = seen[0].header("traceparent");
    assert!(
        sent.len() == 1 && sent[0].contains(&span.trace_id()),
        "{sent:?}"
    );
    Ok(())
}

#[test]
fn refusals_have_spans_of_their_own() -> Result<()> {
    let world = World::new()?;
    world
        .curl(&[
            "--resolve",
            "foreign.test:443:203.0.113.9",
            "https://foreign.test/",
        ])
        .run()?;
    world.curl(&["http://203.0.113.9:22/"]).run()?;
    let by_name = world.otlp.wait_for(SOON, |span| {
        span.name() == "egress.denied" && span.mentions("foreign.test")
    })?;
    assert!(
        by_name.text("postern.deny.reason").is_some(),
        "{:#}",
        by_name.to_json()
    );
    let by_kernel = world.otlp.wait_for(SOON, |span| {
        span.name() == "egress.denied" && span.text("postern.deny.stage") == Some("kernel")
    })?;
    assert!(
        by_kernel.mentions("203.0.113.9"),
        "{:#}",
        by_kernel.to_json()
    );
    assert!(by_kernel.mentions("curl"), "{:#}", by_kernel.to_json());
    Ok(())
}

#[test]
fn the_program_s_path_is_that_of_the_connect_whatever_runs_later() -> Result<()> {
    let world = World::new()?;
    // A program of the work folder connects, and its process is another program before anybody looks.
    let python = fs::canonicalize("/usr/bin/python3")?;
    let own = world.work("tool");
    fs::copy(&python, &own)?;
    let script = "import socket, os\n\
         for address in ('203.0.113.9', '127.0.0.1'):\n    \
             s = socket.socket(); s.setblocking(False); s.connect_ex((address, 22))\n\
         os.execv('/bin/sleep', ['sleep', '1'])";
    let done = world.exec(["./tool", "-c", script]).run()?;
    let own = own.to_str();
    let span = world.otlp.wait_for(SOON, |span| {
        span.name() == "egress.denied" && span.mentions("203.0.113.9")
    })?;
    assert_eq!(span.text("process.executable.path"), own, "{done}");
    let recorded = done.records("denied");
    let exe = |record: &&e2e::audit::Record| record.0["process"]["exe"].as_str() == own;
    assert!(recorded.iter().any(exe), "{done}");
    Ok(())
}

#[test]
fn bodies_are_captured_when_asked_for_and_hold_no_secret() -> Result<()> {
    let world = World::new()?;
    let endpoint = world.otlp.endpoint();
    world.write_policy(&world.documents(&Gateway {
        default: "deny-all",
        otlp: Some(&endpoint),
        capture: 4096,
    }))?;
    let body = ask(MODEL, false);
    let kind = "content-type: application/json";
    world
        .curl(&[
            "--fail",
            "-H",
            kind,
            "https://api.anthropic.com/v1/messages",
            "-d",
            &body,
        ])
        .succeed()?;
    let span = world.otlp.wait_for(SOON, on_path("/v1/messages"))?;
    let captured = |event: &str| -> Result<String> {
        let event = span.event(event).with_context(|| format!("no {event}"))?;
        let text = event
            .get("postern.body.base64")
            .and_then(|value| value.as_str());
        let raw = STANDARD.decode(text.context("no body")?)?;
        Ok(String::from_utf8(raw)?)
    };
    assert_eq!(captured("http.request.body")?, body);
    let answer = captured("http.response.body")?;
    assert!(answer.contains(&anthropic::PIECES.concat()), "{answer}");

    // The echo server says the credential back: the sandbox's business, but not the collector's.
    world
        .curl(&["--fail", "-o", "/dev/null", "https://injected.test/echoed"])
        .succeed()?;
    let span = world.otlp.wait_for(SOON, on_path("/echoed"))?;
    let echoed = span.event("http.response.body").context("no body")?;
    let raw = echoed["postern.body.base64"].as_str().context("no body")?;
    let echoed = String::from_utf8(STANDARD.decode(raw)?)?;
    assert!(!echoed.contains(&world.keys.injected), "{echoed}");
    assert!(echoed.contains("[redacted]"), "{echoed}");

    // Longer than the limit: cut, and said so.
    let long = "x".repeat(10_000);
    world
        .curl(&[
            "--fail",
            "-o",
            "/dev/null",
            "-H",
            kind,
            "https://echo.test/long",
            "-d",
            &long,
        ])
        .succeed()?;
    let span = world.otlp.wait_for(SOON, on_path("/long"))?;
    let cut = span.event("http.request.body").context("no body")?;
    assert_eq!(cut["postern.body.truncated"], true, "{cut:?}");
    let raw = cut["postern.body.base64"].as_str().context("no body")?;
    assert!(STANDARD.decode(raw)?.len() <= 4096);
    without_keys(&world)
}

#[test]
fn a_collector_that_is_away_stops_nobody() -> Result<()> {
    let world = World::new()?;
    world.write_policy(&world.documents(&Gateway {
        default: "deny-all",
        // Nobody listens there.
        otlp: Some("http://127.0.0.1:9"),
        capture: 0,
    }))?;
    let done = world.curl(&["--fail", "https://echo.test/"]).succeed()?;
    assert!(
        done.ended.elapsed < patient(Duration::from_secs(15)),
        "{:?}",
        done.ended.elapsed
    );
    assert_eq!(done.records("request").len(), 1, "{done}");
    Ok(())
}

#[test]
fn the_sdks_count_the_tokens_that_the_spans_tell() -> Result<()> {
    let world = World::new()?;
    let mut expected = 0;
    for (script, arguments, path) in [
        (
            "anthropic_sdk.py",
            &["create", "stream"][..],
            "/v1/messages",
        ),
        ("openai_sdk.py", &[], "/v1/"),
    ] {
        let done = world.script(script, arguments)?.succeed()?;
        let told = done.json_lines()?;
        expected += told.len();
        let spans = world.otlp.wait_for_all(SOON, expected, |span| {
            span.text("url.path").is_some_and(|at| at.starts_with(path))
                && span.text("process.executable.name").is_some()
        })?;
        let spans = &spans[spans.len() - told.len()..];
        for (told, span) in told.iter().zip(spans) {
            for count in ["input_tokens", "output_tokens"] {
                let said = told.get(count).and_then(Value::as_i64);
                let span_says = span.number(&format!("gen_ai.usage.{count}"));
                assert!(
                    said.is_none() || said == span_says,
                    "{told}: {:#}",
                    span.to_json()
                );
            }
            // And what `tail` shows is in the audit log too.
            let total = span.number("gen_ai.usage.input_tokens");
            let model = span.text("gen_ai.request.model");
            assert!(done.records("request").iter().any(|record| {
                record.0["model"].as_str() == model
                    && record.0["input_tokens"].as_i64() == total
                    && record.0["duration_ms"].as_f64().is_some()
            }));
        }
    }
    without_keys(&world)
}
