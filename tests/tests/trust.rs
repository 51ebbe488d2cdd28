//! The sandbox trusts the gateway and the public roots, however its programs look for them; the
//! gateway trusts what the policy says and nobody else.

use anyhow::{Context, Result};
use e2e::World;

const URL: &str = "https://echo.test/trust";

#[test]
fn clients_that_read_no_variable_trust_the_bound_bundle() -> Result<()> {
    let world = World::new()?;
    let python = e2e::world::python()?.display().to_string();
    let program = format!("import urllib.request; print(urllib.request.urlopen('{URL}').status)");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("PATH={path}");
    for command in [
        vec!["env", "-i", &path, "curl", "-s", "--fail", URL],
        vec!["env", "-i", &path, &python, "-I", "-c", &program],
        vec![
            "env",
            "-i",
            &path,
            "git",
            "ls-remote",
            "https://git.test/repo.git",
        ],
    ] {
        world.exec(command).succeed()?;
    }
    Ok(())
}

#[test]
fn openssl_verifies_the_leaf_for_the_name_it_asked() -> Result<()> {
    let world = World::new()?;
    let script = "openssl s_client -connect echo.test:443 -servername echo.test \
                  -verify_hostname echo.test -verify_return_error -brief </dev/null 2>&1";
    let done = world
        .exec(["env", "-i", "PATH=/usr/bin:/bin", "sh", "-c", script])
        .succeed()?;
    assert!(done.out().contains("Verification: OK"), "{done}");
    assert!(
        done.out().contains("Verified peername: echo.test"),
        "{done}"
    );
    Ok(())
}

#[test]
fn clients_that_carry_roots_of_their_own_find_the_variable() -> Result<()> {
    let world = World::new()?;
    // requests and httpx bring certifi, Node its own list: the variables lead them.
    for library in ["requests", "httpx"] {
        world.script("get.py", &[library, URL])?.succeed()?;
    }
    world.script("fetch.mjs", &[URL])?.succeed()?;
    Ok(())
}

#[test]
fn every_variable_names_a_bundle_with_the_gateway_s_authority_in_it() -> Result<()> {
    let world = World::new()?;
    let bundles = [
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "PIP_CERT",
        "CARGO_HTTP_CAINFO",
        "AWS_CA_BUNDLE",
        "DENO_CERT",
        "NIX_SSL_CERT_FILE",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    ];
    let script = "for name in \"$@\"; do eval file=\\$$name; printf '%s %s\\n' $name $(grep -c BEGIN \"$file\"); done; \
                  printf 'NODE_EXTRA_CA_CERTS %s\\n' $(grep -c BEGIN \"$NODE_EXTRA_CA_CERTS\")";
    let mut command = vec!["sh", "-c", script, "sh"];
    command.extend(bundles);
    let done = world.exec(command).succeed()?;
    for line in &done.ended.stdout {
        let (name, count) = line.text.split_once(' ').context("no count")?;
        let count: usize = count.parse().unwrap_or(0);
        // Combined: the public roots and ours. Node adds to its own roots, so it gets ours alone.
        let enough = if name == "NODE_EXTRA_CA_CERTS" {
            count == 1
        } else {
            count > 50
        };
        assert!(enough, "{name} has {count} certificates: {done}");
    }
    assert_eq!(done.ended.stdout.len(), bundles.len() + 1, "{done}");
    Ok(())
}

#[test]
fn the_exported_authority_is_the_one_that_signed_the_leaf() -> Result<()> {
    let world = World::new()?;
    let script = "openssl s_client -connect echo.test:443 -servername echo.test -showcerts </dev/null 2>/dev/null | openssl x509 > leaf.pem; \
                  cat \"$NODE_EXTRA_CA_CERTS\"";
    let inside = world.exec(["sh", "-c", script]).succeed()?;
    let exported = std::fs::read_to_string(world.gateway_ca()?)?;
    assert_eq!(exported.trim(), inside.out().trim());
    assert!(!exported.contains("PRIVATE"));
    let mut verify = std::process::Command::new("openssl");
    verify
        .args([
            "verify",
            "-CAfile",
            "gateway-ca.pem",
            "-verify_hostname",
            "echo.test",
            "leaf.pem",
        ])
        .current_dir(world.path("work"));
    let output = verify.output()?;
    assert!(output.status.success(), "{output:?}");
    Ok(())
}

#[test]
fn the_authority_stays_the_same_from_run_to_run() -> Result<()> {
    let world = World::new()?;
    let ask = || {
        world
            .exec(["sh", "-c", "cat \"$NODE_EXTRA_CA_CERTS\""])
            .succeed()
    };
    let first = ask()?.out();
    assert!(first.contains("BEGIN CERTIFICATE"));
    assert_eq!(first, ask()?.out());
    Ok(())
}

#[test]
fn an_upstream_that_nobody_vouches_for_is_refused_with_502() -> Result<()> {
    let world = World::new()?;
    for host in ["rogue.test", "misnamed.test"] {
        let url = format!("https://{host}/");
        let done = world.curl(&["-i", &url]).succeed()?;
        let answer = done.out().to_lowercase();
        assert!(
            answer
                .lines()
                .next()
                .is_some_and(|line| line.contains(" 502")),
            "{done}"
        );
        assert!(answer.contains("application/problem+json"), "{done}");
        let request = done.record("request", |_| true)?;
        assert_eq!(
            (request.host(), request.status()),
            (host, Some(502)),
            "{done}"
        );
    }
    assert!(world.mocks.rogue.seen().all().is_empty());
    assert!(world.mocks.misnamed.seen().all().is_empty());
    Ok(())
}

#[test]
fn the_public_roots_are_still_in_the_sandbox_s_bundle() -> Result<()> {
    let world = World::new()?;
    let count = "awk '/BEGIN/' /etc/ssl/certs/ca-certificates.crt | wc -l";
    let inside = world.exec(["sh", "-c", count]).succeed()?;
    let outside = std::process::Command::new("sh")
        .args(["-c", count])
        .output()?;
    let number = |text: &str| text.trim().parse::<usize>();
    let outside = number(&String::from_utf8(outside.stdout)?)?;
    assert_eq!(number(&inside.out())?, outside + 1, "{inside}");
    Ok(())
}
