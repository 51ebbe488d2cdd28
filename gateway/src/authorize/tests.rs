//! Each kind of traffic against one policy: what becomes of it, and how a refusal is told.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::policy::{SourceFile, Target, compile};
use crate::sniff::{ClientHello, ServerName};
use std::sync::Arc;

const POLICY: &str = "
apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {name: g}
spec:
  listeners:
  - {name: tls, protocol: TLS, port: 443, tls: {mode: Terminate}}
  - {name: mail, protocol: TLS, port: 993, tls: {mode: Passthrough}}
  - {name: db, protocol: TCP, port: 5432}
---
apiVersion: postern.dev/v1alpha1
kind: EgressL4Route
metadata: {name: r}
spec:
  parentRefs: [{kind: EgressGateway, name: g}]
  rules:
  - matches:
    - {destinationHostnames: [a.example], ports: [{port: 443}, {port: 993}, {port: 5432}]}
    - {destinationCIDRs: [198.51.100.0/24], ports: [{port: 443}, {port: 5432}]}
";

fn gateway() -> Arc<Gateway> {
    let file = SourceFile {
        name: "p.yaml".into(),
        text: POLICY.to_owned().into(),
    };
    let compiled = compile(&[file]);
    let policy = compiled.policy.unwrap();
    Arc::clone(&policy.gateways["g"])
}

fn hello(name: Option<&str>) -> Sniffed {
    Sniffed::Tls(ClientHello {
        server_name: name.map(|name| ServerName::parse(name.as_bytes()).unwrap()),
        alpn: Vec::new(),
        ech: false,
    })
}

fn host(name: &str) -> Host {
    Host::parse(name).unwrap()
}

fn decide(to: &str, sniffed: &Sniffed, answered: &[&str]) -> Result<Authorized, Denied> {
    let answered: Vec<Host> = answered.iter().map(|name| host(name)).collect();
    authorize(&gateway(), to.parse().unwrap(), sniffed, &answered)
}

fn target(authorized: Result<Authorized, Denied>) -> String {
    match authorized {
        Ok(Authorized::Splice { permit, .. }) => format!("splice {}", permit.target()),
        Ok(Authorized::Terminate { permit, .. }) => format!("terminate {}", permit.target()),
        Ok(Authorized::Http { http2, .. }) => format!("http, http2 {http2}"),
        Err(denied) => format!("{} {:?}", denied.reason.as_str(), denied.tell),
    }
}

#[test]
fn tls_goes_by_the_server_name_wherever_the_sandbox_meant_to_connect() {
    let name = hello(Some("A.example"));
    assert_eq!(
        target(decide("203.0.113.9:443", &name, &[])),
        "terminate a.example:443"
    );
    assert_eq!(
        target(decide("203.0.113.9:993", &name, &[])),
        "splice a.example:993"
    );
}

#[test]
fn tls_without_a_name_goes_to_named_addresses_only() {
    let none = hello(None);
    assert_eq!(
        target(decide("198.51.100.7:443", &none, &[])),
        "terminate 198.51.100.7:443"
    );
    assert_eq!(
        target(decide("203.0.113.9:443", &none, &[])),
        "no_server_name TlsAlert"
    );
}

#[test]
fn a_refusal_is_told_in_the_terms_of_the_client() {
    let foreign = hello(Some("b.example"));
    assert_eq!(
        target(decide("203.0.113.9:443", &foreign, &[])),
        "no_rule TlsThenHttp"
    );
    assert_eq!(
        target(decide("203.0.113.9:993", &foreign, &[])),
        "no_rule TlsAlert"
    );
    assert_eq!(
        target(decide("203.0.113.9:8443", &foreign, &[])),
        "no_listener TlsAlert"
    );
    let preface = Sniffed::Http2Preface;
    assert_eq!(
        target(decide("203.0.113.9:80", &preface, &[])),
        "no_listener Http { http2: true }"
    );
    assert_eq!(
        target(decide("203.0.113.9:22", &Sniffed::Opaque, &[])),
        "no_listener Close"
    );
}

#[test]
fn opaque_traffic_goes_by_the_name_that_was_answered_and_is_dialled_by_it() {
    let opaque = Sniffed::Opaque;
    assert_eq!(
        target(decide(
            "203.0.113.9:5432",
            &opaque,
            &["b.example", "a.example"]
        )),
        "splice a.example:5432"
    );
    assert_eq!(
        target(decide("203.0.113.9:5432", &opaque, &["b.example"])),
        "no_rule Close"
    );
    assert_eq!(
        target(decide("203.0.113.9:5432", &opaque, &[])),
        "no_rule Close"
    );
    assert_eq!(
        target(decide("198.51.100.7:5432", &opaque, &[])),
        "splice 198.51.100.7:5432"
    );
}

#[test]
fn what_is_permitted_is_what_is_dialled() {
    let Ok(Authorized::Splice { permit, .. }) =
        decide("203.0.113.9:5432", &Sniffed::Opaque, &["a.example"])
    else {
        panic!("not spliced");
    };
    let expected = Target::Name {
        host: host("a.example"),
        port: 5432,
    };
    assert_eq!(*permit.target(), expected);
}

#[test]
fn silence_is_opaque_only_where_nothing_else_reads_what_is_said() {
    let gateway = |listeners: &str| {
        let file = SourceFile {
            name: "p.yaml".into(),
            text: format!(
                "apiVersion: postern.dev/v1alpha1\nkind: EgressGateway\nmetadata: {{name: g}}\n\
                 spec:\n  defaultPolicy: allow-all\n  listeners: [{listeners}]\n"
            )
            .into(),
        };
        Arc::clone(&compile(&[file]).policy.unwrap().gateways["g"])
    };
    let tls = "{name: a, protocol: TLS, tls: {mode: Terminate}}";
    let both = gateway(&format!("{tls}, {{name: b, protocol: TCP}}"));
    assert!(!may_be_silent(&both, 443));
    assert!(!may_be_silent(&both, 25));
    let own_port = gateway(&format!("{tls}, {{name: b, protocol: TCP, port: 25}}"));
    assert!(may_be_silent(&own_port, 25));
    assert!(!may_be_silent(&own_port, 443));
    let tcp_alone = gateway("{name: b, protocol: TCP}");
    assert!(may_be_silent(&tcp_alone, 25));
}

#[test]
fn a_host_allowed_for_certain_requests_is_not_reached_by_what_nobody_reads() {
    const NARROWED: &str = "
apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {name: g}
spec:
  defaultPolicy: allow-all
  listeners:
  - {name: tls, protocol: TLS, tls: {mode: Terminate}}
  - {name: spliced, protocol: TLS, port: 993, tls: {mode: Passthrough}}
  - {name: tcp, protocol: TCP}
---
apiVersion: postern.dev/v1alpha1
kind: EgressHTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{kind: EgressGateway, name: g}]
  hostnames: [a.example]
  rules: [{matches: [{methods: [GET]}]}]
";
    let file = SourceFile {
        name: "p.yaml".into(),
        text: NARROWED.to_owned().into(),
    };
    let policy = compile(&[file]).policy.unwrap();
    let decide = |to: &str, sniffed: &Sniffed, answered: &[&str]| {
        let answered: Vec<Host> = answered.iter().map(|name| host(name)).collect();
        target(authorize(
            &policy.gateways["g"],
            to.parse().unwrap(),
            sniffed,
            &answered,
        ))
    };
    let opaque = |answered: &[&str]| decide("203.0.113.9:443", &Sniffed::Opaque, answered);
    // Not by falling back on the address, which is allowed.
    assert_eq!(opaque(&["a.example"]), "request_not_allowed Close");
    assert_eq!(opaque(&[]), "splice 203.0.113.9:443");
    // Another name of the same address is as good as ever.
    assert_eq!(opaque(&["a.example", "b.example"]), "splice b.example:443");
    let name = hello(Some("a.example"));
    assert_eq!(
        decide("203.0.113.9:993", &name, &[]),
        "request_not_allowed TlsAlert"
    );
    assert_eq!(
        decide("203.0.113.9:443", &name, &[]),
        "terminate a.example:443"
    );
}
