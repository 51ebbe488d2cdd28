//! The policies that the repository shows to people must load.

use std::sync::Arc;

use http::HeaderMap;

use super::{folder, report, workspace};
use crate::policy::{
    Class, Denial, Destination, Gateway, Host, RequestFacts, RequestPermit, Severity, compile,
};

#[test]
fn every_example_policy_is_accepted() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(workspace().join("policies")).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let files = folder(&path);
        let compiled = compile(&files);
        assert!(
            compiled.policy.is_some(),
            "{name}:\n{}",
            report(&compiled, &files)
        );
        // The worked example holds a placeholder for its key, and is told so; the others are flawless.
        let warnings: Vec<_> = compiled
            .diagnostics
            .iter()
            .map(|diagnostic| (diagnostic.severity(), diagnostic.message()))
            .collect();
        if name == "worked-example" {
            let placeholder = "the value of `api-key` is a placeholder";
            assert_eq!(warnings, [(Severity::Warning, placeholder)]);
        } else {
            assert_eq!(warnings, [], "{name}");
        }
        names.push(name);
    }
    names.sort();
    assert_eq!(
        names,
        [
            "anthropic",
            "internal-wiki",
            "locked-down",
            "openai",
            "worked-example"
        ]
    );
}

fn example(name: &str) -> Arc<Gateway> {
    let compiled = compile(&folder(&workspace().join("policies").join(name)));
    let gateways = compiled.policy.unwrap().gateways;
    gateways.into_values().next().unwrap()
}

/// The decision on a request over TLS to port 443.
fn request(gateway: &Gateway, host: &str, path: &str) -> Result<RequestPermit, Denial> {
    let host = &Host::parse(host).unwrap();
    let permit = gateway.authorize(&Destination {
        address: "203.0.113.1:443".parse().unwrap(),
        host: Some(host),
        listener: gateway.listener(Class::Tls, 443).unwrap(),
    })?;
    let facts = RequestFacts {
        host: Some(host),
        port: 443,
        method: "POST",
        path,
        headers: &HeaderMap::new(),
        model: None,
        tls: true,
    };
    gateway.authorize_request(&permit, &facts)
}

/// The header that is set and the secret it comes from.
fn injected(permit: &RequestPermit) -> Option<(String, String)> {
    let injection = permit.injections().first()?;
    let secret = *injection.secret_refs().first()?;
    Some((injection.headers().first()?.to_string(), secret.to_string()))
}

#[test]
fn the_worked_example_does_what_its_page_says() {
    let gateway = example("worked-example");
    let capture = gateway
        .otlp
        .as_ref()
        .unwrap()
        .capture_body
        .as_ref()
        .unwrap();
    assert_eq!(capture.max_bytes, 65536);
    let key = (
        "x-api-key".to_owned(),
        "anthropic-credentials/api-key".to_owned(),
    );
    for path in ["/v1/messages", "/v1/complete"] {
        let permit = request(&gateway, "api.anthropic.com", path).unwrap();
        assert_eq!(injected(&permit), Some(key.clone()), "{path}");
    }
    for (host, path) in [
        ("api.anthropic.com", "/v1/models"),
        ("other.example", "/v1/messages"),
    ] {
        let permit = request(&gateway, host, path).unwrap();
        assert_eq!(injected(&permit), None, "{host}{path}");
    }
}

#[test]
fn the_safe_examples_allow_what_they_name_and_no_more() {
    let anthropic = example("anthropic");
    assert!(request(&anthropic, "api.anthropic.com", "/v1/messages").is_ok());
    let denied = request(&anthropic, "api.anthropic.com", "/v1/files");
    assert_eq!(denied.unwrap_err(), Denial::RequestNotAllowed);
    let denied = request(&anthropic, "evil.example", "/v1/messages");
    assert_eq!(denied.unwrap_err(), Denial::NoRule);
    let openai = example("openai");
    let permit = request(&openai, "api.openai.com", "/v1/chat/completions").unwrap();
    let (header, secret) = injected(&permit).unwrap();
    assert_eq!(
        (header.as_str(), secret.as_str()),
        ("authorization", "openai-credentials/token")
    );
    let locked_down = example("locked-down");
    for (host, allowed) in [
        ("index.crates.io", true),
        ("crates.io", false),
        ("github.com", true),
    ] {
        assert_eq!(request(&locked_down, host, "/").is_ok(), allowed, "{host}");
    }
}
