//! What a policy may say and hardly mean: rules that nothing can match, or that others make idle.
//!
//! It refuses to find fault where it is not sure: a warning about a policy that is right is worse than none.

mod idle;
mod shadow;

use super::super::problems::{Place, Problems};
use super::super::resource::RawGateway;
use super::super::rules::{Allows, Grant, HttpRule, Rules};
use super::{Attached, Folder};
use crate::policy::{Class, DefaultPolicy, HTTPS_PORT, HostPattern, Listener, PortRange};

/// Warnings about one gateway without errors; `places` are those of its grants and `EgressHTTPRoute` rules.
pub(super) fn report(
    folder: &Folder<'_>,
    gateway: &RawGateway,
    rules: &Rules,
    places: (&[Place], &[Place]),
    problems: &mut Problems<'_>,
) {
    idle::report(folder, gateway, rules, places, problems);
    shadow::report(rules, places, problems);
}

/// The error that is none of a rule alone: a credential of an `EgressHTTPRoute` on a host that plaintext reaches
/// without anyone having named its port. (A decision would refuse the request.)
pub(super) fn report_plaintext(
    gateway: &RawGateway,
    attached: &Attached,
    problems: &mut Problems<'_>,
) {
    let mut told = Vec::new();
    for placed in &attached.http {
        let rule = &placed.rule;
        let [injection, ..] = rule.injections.as_slice() else {
            continue;
        };
        if told.contains(&placed.owner) {
            continue;
        }
        let plain = gateway.listeners.iter().map(|raw| &raw.listener);
        let mut plain = plain.filter(|listener| {
            let mine = rule.listener.as_deref();
            listener.class == Class::Http
                && listener.port != Some(HTTPS_PORT)
                && mine.is_none_or(|mine| mine == &*listener.name)
        });
        let reached = |listener: &&Listener| {
            gateway.default == DefaultPolicy::AllowAll
                || attached
                    .grants
                    .iter()
                    .any(|placed| opens(&placed.rule, rule, listener) && !placed.rule.names_ports())
        };
        if let Some(listener) = plain.find(reached) {
            told.push(placed.owner);
            problems
                .error(
                    placed.owner,
                    format!(
                        "the credential of `{}` could be asked for in the clear: listener `{}` takes plaintext for these hosts",
                        injection.policy, listener.name
                    ),
                )
                .expected("`sectionName` of a TLS listener in `parentRefs`")
                .help("or name the plaintext ports in the EgressL4Route that allows the hosts, if that is what you want");
        }
    }
}

/// Does the grant allow whole connections to a host of the rule, through this listener?
fn opens(grant: &Grant, rule: &HttpRule, listener: &Listener) -> bool {
    let everywhere = grant.hosts.is_empty() && grant.cidrs.is_empty();
    matches!(grant.allows, Allows::Connection)
        && reaches(grant, listener)
        && (everywhere || meet(&grant.hosts, &rule.hosts))
}

/// Does the grant mean traffic that this listener handles?
fn reaches(grant: &Grant, listener: &Listener) -> bool {
    let mine = grant.listener.as_deref();
    mine.is_none_or(|mine| mine == &*listener.name)
        && listener.port.is_none_or(|port| grant.has_port(port))
}

fn meet(one: &[HostPattern], other: &[HostPattern]) -> bool {
    one.iter()
        .any(|one| other.iter().any(|other| one.overlaps(other)))
}

/// Does every port of `other` lie in one range of `one`?
fn ports_cover(one: &[PortRange], other: &[PortRange]) -> bool {
    other.iter().all(|inner| {
        one.iter()
            .any(|outer| outer.contains(inner.start()) && outer.contains(inner.end()))
    })
}
