//! `EgressHTTPRoute`: a host that it names is refused outside its rules, and it allows nothing by itself.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    AI, Class, Denial, HTTP, KEY, L4, PROXY, RequestFacts, connect, gateway, headers, host, request,
};
use crate::policy::{Gateway, RequestPermit};

const GITHUB_L4: (&str, &str, &str) = (
    L4,
    "github-l4",
    "rules: [{matches: [{destinationHostnames: ['*.github.com'], ports: [{port: 443}]}]}]",
);
const GITHUB: (&str, &str, &str) = (
    HTTP,
    "github",
    "hostnames: [api.github.com]\n  rules:\n  - matches: [{methods: [GET, HEAD], path: {type: PathPrefix, value: /repos/acme/}}]\n  - matches: [{path: {type: Exact, value: /user}}, {methods: [POST], path: {type: Glob, value: '/repos/*/dispatches'}, headers: [{name: X-Mode, value: dry}]}]",
);
const GITHUB_KEY: (&str, &str, &str) = (
    KEY,
    "github-key",
    "parentRefs: [{kind: EgressHTTPRoute, name: github}]\n  secretRef: {name: s}\n  headerName: Authorization\n  valueTemplate: 'Bearer {{ value }}'",
);

/// As [`request`], with headers.
fn with_headers(
    gateway: &Gateway,
    method: &str,
    path: &str,
    sent: &[(&'static str, &'static str)],
) -> Result<RequestPermit, Denial> {
    let permit = connect(
        gateway,
        Class::Tls,
        "203.0.113.1:443",
        Some("api.github.com"),
    )?;
    let mut map = HeaderMap::new();
    for (name, value) in sent {
        map.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    let facts = RequestFacts {
        host: Some(&host("api.github.com")),
        port: 443,
        method,
        path,
        headers: &map,
        model: None,
        tls: true,
    };
    gateway.authorize_request(&permit, &facts)
}

#[test]
fn a_host_that_is_named_is_refused_outside_its_rules() {
    let open = gateway("allow-all", &[GITHUB]);
    let listed = gateway("deny-all", &[GITHUB_L4, GITHUB]);
    for gateway in [&open, &listed] {
        for (method, path, rule) in [
            ("GET", "/repos/acme", Some(1)),
            ("HEAD", "/repos/acme/issues/1", Some(1)),
            ("GET", "/repos/acmex", None),
            ("POST", "/repos/acme", None),
            ("GET", "/repos/acme/../other", None),
            ("DELETE", "/user", Some(2)),
            ("DELETE", "/user/", None),
            ("GET", "/", None),
        ] {
            let answer = request(gateway, "api.github.com", method, path);
            match rule {
                Some(rule) => {
                    let permit = answer.unwrap();
                    assert_eq!(&**permit.rule(), format!("EgressHTTPRoute/github#{rule}"));
                    assert!(permit.injections().is_empty());
                }
                None => assert_eq!(
                    answer.unwrap_err(),
                    Denial::RequestNotAllowed,
                    "{method} {path}"
                ),
            }
        }
        // Hosts that it does not name are none of its business.
        assert!(request(gateway, "uploads.github.com", "DELETE", "/x").is_ok());
    }
}

#[test]
fn it_allows_no_connection_by_itself() {
    let gateway = gateway("deny-all", &[GITHUB]);
    let denied = connect(
        &gateway,
        Class::Tls,
        "203.0.113.1:443",
        Some("api.github.com"),
    );
    assert_eq!(denied.unwrap_err(), Denial::NoRule);
    assert!(gateway.kernel_rules().is_empty());
    assert_eq!(gateway.resolves(&host("api.github.com")), None);
}

#[test]
fn a_header_must_be_there_with_that_value_and_no_other() {
    let gateway = gateway("allow-all", &[GITHUB]);
    let dispatch = |sent: &[(&'static str, &'static str)]| {
        with_headers(&gateway, "POST", "/repos/acme/dispatches", sent).is_ok()
    };
    assert!(dispatch(&[("x-mode", "dry")]));
    assert!(dispatch(&[
        ("x-mode", "dry"),
        ("x-mode", "dry"),
        ("x-other", "wet")
    ]));
    assert!(!dispatch(&[]));
    assert!(!dispatch(&[("x-mode", "wet")]));
    assert!(!dispatch(&[("x-mode", "dry"), ("x-mode", "wet")]));
    assert!(!dispatch(&[("x-mode", "dry, wet")]));
}

#[test]
fn where_requests_are_not_read_its_hosts_are_refused() {
    let gateway = gateway("allow-all", &[GITHUB]);
    // 8443 is passed through, and opaque TCP is nobody's request.
    for (class, port) in [(Class::Tls, 8443), (Class::Tcp, 443)] {
        let address = format!("203.0.113.1:{port}");
        let denied = connect(&gateway, class, &address, Some("api.github.com"));
        assert_eq!(denied.unwrap_err(), Denial::RequestNotAllowed, "{class:?}");
        assert!(connect(&gateway, class, &address, Some("uploads.github.com")).is_ok());
    }
}

#[test]
fn an_address_is_no_way_around_it() {
    let block = (
        L4,
        "block",
        "rules: [{matches: [{destinationCIDRs: [203.0.113.0/24]}]}]",
    );
    let gateway = gateway("deny-all", &[block, GITHUB, GITHUB_KEY]);
    for name in [None, Some("api.github.com")] {
        let permit = connect(&gateway, Class::Tls, "203.0.113.1:443", name).unwrap();
        for (path, allowed) in [("/user", true), ("/other", false)] {
            let facts = RequestFacts {
                host: Some(&host("api.github.com")),
                port: 443,
                method: "GET",
                path,
                headers: &HeaderMap::new(),
                model: None,
                tls: true,
            };
            let answer = gateway.authorize_request(&permit, &facts);
            assert_eq!(answer.is_ok(), allowed, "{path}");
            // Nor is a credential sent where an address leads.
            assert!(answer.is_ok_and(|permit| permit.injections().is_empty()) == allowed);
        }
    }
}

#[test]
fn its_credential_is_set_on_what_it_allows() {
    let gateway = gateway("deny-all", &[GITHUB_L4, GITHUB, GITHUB_KEY]);
    let permit = request(&gateway, "api.github.com", "GET", "/user").unwrap();
    assert_eq!(headers(&permit), ["authorization"]);
    assert_eq!(permit.credential().map(|name| &**name), Some("github-key"));
    assert_eq!(permit.provider(), None);
    let permit = request(&gateway, "uploads.github.com", "GET", "/user").unwrap();
    assert!(permit.injections().is_empty());
    for method in ["TRACE", "trace"] {
        let denied = request(&gateway, "api.github.com", method, "/user");
        assert_eq!(denied.unwrap_err(), Denial::RequestNotAllowed);
    }
}

#[test]
fn plaintext_gets_its_credential_only_where_a_rule_names_the_port() {
    let plain = |gateway: &Gateway, port: u16| {
        let address = format!("203.0.113.1:{port}");
        let permit = connect(gateway, Class::Http, &address, Some("api.github.com"))?;
        let facts = RequestFacts {
            host: Some(&host("api.github.com")),
            port,
            method: "GET",
            path: "/user",
            headers: &HeaderMap::new(),
            model: None,
            tls: false,
        };
        gateway.authorize_request(&permit, &facts)
    };
    let l4 = "rules: [{matches: [{destinationHostnames: [api.github.com], ports: [{port: 80}, {port: 443}]}]}]";
    let named = gateway("deny-all", &[(L4, "l4", l4), GITHUB, GITHUB_KEY]);
    assert_eq!(headers(&plain(&named, 80).unwrap()), ["authorization"]);
    let denied = plain(&named, 443).unwrap_err();
    assert_eq!(
        denied,
        Denial::RequestNotAllowed,
        "443 is no plaintext port"
    );
    let without = gateway("allow-all", &[GITHUB]);
    assert!(
        plain(&without, 8080).is_ok(),
        "there is nothing to give away"
    );
    let section = GITHUB.2.to_owned();
    let section =
        format!("parentRefs: [{{kind: EgressGateway, name: g, sectionName: tls}}]\n  {section}");
    let by_section = gateway("allow-all", &[(HTTP, "github", &section), GITHUB_KEY]);
    let denied = plain(&by_section, 80).unwrap_err();
    assert_eq!(
        denied,
        Denial::RequestNotAllowed,
        "refused outside its listener too"
    );
}

#[test]
fn what_a_route_and_a_proxy_rule_allow_is_narrowed_too() {
    let openai = (
        AI,
        "ai",
        "rules: [{matches: [{provider: openai, endpoints: [/v1/**]}]}]",
    );
    let key = (KEY, "key", "secretRef: {name: s}");
    let beta = (
        PROXY,
        "beta",
        "hosts: [api.openai.com]\n  headers: {x-beta: a}",
    );
    let narrow = (
        HTTP,
        "narrow",
        "hostnames: ['*.openai.com']\n  rules: [{matches: [{methods: [POST]}]}]",
    );
    let gateway = gateway("deny-all", &[openai, key, beta, narrow]);
    let permit = request(&gateway, "api.openai.com", "POST", "/v1/responses").unwrap();
    assert_eq!(headers(&permit), ["authorization", "x-beta"]);
    assert_eq!(&**permit.rule(), "AIProviderRoute/ai#1");
    let denied = request(&gateway, "api.openai.com", "DELETE", "/v1/files/1");
    assert_eq!(denied.unwrap_err(), Denial::RequestNotAllowed);
}

#[test]
fn a_match_of_the_route_alone_does_not_widen_what_another_rule_allows() {
    let openai = (
        AI,
        "ai",
        "rules: [{matches: [{provider: openai, endpoints: [/v1/responses]}]}]",
    );
    let wide = (
        HTTP,
        "wide",
        "hostnames: [api.openai.com]\n  rules: [{matches: [{path: {type: PathPrefix, value: /}}]}]",
    );
    let gateway = gateway("deny-all", &[openai, wide]);
    assert!(request(&gateway, "api.openai.com", "POST", "/v1/responses").is_ok());
    let denied = request(&gateway, "api.openai.com", "POST", "/v1/files");
    assert_eq!(denied.unwrap_err(), Denial::RequestNotAllowed);
}
