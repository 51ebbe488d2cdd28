//! What a valid policy becomes.

use std::time::Duration;

use super::{folder, report, source, valid, workspace};
use crate::policy::{
    Class, DefaultPolicy, DnsTransport, Host, LookupFamily, SourceFile, TlsMode, compile,
};

const MINIMAL: &str = "\
apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {name: g}
spec:
  listeners:
  - {name: tls, protocol: TLS}
";

#[test]
fn what_is_not_written_has_the_defaults_of_the_reference() {
    let policy = valid(MINIMAL);
    let gateway = &policy.gateways["g"];
    assert_eq!(gateway.default, DefaultPolicy::DenyAll);
    assert_eq!(gateway.listeners[0].class, Class::Tls);
    assert_eq!(gateway.listeners[0].port, None);
    assert_eq!(gateway.listeners[0].tls_mode, TlsMode::Passthrough);
    assert!(gateway.otlp.is_none());
    assert!(gateway.upstream_tls.trust_bundle.is_none());
    assert_eq!(gateway.dns.lookup_family, LookupFamily::V4Preferred);
    assert!(gateway.dns.upstreams.is_empty());
    assert_eq!(gateway.request_timeout, Duration::from_secs(300));
    assert_eq!(gateway.limits.max_connections_per_sandbox, 1024);
    assert_eq!(gateway.limits.max_request_header_bytes, 65536);
    assert_eq!(gateway.limits.idle_timeout, Duration::from_secs(300));
    assert!(policy.secrets.is_empty());
}

#[test]
fn what_is_written_is_what_counts() {
    let policy = valid(
        "\
apiVersion: clrk.apoxy.dev/v1alpha1
kind: EgressGateway
metadata: {name: g, namespace: prod, labels: {a: b}, annotations: {c: d}}
spec:
  defaultPolicy: allow-all
  listeners:
  - {name: tls, protocol: TLS, port: 443, tls: {mode: Terminate}}
  - {name: web, protocol: HTTP, port: 80}
  - {name: rest, protocol: TCP}
  otlp:
    endpoint: https://collector.example:4318
    protocol: http/protobuf
    headers: {X-Tenant: a}
    captureBody: {maxBytes: 1048576, includeContentTypes: [Text/Plain]}
  upstreamTLS:
    additionalTrustBundleSecretRef: {name: ca, key: ca.crt}
    hostAliases:
    - {ip: 127.0.0.2, hostnames: [API.example.com.]}
    - {ip: '::1', hostnames: [api.example.com, other.example]}
  dns: {lookupFamily: All, upstreams: ['udp://1.1.1.1', 'tcp://9.9.9.9:5353']}
  requestTimeout: 1h30m
  limits: {maxConnectionsPerSandbox: 7, maxRequestHeaderBytes: 8192, idleTimeout: 300ms}
",
    );
    let gateway = &policy.gateways["g"];
    assert_eq!(gateway.default, DefaultPolicy::AllowAll);
    let otlp = gateway.otlp.as_ref().unwrap();
    assert_eq!(
        otlp.endpoint.as_deref(),
        Some("https://collector.example:4318")
    );
    assert_eq!(otlp.headers[0].0, "x-tenant");
    let capture = otlp.capture_body.as_ref().unwrap();
    assert_eq!(capture.max_bytes, 1_048_576);
    assert_eq!(capture.include_content_types, ["text/plain"]);
    let trust: Vec<_> = gateway.secret_refs().map(ToString::to_string).collect();
    assert_eq!(trust, ["ca/ca.crt"]);
    let host = Host::parse("api.example.com").unwrap();
    let alias: Vec<_> = gateway
        .alias(&host)
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(alias, ["127.0.0.2", "::1"]);
    assert!(gateway.aliased("::1".parse().unwrap()));
    assert!(!gateway.aliased("127.0.0.3".parse().unwrap()));
    assert_eq!(gateway.dns.lookup_family, LookupFamily::All);
    assert_eq!(gateway.dns.upstreams[1].transport, DnsTransport::Tcp);
    assert_eq!(gateway.request_timeout, Duration::from_secs(5400));
    assert_eq!(gateway.limits.max_connections_per_sandbox, 7);
    assert_eq!(gateway.limits.max_request_header_bytes, 8192);
    assert_eq!(gateway.limits.idle_timeout, Duration::from_millis(300));
}

#[test]
fn a_listener_that_names_the_port_comes_before_one_that_does_not() {
    let policy = valid(
        "\
apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {name: g}
spec:
  listeners:
  - {name: any, protocol: TLS}
  - {name: https, protocol: TLS, port: 443}
  - {name: web, protocol: HTTP, port: 80}
",
    );
    let gateway = &policy.gateways["g"];
    let name = |class, port| {
        gateway
            .listener(class, port)
            .map(|found| found.name.to_string())
    };
    assert_eq!(name(Class::Tls, 443).as_deref(), Some("https"));
    assert_eq!(name(Class::Tls, 8443).as_deref(), Some("any"));
    assert_eq!(name(Class::Http, 80).as_deref(), Some("web"));
    assert_eq!(name(Class::Http, 8080), None);
    assert_eq!(name(Class::Tcp, 22), None);
}

#[test]
fn the_values_of_secrets_are_decoded_and_placeholders_left_out() {
    let files = [source(
        "a.yaml",
        &format!(
            "{MINIMAL}---
apiVersion: v1
kind: Secret
type: Opaque
metadata: {{name: s}}
data:
  plain: c2stYW50
  folded: |
    c2st
    YW50
  placeholder: <base64-of-it>
  both: b25l
  echoed: c2stYW50Cg==
stringData:
  text: sk-ant
  block: |
    sk-ant
  both: two
"
        ),
    )];
    let compiled = compile(&files);
    assert_eq!(
        compiled.diagnostics.len(),
        1,
        "{}",
        report(&compiled, &files)
    );
    let policy = compiled.policy.unwrap();
    let secret = &policy.secrets[0];
    assert_eq!(secret.name, "s");
    let values: Vec<_> = secret
        .values
        .iter()
        .map(|(key, value)| (key.as_str(), std::str::from_utf8(value.expose()).unwrap()))
        .collect();
    assert_eq!(
        values,
        [
            ("block", "sk-ant"),
            ("both", "two"),
            ("echoed", "sk-ant"),
            ("folded", "sk-ant"),
            ("plain", "sk-ant"),
            ("text", "sk-ant")
        ]
    );
    let shown = format!("{policy:?}");
    assert!(!shown.contains("sk-ant"), "{shown}");
}

#[test]
fn one_policy_may_lie_in_several_files() {
    let split = |text: &str| -> Vec<SourceFile> {
        text.split("---\n")
            .enumerate()
            .map(|(index, text)| source(&format!("{index}.yaml"), text))
            .collect()
    };
    let whole = folder(&workspace().join("policies/anthropic"));
    let parts = split(&whole[0].text);
    assert_eq!(parts.len(), 3);
    let (whole, parts) = (compile(&whole), compile(&parts));
    assert!(parts.diagnostics.is_empty());
    let shown = |policy: Option<crate::policy::Policy>| {
        let policy = policy.unwrap();
        let gateway = &policy.gateways["anthropic"];
        (
            gateway.kernel_rules(),
            gateway.secret_refs().cloned().collect::<Vec<_>>(),
        )
    };
    assert_eq!(shown(whole.policy), shown(parts.policy));
}

#[test]
fn what_cannot_be_read_is_not_also_missed() {
    let files = [
        source("broken.yaml", "kind: [\n"),
        source(
            "route.yaml",
            "\
apiVersion: postern.dev/v1alpha1
kind: EgressL4Route
metadata: {name: r}
spec:
  parentRefs: [{kind: EgressGateway, name: g}]
  rules: [{matches: [{destinationHostnames: [a.example]}]}]
",
        ),
    ];
    let compiled = compile(&files);
    let told: Vec<_> = compiled
        .diagnostics
        .iter()
        .map(|found| found.file())
        .collect();
    assert_eq!(told, [Some("broken.yaml")], "{}", report(&compiled, &files));
    assert!(compiled.policy.is_none());
}
