//! Credentials of several rules that one request may match: each must set something else.
//!
//! It refuses to know which requests those are: that their hosts meet is enough.

use std::collections::BTreeSet;

use super::super::problems::{Place, Problems};
use super::super::rules::{Allows, Grant};
use super::Attached;
use crate::policy::{HTTPS_PORT, HostPattern, Injection};

/// A rule that sets something.
struct Setter<'a> {
    /// Of each kind of rule at most one applies to a request.
    kind: &'static str,
    owner: Place,
    hosts: &'a [HostPattern],
    listener: Option<&'a str>,
    /// `None` for a rule without ports of its own.
    grant: Option<&'a Grant>,
    injections: &'a [Injection],
}

/// An `AIProviderRoute`, a `SandboxProxyRule` and an `EgressHTTPRoute` may all apply to one request.
pub(super) fn report_clashes(attached: &Attached, problems: &mut Problems<'_>) {
    let setters = setters(attached);
    let mut seen: BTreeSet<(&str, &str, String)> = BTreeSet::new();
    for (index, one) in setters.iter().enumerate() {
        for other in setters.iter().take(index) {
            if one.kind == other.kind {
                continue;
            }
            let Some(host) = meeting(one, other) else {
                continue;
            };
            for (mine, theirs, place) in twins(one, other) {
                if !seen.insert((&mine.policy, &theirs.policy, place.clone())) {
                    continue;
                }
                let at = problems.locate(other.owner);
                problems
                    .error(one.owner, format!("{place} for `{host}` is set twice"))
                    .help(format!(
                        "{} sets it already, on the {} at {at}",
                        whose(other.kind, theirs),
                        other.kind
                    ));
            }
        }
    }
}

/// The kinds in the order in which a clash is told: the later one is to blame.
fn setters(attached: &Attached) -> Vec<Setter<'_>> {
    let mut setters = Vec::new();
    for placed in &attached.grants {
        let Allows::Requests(rule) = &placed.rule.allows else {
            continue;
        };
        setters.push(Setter {
            kind: match rule.provider {
                Some(_) => "AIProviderRoute",
                None => "SandboxProxyRule",
            },
            owner: placed.owner,
            hosts: &placed.rule.hosts,
            listener: placed.rule.listener.as_deref(),
            grant: Some(&placed.rule),
            injections: &rule.injections,
        });
    }
    setters.extend(attached.http.iter().map(|placed| Setter {
        kind: "EgressHTTPRoute",
        owner: placed.owner,
        hosts: &placed.rule.hosts,
        listener: placed.rule.listener.as_deref(),
        grant: None,
        injections: &placed.rule.injections,
    }));
    setters.retain(|setter| !setter.injections.is_empty());
    setters.sort_by_key(|setter| setter.kind);
    setters.sort_by_key(|setter| setter.kind == "SandboxProxyRule");
    setters
}

/// A host pattern of `one` that means a host of `other` too, on the same port and listener.
fn meeting<'a>(one: &Setter<'a>, other: &Setter<'_>) -> Option<&'a HostPattern> {
    let apart = matches!((one.listener, other.listener), (Some(a), Some(b)) if a != b);
    // A route of a provider is for this port alone.
    let https = |setter: &Setter<'_>| setter.grant.is_none_or(|grant| grant.has_port(HTTPS_PORT));
    let needs_https = [one, other]
        .iter()
        .any(|setter| setter.kind == "AIProviderRoute");
    if apart || (needs_https && !(https(one) && https(other))) {
        return None;
    }
    one.hosts
        .iter()
        .find(|pattern| other.hosts.iter().any(|host| host.overlaps(pattern)))
}

/// What both set, and where.
fn twins<'a>(one: &Setter<'a>, other: &Setter<'a>) -> Vec<(&'a Injection, &'a Injection, String)> {
    let mut found = Vec::new();
    for mine in one.injections {
        for theirs in other.injections {
            let taken = theirs.places();
            let mut places = mine.places().into_iter();
            if let Some(place) = places.find(|place| taken.contains(place)) {
                found.push((mine, theirs, place));
            }
        }
    }
    found
}

fn whose(kind: &str, injection: &Injection) -> String {
    match kind {
        "SandboxProxyRule" => "the rule".to_owned(),
        _ => format!("CredentialInjectionPolicy `{}`", injection.policy),
    }
}
