//! What a check says of secrets, given someone who knows them.

use super::{compile, source};
use crate::policy::{Diagnostic, SecretIndex, SecretRef, SecretState};

const POLICY: &str = "\
apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {name: g}
spec:
  listeners: [{name: egress, protocol: TLS, tls: {mode: Terminate}}]
  upstreamTLS:
    additionalTrustBundleSecretRef: {name: ca, key: ca.crt}
    clientCertSecretRef: {name: client}
---
apiVersion: postern.dev/v1alpha1
kind: AIProviderRoute
metadata: {name: ai}
spec:
  parentRefs: [{kind: EgressGateway, name: g}]
  rules: [{matches: [{provider: bedrock, hosts: [bedrock-runtime.us-east-1.amazonaws.com]}]}]
---
apiVersion: postern.dev/v1alpha1
kind: CredentialInjectionPolicy
metadata: {name: key}
spec:
  parentRefs: [{kind: AIProviderRoute, name: ai}]
  secretRef: {name: aws}
  target: ProviderAuth
  providerAuth: {type: AWSv4}
---
apiVersion: postern.dev/v1alpha1
kind: SandboxProxyRule
metadata: {name: wiki}
spec:
  parentRefs: [{kind: EgressGateway, name: g}]
  hosts: [wiki.example]
  headers: {Authorization: \"Basic {{ base64 wiki.user ':' wiki.password }}\"}
";

/// Everything is there but these.
struct Known(Vec<(&'static str, SecretState)>);

impl SecretIndex for Known {
    fn state(&self, secret: &SecretRef) -> SecretState {
        let name = secret.to_string();
        let mut known = self.0.iter();
        known
            .find(|(known, _)| *known == name)
            .map_or(SecretState::Present, |(_, state)| state.clone())
    }
}

fn told(known: Vec<(&'static str, SecretState)>) -> Vec<String> {
    let compiled = compile(&[source("policy.yaml", POLICY)]);
    assert!(compiled.policy.is_some());
    let found = compiled.lint_secrets(&Known(known));
    let told = |found: &Diagnostic| format!("{found}; {}", found.help().unwrap_or_default());
    found.iter().map(told).collect()
}

#[test]
fn every_value_that_must_be_there_is_used_somewhere() {
    let compiled = compile(&[source("policy.yaml", POLICY)]);
    let uses: Vec<String> = compiled
        .secret_uses
        .iter()
        .map(|used| format!("{}:{} {}", used.file, used.span.line, used.secret))
        .collect();
    assert_eq!(
        uses,
        [
            "policy.yaml:7 ca/ca.crt",
            "policy.yaml:8 client/tls.crt",
            "policy.yaml:8 client/tls.key",
            // The session token may be absent.
            "policy.yaml:22 aws/access_key_id",
            "policy.yaml:22 aws/secret_access_key",
            "policy.yaml:32 wiki/user",
            "policy.yaml:32 wiki/password",
        ]
    );
    let gateway = &compiled.policy.unwrap().gateways["g"];
    let mut needed: Vec<_> = gateway.secret_refs().map(ToString::to_string).collect();
    let mut used: Vec<_> = compiled
        .secret_uses
        .iter()
        .map(|used| used.secret.to_string())
        .collect();
    needed.sort();
    used.sort();
    assert_eq!(needed, used);
}

#[test]
fn a_missing_secret_and_one_that_cannot_be_used_are_told_where_they_are_used_and_what_comes_of_it()
{
    assert_eq!(told(Vec::new()), [""; 0]);
    let unusable = SecretState::Unusable("it is empty".to_owned());
    let known = vec![
        ("ca/ca.crt", SecretState::Missing),
        ("aws/secret_access_key", SecretState::Missing),
        ("wiki/user", unusable),
    ];
    let put = "put the value into the secrets folder as";
    let (start, requests) = (
        "until then the gateway does not start",
        "until then requests that need it get 503",
    );
    let told = told(known);
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(
        told[0].ends_with(&format!(
            "secret `ca/ca.crt` is missing; {put} ca/ca.crt (mode 0600); {start}"
        )),
        "{told:#?}"
    );
    assert_eq!(
        told[1..],
        [
            format!(
                "policy.yaml:22:21: warning: secret `aws/secret_access_key` is missing; {put} aws/secret_access_key (mode 0600); {requests}"
            ),
            format!(
                "policy.yaml:32:28: warning: secret `wiki/user` cannot be used: it is empty; {requests}"
            ),
        ]
    );
}
