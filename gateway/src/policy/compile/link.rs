//! References: which rule belongs to which gateway, and whether that gateway can enforce it.
//!
//! It refuses to know what else a gateway needs, and how credentials are chosen.

use super::super::gateway::pick;
use super::super::problems::{Problems, Spanned, quote, suggest};
use super::super::resource::{Raw, RawGateway, RawHttpRoute, RawL4Route, RawParent};
use super::grants::{ai_grants, http_rules, l4_grants, proxy_grant};
use super::injection::{Credentials, check_any_host};
use super::{Attachments, Folder};
use crate::policy::{Class, HTTPS_PORT, Listener, Protocol, TlsMode};

impl<'r> Folder<'r> {
    /// Every rule, attached to each of its gateways.
    pub(super) fn attach(&self, problems: &mut Problems<'_>) -> Attachments<'r> {
        let credentials = Credentials::collect(self, problems);
        let mut attachments = Attachments::new();
        for document in self.documents {
            let parents = match document {
                Raw::L4Route(raw) => &raw.parents,
                Raw::HttpRoute(raw) => &raw.parents,
                Raw::AiRoute(raw) => &raw.parents,
                Raw::ProxyRule(raw) => {
                    check_any_host(raw, problems);
                    &raw.parents
                }
                Raw::Gateway(_) | Raw::CredentialPolicy(_) | Raw::Binding(_) | Raw::Secret(_) => {
                    continue;
                }
            };
            for parent in parents {
                let Some(gateway) = self.gateway(parent, problems) else {
                    continue;
                };
                let section = parent.section.as_ref();
                let listener = section.map(|section| section.value.as_str());
                let attached = attachments.entry(gateway.name.value.as_str()).or_default();
                let needs = || {
                    let (kind, name) = document.identity();
                    format!("{kind} `{}`", name.value)
                };
                match document {
                    Raw::L4Route(raw) => {
                        check_udp_section(raw, parent, problems);
                        warn_unreachable(raw, gateway, listener, problems);
                        attached.grants.extend(l4_grants(raw, listener));
                    }
                    Raw::HttpRoute(raw) => {
                        check_readable_anywhere(raw, gateway, parent, problems);
                        let rules = http_rules(raw, listener, &credentials);
                        attached.http.extend(rules);
                    }
                    Raw::AiRoute(raw) => {
                        check_readable(&needs(), HTTPS_PORT, false, gateway, parent, problems);
                        let grants = ai_grants(raw, listener, &credentials);
                        attached.grants.extend(grants);
                    }
                    Raw::ProxyRule(raw) => {
                        for port in &raw.ports {
                            let explicit = raw.explicit_ports;
                            let port = port.start();
                            check_readable(&needs(), port, explicit, gateway, parent, problems);
                        }
                        attached.grants.push(proxy_grant(raw, listener));
                    }
                    Raw::Gateway(_)
                    | Raw::CredentialPolicy(_)
                    | Raw::Binding(_)
                    | Raw::Secret(_) => {}
                }
            }
        }
        attachments
    }

    /// The gateway of this name; that there is none is reported.
    pub(super) fn gateway_named(
        &self,
        name: &Spanned<String>,
        problems: &mut Problems<'_>,
    ) -> Option<&'r RawGateway> {
        let found = self.gateways.get(name.value.as_str()).copied();
        if found.is_none() && !problems.incomplete {
            let known: Vec<&str> = self.gateways.keys().copied().collect();
            problems
                .error(
                    name.place,
                    format!("there is no EgressGateway {}", quote(&name.value)),
                )
                .help(suggest(&name.value, "gateways", &known));
        }
        found
    }

    /// The gateway meant, whose listener exists if one is named.
    fn gateway(&self, parent: &RawParent, problems: &mut Problems<'_>) -> Option<&'r RawGateway> {
        let name = &parent.name;
        let gateway = self.gateway_named(name, problems)?;
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
            .help(format!("such as {TERMINATING}"));
    }
}

/// A listener that reads requests.
const TERMINATING: &str = "{name: egress, protocol: TLS, tls: {mode: Terminate}}";

/// An `EgressHTTPRoute` names no ports: one listener that reads requests is enough.
fn check_readable_anywhere(
    raw: &RawHttpRoute,
    gateway: &RawGateway,
    parent: &RawParent,
    problems: &mut Problems<'_>,
) {
    let section = parent.section.as_ref();
    let reads = |listener: &Listener| {
        let mine = section.is_none_or(|section| section.value == *listener.name);
        mine && listener.reads_requests()
    };
    if gateway.listeners_incomplete || listeners(gateway).iter().any(reads) {
        return;
    }
    let (name, gateway) = (&raw.name.value, &parent.name.value);
    let place = section.map_or(parent.name.place, |section| section.place);
    problems
        .error(
            place,
            format!(
                "EgressHTTPRoute `{name}` cannot be enforced: no listener of `{gateway}` reads its requests"
            ),
        )
        .expected("a TLS listener in mode Terminate, or one of protocol HTTP")
        .help(format!("such as {TERMINATING}"));
}

/// Datagrams come to no listener.
fn check_udp_section(raw: &RawL4Route, parent: &RawParent, problems: &mut Problems<'_>) {
    let mut matches = raw.rules.iter().flat_map(|rule| &rule.matches);
    if let Some(section) = &parent.section
        && matches.any(|found| found.protocol == Protocol::Udp)
    {
        problems
            .error(
                section.place,
                format!("protocol UDP in `{}` has no listener", raw.name.value),
            )
            .help("datagrams come to no listener: leave `sectionName` out, or make UDP a route of its own");
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
    let matches = raw.rules.iter().flat_map(|rule| &rule.matches);
    for found in matches.filter(|found| found.protocol == Protocol::Tcp) {
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
