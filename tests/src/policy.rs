//! The policies that the suites run under, as text. It refuses to know what the gateway makes of
//! them.

use std::net::Ipv4Addr;

/// The gateway of every policy here.
pub const GATEWAY: &str = "e2e";

/// A host of the tests: a name, the address of its mock, and the ports it is served on.
pub struct Host {
    /// The name that the sandbox uses.
    pub name: &'static str,
    /// Where the mock listens.
    pub address: Ipv4Addr,
}

const fn host(name: &'static str, last: u8) -> Host {
    Host {
        name,
        address: Ipv4Addr::new(127, 0, 0, last),
    }
}

/// The real name of the Anthropic API.
pub const ANTHROPIC: Host = host("api.anthropic.com", 2);
/// The real name of the OpenAI API.
pub const OPENAI: Host = host("api.openai.com", 3);
/// The wiki of the second worked example.
pub const WIKI: Host = host("wiki.local", 4);
/// Says what it saw; ports 443 and 80.
pub const ECHO: Host = host("echo.test", 5);
/// The same server as [`ECHO`], with credentials injected.
pub const INJECTED: Host = host("injected.test", 5);
/// The same server as [`ECHO`], with a credential that nobody has.
pub const MISSING: Host = host("missing.test", 5);
/// A dumb git server.
pub const GIT: Host = host("git.test", 6);
/// Echo over HTTP/1.1 alone.
pub const HTTP1: Host = host("h1.test", 7);
/// Echo over HTTP/2 alone.
pub const HTTP2: Host = host("h2.test", 8);
/// A server with a certificate of an authority that nobody trusts.
pub const ROGUE: Host = host("rogue.test", 9);
/// A server that proves to be another name.
pub const MISNAMED: Host = host("misnamed.test", 10);

/// Every host of the tests.
pub const HOSTS: [Host; 11] = [
    ANTHROPIC, OPENAI, WIKI, ECHO, INJECTED, MISSING, GIT, HTTP1, HTTP2, ROGUE, MISNAMED,
];

/// The parts of an `EgressGateway` that the suites vary.
pub struct Gateway<'a> {
    /// `deny-all` or `allow-all`.
    pub default: &'a str,
    /// Where spans go.
    pub otlp: Option<&'a str>,
    /// `otlp.captureBody.maxBytes`; 0 leaves bodies alone.
    pub capture: u64,
}

impl Gateway<'_> {
    /// The document, with every host of the tests aliased to its mock and the test authority
    /// trusted upstream (see [`test_ca`]).
    pub fn document(&self) -> String {
        let mut aliases = String::new();
        for host in &HOSTS {
            let line = format!(
                "      - {{ip: {}, hostnames: [{}]}}",
                host.address, host.name
            );
            aliases = aliases + &line + "\n";
        }
        let mut otlp = String::new();
        if let Some(endpoint) = self.otlp {
            otlp = format!("  otlp:\n    endpoint: {endpoint}\n    protocol: http/protobuf\n");
            if self.capture > 0 {
                otlp = otlp + &format!("    captureBody: {{maxBytes: {}}}\n", self.capture);
            }
        }
        let default = self.default;
        format!(
            "apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {{name: {GATEWAY}}}
spec:
  defaultPolicy: {default}
  listeners:
    - {{name: tls, protocol: TLS, tls: {{mode: Terminate}}}}
    - {{name: http, protocol: HTTP}}
{otlp}  upstreamTLS:
    additionalTrustBundleSecretRef: {{name: test-ca, key: ca.crt}}
    hostAliases:
{aliases}"
        )
    }
}

/// A `Secret` document with `entries` of its `stringData`.
pub fn secret(name: &str, entries: &[(&str, &str)]) -> String {
    let mut document =
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData:\n");
    for (key, value) in entries {
        let lines: String = value.lines().map(|line| format!("    {line}\n")).collect();
        document = document + &format!("  {key}: |-\n{lines}");
    }
    document
}

/// The trust bundle that the gateway document refers to.
pub fn test_ca(pem: &str) -> String {
    secret("test-ca", &[("ca.crt", pem)])
}

/// An AI provider's route and the injection of its credential.
pub fn provider(name: &str, endpoints: &[&str], secret: &str, key: &str) -> String {
    let endpoints = endpoints.join(", ");
    format!(
        "apiVersion: postern.dev/v1alpha1
kind: AIProviderRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{kind: EgressGateway, name: {GATEWAY}}}]
  rules:
    - matches: [{{provider: {name}, endpoints: [{endpoints}]}}]
---
apiVersion: postern.dev/v1alpha1
kind: CredentialInjectionPolicy
metadata: {{name: {name}-key}}
spec:
  parentRefs: [{{kind: AIProviderRoute, name: {name}}}]
  secretRef: {{name: {secret}}}
  secretKey: {key}
  target: Header
"
    )
}

/// A `SandboxProxyRule`: `host` on 443 gets `headers`.
pub fn proxy_rule(name: &str, host: &str, headers: &[(&str, &str)]) -> String {
    let mut document = format!(
        "apiVersion: postern.dev/v1alpha1
kind: SandboxProxyRule
metadata: {{name: {name}}}
spec:
  parentRefs: [{{kind: EgressGateway, name: {GATEWAY}}}]
  hosts: [{host}]
  headers:
"
    );
    for (header, value) in headers {
        document = document + &format!("    {header}: \"{value}\"\n");
    }
    document
}

/// An `EgressL4Route` with one rule of one match.
pub fn l4_route(name: &str, destinations: &Destinations<'_>, ports: &[u16]) -> String {
    let (field, values) = match destinations {
        Destinations::Names(names) => ("destinationHostnames", names),
        Destinations::Networks(networks) => ("destinationCIDRs", networks),
    };
    // Quoted: an IPv6 prefix has colons.
    let values: Vec<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
    let ports: Vec<String> = ports
        .iter()
        .map(|port| format!("{{port: {port}}}"))
        .collect();
    format!(
        "apiVersion: postern.dev/v1alpha1
kind: EgressL4Route
metadata: {{name: {name}}}
spec:
  parentRefs: [{{kind: EgressGateway, name: {GATEWAY}}}]
  rules:
    - matches:
        - {field}: [{}]
          ports: [{}]
",
        values.join(", "),
        ports.join(", ")
    )
}

/// What an L4 rule allows.
pub enum Destinations<'a> {
    /// Host patterns.
    Names(&'a [&'a str]),
    /// Prefixes.
    Networks(&'a [&'a str]),
}

/// Documents in one file.
pub fn join(documents: &[String]) -> String {
    documents.join("---\n")
}

/// `documents`, of which the first is the gateway's, with `names` aliased to `address` too.
pub fn aliased(documents: &mut [String], address: &str, names: &[&str]) {
    let aliases = "hostAliases:\n";
    let line = format!(
        "      - {{ip: {address}, hostnames: [{}]}}\n",
        names.join(", ")
    );
    if let Some(gateway) = documents.first_mut() {
        *gateway = gateway.replacen(aliases, &format!("{aliases}{line}"), 1);
    }
}

/// `hosts` on 443, for every request, with the credential that `target` says: the rest of the `spec` of a
/// `CredentialInjectionPolicy`, its lines two spaces in.
pub fn credential(name: &str, hosts: &[&str], target: &str) -> Vec<String> {
    let quoted: Vec<String> = hosts.iter().map(|host| format!("\"{host}\"")).collect();
    let route = format!(
        "apiVersion: postern.dev/v1alpha1
kind: EgressHTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{kind: EgressGateway, name: {GATEWAY}}}]
  hostnames: [{}]
  rules: [{{matches: [{{path: {{type: PathPrefix, value: /}}}}]}}]
",
        quoted.join(", ")
    );
    let credential = format!(
        "apiVersion: postern.dev/v1alpha1
kind: CredentialInjectionPolicy
metadata: {{name: {name}-key}}
spec:
  parentRefs: [{{kind: EgressHTTPRoute, name: {name}}}]
{target}"
    );
    vec![
        l4_route(name, &Destinations::Names(hosts), &[443]),
        route,
        credential,
    ]
}
