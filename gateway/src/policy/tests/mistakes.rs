//! Mistakes that are easily made, each beside what its author is told: where, what was found, and what to do.

use super::{compile, source};
use crate::policy::Severity::{Error, Warning};
use crate::policy::{Diagnostic, Severity};

/// A document of some kind with this `spec`, beside a gateway for it.
fn told(kind: &str, spec: &str) -> Vec<Diagnostic> {
    let text = if kind == "EgressGateway" {
        document(kind, "g", &format!("{LISTENERS}{spec}"))
    } else {
        let parents = "  parentRefs: [{kind: EgressGateway, name: g}]\n";
        let gateway = document("EgressGateway", "g", LISTENERS);
        gateway + &document(kind, "x", &format!("{parents}{spec}"))
    };
    compile(&[source("policy.yaml", &text)]).diagnostics
}

const LISTENERS: &str = "  listeners:
  - {name: tls, protocol: TLS, tls: {mode: Terminate}}
  - {name: http, protocol: HTTP}
  - {name: tcp, protocol: TCP}
";

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: postern.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}---\n"
    )
}

/// Kind, spec, message, and a part of what is expected or of the help.
type Row = (
    &'static str,
    &'static str,
    Severity,
    &'static str,
    &'static str,
);

fn check(rows: &[Row]) {
    for (kind, spec, severity, message, advice) in rows {
        let told = told(kind, spec);
        let all = told.iter().map(ToString::to_string).collect::<Vec<_>>();
        let found = told
            .iter()
            .find(|found| found.severity() == *severity && found.message().contains(message))
            .unwrap_or_else(|| panic!("{kind} {spec}: not `{message}` but {all:#?}"));
        let said = format!(
            "{} | {}",
            found.expected().unwrap_or_default(),
            found.help().unwrap_or_default()
        );
        assert!(said.contains(advice), "{kind} {spec}: {message}: {said}");
        assert!(
            found.span().is_some(),
            "{kind} {spec}: {message} has no place"
        );
        assert_eq!(told.len(), 1, "{kind} {spec}: {all:#?}");
    }
}

/// Whether an empty list allows nothing or everything is nobody's guess.
#[test]
fn an_empty_list_is_refused() {
    check(&[
        (
            "EgressL4Route",
            "  rules: [{matches: [{destinationCIDRs: [], destinationHostnames: [a.example]}]}]\n",
            Error,
            "destinationCIDRs` is empty",
            "`destinationHostnames` alone",
        ),
        (
            "EgressL4Route",
            "  rules: [{matches: [{destinationHostnames: []}]}]\n",
            Error,
            "destinationHostnames` is empty",
            "at least one host",
        ),
        (
            "EgressL4Route",
            "  rules: [{matches: [{destinationHostnames: [a.example], ports: []}]}]\n",
            Error,
            "ports` is empty",
            "every port",
        ),
        (
            "AIProviderRoute",
            "  rules: [{matches: [{provider: openai, models: []}]}]\n",
            Error,
            "models` is empty",
            "every model",
        ),
        (
            "AIProviderRoute",
            "  rules: [{matches: [{provider: openai, endpoints: []}]}]\n",
            Error,
            "endpoints` is empty",
            "every path",
        ),
        (
            "AIProviderRoute",
            "  rules: [{matches: [{provider: openai, hosts: []}]}]\n",
            Error,
            "hosts` is empty",
            "the provider's own hosts",
        ),
        (
            "AIProviderRoute",
            "  rules: [{matches: [{provider: openai}], filters: []}]\n",
            Error,
            "filters` is empty",
            "leave it out",
        ),
        (
            "SandboxProxyRule",
            "  hosts: [a.example]\n  methods: []\n",
            Error,
            "methods` is empty",
            "every method",
        ),
        (
            "SandboxProxyRule",
            "  hosts: [a.example]\n  paths: []\n",
            Error,
            "paths` is empty",
            "every path",
        ),
        (
            "SandboxProxyRule",
            "  hosts: [a.example]\n  ports: []\n",
            Error,
            "ports` is empty",
            "443",
        ),
        (
            "EgressGateway",
            "  dns: {upstreams: []}\n",
            Error,
            "upstreams` is empty",
            "the host's resolver",
        ),
        (
            "EgressGateway",
            "  otlp: {captureBody: {maxBytes: 10, includeContentTypes: []}}\n",
            Error,
            "includeContentTypes` is empty",
            "leave it out",
        ),
    ]);
    let headers =
        "  hostnames: [a.example]\n  rules: [{matches: [{headers: []}, {methods: []}]}]\n";
    let told = told("EgressHTTPRoute", headers);
    let errors: Vec<_> = told
        .iter()
        .filter(|found| found.severity() == Error)
        .map(Diagnostic::message)
        .collect();
    assert_eq!(
        errors,
        [
            "`spec.rules[0].matches[0].headers` is empty",
            "`spec.rules[0].matches[1].methods` is empty"
        ]
    );
}

#[test]
fn a_match_of_everything_is_warned_of() {
    check(&[(
        "EgressL4Route",
        "  rules: [{matches: [{}]}]\n",
        Warning,
        "matches[0]` is empty, and matches every connection",
        "allow-all",
    )]);
    let all = "  hostnames: [a.example]\n  rules: [{matches: [{}]}]\n";
    let told = told("EgressHTTPRoute", all);
    assert!(
        told.iter()
            .any(|found| found.message().contains("matches every request")),
        "{told:?}"
    );
}

/// What is nearly right comes with what would be.
#[test]
fn what_was_meant_is_said() {
    check(&[
        (
            "EgressL4Route",
            "  rules: [{matches: [{destinationHostnames: [1.2.3.4]}]}]\n",
            Error,
            "an address",
            "a host name",
        ),
        (
            "EgressL4Route",
            "  rules: [{matches: [{destinationHostnames: [10.0.0.0/8]}]}]\n",
            Error,
            "allowed by `destinationCIDRs`",
            "a host name",
        ),
        (
            "SandboxProxyRule",
            "  hosts: ['a.example:443']\n",
            Error,
            "the host alone is `a.example`, and ports stand in `ports`",
            "a host name",
        ),
        (
            "SandboxProxyRule",
            "  hosts: ['https://a.example/x']\n",
            Error,
            "a URL; the host alone is `a.example`",
            "a host name",
        ),
        (
            "SandboxProxyRule",
            "  hosts: [a.example/x]\n",
            Error,
            "it has a path; the host alone is `a.example`",
            "a host name",
        ),
        (
            "EgressL4Route",
            "  rules: [{matches: [{destinationHostnames: [a.example], ports: [443]}]}]\n",
            Error,
            "ports[0]` is an integer",
            "{port: 443}",
        ),
        (
            "EgressL4Route",
            "  rules: [{matches: [{destinationCIDRs: [10.0.0.0/33]}]}]\n",
            Error,
            "the prefix length of IPv4 is 0 to 32",
            "192.0.2.0/24",
        ),
        (
            "EgressL4Route",
            "  rules: [{matches: [{destinationCIDRs: ['2001:db8::/129']}]}]\n",
            Error,
            "the prefix length of IPv6 is 0 to 128",
            "192.0.2.0/24",
        ),
        (
            "EgressL4Route",
            "  rules: [{matches: [{destinationCIDRs: [010.0.0.0/8]}]}]\n",
            Error,
            "leading zero: write 10, not 010",
            "192.0.2.0/24",
        ),
        (
            "EgressL4Route",
            "  rules: [{matches: [{destinationCIDRs: ['::ffff:10.0.0.01']}]}]\n",
            Error,
            "leading zero",
            "192.0.2.0/24",
        ),
        (
            "EgressL4Route",
            "  rules: [{matches: [{destinationCIDRs: [10.0.0.0/08]}]}]\n",
            Error,
            "the prefix length of IPv4",
            "192.0.2.0/24",
        ),
        (
            "EgressL4Route",
            "  rules: [{matches: [{destinationCIDRs: [10.0.0.0/]}]}]\n",
            Error,
            "the prefix length of IPv4",
            "192.0.2.0/24",
        ),
        (
            "EgressL4Route",
            "  rules: [{matches: [{destinationCIDRs: [a/8]}]}]\n",
            Error,
            "not an IP address",
            "192.0.2.0/24",
        ),
        (
            "EgressGateway",
            "  requestTimeout: 1.5h\n",
            Error,
            "1.5h is written 1h30m",
            "such as",
        ),
        (
            "EgressGateway",
            "  upstreamTLS: {hostAliases: [{hostnames: [a.example]}]}\n",
            Error,
            "ip` is missing",
            "ip: 192.0.2.1",
        ),
        (
            "AIProviderRoute",
            "  rules: [{matches: [{endpoints: [/v1/messages]}]}]\n",
            Error,
            "provider` is missing",
            "provider: anthropic",
        ),
        (
            "SandboxProxyRule",
            "  ports: [443]\n",
            Error,
            "`spec.hosts` is missing",
            "hosts: [api.example.com]",
        ),
        (
            "AIProviderRoute",
            "  rules: [{matches: [{provider: openai}], filters: [{type: TokenBudget, tokenBudget: {maxTokensPerDay: 10, maxOutputTokensPerRequest: 11}}]}]\n",
            Warning,
            "maxOutputTokensPerRequest (11) is more than the whole budget (10)",
            "always refused",
        ),
    ]);
}

/// The messages of an `EgressHTTPRoute` with this match.
fn of_match(found: &str) -> Vec<String> {
    let spec = format!("  hostnames: [a.example]\n  rules: [{{matches: [{{{found}}}]}}]\n");
    let told = told("EgressHTTPRoute", &spec);
    told.iter()
        .map(|found| {
            let expected = found.expected().unwrap_or_default();
            format!(
                "{found} | {expected} | {}",
                found.help().unwrap_or_default()
            )
        })
        .collect()
}

#[test]
fn a_match_that_is_nearly_right_is_told_what_it_takes() {
    for (found, told) in [
        ("path: /foo", "{type: PathPrefix, value: "),
        (
            "path: {type: Exact, value: '/a/*'}",
            "has a `*`, which is taken for itself",
        ),
        ("path: {type: PathPrefix, value: '/a*'}", "type: Glob"),
        (
            "headers: [{name: x-a, value: ' b'}]",
            "begins or ends with a blank",
        ),
        ("headers: [{name: x-a, value: 'b\t'}]", "no request matches"),
    ] {
        let all = of_match(found);
        assert!(
            all.iter().any(|one| one.contains(told)),
            "{found}: {all:#?}"
        );
    }
    for right in [
        "path: {type: Glob, value: '/a/*'}",
        "headers: [{name: x-a, value: 'b c'}]",
    ] {
        let all = of_match(right);
        let surprising = all
            .iter()
            .find(|one| !one.contains("no rule of `g` allows"));
        assert_eq!(surprising, None, "{right}");
    }
}

#[test]
fn a_pattern_without_quotes_is_told_to_have_some() {
    for pattern in ["*.example.com", "**.example.com", "**"] {
        let spec = format!("  hosts:\n  - {pattern}\n");
        let told = told("SandboxProxyRule", &spec);
        let help = told.first().and_then(Diagnostic::help).unwrap_or_default();
        assert!(
            help.contains("in quotes") && help.contains("'*.example.com'"),
            "{pattern}: {told:#?}"
        );
        assert!(
            told[0].span().is_some_and(|span| span.line > 10),
            "{told:#?}"
        );
    }
}

#[test]
fn namespaces_that_differ_are_warned_of() {
    let gateway = document("EgressGateway", "g", LISTENERS);
    let named = |namespace: &str| {
        gateway.replace("{name: g}", &format!("{{name: g, namespace: {namespace}}}"))
    };
    let rule = document(
        "SandboxProxyRule",
        "x",
        "  parentRefs: [{kind: EgressGateway, name: g}]\n  hosts: [a.example]\n",
    );
    let rule = rule.replace("{name: x}", "{name: x, namespace: a}");
    let told = |text: String| {
        let diagnostics = compile(&[source("policy.yaml", &text)]).diagnostics;
        diagnostics
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(told(format!("{gateway}{rule}")), [""; 0]);
    assert_eq!(told(named("a") + &rule), [""; 0]);
    let different = told(named("b") + &rule);
    assert!(
        matches!(different.as_slice(), [one] if one.contains("`metadata.namespace` is `a`, and `b` elsewhere")),
        "{different:#?}"
    );
}

#[test]
fn a_key_for_every_customer_of_azure_is_warned_of() {
    let policy = |hosts: &str| {
        format!(
            "{}{}{}",
            document("EgressGateway", "g", LISTENERS),
            document(
                "AIProviderRoute",
                "ai",
                &format!(
                    "  parentRefs: [{{kind: EgressGateway, name: g}}]\n  rules: [{{matches: [{{provider: azure-openai{hosts}}}]}}]\n"
                )
            ),
            document(
                "CredentialInjectionPolicy",
                "key",
                "  parentRefs: [{kind: AIProviderRoute, name: ai}]\n  secretRef: {name: s}\n"
            ),
        )
    };
    let told = |hosts: &str| compile(&[source("policy.yaml", &policy(hosts))]).diagnostics;
    let open = told("");
    assert!(
        matches!(open.as_slice(), [one] if one.severity() == Warning
            && one.message().contains("any customer's host under `*.openai.azure.com`")
            && one.help().is_some_and(|help| help.contains("hosts: ["))),
        "{open:#?}"
    );
    assert_eq!(told(", hosts: [mine.openai.azure.com]"), []);
}
