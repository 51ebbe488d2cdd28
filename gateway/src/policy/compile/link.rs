//! References: which rule belongs to which gateway, and whether that gateway can enforce it.
//!
//! It refuses to know what else a gateway needs, and how credentials are chosen.

use std::sync::Arc;

use super::super::gateway::pick;
use super::super::problems::{Problems, Spanned, quote, suggest};
use super::super::resource::{Raw, RawAiRoute, RawGateway, RawL4Route, RawParent, RawProxyRule};
use super::super::rules::{Allows, Grant, RequestRule};
use super::injection::{Credentials, check_any_host, of_proxy_rule};
use super::{Attached, Folder, Grants};
use crate::policy::{Class, HTTPS_PORT, HostPattern, Injection, Listener, PortRange, TlsMode};

impl<'r> Folder<'r> {
    /// Every rule, attached to each of its gateways.
    pub(super) fn grants(&self, problems: &mut Problems<'_>) -> Grants<'r> {
        let credentials = Credentials::collect(self, problems);
        let mut grants = Grants::new();
        for document in self.documents {
            let parents = match document {
                Raw::L4Route(raw) => &raw.parents,
                Raw::AiRoute(raw) => &raw.parents,
                Raw::ProxyRule(raw) => {
                    check_any_host(raw, problems);
                    &raw.parents
                }
                Raw::Gateway(_) | Raw::CredentialPolicy(_) | Raw::Secret(_) => continue,
            };
            for parent in parents {
                let Some(gateway) = self.gateway(parent, problems) else {
                    continue;
                };
                let listener = parent
                    .section
                    .as_ref()
                    .map(|section| section.value.as_str());
                let list = grants.entry(gateway.name.value.as_str()).or_default();
                match document {
                    Raw::L4Route(raw) => {
                        warn_unreachable(raw, gateway, listener, problems);
                        list.extend(l4_grants(raw, listener));
                    }
                    Raw::AiRoute(raw) => {
                        let needs = format!("AIProviderRoute `{}`", raw.name.value);
                        check_readable(&needs, HTTPS_PORT, false, gateway, parent, problems);
                        list.extend(ai_grants(raw, listener, &credentials));
                    }
                    Raw::ProxyRule(raw) => {
                        let needs = format!("SandboxProxyRule `{}`", raw.name.value);
                        for port in &raw.ports {
                            let explicit = raw.explicit_ports;
                            let port = port.start();
                            check_readable(&needs, port, explicit, gateway, parent, problems);
                        }
                        list.push(proxy_grant(raw, listener));
                    }
                    Raw::Gateway(_) | Raw::CredentialPolicy(_) | Raw::Secret(_) => {}
                }
            }
        }
        grants
    }

    /// The gateway meant, whose listener exists if one is named.
    fn gateway(&self, parent: &RawParent, problems: &mut Problems<'_>) -> Option<&'r RawGateway> {
        let name = &parent.name;
        let Some(gateway) = self.gateways.get(name.value.as_str()) else {
            if !problems.incomplete {
                let known: Vec<&str> = self.gateways.keys().copied().collect();
                problems
                    .error(
                        name.place,
                        format!("there is no EgressGateway {}", quote(&name.value)),
                    )
                    .help(suggest(&name.value, "gateways", &known));
            }
            return None;
        };
        if let Some(section) = &parent.section {
            let known: Vec<&str> = gateway
                .listeners
                .iter()
                .map(|raw| &*raw.listener.name)
                .collect();
            if gateway.listeners_incomplete {
                return Some(gateway);
            }
            if !known.contains(&section.value.as_str()) {
                let message = format!(
                    "EgressGateway `{}` has no listener {}",
                    name.value,
                    quote(&section.value)
                );
                problems.error(section.place, message).help(suggest(
                    &section.value,
                    "listeners",
                    &known,
                ));
                return None;
            }
        }
        Some(gateway)
    }
}

fn l4_grants(raw: &RawL4Route, listener: Option<&str>) -> Vec<Attached> {
    let mut grants = Vec::new();
    for rule in &raw.rules {
        for found in &rule.matches {
            grants.push(Attached {
                place: found.place,
                grant: Grant {
                    rule: format!("EgressL4Route/{}#{}", raw.name.value, rule.number).into(),
                    hosts: patterns(&found.hosts),
                    cidrs: found.cidrs.clone(),
                    ports: if found.ports.is_empty() {
                        vec![PortRange::ALL]
                    } else {
                        found.ports.clone()
                    },
                    listener: listener.map(Arc::from),
                    allows: Allows::Connection,
                },
            });
        }
    }
    grants
}

fn ai_grants(raw: &RawAiRoute, listener: Option<&str>, credentials: &Credentials) -> Vec<Attached> {
    let mut grants = Vec::new();
    for rule in &raw.rules {
        for found in &rule.matches {
            let injections = credentials.of(&raw.name.value, found.provider);
            grants.push(Attached {
                place: raw.name.place,
                grant: Grant {
                    rule: format!("AIProviderRoute/{}#{}", raw.name.value, rule.number).into(),
                    hosts: patterns(&found.hosts),
                    cidrs: Vec::new(),
                    ports: PortRange::single(HTTPS_PORT).into_iter().collect(),
                    listener: listener.map(Arc::from),
                    allows: Allows::Requests(RequestRule {
                        provider: Some(found.provider),
                        plaintext: false,
                        methods: Vec::new(),
                        paths: found.endpoints.clone(),
                        credential: credential_name(&injections),
                        injections,
                    }),
                },
            });
        }
    }
    grants
}

fn proxy_grant(raw: &RawProxyRule, listener: Option<&str>) -> Attached {
    let injections = of_proxy_rule(raw);
    Attached {
        place: raw.name.place,
        grant: Grant {
            rule: format!("SandboxProxyRule/{}", raw.name.value).into(),
            hosts: patterns(&raw.hosts),
            cidrs: Vec::new(),
            ports: raw.ports.clone(),
            listener: listener.map(Arc::from),
            allows: Allows::Requests(RequestRule {
                provider: None,
                plaintext: raw.explicit_ports,
                methods: raw.methods.clone(),
                paths: raw.paths.clone(),
                credential: credential_name(&injections),
                injections,
            }),
        },
    }
}

fn patterns(hosts: &[Spanned<HostPattern>]) -> Vec<HostPattern> {
    hosts.iter().map(|host| host.value.clone()).collect()
}

fn credential_name(injections: &[Injection]) -> Option<Arc<str>> {
    let mut names: Vec<&str> = injections
        .iter()
        .map(|injection| &*injection.policy)
        .collect();
    names.dedup();
    (!names.is_empty()).then(|| names.join(",").into())
}

/// A rule about requests is only as good as the listener that reads them: bytes copied unread follow no rule.
fn check_readable(
    needs: &str,
    port: u16,
    plaintext: bool,
    gateway: &RawGateway,
    parent: &RawParent,
    problems: &mut Problems<'_>,
) {
    if gateway.listeners_incomplete {
        return;
    }
    let listeners: Vec<Listener> = listeners(gateway);
    let serves = |class: Class| {
        pick(&listeners, class, port).filter(|listener| {
            let section = parent.section.as_ref();
            section.is_none_or(|section| section.value == *listener.name)
        })
    };
    let terminates = |listener: &Listener| listener.tls_mode == TlsMode::Terminate;
    let tls = serves(Class::Tls).is_some_and(terminates);
    let http = plaintext && port != HTTPS_PORT && serves(Class::Http).is_some();
    if !tls && !http {
        let or_http = if plaintext && port != HTTPS_PORT {
            ", or one of protocol HTTP"
        } else {
            ""
        };
        let example = "{name: egress, protocol: TLS, tls: {mode: Terminate}}";
        problems
            .error(
                parent.name.place,
                format!(
                    "{needs} cannot be enforced: no listener of `{}` reads requests to port {port}",
                    parent.name.value
                ),
            )
            .expected(format!(
                "a TLS listener in mode Terminate for port {port}{or_http}"
            ))
            .help(format!("such as {example}"));
    }
}

fn warn_unreachable(
    raw: &RawL4Route,
    gateway: &RawGateway,
    section: Option<&str>,
    problems: &mut Problems<'_>,
) {
    if gateway.listeners.is_empty() || gateway.listeners_incomplete {
        return;
    }
    for found in raw.rules.iter().flat_map(|rule| &rule.matches) {
        let reachable = gateway.listeners.iter().any(|raw| {
            let listener = &raw.listener;
            let in_section = section.is_none_or(|section| section == &*listener.name);
            let admits = |port| {
                found.ports.is_empty() || found.ports.iter().any(|range| range.contains(port))
            };
            in_section && listener.port.is_none_or(admits)
        });
        if !reachable {
            problems
                .warning(found.place, "this match can never allow anything")
                .help(format!(
                    "no listener of `{}` handles its ports: a class of traffic without a listener is denied",
                    gateway.name.value
                ));
        }
    }
}

fn listeners(gateway: &RawGateway) -> Vec<Listener> {
    let listeners = gateway.listeners.iter();
    listeners.map(|raw| raw.listener.clone()).collect()
}
