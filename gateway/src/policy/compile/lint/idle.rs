//! Rules that no request can match.
//!
//! It refuses to know rules that others make idle only by coming first.

use http::Method;

use super::super::super::problems::{Place, Problems, Spanned};
use super::super::super::resource::{Raw, RawGateway, RawHttpRoute};
use super::super::super::rules::{Allows, Grant, HttpRule, RequestRule, Rules};
use super::super::Folder;
use super::{meet, reaches};
use crate::policy::{DefaultPolicy, HTTPS_PORT, HostPattern, Listener, PathPattern};

/// The port of HTTP (RFC 9110 section 4.2.1).
const HTTP_PORT: u16 = 80;

pub(super) fn report(
    folder: &Folder<'_>,
    gateway: &RawGateway,
    rules: &Rules,
    (grant_places, http_places): (&[Place], &[Place]),
    problems: &mut Problems<'_>,
) {
    for document in folder.documents {
        if let Raw::HttpRoute(raw) = document
            && attached(raw, gateway)
        {
            warn_of_hosts_without_l4(raw, gateway, rules, problems);
        }
    }
    for (rule, place) in rules.http.iter().zip(http_places) {
        if !rule.injections.is_empty() {
            warn_of_trace(&rule.methods, *place, problems);
        }
    }
    for (grant, place) in rules.grants.iter().zip(grant_places) {
        let Allows::Requests(rule) = &grant.allows else {
            continue;
        };
        if !rule.injections.is_empty() {
            warn_of_trace(&rule.methods, *place, problems);
        }
        warn_of_narrowed(grant, rule, rules, *place, problems);
    }
}

fn attached(raw: &RawHttpRoute, gateway: &RawGateway) -> bool {
    let mut parents = raw.parents.iter();
    parents.any(|parent| parent.name.value == gateway.name.value)
}

/// An `EgressHTTPRoute` allows nothing by itself.
fn warn_of_hosts_without_l4(
    raw: &RawHttpRoute,
    gateway: &RawGateway,
    rules: &Rules,
    problems: &mut Problems<'_>,
) {
    if gateway.default == DefaultPolicy::AllowAll {
        return;
    }
    let parents = || {
        let parents = raw.parents.iter();
        parents.filter(|parent| parent.name.value == gateway.name.value)
    };
    let mine = |listener: &&Listener| {
        let named = |section: &Spanned<String>| section.value == *listener.name;
        listener.reads_requests()
            && parents().any(|parent| parent.section.as_ref().is_none_or(named))
    };
    let listeners: Vec<&Listener> = gateway
        .listeners
        .iter()
        .map(|raw| &raw.listener)
        .filter(mine)
        .collect();
    let reached = |grant: &Grant| listeners.iter().any(|listener| reaches(grant, listener));
    // Where an address is allowed, whatever is said to it may name the host.
    let by_address = |grant: &Grant| {
        let usual = [HTTPS_PORT, HTTP_PORT].into_iter();
        let ports = listeners.iter().filter_map(|listener| listener.port);
        !grant.cidrs.is_empty()
            && reached(grant)
            && ports.chain(usual).any(|port| grant.has_port(port))
    };
    for host in &raw.hosts {
        let pattern = &host.value;
        let allowed = rules.anywhere().any(reached)
            || rules.covering(pattern).any(reached)
            // Only what was not found at once is looked for among all rules.
            || rules.grants.iter().any(by_address)
            || (!matches!(pattern, HostPattern::Exact(_))
                && rules.grants.iter().any(|grant| {
                    meet(&grant.hosts, std::slice::from_ref(pattern)) && reached(grant)
                }));
        if !allowed {
            problems
                .warning(
                    host.place,
                    format!(
                        "no rule of `{}` allows connections to `{}`",
                        gateway.name.value, host.value
                    ),
                )
                .help("an EgressHTTPRoute narrows what an EgressL4Route allows: name the host in one of those too");
        }
    }
}

/// TRACE is refused where it would be answered with a credential.
fn warn_of_trace(methods: &[Method], place: Place, problems: &mut Problems<'_>) {
    if methods.contains(&Method::TRACE) {
        problems
            .warning(place, "method TRACE can never be allowed here")
            .help("it would be answered with the credential that is set on it");
    }
}

/// A rule about requests to hosts that `EgressHTTPRoute`s narrow to others.
fn warn_of_narrowed(
    grant: &Grant,
    rule: &RequestRule,
    rules: &Rules,
    place: Place,
    problems: &mut Problems<'_>,
) {
    let idle = |pattern: &HostPattern| {
        let covering = rules.http_hosts.covering(pattern);
        let meets = |http: &&HttpRule| http.hosts.iter().any(|host| host.overlaps(pattern));
        let mut covered = covering.iter().filter_map(|at| rules.http.get(*at));
        // Hosts of a wildcard that only some narrow remain open.
        !covering.is_empty()
            && !covered.any(|http| may_both_match(grant, rule, http))
            && (matches!(pattern, HostPattern::Exact(_))
                || !rules
                    .http
                    .iter()
                    .filter(meets)
                    .any(|http| may_both_match(grant, rule, http)))
    };
    if !grant.hosts.is_empty() && grant.hosts.iter().all(idle) {
        problems
            .warning(place, format!("{} can never match", grant.rule))
            .help(
                "an EgressHTTPRoute names its hosts, and refuses everything that this one allows",
            );
    }
}

fn may_both_match(grant: &Grant, rule: &RequestRule, http: &HttpRule) -> bool {
    let listeners = match (&grant.listener, &http.listener) {
        (Some(mine), Some(theirs)) => mine == theirs,
        _ => true,
    };
    let methods = rule.methods.is_empty()
        || http.methods.is_empty()
        || rule
            .methods
            .iter()
            .any(|method| http.methods.contains(method));
    let paths = |path: &PathPattern| {
        rule.paths.is_empty() || rule.paths.iter().any(|known| known.overlaps(path))
    };
    listeners && methods && http.path.as_ref().is_none_or(paths)
}
