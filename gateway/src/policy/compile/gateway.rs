//! One gateway: its listeners told apart, its aliases and secrets gathered, its rules indexed.
//!
//! It refuses to know how rules came to be attached to it.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::super::problems::{Place, Problems};
use super::super::resource::{RawGateway, RawListener};
use super::super::rules::{Allows, Rules};
use super::clash::report_clashes;
use super::lint::{self, report_plaintext};
use super::{Attached, Folder, Placed};
use crate::policy::decision::default_rule;
use crate::policy::{Class, Gateway, Host, RuleName, SecretRef};

pub(super) fn build(
    folder: &Folder<'_>,
    raw: &RawGateway,
    attached: Attached,
    problems: &mut Problems<'_>,
) -> Gateway {
    report_listener_clashes(&raw.listeners, problems);
    if raw.listeners.is_empty() && !raw.listeners_incomplete {
        let message = format!("EgressGateway `{}` has no listeners", raw.name.value);
        problems
            .warning(raw.name.place, message)
            .help("a class of traffic without a listener is denied: every connection will be");
    }
    report_clashes(&attached, problems);
    report_plaintext(raw, &attached, problems);
    let default: RuleName = default_rule(&raw.name.value);
    let mut places = HashMap::from([(default, problems.rule_place(raw.name.place))]);
    let granted = attached
        .grants
        .iter()
        .map(|one| (&one.rule.rule, one.place));
    let narrowed = attached.http.iter().map(|one| (&one.rule.rule, one.place));
    for (rule, place) in granted.chain(narrowed) {
        let entry = places.entry(rule.clone());
        entry.or_insert_with(|| problems.rule_place(place));
    }
    let (grants, grant_places) = apart(attached.grants);
    let (http, http_places) = apart(attached.http);
    let mut secrets: BTreeSet<SecretRef> = BTreeSet::new();
    let granted = grants.iter().flat_map(|grant| match &grant.allows {
        Allows::Requests(rule) => rule.injections.as_slice(),
        Allows::Connection => &[],
    });
    for injection in granted.chain(http.iter().flat_map(|rule| &rule.injections)) {
        secrets.extend(injection.secret_refs().into_iter().cloned());
    }
    secrets.extend(raw.upstream_tls.trust_bundle.clone());
    secrets.extend(raw.upstream_tls.client_cert_refs().into_iter().flatten());
    let mut aliases: HashMap<Host, Vec<IpAddr>> = HashMap::new();
    for alias in &raw.upstream_tls.host_aliases {
        for host in &alias.hosts {
            let addresses = aliases.entry(host.clone()).or_default();
            if !addresses.contains(&alias.ip) {
                addresses.push(alias.ip);
            }
        }
    }
    let rules = Rules::new(grants, http, aliases, secrets);
    // A warning about a policy that is refused anyway would be one about what it may not become.
    if !problems.failed() {
        lint::report(folder, raw, &rules, (&grant_places, &http_places), problems);
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
        rules,
        places,
    }
}

fn apart<T>(placed: Vec<Placed<T>>) -> (Vec<T>, Vec<Place>) {
    placed
        .into_iter()
        .map(|placed| (placed.rule, placed.place))
        .unzip()
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
