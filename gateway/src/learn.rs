//! From what a command did under `allow-all` to the smallest policy that lets it do so again. Reads
//! audit lines, writes YAML; knows neither sandboxes nor files.

use crate::policy::{Host, HostPattern, Provider};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// What was used that no rule but the default allowed.
#[derive(Debug, Default)]
pub struct Learned {
    /// Ports by host name, for what carried its name.
    hosts: BTreeMap<String, BTreeSet<u16>>,
    /// Ports by address, for what had none.
    addresses: BTreeMap<std::net::IpAddr, BTreeSet<u16>>,
    /// Paths by provider, for requests to the hosts of one.
    providers: BTreeMap<Provider, BTreeSet<String>>,
    /// Ports of connections that were neither TLS nor HTTP.
    opaque: BTreeSet<u16>,
    tls: bool,
    http: bool,
    /// What was denied all the same, with the reason.
    denied: BTreeSet<(String, String)>,
}

/// The part of an audit line that matters here.
#[derive(Deserialize)]
struct Line {
    event: String,
    destination: Option<SocketAddr>,
    host: Option<String>,
    rule: Option<String>,
    scheme: Option<String>,
    path: Option<String>,
    reason: Option<String>,
}

/// What the rule of a default is called in records.
const DEFAULT_RULE: &str = " defaultPolicy";

impl Learned {
    /// Takes what the lines of an audit log tell. Lines that are no records of this kind count for nothing.
    pub fn from_audit(text: &str) -> Self {
        let mut learned = Self::default();
        for line in text.lines() {
            if let Ok(line) = serde_json::from_str::<Line>(line) {
                learned.take(line);
            }
        }
        learned
    }

    fn take(&mut self, line: Line) {
        let Some(destination) = line.destination else {
            return;
        };
        if line.event == "denied" {
            let what = match line.host.filter(|host| !host.is_empty()) {
                Some(host) => format!("{host}:{}", destination.port()),
                None => destination.to_string(),
            };
            self.denied.insert((what, line.reason.unwrap_or_default()));
            return;
        }
        if !line.rule.is_some_and(|rule| rule.ends_with(DEFAULT_RULE)) {
            return;
        }
        let port = destination.port();
        let host = line.host.and_then(|host| Host::parse(&host).ok());
        match line.scheme.as_deref() {
            Some("https") => self.tls = true,
            Some(_) => self.http = true,
            None => {
                self.opaque.insert(port);
            }
        }
        let Some(host) = host else {
            self.addresses
                .entry(destination.ip().to_canonical())
                .or_default()
                .insert(port);
            return;
        };
        match (provider_of(&host), line.path) {
            (Some(provider), Some(path)) if line.scheme.as_deref() == Some("https") => {
                self.providers.entry(provider).or_default().insert(path);
            }
            _ => {
                self.hosts.entry(host.to_string()).or_default().insert(port);
            }
        }
    }

    /// Was nothing used that a rule does not allow already?
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.addresses.is_empty() && self.providers.is_empty()
    }

    /// The policy as YAML. With `gateway` the rules to add for the gateway of that name, otherwise a
    /// whole policy with one of its own.
    pub fn to_yaml(&self, gateway: Option<&str>) -> String {
        let mut documents = Vec::new();
        if gateway.is_none() {
            documents.push(self.gateway());
        }
        let parent = gateway.unwrap_or(OWN);
        documents.extend(self.routes(parent));
        documents.extend(
            self.providers
                .iter()
                .map(|(provider, paths)| provider_route(*provider, paths, parent)),
        );
        let mut text = documents.join("---\n");
        for (what, reason) in &self.denied {
            text += &format!("# denied all the same: {what} ({reason})\n");
        }
        text
    }

    fn gateway(&self) -> String {
        let mut text = head("EgressGateway", OWN);
        text += "spec:\n  defaultPolicy: deny-all\n  listeners:\n";
        let mut listener = |line: &str| text += &format!("  - {line}\n");
        if self.tls {
            listener("{name: tls, protocol: TLS, tls: {mode: Terminate}}");
        }
        if self.http {
            listener("{name: http, protocol: HTTP}");
        }
        for port in &self.opaque {
            listener(&format!(
                "{{name: tcp-{port}, protocol: TCP, port: {port}}}"
            ));
        }
        text
    }

    fn routes(&self, parent: &str) -> Option<String> {
        let mut by_ports: BTreeMap<&BTreeSet<u16>, (Vec<String>, Vec<String>)> = BTreeMap::new();
        for (host, ports) in &self.hosts {
            by_ports.entry(ports).or_default().0.push(host.clone());
        }
        for (address, ports) in &self.addresses {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let block = format!("\"{address}/{bits}\"");
            by_ports.entry(ports).or_default().1.push(block);
        }
        if by_ports.is_empty() {
            return None;
        }
        let mut text = head("EgressL4Route", OWN);
        text += &parents(parent);
        text += "  rules:\n  - matches:\n";
        for (ports, (hosts, blocks)) in by_ports {
            let mut lead = "    - ";
            for (field, values) in [
                ("destinationHostnames", hosts),
                ("destinationCIDRs", blocks),
            ] {
                if !values.is_empty() {
                    text += &format!("{lead}{field}: [{}]\n", values.join(", "));
                    lead = "      ";
                }
            }
            let ports: Vec<String> = ports
                .iter()
                .map(|port| format!("{{port: {port}}}"))
                .collect();
            text += &format!("      ports: [{}]\n", ports.join(", "));
        }
        Some(text)
    }
}

/// The name of what is learned.
const OWN: &str = "learned";

fn head(kind: &str, name: &str) -> String {
    format!("apiVersion: postern.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n")
}

fn parents(gateway: &str) -> String {
    format!("spec:\n  parentRefs: [{{kind: EgressGateway, name: {gateway}}}]\n")
}

fn provider_route(provider: Provider, paths: &BTreeSet<String>, parent: &str) -> String {
    let name = provider.policy_name();
    let route = format!("{OWN}-{name}");
    let mut text = head("AIProviderRoute", &route);
    text += &parents(parent);
    text += &format!("  rules:\n  - matches:\n    - provider: {name}\n      endpoints:\n");
    for path in paths {
        // A path is ASCII without quotes or it would not have been sent on; JSON's quotes are YAML's.
        text += &format!("      - {}\n", serde_json::Value::from(path.as_str()));
    }
    text += &format!(
        "# To keep the key out of the sandbox: `postern secret set {name} --from-stdin token`, and\n\
         # ---\n\
         # apiVersion: postern.dev/v1alpha1\n\
         # kind: CredentialInjectionPolicy\n\
         # metadata: {{name: {route}-key}}\n\
         # spec:\n\
         #   parentRefs: [{{kind: AIProviderRoute, name: {route}}}]\n\
         #   secretRef: {{name: {name}}}\n"
    );
    text
}

fn provider_of(host: &Host) -> Option<Provider> {
    Provider::all().find(|provider| {
        provider
            .default_hosts()
            .iter()
            .filter_map(|pattern| HostPattern::parse(pattern).ok())
            .any(|pattern| pattern.matches(host))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::policy::{SourceFile, compile};

    const AUDIT: &str = r#"
{"event":"request","destination":"192.0.2.1:443","host":"pypi.org","rule":"EgressGateway/learn defaultPolicy","scheme":"https","path":"/simple/"}
{"event":"request","destination":"192.0.2.2:443","host":"api.anthropic.com","rule":"EgressGateway/learn defaultPolicy","scheme":"https","path":"/v1/messages"}
{"event":"request","destination":"192.0.2.3:80","host":"deb.debian.org","rule":"EgressGateway/learn defaultPolicy","scheme":"http","path":"/x"}
{"event":"connection","destination":"192.0.2.4:22","host":"git.example","rule":"EgressGateway/learn defaultPolicy"}
{"event":"connection","destination":"[2001:db8::1]:5432","host":null,"rule":"EgressGateway/learn defaultPolicy"}
{"event":"request","destination":"192.0.2.9:443","host":"known.example","rule":"EgressL4Route/x rule 1","scheme":"https","path":"/"}
{"event":"denied","destination":"169.254.169.254:80","reason":"address_guard"}
no record
"#;

    fn compiles(text: &str) {
        let file = SourceFile {
            name: "learned.yaml".to_owned(),
            text: text.to_owned().into(),
        };
        let compiled = compile(std::slice::from_ref(&file));
        assert!(
            compiled.diagnostics.is_empty(),
            "{:#?}\n{text}",
            compiled.diagnostics
        );
        assert!(compiled.policy.is_some(), "{text}");
    }

    #[test]
    fn a_whole_policy_allows_what_was_used_and_compiles_without_a_warning() {
        let learned = Learned::from_audit(AUDIT);
        let text = learned.to_yaml(None);
        compiles(&text);
        for wanted in [
            "destinationHostnames: [pypi.org]",
            "destinationHostnames: [git.example]",
            "destinationCIDRs: [\"2001:db8::1/128\"]",
            "provider: anthropic",
            "- \"/v1/messages\"",
            "{name: tcp-22, protocol: TCP, port: 22}",
            "# denied all the same: 169.254.169.254:80 (address_guard)",
        ] {
            assert!(text.contains(wanted), "{wanted} is missing:\n{text}");
        }
        assert!(!text.contains("known.example"), "{text}");
    }

    #[test]
    fn rules_to_add_name_the_gateway_and_do_not_make_another() {
        let text = Learned::from_audit(AUDIT).to_yaml(Some("mine"));
        assert!(!text.contains("kind: EgressGateway\n"), "{text}");
        let base = "apiVersion: postern.dev/v1alpha1\nkind: EgressGateway\nmetadata: {name: mine}\nspec:\n  \
                    listeners:\n  - {name: a, protocol: TLS, tls: {mode: Terminate}}\n  \
                    - {name: b, protocol: HTTP}\n  - {name: c, protocol: TCP}\n---\n";
        compiles(&(base.to_owned() + &text));
    }

    #[test]
    fn nothing_used_is_nothing_learned() {
        assert!(Learned::from_audit("").is_empty());
        assert!(!Learned::from_audit(AUDIT).is_empty());
    }
}
