//! What a gateway answers: may this name be resolved, this connection be made, this request be sent?
//!
//! It refuses to know how rules were written and what is done with the answer. A [`Permit`] and a
//! [`RequestPermit`] are made here and nowhere else, so that nothing is dialled or sent without one.

mod kernel;
mod request;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;
use ipnet::IpNet;

use super::address::overrides_guard;
use super::rules::{Allows, Grant};
use super::{
    Class, DefaultPolicy, Gateway, Host, Injection, Listener, PortRange, Protocol, Provider,
    TokenBudget, guarded, private,
};

/// The rule behind an answer: `KIND/NAME#N` (the Nth of its rules, from 1), `KIND/NAME` for a kind
/// without rules, `EgressGateway/NAME defaultPolicy` where no rule was needed.
pub type RuleName = Arc<str>;

/// One entry of the kernel's pre-filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelRule {
    /// Destinations meant.
    pub cidr: IpNet,
    /// Ports meant, inclusive.
    pub ports: PortRange,
    /// Did the policy name these addresses, so that the address guard yields?
    pub named: bool,
    /// What may be sent there.
    pub protocol: Protocol,
}

/// A connection that has been sniffed.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// Where the sandbox wanted to connect to.
    pub address: SocketAddr,
    /// The name evidence: SNI, authority, or the name this sandbox was answered for the address.
    pub host: Option<&'a Host>,
    /// What handles the traffic, from [`Gateway::listener`].
    pub listener: &'a Listener,
}

/// One request on a permitted connection.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The canonical host of its authority; `None` where that is an address.
    pub host: Option<&'a Host>,
    /// The port of its authority.
    pub port: u16,
    /// The method as received; methods are case-sensitive (RFC 9110 section 9.1).
    pub method: &'a str,
    /// The path as received, without the query.
    pub path: &'a str,
    /// The headers as they are to be passed on: without the hop-by-hop ones and those named in `Connection`,
    /// which could be there for a rule to see and gone for the upstream.
    pub headers: &'a HeaderMap,
    /// The model that it asks for, if it is known: see [`Gateway::needs_model`].
    pub model: Option<&'a str>,
    /// Did it come over TLS that the gateway terminated (and will it leave over TLS)?
    pub tls: bool,
}

/// Leave to dial one target.
#[derive(Clone, Debug)]
pub struct Permit {
    rule: RuleName,
    target: Target,
    listener: Arc<str>,
    /// The rule by which every request is allowed, if there is one.
    open: Option<RuleName>,
}

/// What a permit allows to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Resolve this name and dial the answer; the sandbox's address is not trusted for it.
    Name {
        /// The name, also to be verified upstream.
        host: Host,
        /// The port, the sandbox's own.
        port: u16,
    },
    /// Dial the original destination.
    Address(SocketAddr),
}

/// Leave to send one request.
#[derive(Clone, Debug)]
pub struct RequestPermit {
    rule: RuleName,
    provider: Option<Provider>,
    injections: Vec<Injection>,
    credential: Option<Arc<str>>,
    budget: Option<Arc<TokenBudget>>,
    /// Did it depend on the method or on the path? On the path?
    narrow: bool,
    narrow_path: bool,
}

/// Why the answer is no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denial {
    /// Nothing allows this host or address with this port.
    #[error("no rule allows this destination")]
    NoRule,
    /// TLS without SNI, to an address that no CIDR rule allows.
    #[error("the connection names no host and no CIDR rule allows its address")]
    NoName,
    /// The host is allowed, but not this request to it.
    #[error("no rule allows this request to an otherwise allowed host")]
    RequestNotAllowed,
}

impl Permit {
    /// What may be dialled.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The first rule that allows the connection.
    #[must_use]
    pub fn rule(&self) -> &RuleName {
        &self.rule
    }

    /// The port that may be dialled.
    #[must_use]
    pub fn port(&self) -> u16 {
        match &self.target {
            Target::Name { port, .. } => *port,
            Target::Address(address) => address.port(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { host, port } => write!(out, "{host}:{port}"),
            Self::Address(address) => write!(out, "{address}"),
        }
    }
}

impl RequestPermit {
    /// The first rule that allows the request.
    #[must_use]
    pub fn rule(&self) -> &RuleName {
        &self.rule
    }

    /// Is the request allowed because of its method or its path? Then it must not be one for another.
    #[must_use]
    pub fn is_narrow(&self) -> bool {
        self.narrow
    }

    /// Is the request allowed because of its path?
    #[must_use]
    pub fn is_narrow_in_path(&self) -> bool {
        self.narrow_path
    }

    /// The provider of the `AIProviderRoute` that the request matches.
    #[must_use]
    pub fn provider(&self) -> Option<Provider> {
        self.provider
    }

    /// The credentials to set, no two in the same place.
    #[must_use]
    pub fn injections(&self) -> &[Injection] {
        &self.injections
    }

    /// The names of the policies behind the injections, joined by commas.
    #[must_use]
    pub fn credential(&self) -> Option<&Arc<str>> {
        self.credential.as_ref()
    }

    /// How many tokens the rule grants that the request matches.
    #[must_use]
    pub fn budget(&self) -> Option<&Arc<TokenBudget>> {
        self.budget.as_ref()
    }
}

impl Gateway {
    /// May this name be looked up at all? The first rule that names it, whatever the port.
    #[must_use]
    pub fn resolves(&self, name: &Host) -> Option<RuleName> {
        let rule = self.rules.naming(name).next();
        rule.map(|grant| grant.rule.clone())
            .or_else(|| self.rules.anywhere().next().map(|grant| grant.rule.clone()))
            .or_else(|| self.default_rule())
    }

    /// The decision on a connection, once its first bytes are read. Rules by name come before rules by
    /// address: where both allow, the name is dialled, and the address the sandbox chose counts for nothing.
    /// A guarded address is never the target unless a CIDR rule names it; where a *name* leads is for
    /// whoever resolves it to check ([`guarded`], [`private`], [`Gateway::alias`], [`Gateway::named_by_cidr`]).
    ///
    /// # Errors
    /// [`Denial::NoName`] for TLS without SNI that no CIDR rule allows, even under `allow-all`;
    /// [`Denial::RequestNotAllowed`] for a host that an `EgressHTTPRoute` names, where the listener would not
    /// read its requests; [`Denial::NoRule`] otherwise.
    pub fn authorize(&self, to: &Destination<'_>) -> Result<Permit, Denial> {
        let permit = self.allow(to)?;
        let narrowed = to
            .host
            .is_some_and(|host| self.rules.http_hosts.names(host));
        if narrowed && !to.listener.reads_requests() {
            return Err(Denial::RequestNotAllowed);
        }
        Ok(permit)
    }

    /// May a datagram be sent to this address? UDP has no names: only a CIDR rule of protocol UDP allows it,
    /// and one to a guarded address only if the rule names that, whatever the default policy is.
    ///
    /// # Errors
    /// [`Denial::NoRule`].
    pub fn authorize_datagram(&self, to: SocketAddr) -> Result<RuleName, Denial> {
        let address = to.ip().to_canonical();
        let mut grants = self.rules.datagrams_to(address);
        grants
            .find(|grant| grant.has_port(to.port()) && names(grant, address))
            .map(|grant| grant.rule.clone())
            .ok_or(Denial::NoRule)
    }

    fn allow(&self, to: &Destination<'_>) -> Result<Permit, Denial> {
        let port = to.address.port();
        let permit = |rule: &RuleName, target: Target, open: Option<RuleName>| Permit {
            rule: rule.clone(),
            target,
            listener: to.listener.name.clone(),
            open,
        };
        let everywhere = || {
            let mut rules = self.rules.anywhere();
            rules
                .find(|grant| grant.covers(port, &to.listener.name))
                .map(|grant| grant.rule.clone())
                .or_else(|| self.default_rule())
        };
        if let Some(host) = to.host {
            let mut first = None;
            let mut open = None;
            for grant in self.rules.naming(host) {
                if !grant.covers(port, &to.listener.name) {
                    continue;
                }
                match &grant.allows {
                    Allows::Connection => {
                        first.get_or_insert(&grant.rule);
                        open = Some(grant.rule.clone());
                        break;
                    }
                    Allows::Requests(rule) if rule.readable_by(to.listener, port) => {
                        first.get_or_insert(&grant.rule);
                    }
                    Allows::Requests(_) => {}
                }
            }
            if let Some(rule) = first {
                let host = host.clone();
                // An address the sandbox chose never widens what a name allows: CIDR rules are not asked.
                return Ok(permit(
                    rule,
                    Target::Name { host, port },
                    open.or_else(everywhere),
                ));
            }
        }
        // `::ffff:a.b.c.d` leads where `a.b.c.d` does, and a rule for either means both.
        let address = to.address.ip().to_canonical();
        let mut containing = self.rules.containing(address);
        if let Some(grant) =
            containing.find(|grant| grant.covers(port, &to.listener.name) && names(grant, address))
        {
            let rule = grant.rule.clone();
            return Ok(permit(
                &rule,
                Target::Address(to.address),
                Some(rule.clone()),
            ));
        }
        match (everywhere(), to.host) {
            (Some(rule), Some(host)) => {
                let host = host.clone();
                Ok(permit(
                    &rule,
                    Target::Name { host, port },
                    Some(rule.clone()),
                ))
            }
            (_, None) if to.listener.class == Class::Tls => Err(Denial::NoName),
            // Everything is allowed but what has to be named, be it the address of an alias: that
            // is for the alias' hosts.
            (Some(rule), None) if guarded(address).is_none() => Ok(permit(
                &rule,
                Target::Address(to.address),
                Some(rule.clone()),
            )),
            (_, None) | (None, Some(_)) => Err(Denial::NoRule),
        }
    }

    /// Does a CIDR rule for this port name the address, so that a guarded address may be dialled, or a
    /// private one for a name? A rule that merely contains it among everything else does not.
    #[must_use]
    pub fn named_by_cidr(&self, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        let special = guarded(address).is_some() || private(address);
        self.rules
            .containing(address)
            .filter(|grant| grant.has_port(port))
            .flat_map(|grant| &grant.cidrs)
            .filter(|cidr| cidr.contains(&address))
            .any(|cidr| !special || overrides_guard(cidr))
    }

    fn default_rule(&self) -> Option<RuleName> {
        (self.default == DefaultPolicy::AllowAll).then(|| default_rule(&self.name))
    }
}

/// The name of `allow-all`, as a rule of this gateway.
pub(super) fn default_rule(gateway: &str) -> RuleName {
    format!("EgressGateway/{gateway} defaultPolicy").into()
}

/// Does a block of the grant hold the address, and name it if it is a guarded one?
fn names(grant: &Grant, address: IpAddr) -> bool {
    let mut blocks = grant.cidrs.iter().filter(|cidr| cidr.contains(&address));
    blocks.any(|cidr| guarded(address).is_none() || overrides_guard(cidr))
}

#[cfg(test)]
mod tests;
