//! How telemetry leaves: metrics and logs, both protocols, with and without TLS; and that the audit log
//! has every response that a client saw, though the gateway is killed, and is no sandbox's to read.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::World;
use e2e::ca::Alpn;
use e2e::mock::anthropic;
use e2e::mock::otlp::{Otlp, Point, Span};
use e2e::policy::Gateway;
use e2e::postern::Exec;
use e2e::process::{Ended, Process, patient};
use nix::sys::signal::Signal;
use serde_json::json;

const SOON: Duration = Duration::from_secs(5);
const MODEL: &str = "claude-haiku-4-5";

/// All that the gateway counts and measures, in the order of the reference.
const METRICS: [(&str, &str); 11] = [
    ("postern.connections", "sum"),
    ("postern.requests", "sum"),
    ("http.server.request.duration", "histogram"),
    ("http.client.request.duration", "histogram"),
    ("gen_ai.client.token.usage", "histogram"),
    ("postern.kernel.verdicts", "sum"),
    ("postern.upstream.pool", "sum"),
    ("postern.tls.leaf_cache", "sum"),
    ("postern.policy.generation", "gauge"),
    ("postern.policy.reload.failures", "sum"),
    ("postern.telemetry.dropped", "sum"),
];

#[test]
fn metrics_and_logs_tell_of_what_happened() -> Result<()> {
    let world = World::new()?;
    let url = "https://api.anthropic.com/v1/messages";
    let script = format!(
        "curl -sS --fail -o /dev/null {url} -o /dev/null {url} -d '{body}'; \
         curl -sS -o /dev/null https://echo.test/x -X PROPFIND; \
         curl -sS -o /dev/null https://rogue.test/; \
         curl -sS --max-time 5 http://203.0.113.9:22/; \
         curl -sS -o /dev/null https://api.anthropic.com/elsewhere; true",
        body = json!({"model": MODEL, "max_tokens": 16, "messages": []})
    );
    world.exec(["sh", "-c", &script]).succeed()?;
    // The end of the gateway exports them once more.
    for (name, kind) in METRICS {
        let metric = world.otlp.metric(name).context(name)?;
        assert_eq!(metric.kind, kind, "{name}");
        assert_eq!(metric.resource["service.name"], "postern");
        assert_eq!(metric.resource["postern.gateway"], "e2e");
    }
    let metric = |name: &str| world.otlp.metric(name).context(name.to_owned());
    let calls = 2;
    let tokens = metric("gen_ai.client.token.usage")?;
    let input = [
        ("gen_ai.token.type", "input"),
        ("gen_ai.request.model", MODEL),
    ];
    assert_eq!(
        tokens.total(&input),
        (calls * anthropic::INPUT_TOKENS) as f64
    );
    let output = [("gen_ai.token.type", "output")];
    assert_eq!(
        tokens.total(&output),
        (calls * anthropic::OUTPUT_TOKENS) as f64
    );
    let requests = metric("postern.requests")?;
    assert_eq!(requests.total(&[("postern.decision", "allowed")]), 4.0);
    let denied = [("postern.deny.reason", "request_not_allowed")];
    assert_eq!(requests.total(&denied), 1.0, "{requests:#?}");
    let connections = metric("postern.connections")?;
    let kernel = [
        ("postern.deny.stage", "kernel"),
        ("postern.deny.reason", "no_rule"),
    ];
    assert!(connections.total(&kernel) >= 1.0, "{connections:#?}");
    assert!(connections.total(&[("postern.decision", "allowed")]) >= 4.0);
    let verdicts = metric("postern.kernel.verdicts")?;
    assert!(verdicts.total(&[("postern.kernel.verdict", "redirect")]) >= 4.0);
    assert!(verdicts.total(&[("postern.kernel.verdict", "refuse")]) >= 1.0);
    let pool = metric("postern.upstream.pool")?;
    assert_eq!(
        pool.total(&[("postern.pool.result", "reused")]),
        1.0,
        "{pool:#?}"
    );
    assert_eq!(pool.total(&[("postern.pool.result", "failed")]), 1.0);
    let leaves = metric("postern.tls.leaf_cache")?;
    assert_eq!(leaves.total(&[("postern.cache.result", "miss")]), 3.0);
    assert!(leaves.total(&[("postern.cache.result", "hit")]) >= 1.0);
    assert_eq!(metric("postern.policy.generation")?.total(&[]), 1.0);
    assert_eq!(metric("postern.telemetry.dropped")?.total(&[]), 0.0);
    let server = metric("http.server.request.duration")?;
    let other = |point: &&Point| point.attributes["http.request.method"] == "_OTHER";
    assert_eq!(server.points.iter().filter(other).count(), 1);
    let client = metric("http.client.request.duration")?;
    let failed = [
        ("server.address", "rogue.test"),
        ("error.type", "upstream_tls"),
    ];
    assert!(client.total(&failed) > 0.0, "{client:#?}");

    let by_kernel = world.otlp.wait_for_log(SOON, |log| {
        log.name() == "egress.denied" && log.text("postern.deny.stage") == Some("kernel")
    })?;
    assert_eq!(by_kernel.severity(), "WARN");
    let of_it = |span: &Span| span.span_id() == by_kernel.span_id();
    assert_eq!(world.otlp.wait_for(SOON, of_it)?.name(), "egress.denied");
    let failed = world
        .otlp
        .wait_for_log(SOON, |log| log.name() == "egress.failed")?;
    assert_eq!(failed.text("error.type"), Some("upstream_tls"));
    world.otlp.wait_for_log(SOON, |log| {
        log.text("postern.deny.reason") == Some("request_not_allowed")
    })?;
    for key in world.keys.all() {
        assert_eq!(world.otlp.mock().seen().occurrences(key), 0);
    }
    Ok(())
}

#[test]
fn the_kernel_s_verdicts_are_counted_exactly_though_few_are_recorded() -> Result<()> {
    // More than may be recorded at once.
    const TRIES: u32 = 3000;
    let world = World::new()?;
    let script = format!(
        "import socket\n\
         for _ in range({TRIES}):\n    \
             with socket.socket() as s:\n        \
                 assert s.connect_ex(('203.0.113.9', 22)) == 1\n\
         socket.create_connection(('198.51.100.1', 443)).close()"
    );
    let done = world.exec(["python3", "-c", &script]).run()?;
    let verdicts = world.otlp.metric("postern.kernel.verdicts");
    let verdicts = verdicts.context("no verdicts")?;
    let refused = [
        ("postern.kernel.verdict", "refuse"),
        ("postern.deny.reason", "no_rule"),
    ];
    assert!(verdicts.total(&refused) >= f64::from(TRIES), "{done}");
    let tries = f64::from(TRIES);
    // The last connect is refused or redirected, as the policy says.
    assert!(verdicts.total(&refused) <= tries + 1.0, "{verdicts:#?}");
    let recorded = done.records("denied").len();
    // As `gateway_common::Allowance` has it.
    let rationed = 1000 + 200 * (usize::try_from(done.ended.elapsed.as_secs())? + 1);
    assert!(recorded > 100 && recorded <= rationed, "{recorded}");
    Ok(())
}

/// A log that the next line puts aside; the line that it has must not be seen.
fn full(path: &Path) -> Result<()> {
    // As `gateway/src/telemetry/audit/file.rs` has it.
    const FULL: u64 = 100 * 1024 * 1024;
    let mut file = File::create(path)?;
    writeln!(file, "{{\"event\":\"an old line\"}}")?;
    Ok(file.set_len(FULL)?)
}

fn recorded_in(world: &World, audit: &Path, script: &str) -> Result<String> {
    let command = ["sh", "-c", script];
    let ended = Exec::new(
        &world.path("policy"),
        audit.to_owned(),
        &world.path("work"),
        command,
    )
    .flag("--secrets", world.path("secrets"))
    .flag("--state-dir", world.path("state"))
    .command()?;
    let ended = Process::start(ended, b"")?.wait(Duration::from_secs(60))?;
    anyhow::ensure!(ended.code() == 0, "{ended:#?}");
    Ok(ended.out() + &ended.err())
}

#[test]
fn no_file_of_the_audit_log_is_ever_the_sandbox_s_to_read() -> Result<()> {
    let world = World::new()?;
    let script = |folder: &Path| {
        format!(
            "echo begun; for n in 1 2 3; do curl -sS --fail https://echo.test/secret-path; done; \
             cat {0}/* 2>/dev/null | tr -d '\\000' | head -c 100000; ls {0} 2>/dev/null; true",
            folder.display()
        )
    };
    // Its own folder: full, and put aside while the sandbox looks.
    let own = world.path("log");
    fs::create_dir(&own)?;
    let audit = own.join("audit.jsonl");
    full(&audit)?;
    let shown = recorded_in(&world, &audit, &script(&own))?;
    assert!(shown.contains("begun"), "{shown}");
    assert!(!shown.contains("audit.jsonl"), "{shown}");
    assert!(!shown.contains("\"event\""), "{shown}");
    let aside = own.join("audit.jsonl.1");
    assert!(fs::read(&aside)?.starts_with(b"{\"event\":\"an old line"));
    assert!(fs::read_to_string(&audit)?.contains("secret-path"));

    // Where the sandbox works it is not put aside, and hidden with what was put aside before.
    let work = world.path("work");
    let audit = work.join("audit.jsonl");
    full(&audit)?;
    fs::copy(&aside, work.join("audit.jsonl.1"))?;
    let shown = recorded_in(&world, &audit, &script(&work))?;
    assert!(shown.contains("begun"), "{shown}");
    assert!(!shown.contains("\"event\""), "{shown}");
    assert!(shown.contains("not rotated"), "{shown}");
    assert!(!work.join("audit.jsonl.2").exists());
    let written = fs::read(&audit)?;
    let wanted = b"secret-path";
    assert!(written.windows(wanted.len()).any(|at| at == wanted));
    Ok(())
}

#[test]
fn a_policy_that_is_not_taken_is_counted_and_logged() -> Result<()> {
    let world = World::new()?;
    let daemon = world.daemon(&[])?;
    let log = world
        .otlp
        .wait_for_log(SOON, |log| log.name() == "policy.reloaded")?;
    assert_eq!(log.severity(), "INFO");
    let mut broken = world.standard();
    broken.push("apiVersion: postern.dev/v1alpha1\nkind: Nonsense\n".to_owned());
    world.write_policy(&broken)?;
    let log = world
        .otlp
        .wait_for_log(SOON * 2, |log| log.name() == "policy.reload_failed")?;
    assert_eq!(log.severity(), "ERROR");
    assert!(log.to_json().to_string().contains("Nonsense"), "{log:?}");
    daemon.signal(Signal::SIGTERM)?;
    daemon.wait(SOON * 4)?;
    let failures = world.otlp.metric("postern.policy.reload.failures");
    assert!(failures.context("no metric")?.total(&[]) >= 1.0);
    Ok(())
}

#[test]
fn the_policy_can_ask_for_grpc() -> Result<()> {
    let world = World::new()?;
    let mut documents = world.standard();
    documents[0] = documents[0].replace("protocol: http/protobuf", "protocol: grpc");
    world.write_policy(&documents)?;
    world
        .curl(&["--fail", "-o", "/dev/null", "https://echo.test/grpc"])
        .succeed()?;
    world
        .otlp
        .wait_for(SOON, |span| span.text("url.path") == Some("/grpc"))?;
    let all = world.otlp.mock().seen().all();
    assert!(!all.is_empty());
    for request in all {
        assert_eq!(request.header("content-type"), ["application/grpc"]);
    }
    Ok(())
}

/// Runs `exec` with the environment variables of OpenTelemetry in the gateway's own environment.
fn by_environment(exec: &Exec, variables: &[(&str, &str)]) -> Result<Ended> {
    let mut command = exec.command()?;
    command.envs(variables.iter().copied());
    Process::start(command, b"")?.wait(Duration::from_secs(60))
}

/// A world whose policy names no collector.
fn without_a_collector() -> Result<World> {
    let world = World::new()?;
    world.write_policy(&world.documents(&Gateway {
        default: "deny-all",
        otlp: None,
        capture: 0,
    }))?;
    Ok(world)
}

#[test]
fn a_collector_is_spoken_to_by_http_and_grpc_in_the_clear_and_over_tls() -> Result<()> {
    let world = without_a_collector()?;
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let tls = world.ca.server(&["127.0.0.1"], Alpn::Both)?;
    for (protocol, tls) in [
        ("grpc", None),
        ("http/protobuf", Some(tls.clone())),
        ("grpc", Some(tls)),
    ] {
        let otlp = match tls {
            None => Otlp::start(&world.handle(), any)?,
            Some(config) => Otlp::start_tls(&world.handle(), any, config)?,
        };
        // It is overloaded at first, which costs nothing but time.
        otlp.be_unavailable(1);
        let endpoint = otlp.endpoint();
        let script = "curl -sS --fail -o /dev/null https://echo.test/one; sleep 4; \
                      curl -sS --fail -o /dev/null https://echo.test/two; \
                      curl -sS http://203.0.113.9:22/; true";
        let ended = by_environment(
            &world.exec(["sh", "-c", script]),
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b"),
            ],
        )?;
        assert_eq!(ended.code(), 0, "{ended:#?}");
        for path in ["/one", "/two"] {
            let found = otlp.wait_for(SOON, |span| span.text("url.path") == Some(path));
            found.with_context(|| format!("{protocol} {endpoint}: {}", ended.err()))?;
        }
        otlp.wait_for_log(SOON, |log| log.name() == "egress.denied")?;
        assert!(otlp.metric("postern.requests").is_some());
        for request in otlp.mock().seen().all() {
            assert_eq!(request.header("x-tenant"), ["a b"]);
        }
    }
    Ok(())
}

#[test]
fn a_collector_that_cannot_prove_who_it_is_is_told_nothing() -> Result<()> {
    let world = without_a_collector()?;
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let other = world.ca.server(&["other.test"], Alpn::Both)?;
    let otlp = Otlp::start_tls(&world.handle(), any, other)?;
    for protocol in ["http/protobuf", "grpc"] {
        let ended = by_environment(
            &world.curl(&["--fail", "https://echo.test/"]),
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &otlp.endpoint()),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ],
        )?;
        assert_eq!(ended.code(), 0, "{ended:#?}");
        assert!(ended.err().contains("collector"), "{}", ended.err());
    }
    assert!(otlp.mock().seen().all().is_empty());
    assert!(otlp.mock().seen().connections() > 0);
    Ok(())
}

#[test]
fn kill_9_loses_no_request_that_was_answered() -> Result<()> {
    let world = World::new()?;
    // curl says a URL when it has had the whole response; nothing of that waits in a buffer.
    let script = "curl -sS --parallel --parallel-max 8 -o /dev/null \
                  -w '%{stderr}%{http_code} %{url}\\n' \
                  'https://echo.test/n[1-200000]' 2>>answered";
    let running = world.exec(["sh", "-c", script]).start()?;
    let answered = || {
        let text = std::fs::read_to_string(world.work("answered")).unwrap_or_default();
        let lines = text.lines().map(str::to_owned);
        let seen =
            lines.filter_map(|line| Some(line.strip_prefix("200 https://echo.test")?.to_owned()));
        seen.collect::<Vec<String>>()
    };
    let begun = std::time::Instant::now();
    while answered().len() < 300 {
        let waited = begun.elapsed() < patient(Duration::from_secs(40));
        anyhow::ensure!(waited, "too slow: {} answers", answered().len());
        std::thread::sleep(Duration::from_millis(5));
    }
    running.process.signal(Signal::SIGKILL)?;
    let done = running.wait()?;
    assert_eq!(done.code(), 128 + 9);
    let recorded: HashSet<&str> = done
        .records("request")
        .iter()
        .filter_map(|record| record.0["path"].as_str())
        .collect();
    let answered = answered();
    // The last line may be cut, which then names another request.
    let lost: Vec<&String> = answered
        .iter()
        .rev()
        .skip(1)
        .filter(|path| !recorded.contains(path.as_str()))
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {}: {lost:?}",
        lost.len(),
        answered.len()
    );
    Ok(())
}
