//! Which requests are allowed on a permitted connection, and what is set on them.

use http::HeaderMap;

use super::{
    AI, ANTHROPIC, ANTHROPIC_KEY, Class, Denial, KEY, L4, PROXY, RequestFacts, connect, gateway,
    headers, host, request,
};
use crate::policy::{Gateway, Provider};

const WIKI: (&str, &str, &str) = (
    PROXY,
    "wiki",
    "hosts: [wiki.example]\n  methods: [GET]\n  paths: [/snippets/**]\n  headers: {Authorization: 'Bearer {{ wiki-token.value }}'}",
);

/// The decision on a plaintext request to this port.
fn plaintext(gateway: &Gateway, name: &str, port: u16) -> Result<Vec<String>, Denial> {
    let address = format!("203.0.113.1:{port}");
    let permit = connect(gateway, Class::Http, &address, Some(name))?;
    let facts = RequestFacts {
        host: Some(&host(name)),
        port,
        method: "GET",
        path: "/",
        headers: &HeaderMap::new(),
        model: None,
        tls: false,
    };
    let permit = gateway.authorize_request(&permit, &facts)?;
    Ok(headers(&permit))
}

#[test]
fn a_host_allowed_by_its_route_alone_is_allowed_its_endpoints_alone() {
    let gateway = gateway("deny-all", &[ANTHROPIC, ANTHROPIC_KEY]);
    let permit = request(&gateway, "api.anthropic.com", "POST", "/v1/messages").unwrap();
    assert_eq!(headers(&permit), ["x-api-key"]);
    assert_eq!(permit.provider(), Some(Provider::Anthropic));
    assert_eq!(&**permit.rule(), "AIProviderRoute/ai#1");
    assert_eq!(permit.credential().map(|name| &**name), Some("key"));
    for path in ["/v1/models", "/v1/messages/", "/v1/messages/../models", "/"] {
        let denied = request(&gateway, "api.anthropic.com", "POST", path);
        assert_eq!(denied.unwrap_err(), Denial::RequestNotAllowed, "{path}");
    }
}

#[test]
fn a_host_allowed_as_a_whole_gets_other_requests_through_untouched() {
    let l4 = (
        L4,
        "r",
        "rules: [{matches: [{destinationHostnames: ['*.anthropic.com']}]}]",
    );
    for gateway in [
        gateway("allow-all", &[ANTHROPIC, ANTHROPIC_KEY]),
        gateway("deny-all", &[ANTHROPIC, ANTHROPIC_KEY, l4]),
        gateway("deny-all", &[l4, ANTHROPIC, ANTHROPIC_KEY]),
    ] {
        let permit = request(&gateway, "api.anthropic.com", "GET", "/v1/models").unwrap();
        assert!(headers(&permit).is_empty());
        assert_eq!(permit.provider(), None);
        assert_eq!(permit.credential(), None);
        let permit = request(&gateway, "api.anthropic.com", "POST", "/v1/messages").unwrap();
        assert_eq!(headers(&permit), ["x-api-key"]);
    }
}

#[test]
fn an_address_that_the_sandbox_chose_widens_nothing_and_earns_no_credential() {
    let l4 = (
        L4,
        "r",
        "rules: [{matches: [{destinationCIDRs: [203.0.113.0/24]}]}]",
    );
    let gateway = gateway("deny-all", &[ANTHROPIC, ANTHROPIC_KEY, l4]);
    let denied = request(&gateway, "api.anthropic.com", "GET", "/v1/models");
    assert_eq!(denied.unwrap_err(), Denial::RequestNotAllowed);
    // Without a name the address is dialled: whatever the requests say, no credential goes there.
    let permit = connect(&gateway, Class::Tls, "203.0.113.1:443", None).unwrap();
    let facts = RequestFacts {
        host: Some(&host("api.anthropic.com")),
        port: 443,
        method: "POST",
        path: "/v1/messages",
        headers: &HeaderMap::new(),
        model: None,
        tls: true,
    };
    let permit = gateway.authorize_request(&permit, &facts).unwrap();
    assert!(headers(&permit).is_empty());
}

#[test]
fn a_permit_is_for_one_host_and_port() {
    let gateway = gateway("allow-all", &[ANTHROPIC, ANTHROPIC_KEY]);
    let permit = connect(&gateway, Class::Tls, "203.0.113.1:443", Some("a.example")).unwrap();
    for (name, port, allowed) in [
        ("a.example", 443, true),
        ("api.anthropic.com", 443, false),
        ("a.example", 80, false),
    ] {
        let facts = RequestFacts {
            host: Some(&host(name)),
            port,
            method: "POST",
            path: "/v1/messages",
            headers: &HeaderMap::new(),
            model: None,
            tls: true,
        };
        let answer = gateway.authorize_request(&permit, &facts);
        assert_eq!(answer.is_ok(), allowed, "{name}:{port}");
    }
}

#[test]
fn a_proxy_rule_narrows_methods_and_paths() {
    let gateway = gateway("deny-all", &[WIKI]);
    let permit = request(&gateway, "wiki.example", "GET", "/snippets/durability").unwrap();
    assert_eq!(headers(&permit), ["authorization"]);
    assert_eq!(permit.credential().map(|name| &**name), Some("wiki"));
    assert_eq!(permit.provider(), None);
    for (method, path) in [
        ("POST", "/snippets/a"),
        ("get", "/snippets/a"),
        ("GET", "/admin"),
    ] {
        let denied = request(&gateway, "wiki.example", method, path);
        assert_eq!(
            denied.unwrap_err(),
            Denial::RequestNotAllowed,
            "{method} {path}"
        );
    }
}

#[test]
fn of_two_proxy_rules_the_first_that_matches_wins() {
    let rule = |name, path, header| {
        let spec = format!(
            "hosts: ['*.example']\n  paths: [{path}]\n  headers: {{{header}: '{{{{ a.b }}}}'}}"
        );
        (PROXY, name, spec)
    };
    let rules = [rule("one", "/a/*", "x-one"), rule("two", "/**", "x-two")];
    let rules = rules
        .each_ref()
        .map(|(kind, name, spec)| (*kind, *name, spec.as_str()));
    let gateway = gateway("deny-all", &rules);
    for (path, header, name) in [("/a/b", "x-one", "one"), ("/b", "x-two", "two")] {
        let permit = request(&gateway, "wiki.example", "GET", path).unwrap();
        assert_eq!(headers(&permit), [header]);
        assert_eq!(&**permit.rule(), format!("SandboxProxyRule/{name}"));
    }
}

#[test]
fn a_route_and_a_proxy_rule_for_one_request_both_apply() {
    let beta = (
        PROXY,
        "beta",
        "hosts: ['**.anthropic.com']\n  headers: {anthropic-beta: tools, X-Team: '{{ team.id }}'}",
    );
    for documents in [
        [ANTHROPIC, ANTHROPIC_KEY, beta],
        [beta, ANTHROPIC, ANTHROPIC_KEY],
    ] {
        let gateway = gateway("deny-all", &documents);
        let permit = request(&gateway, "api.anthropic.com", "POST", "/v1/messages").unwrap();
        let mut set = headers(&permit);
        set.sort_unstable();
        assert_eq!(set, ["anthropic-beta", "x-api-key", "x-team"]);
        assert_eq!(permit.provider(), Some(Provider::Anthropic));
        let mut names: Vec<_> = permit.credential().unwrap().split(',').collect();
        names.sort_unstable();
        assert_eq!(names, ["beta", "key"]);
        // Beyond the route's endpoints the proxy rule still allows, and sets its own headers alone.
        let permit = request(&gateway, "api.anthropic.com", "GET", "/v1/models").unwrap();
        assert_eq!(headers(&permit), ["anthropic-beta", "x-team"]);
    }
}

#[test]
fn trace_is_refused_where_it_would_echo_a_credential() {
    let gateway = gateway(
        "allow-all",
        &[
            (AI, "ai", "rules: [{matches: [{provider: anthropic}]}]"),
            ANTHROPIC_KEY,
        ],
    );
    for method in ["TRACE", "trace"] {
        let denied = request(&gateway, "api.anthropic.com", method, "/");
        assert_eq!(denied.unwrap_err(), Denial::RequestNotAllowed);
        assert!(request(&gateway, "other.example", method, "/").is_ok());
    }
}

#[test]
fn plaintext_gets_a_credential_only_where_its_port_is_written() {
    let rule = |ports: &str| {
        format!("hosts: [wiki.example]\n  {ports}\n  headers: {{authorization: '{{{{ a.b }}}}'}}")
    };
    let (default, written) = (rule("methods: [GET]"), rule("ports: [80, 443]"));
    for (default_policy, other) in [
        ("deny-all", Err(Denial::NoRule)),
        ("allow-all", Ok(Vec::new())),
    ] {
        let unwritten = gateway(
            default_policy,
            &[(PROXY, "wiki", &default), ANTHROPIC, ANTHROPIC_KEY],
        );
        let written = gateway(default_policy, &[(PROXY, "wiki", &written)]);
        let set = Ok(vec!["authorization".to_owned()]);
        assert_eq!(plaintext(&written, "wiki.example", 80), set);
        for (gateway, name, port) in [
            (&unwritten, "wiki.example", 80),
            (&unwritten, "wiki.example", 443),
            (&written, "wiki.example", 443),
            (&written, "wiki.example", 8080),
            (&unwritten, "api.anthropic.com", 443),
            (&unwritten, "api.anthropic.com", 80),
        ] {
            assert_eq!(plaintext(gateway, name, port), other, "{name}:{port}");
        }
    }
}

#[test]
fn a_credential_takes_the_header_and_form_of_its_provider() {
    for (provider, spec, expected_header, expected_value) in [
        ("provider: anthropic", "", "x-api-key", "K"),
        ("provider: openai", "", "authorization", "Bearer K"),
        ("provider: google", "", "x-goog-api-key", "K"),
        ("provider: azure-openai", "", "api-key", "K"),
        ("provider: openai", "headerName: X-Key", "x-key", "K"),
        (
            "provider: anthropic",
            "headerName: Authorization",
            "authorization",
            "Bearer K",
        ),
        (
            "provider: custom, hosts: [llm.example]",
            "headerName: Authorization",
            "authorization",
            "K",
        ),
        (
            "provider: anthropic",
            "valueTemplate: 'Key {{ value }}'",
            "x-api-key",
            "Key K",
        ),
    ] {
        let route = format!("rules: [{{matches: [{{{provider}}}]}}]");
        let key = format!("secretRef: {{name: s}}\n  secretKey: k\n  {spec}");
        let gateway = gateway("deny-all", &[(AI, "ai", &route), (KEY, "key", &key)]);
        let refs: Vec<_> = gateway.secret_refs().map(ToString::to_string).collect();
        assert_eq!(refs, ["s/k"]);
        let name = match provider.split(',').next() {
            Some("provider: openai") => "api.openai.com",
            Some("provider: google") => "generativelanguage.googleapis.com",
            Some("provider: azure-openai") => "mine.openai.azure.com",
            Some("provider: custom") => "llm.example",
            _ => "api.anthropic.com",
        };
        let permit = request(&gateway, name, "POST", "/any/path").unwrap();
        let injection = &permit.injections()[0];
        assert_eq!(injection.headers(), [expected_header], "{provider} {spec}");
        let mut lookup = |_: &crate::policy::SecretRef| {
            let value = crate::secrets::SecretValue::new(b"K".to_vec());
            Some(std::sync::Arc::new(value))
        };
        let value = injection.template().unwrap().render(&mut lookup).unwrap();
        assert_eq!(
            value.expose(),
            expected_value.as_bytes(),
            "{provider} {spec}"
        );
    }
}
