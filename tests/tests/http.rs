//! HTTP as servers and clients really speak it goes through unharmed, in either version on either
//! side.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::mock::echo::CHECKSUM;
use e2e::policy::Host;
use e2e::process::patient;
use e2e::{World, digest, policy};
use serde_json::Value;

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

/// How long curl waits for "100 Continue", in seconds: longer than anything else here takes.
fn curl_waits() -> String {
    patient(Duration::from_secs(20)).as_secs().to_string()
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
fn a_client_that_waits_for_100_is_told_to_go_on() -> Result<()> {
    let world = World::new()?;
    for host in ["h1.test", "h2.test"] {
        let url = format!("https://{host}/continue");
        let done = world
            .curl(&[
                "-v",
                "--http1.1",
                "--expect100-timeout",
                &curl_waits(),
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
            done.ended.elapsed < patient(Duration::from_secs(15)),
            "curl had to time out: {done}"
        );
    }
    Ok(())
}

#[test]
fn a_client_that_waits_for_100_is_spared_the_body_that_nobody_wants() -> Result<()> {
    let world = World::new()?;
    let done = world
        .curl(&[
            "-v",
            "--http1.1",
            "--expect100-timeout",
            &curl_waits(),
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
fn a_long_answer_before_the_end_of_the_upload_arrives_whole_and_is_no_error_of_the_protocol()
-> Result<()> {
    let world = World::new()?;
    std::fs::File::create(world.work("upload"))?.set_len(20 << 20)?;
    for length in ["5000", "40000"] {
        for _ in 0..5 {
            let url = format!("https://echo.test/early/{length}");
            let shown = "%{http_code} %{size_download}";
            let told = ["-o", "/dev/null", "-w", shown];
            let sent = ["--http2", "-H", "Expect:", "--data-binary", "@upload", &url];
            let done = world.curl(&[&told[..], &sent].concat()).succeed()?;
            assert_eq!(done.out().trim(), format!("413 {length}"), "{done}");
        }
    }
    Ok(())
}

#[test]
fn a_refusal_before_the_end_of_the_upload_arrives_and_is_no_error_of_the_protocol() -> Result<()> {
    let world = World::new()?;
    std::fs::File::create(world.work("upload"))?.set_len(20 << 20)?;
    for flag in ["--http2", "--http1.1"] {
        for _ in 0..5 {
            let done = world
                .curl(&[
                    flag,
                    "-H",
                    "Expect:",
                    "--data-binary",
                    "@upload",
                    "https://api.anthropic.com/v1/files",
                ])
                .succeed()?;
            assert_eq!(done.json()?["reason"], "request_not_allowed", "{done}");
        }
    }
    Ok(())
}

#[test]
fn who_is_refused_over_http2_may_still_send_a_short_body() -> Result<()> {
    let world = World::new()?;
    let url = "https://api.anthropic.com/v1/files";
    let done = world.script("late_body.mjs", &[url])?.succeed()?;
    let told = done.json()?;
    assert_eq!(told["reason"], "request_not_allowed", "{done}");
    assert_eq!(told["open"], true, "{done}");
    Ok(())
}

#[test]
fn who_takes_no_refusal_does_not_keep_its_connection() -> Result<()> {
    let world = World::new()?;
    let mut documents = world.standard();
    documents[0] += "  limits: {idleTimeout: 1s}\n";
    world.write_policy(&documents)?;
    let limit = patient(Duration::from_secs(15)).as_secs().to_string();
    let url = "https://api.anthropic.com/v1/files";
    let done = world.script("no_window.mjs", &[url, &limit])?.succeed()?;
    let told = done.json()?;
    assert_eq!(told["status"], 403, "{done}");
    assert_eq!(told["closed"], true, "{done}");
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
fn a_range_comes_as_a_part() -> Result<()> {
    let world = World::new()?;
    for (flag, host) in each_pair() {
        let url = format!("https://{}/part/1000", host.name);
        for (range, status, told) in [
            ("0-0", "206", "content-range: bytes 0-0/1000"),
            ("10-109", "206", "content-range: bytes 10-109/1000"),
            ("900-1000", "416", "content-range: bytes */1000"),
        ] {
            let done = world.curl(&["-i", flag, "-r", range, &url]).succeed()?;
            let out = done.out().to_ascii_lowercase();
            assert!(out.contains(&format!(" {status}")), "{flag}: {done}");
            assert!(out.contains(told), "{flag}: {done}");
            let record = done.record("request", |_| true)?;
            let bytes = match range {
                "0-0" => 1,
                "10-109" => 100,
                _ => continue,
            };
            assert_eq!(record.0["bytes_down"], bytes, "{done}");
        }
    }
    Ok(())
}

#[test]
fn a_long_head_of_an_answer_passes_up_to_one_limit_for_both_versions() -> Result<()> {
    let world = World::new()?;
    for (flag, host) in each_pair() {
        let url = format!("https://{}/head/40", host.name);
        let done = world.curl(&["-i", flag, &url]).succeed()?;
        assert!(done.out().contains("x-long-39: xxx"), "{flag}: {done}");
        assert!(done.out().contains("after a long head"), "{flag}: {done}");
        let url = format!("https://{}/head/140", host.name);
        let done = world.curl(&["-w", "\n=%{http_code}", flag, &url]).run()?;
        assert!(done.out().contains("\n=502"), "{flag}: {done}");
        let record = done.record("request", |_| true)?;
        assert_eq!(record.0["error"], "upstream_http", "{flag}: {done}");
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
        // Who hears of the answer and of its end in one breath has nothing to pass on.
        assert!(
            done.code() != 0 || done.out().contains("upstream_http"),
            "half an answer passed for a whole one: {done}"
        );
        assert!(
            done.ended.elapsed < patient(Duration::from_secs(15)),
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
fn an_upstream_that_is_away_is_502_and_on_record() -> Result<()> {
    let mut world = World::new()?;
    world.mocks.http1 = e2e::mock::Mock::start(
        &world.handle(),
        "127.0.0.7:8443".parse()?,
        None,
        e2e::mock::echo::Echo,
    )?;
    let done = world.curl(&["https://h1.test/away"]).succeed()?;
    assert_eq!(done.json()?["status"], 502, "{done}");
    let record = done.record("request", |_| true)?;
    assert_eq!(record.status(), Some(502), "{done}");
    // Where it was sought is for the records alone.
    assert!(!done.out().contains("127.0.0.7"), "{done}");
    let detail = record.0["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("127.0.0.7"), "{detail}");
    Ok(())
}

#[test]
fn a_connection_that_was_idle_for_a_while_is_asked_again() -> Result<()> {
    let world = World::new()?;
    let url = format!("https://{}/?at=[1-3]", policy::HTTP1.name);
    let done = world
        .curl(&[
            "--http1.1",
            // One in three seconds.
            "--rate",
            "20/m",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{num_connects}\n",
            &url,
        ])
        .succeed()?;
    assert_eq!(done.out(), "200 1\n200 0\n200 0\n", "{done}");
    Ok(())
}
