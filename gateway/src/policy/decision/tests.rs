//! Tests of the decisions.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod connection;
mod http_route;
mod kernel;
mod model;
mod properties;
mod request;

use std::sync::Arc;

use http::HeaderMap;

use super::{Denial, Destination, Permit, RequestFacts, RequestPermit, Target};
use crate::policy::tests::accepted;
use crate::policy::{Class, Gateway, Host};

/// A gateway with a terminating TLS listener, plain HTTP on 80 and 8080, and opaque TCP; then `documents`,
/// each a kind, a name and a spec, with `parentRefs` filled in.
fn gateway(default: &str, documents: &[(&str, &str, &str)]) -> Arc<Gateway> {
    let mut text = format!(
        "\
apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {{name: g}}
spec:
  defaultPolicy: {default}
  listeners:
  - {{name: tls, protocol: TLS, tls: {{mode: Terminate}}}}
  - {{name: spliced, protocol: TLS, port: 8443}}
  - {{name: http, protocol: HTTP}}
  - {{name: tcp, protocol: TCP}}
  upstreamTLS:
    hostAliases:
    - {{ip: 127.0.0.2, hostnames: [api.anthropic.com]}}
"
    );
    for (kind, name, spec) in documents {
        let parent = if *kind == KEY {
            "AIProviderRoute"
        } else {
            "EgressGateway"
        };
        let target = if parent == "EgressGateway" { "g" } else { "ai" };
        let parents = if spec.contains("parentRefs") {
            String::new()
        } else {
            format!("  parentRefs: [{{kind: {parent}, name: {target}}}]\n")
        };
        text.push_str(&format!(
            "---\napiVersion: postern.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{parents}  {spec}\n"
        ));
    }
    accepted(&text).gateways["g"].clone()
}

const L4: &str = "EgressL4Route";
const AI: &str = "AIProviderRoute";
const KEY: &str = "CredentialInjectionPolicy";
const PROXY: &str = "SandboxProxyRule";
const HTTP: &str = "EgressHTTPRoute";

const ANTHROPIC: (&str, &str, &str) = (
    AI,
    "ai",
    "rules: [{matches: [{provider: anthropic, endpoints: [/v1/messages]}]}]",
);
const ANTHROPIC_KEY: (&str, &str, &str) = (KEY, "key", "secretRef: {name: s}");

fn host(text: &str) -> Host {
    Host::parse(text).unwrap()
}

/// The decision on a connection of this class to this address, with or without a name.
fn connect(
    gateway: &Gateway,
    class: Class,
    address: &str,
    name: Option<&str>,
) -> Result<Permit, Denial> {
    let address: std::net::SocketAddr = address.parse().unwrap();
    let name = name.map(host);
    gateway.authorize(&Destination {
        address,
        host: name.as_ref(),
        listener: gateway.listener(class, address.port()).unwrap(),
    })
}

/// The decision on a request over TLS to port 443 of this host, on a connection of that name.
fn request(
    gateway: &Gateway,
    name: &str,
    method: &str,
    path: &str,
) -> Result<RequestPermit, Denial> {
    let permit = connect(gateway, Class::Tls, "203.0.113.1:443", Some(name)).unwrap();
    gateway.authorize_request(
        &permit,
        &RequestFacts {
            host: Some(&host(name)),
            port: 443,
            method,
            path,
            headers: &HeaderMap::new(),
            model: None,
            tls: true,
        },
    )
}

/// The headers that a permit sets.
fn headers(permit: &RequestPermit) -> Vec<String> {
    let injections = permit.injections().iter();
    injections
        .flat_map(|injection| injection.headers())
        .map(|name| name.to_string())
        .collect()
}

fn named(permit: &Permit) -> Option<String> {
    matches!(permit.target(), Target::Name { .. }).then(|| permit.target().to_string())
}
