//! Whatever a client says about credentials and names, the real credential goes to the host that
//! the policy means, exactly once, and nowhere else.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::world::random;
use e2e::{World, policy};

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
fn a_template_joins_several_secrets_and_needs_each_of_them() -> Result<()> {
    let world = World::new()?;
    let mut documents = world.standard();
    let joined = [
        (
            "Authorization",
            "Basic {{ base64 pair.user ':' pair.password }}",
        ),
        ("X-Both", "{{ pair.user }}/{{ pair.password }}"),
    ];
    documents.push(policy::proxy_rule("pair", policy::ECHO.name, &joined));
    world.write_policy(&documents)?;
    let [user, password] = [random("user-")?, random("p%ss w:rd\"-")?];
    let ask = ["-i", "https://echo.test/joined"];
    for key in [None, Some(("user", &user))] {
        if let Some((key, value)) = key {
            world.secret("pair", key, value)?;
        }
        let done = world.curl(&ask).succeed()?;
        assert!(done.out().contains(" 503"), "{done}");
        assert_eq!(done.records("denied").len(), 1, "{done}");
        assert!(world.mocks.echo.seen().of("/joined").is_empty());
    }
    world.secret("pair", "password", &password)?;
    let done = world.curl(&ask).succeed()?;
    let all = world.mocks.echo.seen().of("/joined");
    assert_eq!(all.len(), 1, "{done}");
    let basic = STANDARD.encode(format!("{user}:{password}"));
    assert_eq!(all[0].header("authorization"), [&format!("Basic {basic}")]);
    assert_eq!(all[0].header("x-both"), [&format!("{user}/{password}")]);
    // The server says what it saw.
    let out = done.out();
    assert!(out.contains("[redacted]"), "{done}");
    for secret in [&basic, &password, &password.replace('"', "\\\"")] {
        assert!(!out.contains(secret.as_str()), "{done}");
    }
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
fn no_header_makes_it_another_request_where_a_credential_is_injected() -> Result<()> {
    let world = World::new()?;
    for (header, url) in [
        ("X-HTTP-Method-Override: TRACE", "https://injected.test/one"),
        ("x_http_method: DELETE", "https://injected.test/one"),
        (
            "X-Original-URL: /v1/files",
            "https://api.anthropic.com/v1/messages",
        ),
    ] {
        let done = world.curl(&["-d", "{}", "-H", header, url]).succeed()?;
        let told = done.json()?;
        assert_eq!(told["reason"], "override_header", "{done}");
        let name = header.split(':').next().unwrap_or_default().to_lowercase();
        let detail = told["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(&name), "{detail}");
        let record = done.record("denied", |_| true)?;
        assert_eq!(record.0["detail"], told["detail"], "{done}");
    }
    assert!(world.mocks.echo.seen().of("/one").is_empty());
    assert!(world.mocks.anthropic.seen().all().is_empty());
    // Elsewhere it is the upstream's to read.
    let open = [
        "-H",
        "X-HTTP-Method-Override: DELETE",
        "https://echo.test/open",
    ];
    assert_eq!(world.curl(&open).succeed()?.json()?["path"], "/open");
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
        let (status, done) = world.status(&["--path-as-is", "-d", "{}", &url])?;
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
    let (status, done) = world.status(&["http://injected.test/plain"])?;
    assert_eq!(status, "403", "{done}");
    let seen = world.mocks.plain.seen();
    assert_eq!(seen.of("/plain").len(), 1);
    assert_eq!(seen.occurrences(&world.keys.injected), 0);
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
            let (status, done) =
                world.status(&[flag, "-H", &header, "https://echo.test/fronted"])?;
            assert_eq!(status, "421", "{flag}, {host}: {done}");
            let denied = done.record("denied", |_| true)?;
            assert_eq!(denied.stage(), "http", "{}", denied.0);
        }
    }
    assert!(world.mocks.echo.seen().of("/fronted").is_empty());
    assert!(world.mocks.wiki.seen().all().is_empty());
    // One and the same name, however it is written.
    for host in ["echo.test:443", "ECHO.test", "echo.test."] {
        let header = format!("Host: {host}");
        let (status, done) =
            world.status(&["--http1.1", "-H", &header, "https://echo.test/same"])?;
        assert_eq!(status, "200", "{host}: {done}");
    }
    Ok(())
}
