//! The rules of one gateway, indexed so that a decision does not look at every rule.
//!
//! It refuses to know what the rules mean for a connection or a request: it finds the ones that name a
//! host or an address, in the order in which they were written.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use http::Method;
use ipnet::IpNet;

use super::decision::{RequestFacts, RuleName};
use super::{
    Class, HTTPS_PORT, Host, HostPattern, Injection, Listener, PathPattern, PortRange, Provider,
    SecretRef, TlsMode,
};

/// One match of one rule.
#[derive(Debug)]
pub(super) struct Grant {
    /// Shown in records.
    pub(super) rule: RuleName,
    /// Hosts named; with `cidrs` both empty, the grant is for every destination.
    pub(super) hosts: Vec<HostPattern>,
    /// Address blocks named.
    pub(super) cidrs: Vec<IpNet>,
    /// Ports named; never empty.
    pub(super) ports: Vec<PortRange>,
    /// The only listener whose traffic is meant.
    pub(super) listener: Option<Arc<str>>,
    /// What is allowed there.
    pub(super) allows: Allows,
}

/// What a grant allows.
#[derive(Debug)]
pub(super) enum Allows {
    /// The whole connection, whatever is said on it.
    Connection,
    /// Only these requests.
    Requests(RequestRule),
}

/// Which requests a grant allows, and what is set on them.
#[derive(Debug)]
pub(super) struct RequestRule {
    /// The provider, for an `AIProviderRoute`; `None` for a `SandboxProxyRule`.
    pub(super) provider: Option<Provider>,
    /// Did the policy name the ports, and with them opt in to plaintext there?
    pub(super) plaintext: bool,
    /// Methods allowed; empty for all.
    pub(super) methods: Vec<Method>,
    /// Paths allowed; empty for all.
    pub(super) paths: Vec<PathPattern>,
    /// Headers to set.
    pub(super) injections: Vec<Injection>,
    /// Who set them, for telemetry.
    pub(super) credential: Option<Arc<str>>,
}

/// All grants of one gateway. Indices are positions in `grants`, hence ascending = as written.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) grants: Vec<Grant>,
    pub(super) aliases: HashMap<Host, Vec<IpAddr>>,
    pub(super) secrets: BTreeSet<SecretRef>,
    exact: HashMap<Host, Vec<usize>>,
    /// By the name under the wildcard: `*.example.com` is found under `example.com`.
    one_label: HashMap<Host, Vec<usize>>,
    labels: HashMap<Host, Vec<usize>>,
    any_host: Vec<usize>,
    cidrs: HashMap<IpNet, Vec<usize>>,
    /// The prefix lengths in `cidrs`, so that a look-up tries each once.
    v4_lengths: BTreeSet<u8>,
    v6_lengths: BTreeSet<u8>,
    anywhere: Vec<usize>,
}

impl Rules {
    pub(super) fn new(
        grants: Vec<Grant>,
        aliases: HashMap<Host, Vec<IpAddr>>,
        secrets: BTreeSet<SecretRef>,
    ) -> Self {
        let mut rules = Self {
            aliases,
            secrets,
            ..Self::default()
        };
        for (index, grant) in grants.iter().enumerate() {
            if grant.hosts.is_empty() && grant.cidrs.is_empty() {
                rules.anywhere.push(index);
            }
            for pattern in &grant.hosts {
                let list = match pattern {
                    HostPattern::Exact(host) => rules.exact.entry(host.clone()).or_default(),
                    HostPattern::OneLabel(host) => rules.one_label.entry(host.clone()).or_default(),
                    HostPattern::Labels(host) => rules.labels.entry(host.clone()).or_default(),
                    HostPattern::Any => &mut rules.any_host,
                };
                list.push(index);
            }
            for cidr in &grant.cidrs {
                let cidr = cidr.trunc();
                match cidr {
                    IpNet::V4(_) => rules.v4_lengths.insert(cidr.prefix_len()),
                    IpNet::V6(_) => rules.v6_lengths.insert(cidr.prefix_len()),
                };
                rules.cidrs.entry(cidr).or_default().push(index);
            }
        }
        rules.grants = grants;
        rules
    }

    /// The grants that name this host, as written. The cost grows with the host's labels and with the
    /// grants found, not with the number of rules.
    pub(super) fn naming(&self, host: &Host) -> impl Iterator<Item = &Grant> {
        let mut found: Vec<usize> = self.any_host.clone();
        found.extend(self.exact.get(host).into_iter().flatten());
        for (depth, parent) in host.parents().enumerate() {
            if depth == 0 {
                found.extend(self.one_label.get(parent).into_iter().flatten());
            }
            found.extend(self.labels.get(parent).into_iter().flatten());
        }
        self.in_order(found)
    }

    /// The grants that name a block in which this address lies, as written. The cost grows with the
    /// prefix lengths in use (at most 33 or 129) and with the grants found.
    pub(super) fn containing(&self, address: IpAddr) -> impl Iterator<Item = &Grant> {
        let lengths = match address {
            IpAddr::V4(_) => &self.v4_lengths,
            IpAddr::V6(_) => &self.v6_lengths,
        };
        let mut found = Vec::new();
        for length in lengths {
            if let Ok(block) = IpNet::new(address, *length) {
                found.extend(self.cidrs.get(&block.trunc()).into_iter().flatten());
            }
        }
        self.in_order(found)
    }

    /// The grants for every destination, as written.
    pub(super) fn anywhere(&self) -> impl Iterator<Item = &Grant> {
        self.in_order(self.anywhere.clone())
    }

    fn in_order(&self, mut found: Vec<usize>) -> impl Iterator<Item = &Grant> {
        found.sort_unstable();
        found.dedup();
        found.into_iter().filter_map(|index| self.grants.get(index))
    }
}

impl Grant {
    /// Does the grant mean traffic to this port that this listener handles?
    pub(super) fn covers(&self, port: u16, listener: &str) -> bool {
        self.has_port(port)
            && self
                .listener
                .as_deref()
                .is_none_or(|wanted| wanted == listener)
    }

    /// Does the grant mean this port?
    pub(super) fn has_port(&self, port: u16) -> bool {
        self.ports.iter().any(|range| range.contains(port))
    }
}

impl RequestRule {
    /// Does the rule mean this request (of a host and port that its grant names)?
    pub(super) fn matches(&self, request: &RequestFacts<'_>) -> bool {
        let RequestFacts {
            port, method, path, ..
        } = *request;
        (request.tls || self.plaintext_at(port))
            && (self.methods.is_empty() || self.methods.iter().any(|known| known == method))
            && (self.paths.is_empty() || self.paths.iter().any(|known| known.matches(path)))
    }

    /// May these requests come through this listener at all? Only through one that reads requests.
    pub(super) fn readable_by(&self, listener: &Listener, port: u16) -> bool {
        match listener.class {
            Class::Tls => listener.tls_mode == TlsMode::Terminate,
            Class::Http => self.plaintext_at(port),
            Class::Tcp => false,
        }
    }

    /// 443 is no plaintext port, even where it is named.
    fn plaintext_at(&self, port: u16) -> bool {
        self.plaintext && port != HTTPS_PORT
    }
}
