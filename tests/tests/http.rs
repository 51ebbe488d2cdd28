//! HTTP as servers and clients really speak it goes through unharmed, and what a client says about
//! credentials does not.
#![allow(
    clippy::print_stdout,
    reason = "a measurement is shown with the test that made it"
)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::mock::echo::CHECKSUM;
use e2e::policy::Host;
use e2e::{World, digest, policy, postern};
use serde_json::Value;

#[test]
fn events_arrive_one_by_one() -> Result<()> {
    let world = World::new()?;
    for flag in ["--http1.1", "--http2"] {
        let done = world
            .curl(&["-N", flag, "https://echo.test/sse/5/300"])
            .succeed()?;
        let at: Vec<Duration> = done
            .ended
            .stdout
            .iter()
            .filter(|line| line.text.starts_with("data:"))
            .map(|line| line.at)
            .collect();
        assert_eq!(at.len(), 5, "{done}");
        for pair in at.windows(2) {
            let gap = pair[1] - pair[0];
            assert!(gap > Duration::from_millis(150), "{flag}: {at:?}");
            assert!(gap < Duration::from_millis(900), "{flag}: {at:?}");
        }
    }
    Ok(())
}

#[test]
fn a_long_upload_needs_no_more_memory_than_a_short_one() -> Result<()> {
    let world = World::new()?;
    let mib = if postern::is_release() { 1024 } else { 256 };
    let mut peaks = Vec::new();
    for (number, flag) in [(1, "--http1.1"), (mib, "--http1.1"), (mib, "--http2")] {
        let length = number * 1024 * 1024;
        std::fs::File::create(world.work("upload"))?.set_len(length)?;
        let running = world
            .curl(&[
                flag,
                "--max-time",
                "120",
                "-T",
                "upload",
                "https://echo.test/upload",
            ])
            .deadline(Duration::from_secs(150))
            .start()?;
        let pid = running.process.id()?;
        let (done, peak) = std::thread::scope(|scope| -> Result<_> {
            let (stop, stopped) = std::sync::mpsc::channel();
            let watch = scope.spawn(move || {
                let mut peak = 0;
                while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    peak = peak.max(peak_memory(pid.as_raw()).unwrap_or(0));
                    std::thread::sleep(Duration::from_millis(20));
                }
                peak
            });
            let done = running.wait()?;
            drop(stop);
            Ok((done, watch.join().unwrap_or(0)))
        })?;
        assert_eq!(done.code(), 0, "{done}");
        assert_eq!(done.json()?["body"]["length"], length, "{done}");
        println!(
            "{number} MiB, {flag}: peak {peak} KiB in {:?}",
            done.ended.elapsed
        );
        assert!(peak > 0, "the gateway's memory was never seen");
        peaks.push(peak);
    }
    // Buffers and the allocator's slack, but no part of the body's size.
    const SLACK: u64 = 32 * 1024;
    assert!(
        peaks[1] < peaks[0] + SLACK && peaks[2] < peaks[0] + SLACK,
        "{peaks:?} KiB"
    );
    Ok(())
}

/// VmHWM, in KiB.
fn peak_memory(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn a_long_download_arrives_whole() -> Result<()> {
    let world = World::new()?;
    for flag in ["--http1.1", "--http2"] {
        let fetch = format!("curl -s {flag} https://echo.test/bytes/50000000 | sha256sum");
        let done = world.exec(["sh", "-c", &fetch]).succeed()?;
        let pattern: Vec<u8> = (0..50_000_000).map(e2e::mock::body::pattern).collect();
        assert!(
            done.out().starts_with(&digest::sha256(&pattern)),
            "{flag}: {done}"
        );
    }
    Ok(())
}

#[test]
fn a_slow_reader_holds_the_writer_back() -> Result<()> {
    let world = World::new()?;
    // 400 MB at 2 MB/s: whoever buffers, shows.
    let running = world
        .exec([
            "curl",
            "-s",
            "--limit-rate",
            "2M",
            "--max-time",
            "4",
            "-o",
            "/dev/null",
            "https://echo.test/bytes/400000000",
        ])
        .start()?;
    let pid = running.process.id()?.as_raw();
    let begun = Instant::now();
    let mut peak = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        peak = peak.max(peak_memory(pid).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(50));
    }
    running.wait()?;
    println!("peak {peak} KiB");
    let small = world
        .curl(&["-o", "/dev/null", "https://echo.test/bytes/1"])
        .start()?;
    let pid = small.process.id()?.as_raw();
    let mut base = 0;
    while std::fs::metadata(format!("/proc/{pid}/exe")).is_ok() && base_is_growing(pid, &mut base) {
        std::thread::sleep(Duration::from_millis(20));
    }
    small.wait()?;
    assert!(peak < base + 64 * 1024, "{peak} KiB against {base} KiB");
    Ok(())
}

/// Notes the peak of `pid`; false once it has ended.
fn base_is_growing(pid: i32, base: &mut u64) -> bool {
    match peak_memory(pid) {
        Some(peak) => {
            *base = peak.max(*base);
            true
        }
        None => false,
    }
}

#[test]
fn trailers_pass() -> Result<()> {
    let world = World::new()?;
    for (flag, host) in each_pair() {
        let url = format!("https://{}/trailers", host.name);
        let done = world
            .curl(&["-i", flag, "-H", "TE: trailers", &url])
            .succeed()?;
        let trailer = format!("x-checksum: {CHECKSUM}");
        assert!(
            done.out().contains(&trailer),
            "{flag} to {}: {done}",
            host.name
        );
        assert!(done.out().contains("body, then trailers"), "{done}");
    }
    Ok(())
}

/// Each version on the sandbox's side with each on the upstream's.
fn each_pair() -> [(&'static str, Host); 4] {
    [
        ("--http1.1", policy::HTTP1),
        ("--http1.1", policy::HTTP2),
        ("--http2", policy::HTTP1),
        ("--http2", policy::HTTP2),
    ]
}

#[test]
fn each_side_speaks_its_own_version() -> Result<()> {
    let world = World::new()?;
    for (flag, host) in each_pair() {
        let url = format!("https://{}/a%20b?c=d&e", host.name);
        let done = world
            .curl(&[
                "-w",
                "\n%{http_version}",
                flag,
                "-d",
                "some body",
                "-H",
                "X-Two: 1",
                "-H",
                "x-two: 2",
                &url,
            ])
            .succeed()?;
        let out = done.out();
        let (told, version) = out.trim_end().rsplit_once('\n').context("no version")?;
        let told: Value = serde_json::from_str(told)?;
        assert_eq!(
            version,
            if flag == "--http2" { "2" } else { "1.1" },
            "{done}"
        );
        let upstream = if host.name == policy::HTTP2.name {
            "HTTP/2.0"
        } else {
            "HTTP/1.1"
        };
        assert_eq!(told["version"], upstream, "{done}");
        assert_eq!(told["path"], "/a%20b", "{done}");
        assert_eq!(told["query"], "c=d&e", "{done}");
        assert_eq!(told["authority"], host.name, "{done}");
        assert_eq!(told["server_name"], host.name, "{done}");
        assert_eq!(
            told["body"]["sha256"],
            digest::sha256(b"some body"),
            "{done}"
        );
        let headers = told["headers"].as_array().context("no headers")?;
        let two: Vec<&Value> = headers
            .iter()
            .filter(|header| header[0] == "x-two")
            .map(|header| &header[1])
            .collect();
        assert_eq!(two, ["1", "2"], "{done}");
        // The gateway does not say that it is there.
        let added = [
            "via",
            "forwarded",
            "x-forwarded-for",
            "x-envoy-external-address",
        ];
        assert!(
            !headers
                .iter()
                .any(|header| added.iter().any(|name| header[0] == *name)),
            "{done}"
        );
    }
    Ok(())
}

#[test]
fn a_client_that_waits_for_100_is_told_to_go_on_or_spared_the_body() -> Result<()> {
    let world = World::new()?;
    for host in ["h1.test", "h2.test"] {
        let url = format!("https://{host}/continue");
        let done = world
            .curl(&[
                "-v",
                "--http1.1",
                "--expect100-timeout",
                "20",
                "-H",
                "Expect: 100-continue",
                "-d",
                "hello",
                &url,
            ])
            .succeed()?;
        assert!(done.err().contains("HTTP/1.1 100"), "{done}");
        assert_eq!(done.json()?["body"]["length"], 5, "{done}");
        assert!(
            done.ended.elapsed < Duration::from_secs(15),
            "curl had to time out: {done}"
        );
    }
    let done = world
        .curl(&[
            "-v",
            "--http1.1",
            "--expect100-timeout",
            "20",
            "-H",
            "Expect: 100-continue",
            "-d",
            "hello",
            "https://h1.test/early",
        ])
        .run()?;
    assert!(done.err().contains("HTTP/1.1 413"), "{done}");
    assert!(!done.err().contains("HTTP/1.1 100"), "{done}");
    Ok(())
}

#[test]
fn an_answer_before_the_end_of_the_upload_arrives() -> Result<()> {
    let world = World::new()?;
    std::fs::File::create(world.work("upload"))?.set_len(20 << 20)?;
    for (flag, host) in each_pair() {
        let url = format!("https://{}/early", host.name);
        let done = world
            .curl(&[
                flag,
                "-H",
                "Expect:",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-T",
                "upload",
                &url,
            ])
            .run()?;
        assert_eq!(done.out().trim(), "413", "{flag} to {}: {done}", host.name);
    }
    Ok(())
}

#[test]
fn head_has_a_length_and_no_body() -> Result<()> {
    let world = World::new()?;
    for (flag, host) in each_pair() {
        let url = format!("https://{}/bytes/1000", host.name);
        let done = world.curl(&["--head", flag, &url]).succeed()?;
        assert!(
            done.out().to_lowercase().contains("content-length: 1000"),
            "{flag}: {done}"
        );
        let request = done.record("request", |_| true)?;
        assert_eq!(request.status(), Some(200));
    }
    Ok(())
}

#[test]
fn empty_answers_and_every_status_pass() -> Result<()> {
    let world = World::new()?;
    for status in [204, 301, 304, 401, 404, 418, 429, 500, 503] {
        let url = format!("https://echo.test/status/{status}");
        let done = world
            .curl(&["-o", "/dev/null", "-w", "%{http_code}", &url])
            .succeed()?;
        assert_eq!(done.out().trim(), status.to_string(), "{done}");
        assert_eq!(
            done.record("request", |_| true)?.status(),
            Some(status),
            "{done}"
        );
    }
    Ok(())
}

#[test]
fn a_body_that_breaks_off_upstream_breaks_off_here() -> Result<()> {
    let world = World::new()?;
    for (flag, host) in each_pair() {
        let url = format!("https://{}/cut", host.name);
        let done = world.curl(&[flag, &url]).run()?;
        assert_ne!(
            done.code(),
            0,
            "half an answer passed for a whole one: {done}"
        );
        assert!(
            done.ended.elapsed < Duration::from_secs(15),
            "a stall: {done}"
        );
    }
    Ok(())
}

#[test]
fn a_websocket_opens_echoes_and_closes() -> Result<()> {
    let world = World::new()?;
    for host in ["echo.test", "injected.test"] {
        let done = world
            .script("websocket.py", &[host, "X-Api-Key=mine"])?
            .succeed()?;
        let told = done.json_lines()?;
        assert_eq!(told.len(), 6, "{done}");
        assert!(!done.out().contains("false"), "{done}");
        assert_eq!(told[0]["status"], 101);
    }
    let seen = world.mocks.echo.seen().of("/ws");
    assert_eq!(seen[0].header("x-api-key"), ["mine"]);
    assert_eq!(seen[1].header("x-api-key"), [&world.keys.injected]);
    Ok(())
}

#[test]
fn whatever_the_client_says_the_real_credential_arrives_exactly_once() -> Result<()> {
    let world = World::new()?;
    let own: [&[&str]; 7] = [
        &[],
        &["x-api-key: mine"],
        &["x-api-key: mine", "x-api-key: mine too"],
        &["X-API-KEY: mine", "x-Api-Key: mine too"],
        &["x-api-key: mine", "Connection: x-api-key"],
        &[
            "Authorization: Basic bWluZQ==",
            "authorization: Bearer mine",
        ],
        &["x-api-key;", "Connection: close, Authorization"],
    ];
    for flag in ["--http1.1", "--http2"] {
        for headers in own {
            let mut arguments = vec![flag, "--fail", "-o", "/dev/null"];
            for header in headers {
                arguments.extend(["-H", header]);
            }
            let path = "https://injected.test/once";
            arguments.push(path);
            world.curl(&arguments).succeed()?;
        }
    }
    let all = world.mocks.echo.seen().of("/once");
    assert_eq!(all.len(), 14);
    for seen in all {
        let bearer = format!("Bearer {}", world.keys.injected);
        assert_eq!(
            seen.header("x-api-key"),
            [&world.keys.injected],
            "{seen:#?}"
        );
        assert_eq!(seen.header("authorization"), [bearer.as_str()], "{seen:#?}");
        assert_eq!(seen.occurrences("mine"), 0, "{seen:#?}");
        assert_eq!(seen.occurrences("bWluZQ=="), 0, "{seen:#?}");
    }
    Ok(())
}

#[test]
fn headers_that_connection_names_stay_on_their_hop() -> Result<()> {
    let world = World::new()?;
    let done = world
        .curl(&[
            "--http1.1",
            "-H",
            "Connection: x-hop, keep-alive",
            "-H",
            "X-Hop: 1",
            "-H",
            "Keep-Alive: 5",
            "-H",
            "Proxy-Authorization: Basic eA==",
            "-H",
            "X-End: 2",
            "https://echo.test/hops",
        ])
        .succeed()?;
    let seen = world
        .mocks
        .echo
        .seen()
        .of("/hops")
        .pop()
        .context("nothing arrived")?;
    assert!(seen.header("x-hop").is_empty(), "{done}");
    assert!(seen.header("keep-alive").is_empty(), "{done}");
    assert!(seen.header("proxy-authorization").is_empty(), "{done}");
    assert_eq!(seen.header("x-end"), ["2"], "{done}");
    Ok(())
}

#[test]
fn an_authority_that_is_not_the_server_name_is_misdirected() -> Result<()> {
    let world = World::new()?;
    for host in [
        "wiki.local",
        "foreign.test",
        "injected.test",
        "echo.test.foreign.test",
    ] {
        let header = format!("Host: {host}");
        for flag in ["--http1.1", "--http2"] {
            let done = world
                .curl(&[
                    flag,
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    "-H",
                    &header,
                    "https://echo.test/fronted",
                ])
                .run()?;
            assert_eq!(done.out().trim(), "421", "{flag}, {host}: {done}");
            let denied = done.record("denied", |_| true)?;
            assert_eq!(denied.stage(), "http", "{}", denied.0);
        }
    }
    assert!(world.mocks.echo.seen().of("/fronted").is_empty());
    assert!(world.mocks.wiki.seen().all().is_empty());
    // One and the same name, however it is written.
    for host in ["echo.test:443", "ECHO.test", "echo.test."] {
        let header = format!("Host: {host}");
        let done = world
            .curl(&[
                "--http1.1",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-H",
                &header,
                "https://echo.test/same",
            ])
            .succeed()?;
        assert_eq!(done.out().trim(), "200", "{host}: {done}");
    }
    Ok(())
}

#[test]
fn a_missing_secret_is_503_and_nothing_goes_upstream() -> Result<()> {
    let world = World::new()?;
    let done = world
        .curl(&["-i", "https://missing.test/missing"])
        .succeed()?;
    let answer = done.out().to_lowercase();
    assert!(
        answer
            .lines()
            .next()
            .is_some_and(|line| line.contains(" 503")),
        "{done}"
    );
    assert!(answer.contains("application/problem+json"), "{done}");
    assert!(world.mocks.echo.seen().of("/missing").is_empty());
    let denied = done.record("denied", |_| true)?;
    assert_eq!(denied.host(), "missing.test");
    assert!(denied.reason().contains("secret"), "{}", denied.0);
    Ok(())
}

#[test]
fn trace_is_refused_where_it_would_tell_the_credential() -> Result<()> {
    let world = World::new()?;
    for flag in ["--http1.1", "--http2"] {
        let done = world
            .curl(&[
                flag,
                "-X",
                "TRACE",
                "-w",
                "\n%{http_code}",
                "https://injected.test/trace",
            ])
            .run()?;
        let out = done.out();
        let status = out.trim_end().lines().last().unwrap_or_default();
        assert!(["403", "405", "501"].contains(&status), "{done}");
        assert!(!out.contains(&world.keys.injected), "{done}");
        assert!(!done.records("denied").is_empty(), "{done}");
    }
    assert!(world.mocks.echo.seen().of("/trace").is_empty());
    Ok(())
}

#[test]
fn a_path_outside_the_route_s_endpoints_is_403_and_carries_no_key() -> Result<()> {
    let world = World::new()?;
    for path in [
        "/v1/files",
        "/v1/messages/../files",
        "/v1/messages%2f..%2ffiles",
        "/",
    ] {
        let url = format!("https://api.anthropic.com{path}");
        let done = world
            .curl(&[
                "--path-as-is",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-d",
                "{}",
                &url,
            ])
            .run()?;
        let status = done.out().trim().to_owned();
        assert!(["403", "400"].contains(&status.as_str()), "{path}: {done}");
        assert!(!done.records("denied").is_empty(), "{done}");
    }
    assert!(world.mocks.anthropic.seen().all().is_empty());
    Ok(())
}

#[test]
fn plain_http_passes_where_a_rule_names_its_port_and_never_with_a_credential() -> Result<()> {
    let world = World::new()?;
    let done = world.curl(&["http://echo.test/plain"]).succeed()?;
    assert_eq!(done.json()?["path"], "/plain");
    let request = done.record("request", |_| true)?;
    assert_eq!((request.host(), request.status()), ("echo.test", Some(200)));
    let done = world
        .curl(&[
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "http://injected.test/plain",
        ])
        .run()?;
    assert_eq!(done.out().trim(), "403", "{done}");
    let seen = world.mocks.plain.seen();
    assert_eq!(seen.of("/plain").len(), 1);
    assert_eq!(seen.occurrences(&world.keys.injected), 0);
    Ok(())
}

#[test]
fn an_upstream_that_is_away_is_502_and_on_record() -> Result<()> {
    let mut world = World::new()?;
    world.mocks.http1 = e2e::mock::Mock::start(
        &world.handle(),
        "127.0.0.7:8443".parse()?,
        None,
        e2e::mock::echo::Echo,
    )?;
    let done = world
        .curl(&[
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "https://h1.test/away",
        ])
        .succeed()?;
    assert_eq!(done.out().trim(), "502", "{done}");
    assert_eq!(
        done.record("request", |_| true)?.status(),
        Some(502),
        "{done}"
    );
    Ok(())
}
