//! Documents of every kind with holes, scars and swapped words: all are answered, and none panics.

use proptest::prelude::*;

use super::{report, source};
use crate::policy::compile;

/// One document of every kind, with every field of the reference.
const EVERYTHING: &str = r#"apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {name: g, namespace: n, labels: {a: b}}
spec:
  defaultPolicy: deny-all
  listeners:
  - {name: tls, protocol: TLS, port: 443, tls: {mode: Terminate}}
  - {name: http, protocol: HTTP}
  - {name: tcp, protocol: TCP, port: 22}
  otlp: {endpoint: "http://127.0.0.1:4318", protocol: grpc, headers: {x-a: b}, captureBody: {maxBytes: 10, includeContentTypes: [text/plain]}}
  upstreamTLS: {additionalTrustBundleSecretRef: {name: s, key: ca.crt}, hostAliases: [{ip: 127.0.0.2, hostnames: [a.example]}], clientCertSecretRef: {name: s}}
  dns: {lookupFamily: Auto, upstreams: ["udp://1.1.1.1", "tls://9.9.9.9"]}
  requestTimeout: 5m
  limits: {maxConnectionsPerSandbox: 10, maxRequestHeaderBytes: 8192, idleTimeout: 5m}
---
apiVersion: postern.dev/v1alpha1
kind: EgressL4Route
metadata: {name: l4}
spec:
  parentRefs: [{kind: EgressGateway, name: g}]
  rules:
  - matches:
    - {destinationHostnames: [api.github.com, "**.example"], ports: [{port: 443}, {startPort: 8000, endPort: 8100}], protocol: TCP}
    - {destinationCIDRs: [192.0.2.0/24], ports: [{port: 123}], protocol: UDP}
---
apiVersion: postern.dev/v1alpha1
kind: EgressHTTPRoute
metadata: {name: http}
spec:
  parentRefs: [{kind: EgressGateway, name: g, sectionName: tls}]
  hostnames: [api.github.com]
  rules:
  - matches: [{methods: [GET], path: {type: PathPrefix, value: /repos/acme}, headers: [{name: x, value: y}]}]
---
apiVersion: clrk.apoxy.dev/v1alpha1
kind: AIProviderRoute
metadata: {name: ai}
spec:
  parentRefs: [{kind: EgressGateway, name: g}]
  rules:
  - matches: [{provider: bedrock, endpoints: [/v1/*], models: ["claude-*"], hosts: [bedrock-runtime.us-east-1.amazonaws.com]}]
    filters: [{type: TokenBudget, tokenBudget: {maxTokensPerDay: 9, maxTokensPerExecution: 9, maxOutputTokensPerRequest: 9}}]
---
apiVersion: postern.dev/v1alpha1
kind: CredentialInjectionPolicy
metadata: {name: aws}
spec:
  parentRefs: [{kind: AIProviderRoute, name: ai}]
  secretRef: {name: s}
  target: ProviderAuth
  providerAuth: {type: AWSv4, region: us-east-1, service: bedrock}
---
apiVersion: postern.dev/v1alpha1
kind: CredentialInjectionPolicy
metadata: {name: query}
spec:
  targetRefs: [{kind: EgressHTTPRoute, name: http}]
  secretRef: {name: s}
  secretKey: k
  target: QueryParam
  queryParamName: key
  valueTemplate: "a{{ base64 user ':' value }}"
---
apiVersion: postern.dev/v1alpha1
kind: SandboxProxyRule
metadata: {name: wiki}
spec:
  parentRefs: [{kind: EgressGateway, name: g}]
  hosts: [wiki.local]
  ports: [80, 443]
  methods: [GET]
  paths: [/a/**]
  headers: {Authorization: "Bearer {{ wiki-token.value }}"}
---
apiVersion: postern.dev/v1alpha1
kind: SandboxBinding
metadata: {name: b}
spec: {gatewayRef: {name: g}, selector: {cgroup: /sandboxes/*}}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
data: {ca.crt: c2stbmV2ZXItc2hvd24=}
stringData: {token: sk-never-shown}
"#;

/// Answered by both, without a panic, and without a secret in what is said.
fn answered(text: &str) -> Result<(), TestCaseError> {
    let files = [source("a.yaml", text)];
    for compiled in [compile(&files), compile(&files)] {
        prop_assert!(compiled.policy.is_some() || !compiled.diagnostics.is_empty());
        let told = report(&compiled, &files);
        prop_assert!(compiled.diagnostics.is_empty() || !told.is_empty());
        for found in &compiled.diagnostics {
            let span = found.span().unwrap_or_default();
            prop_assert!(span.start <= span.end && span.end <= text.len());
        }
    }
    Ok(())
}

#[test]
fn everything_at_once_is_a_policy() {
    let files = [source("a.yaml", EVERYTHING)];
    let compiled = compile(&files);
    assert_eq!(report(&compiled, &files), "");
    let policy = compiled.policy.unwrap();
    assert_eq!(policy.bindings.len(), 1);
    assert_eq!(policy.gateways["g"].injections().count(), 3);
    assert_eq!(
        policy.binding_of("/sandboxes/a").map(|found| &*found.name),
        Some("b")
    );
    assert!(policy.binding_of("/other/a").is_none());
}

/// The words of a text, each as it stands.
fn words(text: &str) -> Vec<&str> {
    let edge = |character: char| " \n[]{}:,\"".contains(character);
    text.split(edge).filter(|word| !word.is_empty()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn holes_and_scars(
        edits in proptest::collection::vec((0..EVERYTHING.len(), 0..40_usize, "[ -~\\nü]{0,3}"), 1..6)
    ) {
        let mut text: Vec<char> = EVERYTHING.chars().collect();
        for (at, length, inserted) in edits {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        answered(&text.into_iter().collect::<String>())?;
    }

    #[test]
    fn words_in_each_others_places(swaps in proptest::collection::vec((0..400_usize, 0..400_usize), 1..4)) {
        let words = words(EVERYTHING);
        let mut text = EVERYTHING.to_owned();
        for (one, other) in swaps {
            let (one, other) = (words[one % words.len()], words[other % words.len()]);
            text = text.replacen(one, other, 1);
        }
        answered(&text)?;
    }

    #[test]
    fn lines_left_out_or_doubled(lines in proptest::collection::vec((0..200_usize, 0..3_usize), 1..5)) {
        let mut text: Vec<&str> = EVERYTHING.lines().collect();
        for (line, times) in lines {
            let line = line % text.len();
            let kept = text[line];
            text.splice(line..=line, std::iter::repeat_n(kept, times));
            if text.is_empty() {
                break;
            }
        }
        answered(&text.join("\n"))?;
    }
}
