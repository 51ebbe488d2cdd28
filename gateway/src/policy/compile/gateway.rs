//! One gateway: its listeners told apart, its aliases and secrets gathered, its rules indexed.
//!
//! It refuses to know how rules came to be attached to it.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::super::problems::Problems;
use super::super::resource::{RawGateway, RawListener};
use super::super::rules::{Allows, Rules};
use super::Attached;
use super::injection::report_clashes;
use crate::policy::decision::default_rule;
use crate::policy::{Class, Gateway, Host, RuleName, SecretRef};

pub(super) fn build(
    raw: &RawGateway,
    grants: Vec<Attached>,
    problems: &mut Problems<'_>,
) -> Gateway {
    report_listener_clashes(&raw.listeners, problems);
    if raw.listeners.is_empty() && !raw.listeners_incomplete {
        let message = format!("EgressGateway `{}` has no listeners", raw.name.value);
        problems
            .warning(raw.name.place, message)
            .help("a class of traffic without a listener is denied: every connection will be");
    }
    report_clashes(&grants, problems);
    let default: RuleName = default_rule(&raw.name.value);
    let mut places = HashMap::from([(default, problems.rule_place(raw.name.place))]);
    for attached in &grants {
        let rule = places.entry(attached.grant.rule.clone());
        rule.or_insert_with(|| problems.rule_place(attached.place));
    }
    let grants: Vec<_> = grants.into_iter().map(|attached| attached.grant).collect();
    let mut secrets: BTreeSet<SecretRef> = BTreeSet::new();
    for grant in &grants {
        if let Allows::Requests(rule) = &grant.allows {
            for injection in &rule.injections {
                secrets.extend(injection.template.secret_refs().cloned());
            }
        }
    }
    secrets.extend(raw.upstream_tls.trust_bundle.clone());
    let mut aliases: HashMap<Host, Vec<IpAddr>> = HashMap::new();
    for alias in &raw.upstream_tls.host_aliases {
        for host in &alias.hosts {
            let addresses = aliases.entry(host.clone()).or_default();
            if !addresses.contains(&alias.ip) {
                addresses.push(alias.ip);
            }
        }
    }
    Gateway {
        name: raw.name.value.as_str().into(),
        default: raw.default,
        listeners: raw
            .listeners
            .iter()
            .map(|raw| raw.listener.clone())
            .collect(),
        otlp: raw.otlp.clone(),
        upstream_tls: raw.upstream_tls.clone(),
        dns: raw.dns.clone(),
        request_timeout: raw.request_timeout,
        limits: raw.limits,
        rules: Rules::new(grants, aliases, secrets),
        places,
    }
}

fn report_listener_clashes(listeners: &[RawListener], problems: &mut Problems<'_>) {
    for (index, one) in listeners.iter().enumerate() {
        let mine = &one.listener;
        let earlier = listeners.iter().take(index);
        let clash = earlier.into_iter().find_map(|other| {
            let theirs = &other.listener;
            if theirs.name == mine.name {
                Some((other, format!("a second listener named `{}`", mine.name)))
            } else if theirs.class == mine.class && theirs.port == mine.port {
                let class = match mine.class {
                    Class::Tls => "TLS",
                    Class::Http => "HTTP",
                    Class::Tcp => "TCP",
                };
                let port = mine
                    .port
                    .map_or("any port".to_owned(), |port| format!("port {port}"));
                let message = format!("a second listener for {class} on {port}");
                Some((other, message))
            } else {
                None
            }
        });
        if let Some((other, message)) = clash {
            let first = problems.locate(other.place);
            problems
                .error(one.place, message)
                .help(format!("the first one is at {first}"));
        }
    }
}
