//! Explanations: single ones, and that they never disagree with the engine and the data path.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod agreement;
mod remedies;
mod verdicts;

use std::sync::Arc;

use super::{Circumstances, Explanation, Question, explain};
use crate::policy::tests::source;
use crate::policy::{Gateway, SourceFile, compile};

/// One gateway from one text, and the text as a file.
fn policy(text: &str) -> (Vec<SourceFile>, Arc<Gateway>) {
    let files = vec![source("policy.yaml", text)];
    let compiled = compile(&files);
    let Some(policy) = compiled.policy else {
        panic!("{text}\n{:?}", compiled.diagnostics);
    };
    let gateway = policy.gateways["g"].clone();
    (files, gateway)
}

fn question(text: &str) -> Question {
    Question::parse(text).unwrap()
}

fn ask(text: &str, asked: &str) -> Explanation {
    let (files, gateway) = policy(text);
    explain(&files, &gateway, &question(asked), Circumstances::default())
}

/// The policy with what a remedy says, put in by hand as a person would.
fn heal(text: &str, remedy: &super::Remedy) -> String {
    let mut text = text.to_owned();
    if let Some(listener) = &remedy.listener {
        text = text.replacen("  listeners: []\n", "  listeners:\n", 1);
        assert!(text.contains("  listeners:\n"), "{text}");
        text = text.replacen(
            "  listeners:\n",
            &format!("  listeners:\n  - {listener}\n"),
            1,
        );
    }
    if !remedy.documents.is_empty() {
        text = format!("{text}---\n{}", remedy.documents);
    }
    text
}

/// A gateway that terminates TLS, reads HTTP on 80 and copies what comes to 5432; two routes, one rule, some blocks.
const POLICY: &str = "\
apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {name: g}
spec:
  listeners:
  - {name: tls, protocol: TLS, tls: {mode: Terminate}}
  - {name: spliced, protocol: TLS, port: 8443}
  - {name: http, protocol: HTTP, port: 80}
  - {name: tcp, protocol: TCP, port: 5432}
  upstreamTLS:
    hostAliases:
    - {ip: 127.0.0.2, hostnames: [api.anthropic.com]}
---
apiVersion: postern.dev/v1alpha1
kind: AIProviderRoute
metadata: {name: ai}
spec:
  parentRefs: [{kind: EgressGateway, name: g}]
  rules:
  - matches: [{provider: anthropic, endpoints: [/v1/messages]}]
---
apiVersion: postern.dev/v1alpha1
kind: CredentialInjectionPolicy
metadata: {name: key}
spec:
  parentRefs: [{kind: AIProviderRoute, name: ai}]
  secretRef: {name: s}
---
apiVersion: postern.dev/v1alpha1
kind: SandboxProxyRule
metadata: {name: wiki}
spec:
  parentRefs: [{kind: EgressGateway, name: g}]
  hosts: [wiki.local]
  ports: [80, 443]
  methods: [GET]
  headers: {Authorization: 'Basic {{ wiki.user }}'}
---
apiVersion: postern.dev/v1alpha1
kind: EgressL4Route
metadata: {name: l4}
spec:
  parentRefs: [{kind: EgressGateway, name: g}]
  rules:
  - matches:
    - destinationHostnames: ['*.open.example']
      ports: [{startPort: 8000, endPort: 9000}, {port: 5432}]
  - matches:
    - destinationCIDRs: [192.0.2.0/24, 127.0.0.7]
      ports: [{port: 443}, {port: 5432}]
";
