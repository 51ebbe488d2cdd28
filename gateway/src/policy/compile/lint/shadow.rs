//! Rules that never count, since an earlier one already allows everything that they do.
//!
//! It refuses to add rules up: that two earlier ones together allow it all is nobody's mistake.

use super::super::super::index::HostIndex;
use super::super::super::problems::{Place, Problems};
use super::super::super::rules::{Allows, Grant, HttpRule, RequestRule, Rules};
use super::ports_cover;
use crate::policy::address::overrides_guard;
use crate::policy::{HostPattern, Protocol};

/// Of the rules that name a host, so many are compared: ten thousand rules for one host are not
/// compared each with each.
const MOST_COMPARED: usize = 64;

pub(super) fn report(
    rules: &Rules,
    (grant_places, http_places): (&[Place], &[Place]),
    problems: &mut Problems<'_>,
) {
    for (index, grant) in rules.grants.iter().enumerate() {
        let earlier = candidates(rules, grant).into_iter();
        let earlier = earlier.filter(|at| *at < index).take(MOST_COMPARED);
        let shadow = earlier
            .filter_map(|at| Some((rules.grants.get(at)?, grant_places.get(at)?)))
            .find(|(other, _)| grant_covers(other, grant));
        if let (Some((other, at)), Some(place)) = (shadow, grant_places.get(index)) {
            warn(&other.rule, *at, *place, problems);
        }
    }
    for (index, rule) in rules.http.iter().enumerate() {
        let earlier = naming(&rules.http_hosts, &rule.hosts).into_iter();
        let earlier = earlier.filter(|at| *at < index).take(MOST_COMPARED);
        let shadow = earlier
            .filter_map(|at| Some((rules.http.get(at)?, http_places.get(at)?)))
            .find(|(other, _)| http_covers(other, rule));
        if let (Some((other, at)), Some(place)) = (shadow, http_places.get(index)) {
            warn(&other.rule, *at, *place, problems);
        }
    }
}

fn warn(other: &str, at: Place, place: Place, problems: &mut Problems<'_>) {
    let at = problems.locate(at);
    problems
        .warning(
            place,
            "this never counts: an earlier rule allows everything that it does",
        )
        .help(format!(
            "that is {other} at {at}: leave this one out, or put the narrower one first"
        ));
}

/// The grants that might allow all that this one does, as written.
fn candidates(rules: &Rules, grant: &Grant) -> Vec<usize> {
    let mut found = if let Some(cidr) = grant.cidrs.first() {
        if grant.protocol == Protocol::Udp {
            rules.datagrams.covering(cidr)
        } else {
            rules.blocks.covering(cidr)
        }
    } else {
        let mut found = naming(&rules.hosts, &grant.hosts);
        found.extend(&rules.anywhere);
        found
    };
    found.sort_unstable();
    found
}

fn naming(index: &HostIndex, hosts: &[HostPattern]) -> Vec<usize> {
    hosts
        .first()
        .map(|first| index.covering(first))
        .unwrap_or_default()
}

fn grant_covers(one: &Grant, other: &Grant) -> bool {
    let everywhere = |grant: &Grant| grant.hosts.is_empty() && grant.cidrs.is_empty();
    // A block also opens guarded addresses and connections without a name, which no wider rule does.
    let blocks = other.cidrs.iter().all(|inner| {
        let mut outer = one.cidrs.iter();
        outer.any(|outer| outer.contains(inner) && (overrides_guard(outer) || !special(inner)))
    });
    let places = if everywhere(one) {
        other.cidrs.is_empty()
    } else {
        !everywhere(other) && blocks && hosts_cover(&one.hosts, &other.hosts)
    };
    places
        && one.protocol == other.protocol
        && ports_cover(&one.ports, &other.ports)
        && listener_covers(one.listener.as_deref(), other.listener.as_deref())
        && match (&one.allows, &other.allows) {
            (Allows::Connection, Allows::Connection) => true,
            (Allows::Requests(one), Allows::Requests(other)) => requests_cover(one, other),
            // A rule about requests does more than let them through.
            (Allows::Connection, Allows::Requests(_))
            | (Allows::Requests(_), Allows::Connection) => false,
        }
}

/// Does naming the block itself open what a wider block that contains it does not?
fn special(block: &ipnet::IpNet) -> bool {
    let address = block.network();
    crate::policy::guarded(address).is_some() || crate::policy::private(address)
}

fn hosts_cover(one: &[HostPattern], other: &[HostPattern]) -> bool {
    other
        .iter()
        .all(|inner| one.iter().any(|outer| outer.covers(inner)))
}

fn listener_covers(one: Option<&str>, other: Option<&str>) -> bool {
    one.is_none() || one == other
}

/// Of each kind of rule about requests the first that matches is the one.
fn requests_cover(one: &RequestRule, other: &RequestRule) -> bool {
    one.provider.is_none() == other.provider.is_none()
        && (one.plaintext || !other.plaintext)
        && list_covers(&one.methods, &other.methods, |one, other| one == other)
        && list_covers(&one.paths, &other.paths, |one, other| one.covers(other))
        && list_covers(&one.models, &other.models, |one, other| one.covers(other))
}

fn http_covers(one: &HttpRule, other: &HttpRule) -> bool {
    let path = match (&one.path, &other.path) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(one), Some(other)) => one.covers(other),
    };
    hosts_cover(&one.hosts, &other.hosts)
        && listener_covers(one.listener.as_deref(), other.listener.as_deref())
        && path
        && list_covers(&one.methods, &other.methods, |one, other| one == other)
        && one
            .headers
            .iter()
            .all(|wanted| other.headers.contains(wanted))
        && (one.injections.is_empty() || !other.injections.is_empty())
}

/// Lists of which an empty one means everything.
fn list_covers<T>(one: &[T], other: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    one.is_empty()
        || !other.is_empty()
            && other
                .iter()
                .all(|inner| one.iter().any(|outer| covers(outer, inner)))
}
