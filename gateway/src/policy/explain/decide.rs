//! The stages of the data path, one call of the engine each.
//!
//! It refuses to know what could be done about a refusal.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::{
    Allowed, Circumstances, Handling, Injected, Peer, Question, Refusal, Request, Verdict,
};
use crate::policy::{
    Class, Denial, Destination, Gateway, Host, KernelRule, LookupFamily, Permit, Protocol,
    RequestFacts, RequestPermit, Target, TlsMode, TokenBudget, embedded_v4, guarded, private,
};
use crate::provider::{asks_for_no_work, operation};

/// DNS (RFC 1035 section 4.2): the gateway answers it, whatever server was asked.
const DNS_PORT: u16 = 53;

/// Decides as the data path would: look-up, kernel, connection, request, injection, dialling.
#[must_use]
pub fn decide(gateway: &Gateway, question: &Question, circumstances: Circumstances<'_>) -> Verdict {
    let (class, outcome) = match question {
        Question::Name(host) => (None, look_up(gateway, host, circumstances.address)),
        Question::Datagram(address) => (None, datagram(gateway, *address)),
        Question::Connection { to, port, class } => {
            return connection(gateway, to, *port, *class, circumstances);
        }
        Question::Request(request) => {
            let class = if request.tls { Class::Tls } else { Class::Http };
            (Some(class), self::request(gateway, request, circumstances))
        }
    };
    Verdict { class, outcome }
}

fn look_up(gateway: &Gateway, host: &Host, leads_to: Option<IpAddr>) -> Result<Allowed, Refusal> {
    let rule = gateway.resolves(host).ok_or(Refusal::NameNotAllowed)?;
    if let Some(address) = leads_to.map(|address| address.to_canonical()) {
        let special = guarded(address).is_some() || private(address);
        if special && gateway.alias(host).is_none() && !gateway.names_address(address) {
            return Err(Refusal::Withheld(address));
        }
    }
    Ok(Allowed {
        rule: Some(rule),
        ..dns()
    })
}

fn datagram(gateway: &Gateway, address: SocketAddr) -> Result<Allowed, Refusal> {
    if address.port() == DNS_PORT {
        return Ok(dns());
    }
    let rules = gateway.kernel_rules();
    kernel(&rules, Protocol::Udp, address.ip(), address.port()).map_err(|refusal| {
        match refusal {
            // No UDP at all is what the kernel programs say where no rule allows it.
            Refusal::KernelNoRule => Refusal::KernelProtocol,
            other => other,
        }
    })?;
    let rule = gateway.authorize_datagram(address)?;
    Ok(Allowed {
        rule: Some(rule),
        handling: Handling::Direct,
        target: Some(Target::Address(address)),
        injects: Vec::new(),
        budget: None,
    })
}

/// DNS itself is always spoken with the gateway; the names asked for are decided one by one.
fn dns() -> Allowed {
    Allowed {
        rule: None,
        handling: Handling::Resolve,
        target: None,
        injects: Vec::new(),
        budget: None,
    }
}

fn connection(
    gateway: &Gateway,
    to: &Peer,
    port: u16,
    class: Option<Class>,
    circumstances: Circumstances<'_>,
) -> Verdict {
    if port == DNS_PORT {
        return Verdict {
            class: None,
            outcome: Ok(dns()),
        };
    }
    let address = match reach(gateway, to, port, circumstances.address) {
        Ok(address) => address,
        Err(refusal) => {
            return Verdict {
                class: None,
                outcome: Err(refusal),
            };
        }
    };
    let speak = |class| Verdict {
        class: Some(class),
        outcome: spoken(gateway, class, to, port, address, circumstances),
    };
    if let Some(class) = class {
        return speak(class);
    }
    // What the port is usually for comes first, and is what a refusal is about.
    let usual = speak(usual_class(port));
    if usual.outcome.is_ok() {
        return usual;
    }
    let mut others = [Class::Tls, Class::Http, Class::Tcp].into_iter().map(speak);
    let allowed = others.find(|verdict| verdict.outcome.is_ok());
    allowed.unwrap_or(usual)
}

pub(super) fn usual_class(port: u16) -> Class {
    match port {
        443 => Class::Tls,
        80 => Class::Http,
        _ => Class::Tcp,
    }
}

/// A connection on which this class of traffic is spoken.
fn spoken(
    gateway: &Gateway,
    class: Class,
    to: &Peer,
    port: u16,
    address: IpAddr,
    circumstances: Circumstances<'_>,
) -> Result<Allowed, Refusal> {
    let permit = permit(gateway, class, to, SocketAddr::new(address, port))?;
    dial(gateway, &permit, circumstances.address)?;
    let handling = match class {
        Class::Tls if is_spliced(gateway, port) => Handling::Splice,
        Class::Tls | Class::Http => Handling::Read,
        Class::Tcp => Handling::Splice,
    };
    Ok(Allowed {
        rule: Some(permit.rule().clone()),
        handling,
        target: Some(permit.target().clone()),
        injects: Vec::new(),
        budget: None,
    })
}

fn request(
    gateway: &Gateway,
    request: &Request,
    circumstances: Circumstances<'_>,
) -> Result<Allowed, Refusal> {
    let Request { to, port, tls, .. } = request;
    if *port == DNS_PORT {
        return Err(Refusal::DnsPort);
    }
    let address = reach(gateway, to, *port, circumstances.address)?;
    let class = if *tls { Class::Tls } else { Class::Http };
    if *tls && is_spliced(gateway, *port) {
        return spoken(gateway, class, to, *port, address, circumstances);
    }
    let permit = permit(gateway, class, to, SocketAddr::new(address, *port))?;
    let facts = RequestFacts {
        host: to.host(),
        port: *port,
        method: &request.method,
        path: &request.path,
        headers: &request.headers,
        model: request.model.as_deref(),
        tls: *tls,
    };
    let granted = gateway
        .authorize_request(&permit, &facts)
        .map_err(|denial| match request.method.as_str() {
            "TRACE" => Refusal::Trace,
            _ => denial.into(),
        })?;
    let budget = metered(&granted, request)?;
    let injects = injected(&granted, circumstances)?;
    dial(gateway, &permit, circumstances.address)?;
    Ok(Allowed {
        rule: Some(granted.rule().clone()),
        handling: Handling::Send,
        target: Some(permit.target().clone()),
        injects,
        budget,
    })
}

/// The budget that the request's tokens count towards, if it spends any.
fn metered(
    granted: &RequestPermit,
    request: &Request,
) -> Result<Option<Arc<TokenBudget>>, Refusal> {
    let (Some(budget), Some(provider)) = (granted.budget(), granted.provider()) else {
        return Ok(None);
    };
    let upgrade = request.headers.contains_key(http::header::UPGRADE);
    if asks_for_no_work(&request.method) && !upgrade {
        return Ok(None);
    }
    match operation(provider, &request.path).filter(|_| !upgrade) {
        Some(operation) => Ok(operation.spends().then(|| Arc::clone(budget))),
        None => Err(Refusal::NotMetered(Arc::clone(&budget.route))),
    }
}

fn injected(
    granted: &RequestPermit,
    circumstances: Circumstances<'_>,
) -> Result<Vec<Injected>, Refusal> {
    let injects: Vec<Injected> = granted.injections().iter().map(Injected::from).collect();
    if let Some(exists) = circumstances.secrets {
        let mut needed = injects.iter().flat_map(|injected| &injected.secrets);
        if let Some(missing) = needed.find(|secret| !exists(secret)) {
            return Err(Refusal::SecretMissing(missing.clone()));
        }
    }
    if let Some(objection) = circumstances.credentials
        && let Some(why) = granted.injections().iter().find_map(objection)
    {
        return Err(Refusal::CredentialUnusable(why));
    }
    Ok(injects)
}

/// Where the sandbox's connect() goes, past its resolver and the kernel.
fn reach(
    gateway: &Gateway,
    to: &Peer,
    port: u16,
    leads_to: Option<IpAddr>,
) -> Result<IpAddr, Refusal> {
    let address = match (to, leads_to) {
        (Peer::Address(address), _) => *address,
        // The sandbox knows the address, from wherever.
        (Peer::Name(_), Some(address)) => address,
        (Peer::Name(host), None) => {
            gateway.resolves(host).ok_or(Refusal::NameNotAllowed)?;
            let alias = gateway.alias(host).and_then(|addresses| addresses.first());
            alias.copied().unwrap_or_else(|| somewhere(gateway))
        }
    };
    kernel(&gateway.kernel_rules(), Protocol::Tcp, address, port)?;
    Ok(address)
}

/// What the kernel programs say of a connection or a datagram.
fn kernel(
    rules: &[KernelRule],
    protocol: Protocol,
    address: IpAddr,
    port: u16,
) -> Result<(), Refusal> {
    let address = address.to_canonical();
    let holding: Vec<_> = rules
        .iter()
        .filter(|rule| rule.protocol == protocol)
        .filter(|rule| rule.cidr.contains(&address) && rule.ports.contains(port))
        .collect();
    if holding.is_empty() {
        Err(Refusal::KernelNoRule)
    } else if is_guarded_by_kernel(address) && !holding.iter().any(|rule| rule.named) {
        Err(Refusal::KernelGuard(address))
    } else {
        Ok(())
    }
}

/// The kernel does not look for IPv4 addresses inside IPv6 ones: that is left to the gateway.
fn is_guarded_by_kernel(address: IpAddr) -> bool {
    guarded(address).is_some() && (address.is_ipv4() || embedded_v4(address).is_none())
}

fn permit(
    gateway: &Gateway,
    class: Class,
    to: &Peer,
    address: SocketAddr,
) -> Result<Permit, Refusal> {
    let listener = gateway
        .listener(class, address.port())
        .ok_or(Refusal::NoListener)?;
    let ask = |host| {
        gateway.authorize(&Destination {
            address,
            host,
            listener,
        })
    };
    let permit = ask(to.host());
    // What is neither TLS nor HTTP names nobody: where the answered name does not help, the address may.
    let permit = match class {
        Class::Tcp => permit.or_else(|_by_name: Denial| ask(None)),
        Class::Tls | Class::Http => permit,
    };
    Ok(permit?)
}

/// The address guard of the dialler, which resolves a permitted name itself.
fn dial(gateway: &Gateway, permit: &Permit, leads_to: Option<IpAddr>) -> Result<(), Refusal> {
    let (Target::Name { host, port }, Some(address)) = (permit.target(), leads_to) else {
        return Ok(());
    };
    let refused = guarded(address).is_some() || private(address);
    if refused && gateway.alias(host).is_none() && !gateway.named_by_cidr(address, *port) {
        return Err(Refusal::GuardedAnswer(address));
    }
    Ok(())
}

fn is_spliced(gateway: &Gateway, port: u16) -> bool {
    gateway
        .listener(Class::Tls, port)
        .is_some_and(|listener| listener.tls_mode == TlsMode::Passthrough)
}

/// A public address that as few rules as possible name, of the family that is tried first: what is true of it is
/// true of a name that may lead anywhere. The candidates are spread over what is allotted.
fn somewhere(gateway: &Gateway) -> IpAddr {
    let v6_alone = gateway.dns.lookup_family == LookupFamily::V6Only;
    let candidate = |part: u8| {
        if v6_alone {
            IpAddr::V6(Ipv6Addr::new(0x2a00 + u16::from(part), 4, 0, 0, 0, 0, 0, 1))
        } else {
            IpAddr::V4(Ipv4Addr::new(part, 200, 100, 50))
        }
    };
    let named_by = |address: &IpAddr| gateway.rules.containing(*address).count();
    let special = |address: &IpAddr| guarded(*address).is_some() || private(*address);
    (1..=223)
        .map(candidate)
        .filter(|address| !special(address))
        .min_by_key(named_by)
        .unwrap_or_else(|| candidate(203))
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::NoRule => Self::NoRule,
            Denial::NoName => Self::NoServerName,
            Denial::RequestNotAllowed => Self::RequestNotAllowed,
        }
    }
}
