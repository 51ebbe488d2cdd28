//! The rules of one gateway, indexed so that a decision does not look at every rule.
//!
//! It refuses to know what the rules mean for a connection or a request: it finds the ones that name a
//! host or an address, in the order in which they were written.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use super::decision::{RequestFacts, RuleName};
use super::index::{BlockIndex, HostIndex};
use super::{
    Class, HTTPS_PORT, Host, HostPattern, Injection, Listener, ModelPattern, PathPattern,
    PortRange, Protocol, Provider, SecretRef, TlsMode, TokenBudget,
};

/// One match of one rule.
#[derive(Debug)]
pub(super) struct Grant {
    /// Shown in records.
    pub(super) rule: RuleName,
    /// Hosts named; with `cidrs` both empty, the grant is for every destination.
    pub(super) hosts: Vec<HostPattern>,
    /// Address blocks named; never empty for UDP, which has no names.
    pub(super) cidrs: Vec<IpNet>,
    /// Ports named; never empty.
    pub(super) ports: Vec<PortRange>,
    /// What is spoken there.
    pub(super) protocol: Protocol,
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
    /// Models allowed; empty for all, and for requests that name none.
    pub(super) models: Vec<ModelPattern>,
    /// How many tokens the rule grants.
    pub(super) budget: Option<Arc<TokenBudget>>,
    /// Credentials to set.
    pub(super) injections: Vec<Injection>,
    /// Who set them, for telemetry.
    pub(super) credential: Option<Arc<str>>,
}

/// One match of an `EgressHTTPRoute`. It grants nothing: its hosts are refused outside the rules that name them.
#[derive(Debug)]
pub(super) struct HttpRule {
    /// Shown in records.
    pub(super) rule: RuleName,
    /// Hosts named; never empty.
    pub(super) hosts: Vec<HostPattern>,
    /// The only listener on which the rule allows anything; its hosts are refused on the others.
    pub(super) listener: Option<Arc<str>>,
    /// Methods allowed; empty for all.
    pub(super) methods: Vec<Method>,
    /// The path allowed, if not every one.
    pub(super) path: Option<PathPattern>,
    /// Headers that must be there with this value and no other.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Credentials to set.
    pub(super) injections: Vec<Injection>,
    /// Who set them, for telemetry.
    pub(super) credential: Option<Arc<str>>,
}

/// All rules of one gateway. Indices are positions in `grants` and `http`, hence ascending = as written.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) grants: Vec<Grant>,
    pub(super) http: Vec<HttpRule>,
    pub(super) aliases: HashMap<Host, Vec<IpAddr>>,
    pub(super) secrets: BTreeSet<SecretRef>,
    pub(super) hosts: HostIndex,
    pub(super) http_hosts: HostIndex,
    pub(super) blocks: BlockIndex,
    pub(super) anywhere: Vec<usize>,
    pub(super) datagrams: BlockIndex,
    /// Does any rule look at header fields?
    pub(super) reads_headers: bool,
}

impl Rules {
    pub(super) fn new(
        grants: Vec<Grant>,
        http: Vec<HttpRule>,
        aliases: HashMap<Host, Vec<IpAddr>>,
        secrets: BTreeSet<SecretRef>,
    ) -> Self {
        let mut rules = Self {
            aliases,
            secrets,
            ..Self::default()
        };
        rules.reads_headers = http.iter().any(|rule| !rule.headers.is_empty());
        for (index, grant) in grants.iter().enumerate() {
            if grant.protocol == Protocol::Udp {
                for cidr in &grant.cidrs {
                    rules.datagrams.insert(cidr, index);
                }
                continue;
            }
            if grant.hosts.is_empty() && grant.cidrs.is_empty() {
                rules.anywhere.push(index);
            }
            for pattern in &grant.hosts {
                rules.hosts.insert(pattern, index);
            }
            for cidr in &grant.cidrs {
                rules.blocks.insert(cidr, index);
            }
        }
        for (index, rule) in http.iter().enumerate() {
            for pattern in &rule.hosts {
                rules.http_hosts.insert(pattern, index);
            }
        }
        rules.grants = grants;
        rules.http = http;
        rules
    }

    /// The TCP grants that name this host, as written.
    pub(super) fn naming(&self, host: &Host) -> impl Iterator<Item = &Grant> {
        self.numbered(self.hosts.naming(host))
    }

    /// The TCP grants one of whose patterns means every host that this one does, as written.
    pub(super) fn covering(&self, pattern: &HostPattern) -> impl Iterator<Item = &Grant> {
        self.numbered(self.hosts.covering(pattern))
    }

    /// The TCP grants that name a block in which this address lies, as written.
    pub(super) fn containing(&self, address: IpAddr) -> impl Iterator<Item = &Grant> {
        self.numbered(self.blocks.containing(address))
    }

    /// The UDP grants that name a block in which this address lies, as written.
    pub(super) fn datagrams_to(&self, address: IpAddr) -> impl Iterator<Item = &Grant> {
        self.numbered(self.datagrams.containing(address))
    }

    /// The TCP grants for every destination, as written.
    pub(super) fn anywhere(&self) -> impl Iterator<Item = &Grant> {
        let numbers = self.anywhere.iter();
        numbers.filter_map(|index| self.grants.get(*index))
    }

    /// The `EgressHTTPRoute` rules that name this host, as written.
    pub(super) fn http_naming(&self, host: &Host) -> impl Iterator<Item = &HttpRule> {
        let numbers = self.http_hosts.naming(host).into_iter();
        numbers.filter_map(|index| self.http.get(index))
    }

    fn numbered(&self, numbers: Vec<usize>) -> impl Iterator<Item = &Grant> {
        let numbers = numbers.into_iter();
        numbers.filter_map(|index| self.grants.get(index))
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

    /// Did the policy name the ports, rather than mean all of them?
    pub(super) fn names_ports(&self) -> bool {
        !self.ports.contains(&PortRange::ALL)
    }
}

impl RequestRule {
    /// Does the rule mean this request (of a host and port that its grant names)?
    pub(super) fn matches(&self, request: &RequestFacts<'_>) -> bool {
        let model = |model| self.models.iter().any(|known| known.matches(model));
        self.matches_but_for_the_model(request)
            && (self.models.is_empty() || request.model.is_some_and(model))
    }

    /// As [`RequestRule::matches`], whatever the model is.
    pub(super) fn matches_but_for_the_model(&self, request: &RequestFacts<'_>) -> bool {
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

impl HttpRule {
    /// Does the rule mean this request (of a host that it names) through this listener?
    pub(super) fn matches(&self, request: &RequestFacts<'_>, listener: &str) -> bool {
        let header = |(name, value): &(HeaderName, HeaderValue)| {
            let mut sent = request.headers.get_all(name).iter().peekable();
            // Of two values, who knows which one a server takes: all must be the one.
            sent.peek().is_some() && sent.all(|sent| sent == value)
        };
        let mine = self.listener.as_deref();
        mine.is_none_or(|mine| mine == listener)
            && (self.methods.is_empty() || self.methods.iter().any(|known| known == request.method))
            && self
                .path
                .as_ref()
                .is_none_or(|path| path.matches(request.path))
            && self.headers.iter().all(header)
    }
}

impl Listener {
    /// Does it read requests, so that rules about them can be kept?
    pub(super) fn reads_requests(&self) -> bool {
        match self.class {
            Class::Tls => self.tls_mode == TlsMode::Terminate,
            Class::Http => true,
            Class::Tcp => false,
        }
    }
}
